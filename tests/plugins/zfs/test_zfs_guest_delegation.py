"""An unprivileged user, with what ``fsrep zfs allow`` prints and nothing else."""

from __future__ import annotations

import os
import shlex

import pytest

from fsrep_core import InterruptedStreamError, PermissionDeniedError, Side
from fsrep_core.planning import Diverged
from fsrep_core.testing import CutStream
from real_zfs import JOB, carry_out, replicate, run, run_job, zfs

pytestmark = pytest.mark.zfs

USER = "nobody"
AS_USER = ("setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", "zfs")


@pytest.fixture
def allowed(zfs_sites):
    """Two sites whose ``zfs`` runs as the user; what is allowed was printed for each side."""
    for site, side in zip(zfs_sites, Side, strict=True):
        if side is Side.RECEIVER:
            site.reopen(root=f"{site.pool.name}/backup")
            zfs("create", site.root)
        for line in site.storage.allow_commands(side, USER):
            run(*shlex.split(line))
        site.reopen(command=AS_USER)
    return zfs_sites


async def test_a_job_from_end_to_end(allowed):
    """Filesystems, volumes, placeholders, increments, cursors, holds, rollback."""
    a, b = allowed
    a.filesystem("x/docs")
    a.volume("x/disk")
    for number in ("1", "2", "3"):
        a.write(number, "x/docs")
        for name in ("x/docs", "x/disk"):
            await a.snapshot(number, name)
        if number == "2":
            zfs("snapshot", b.dataset("x/docs@stray"))
            b.reopen()

        report = await run_job(
            a, b, filesystems=("x/docs", "x/disk"), diverged=Diverged.ROLLBACK, concurrency=2
        )

        assert [each.problem for each in report.replications] == [None, None]
        newest = await a.version(f"@{number}", "x/docs")
        assert (await a.cursor("x/docs")).guid == newest.guid
        assert a.content("x/docs", number) == b.content("x/docs", number)
    assert list(await b.versions("x/docs")) == ["1", "2", "3"]
    assert b.holds("x/docs@3") == [f"fsrep_last_{JOB}"]
    assert a.holds("x/docs@3") == a.holds("x/docs@2") == []
    assert (await b.listed("x")).placeholder
    assert b.get("x/docs", "mounted") == "no"


async def test_a_step_that_was_cut_is_resumed_or_discarded(allowed):
    a, b = allowed
    a.filesystem("docs")
    a.write(1, size_bytes=3 << 20)
    version = await a.snapshot("1")

    for clear in (False, True):
        with pytest.raises(InterruptedStreamError):
            await replicate(a, b, version, change=lambda stream: CutStream(stream, 2 << 20))
        b.reopen()
        token = (await b.listed()).resume_token
        assert token is not None
        if clear:
            await replicate(a, b, version, clear_resume_token=True)
        else:
            await replicate(a, b, version, resume_token=token)
            zfs("release", f"fsrep_last_{JOB}", b.dataset("docs@1"))
            zfs("destroy", "-r", b.dataset("docs"))
            b.reopen()

    assert await b.versions() == {"1": version.guid}


async def test_a_clone_needs_no_more_than_what_is_printed(allowed):
    a, b = allowed
    a.filesystem("docs")
    a.write(1)
    await a.snapshot("1")
    zfs("clone", a.dataset("docs@1"), a.dataset("variant"))
    a.reopen()
    await a.snapshot("2", "variant")

    report = await run_job(a, b, concurrency=2)

    assert [each.problem for each in report.replications] == [None, None]
    assert b.get("variant", "origin") == b.dataset("docs@1")


async def test_versions_are_made_and_destroyed(allowed):
    a, _ = allowed
    a.filesystem("docs")
    versions = [await a.snapshot(name) for name in ("1", "2")]

    results = await a.destroy(versions)

    assert [each.problem for each in results] == [None, None]


@pytest.mark.parametrize("side", list(Side))
async def test_without_it_the_message_says_what_to_do(zfs_sites, side):
    a, b = zfs_sites
    a.filesystem("docs")
    a.write(1)
    await a.snapshot("1")
    (a if side is Side.SENDER else b).reopen(command=AS_USER)

    report = await run_job(a, b)

    problem = report.replications[0].problem
    assert problem.kind == PermissionDeniedError.kind
    assert "fsrep zfs allow" in problem.hint
    assert await b.versions() == {}


async def test_a_property_that_may_not_be_set_is_not_lost_in_silence(allowed):
    """ZFS receives the data, says nothing that a program would notice, and leaves it out."""
    a, b = allowed
    b.reopen(override={"compression": "gzip-9"})
    a.filesystem("docs")
    a.write(1)
    version = await a.snapshot("1")

    response = await carry_out(a, b, version)

    (warning,) = response.warnings
    assert "compression was not set" in warning
    assert "permission denied" in warning
    assert b.get("docs", "compression") != "gzip-9"


def test_the_user_really_has_no_other_rights():
    assert os.geteuid() == 0
    assert run(*AS_USER[:-1], "id", "-un").strip() == USER
