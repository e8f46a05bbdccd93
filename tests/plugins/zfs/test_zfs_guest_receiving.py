"""What is received, where, with which properties, and what is left alone."""

from __future__ import annotations

import os

import attrs
import pytest
import trio

from fsrep_core import (
    ConflictError,
    FsrepError,
    OutOfSpaceError,
    ReceiveRequest,
    SendRequest,
)
from fsrep_core.planning import Diverged, Initial
from real_zfs import ENCRYPTED, JOB, Site, replicate, run, run_job, zfs

pytestmark = pytest.mark.zfs


async def filled(site, name="docs", *versions):
    """Make a filesystem with a file in each version."""
    if not site.exists(name):
        site.filesystem(name)
    for version in versions or ("1",):
        site.write(version, name)
        await site.snapshot(version, name)


async def test_filesystems_and_volumes_arrive_whole_and_are_not_mounted(zfs_sites):
    """Nothing appears in the directory tree of the receiver, now or after an import."""
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    await filled(a, "docs/deeper and deeper", "1")
    a.volume("docs/disk")
    a.device("docs/disk").write_bytes(os.urandom(1 << 20))
    await a.snapshot("1", "docs/disk")

    report = await run_job(a, b, initial=Initial.ALL)

    assert report.status == "completed"
    for name, versions in (
        ("docs", ["1", "2"]),
        ("docs/deeper and deeper", ["1"]),
        ("docs/disk", ["1"]),
    ):
        assert list(await b.versions(name)) == versions
        for version in versions:
            assert a.content(name, version) == b.content(name, version)
    assert set(b.get("docs", "mounted,canmount", "-ro", "value").splitlines()) <= {
        "no",
        "noauto",
        "off",
        "-",
    }
    run("zpool", "export", b.pool.name)
    run("zpool", "import", "-d", b.pool.directory, b.pool.name)
    mounted = zfs("list", "-Hro", "mounted", b.dataset("docs")).split()
    assert "yes" not in mounted


async def test_properties_are_replicated_but_for_what_the_receiver_decides(zfs_sites):
    """Overridden, left out, and chosen by the kind of dataset; again with each increment."""
    a, b = zfs_sites
    a.reopen(properties=True)
    b.reopen(
        override={"canmount": "noauto", "readonly": "on", "com.example:by": "receiver"},
        exclude=("mountpoint", "com.example:secret"),
    )
    a.filesystem("docs", compression="lz4", **{"com.example:secret": "s", "com.example:by": "us"})
    a.volume("docs/disk", compression="gzip")
    zfs("set", f"mountpoint={a.pool.directory}/elsewhere", a.dataset("docs"))
    await filled(a, "docs", "1")
    await a.snapshot("1", "docs/disk")
    first = await run_job(a, b)
    zfs("set", "compression=zle", a.dataset("docs"))
    await filled(a, "docs", "2")

    second = await run_job(a, b)

    assert [first.status, second.status] == ["completed"] * 2
    names = "compression,readonly,canmount,com.example:by,com.example:secret"
    values = dict(
        line.split("\t")[:2] for line in b.get("docs", names, "-o", "property,value").splitlines()
    )
    assert values == {
        "compression": "zle",
        "readonly": "on",
        "canmount": "noauto",
        "com.example:by": "receiver",
        "com.example:secret": "-",
    }
    assert b.get("docs", "mountpoint").startswith(str(b.pool.mounts))
    assert b.get("docs/disk", "compression,readonly").split() == ["gzip", "on"]


async def test_placeholders_over_three_hosts(zfs_sites, zfs_pools):
    """Parents that are not replicated hold their children, and are not handed on as filesystems."""
    a, b = zfs_sites
    c = Site(zfs_pools())
    await filled(a, "x/y/docs", "1")
    first = await run_job(a, b, filesystems=("x/y/docs",))

    onward = await run_job(b, c)

    assert first.status == onward.status == "completed"
    for site in (b, c):
        assert (await site.listed("x")).placeholder
        assert (await site.listed("x/y")).placeholder
        assert not (await site.listed("x/y/docs")).placeholder
        assert site.get("x/y", "mounted,canmount").split() == ["no", "off"]
        assert await site.versions("x/y/docs") == await a.versions("x/y/docs")
    failed = [each for each in onward.replications if each.problem is not None]
    assert failed == []


async def test_a_placeholder_becomes_a_filesystem_and_keeps_its_children(zfs_sites):
    a, b = zfs_sites
    await filled(a, "x/docs", "1")
    await run_job(a, b, filesystems=("x/docs",))
    assert (await b.listed("x")).placeholder
    await filled(a, "x", "1")

    report = await run_job(a, b)

    assert report.status == "completed"
    assert not (await b.listed("x")).placeholder
    assert await b.versions("x") == await a.versions("x")
    assert await b.versions("x/docs") == await a.versions("x/docs")


async def test_a_filesystem_that_only_somebody_else_can_have_made_is_not_overwritten(zfs_sites):
    """It has no snapshots either, and is no placeholder of ours."""
    a, b = zfs_sites
    await filled(a, "docs", "1")
    path = b.filesystem("docs")
    (path / "precious").write_text("kept")

    report = await run_job(a, b)

    assert report.replications[0].problem is not None
    assert report.replications[0].problem.hint
    assert (path / "precious").read_text() == "kept"


@pytest.mark.parametrize("choice", ["inherit", "off"])
async def test_encryption_of_placeholders(zfs_sites, choice):
    """As the operator chose; what is received below follows it."""
    a, b = zfs_sites
    b.filesystem("vault", **ENCRYPTED)
    b.reopen(root=b.dataset("vault"), placeholder_encryption=choice)
    await filled(a, "x/docs", "1")

    report = await run_job(a, b, filesystems=("x/docs",))

    assert report.status == "completed"
    encryption = b.get("x", "encryption")
    assert (encryption == "off") is (choice == "off")
    assert a.content("x/docs", "1") == b.content("x/docs", "1")


async def test_an_encrypted_placeholder_does_not_become_a_filesystem(zfs_sites):
    """ZFS takes no full stream over what is encrypted; the placeholder keeps its children."""
    a, b = zfs_sites
    b.filesystem("vault", **ENCRYPTED)
    b.reopen(root=b.dataset("vault"))
    await filled(a, "x/docs", "1")
    await run_job(a, b, filesystems=("x/docs",))
    await filled(a, "x", "1")

    report = await run_job(a, b, filesystems=("x",))

    problem = report.replications[0].problem
    assert problem.kind == "conflict"
    assert problem.hint
    assert await b.versions("x") == {}
    assert await b.versions("x/docs") == await a.versions("x/docs")


async def test_below_a_parent_whose_key_is_not_loaded(zfs_sites):
    """An encrypted placeholder cannot be made there: the message says what to do."""
    a, b = zfs_sites
    b.filesystem("vault", **ENCRYPTED)
    zfs("unmount", b.dataset("vault"))
    zfs("unload-key", b.dataset("vault"))
    b.reopen(root=b.dataset("vault"))
    await filled(a, "docs", "1")

    report = await run_job(a, b)

    problem = report.replications[0].problem
    assert "key" in problem.message
    assert "load-key" in problem.hint


async def test_a_failing_parent_fails_its_children_and_nobody_else(zfs_sites):
    """``aa`` is no child of ``a``."""
    a, b = zfs_sites
    a.filesystem("a", **ENCRYPTED)
    a.filesystem("a/b", encryption="off")
    for name in ("a", "a/b", "aa"):
        await filled(a, name, "1")
    zfs("unmount", a.dataset("a/b"))
    zfs("unmount", a.dataset("a"))
    zfs("unload-key", a.dataset("a"))

    report = await run_job(a, b)

    problems = {each.filesystem: each.problem for each in report.replications}
    assert problems["aa"] is None
    assert "key" in problems["a"].message
    assert "a" in problems["a/b"].message.replace('"', " ").replace(",", " ").split()
    assert await b.versions("aa") == await a.versions("aa")
    assert not b.exists("a/b")


async def test_several_filesystems_at_once_do_not_race_for_their_parents(zfs_sites):
    a, b = zfs_sites
    names = [f"x/y{number % 2}/z{number}" for number in range(8)]
    for name in names:
        a.filesystem(name)
        zfs("snapshot", a.dataset(f"{name}@1"))
    a.reopen()

    report = await run_job(a, b, filesystems=("x/*/z*",), concurrency=8)

    assert [each.problem for each in report.replications] == [None] * 8
    for name in names:
        assert await b.versions(name) == await a.versions(name)


async def test_newer_versions_on_the_receiver_go_only_by_policy(zfs_sites):
    """And only those that were named: an older stray stays, and so does one that came since."""
    a, b = zfs_sites
    await filled(a, "docs", "1")
    await run_job(a, b)
    zfs("snapshot", b.dataset("docs@stray"))
    await filled(a, "docs", "2")
    b.reopen()

    refused = await run_job(a, b)
    kept = await b.versions()
    held_by = f"fsrep_last_{JOB}"
    report = await run_job(a, b, diverged=Diverged.ROLLBACK)

    assert refused.replications[0].problem.kind == "conflict"
    assert "@stray" in refused.replications[0].problem.message
    assert list(kept) == ["1", "stray"]
    assert report.status == "completed"
    assert await b.versions() == await a.versions()
    assert b.holds("docs@2") == [held_by]


async def test_a_version_that_came_since_the_plan_is_never_rolled_back(zfs_sites):
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    first, second = [await a.version(f"@{name}") for name in "12"]
    await replicate(a, b, first)
    zfs("snapshot", b.dataset("docs@stray"))
    stray = await b.version("@stray")
    path = b.pool.mounts / "docs"
    zfs("mount", b.dataset("docs"))
    (path / "changed").write_bytes(b"by hand")
    zfs("snapshot", b.dataset("docs@newer"))
    zfs("unmount", b.dataset("docs"))
    b.reopen()

    with pytest.raises(ConflictError, match="newer"):
        await replicate(a, b, second, first, rollback=(stray,))

    assert set(await b.versions()) >= {"1", "newer"}


async def test_changes_without_a_snapshot_are_a_conflict_that_says_what_to_do(zfs_sites):
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    first, second = [await a.version(f"@{name}") for name in "12"]
    await replicate(a, b, first)
    zfs("mount", b.dataset("docs"))
    (b.pool.mounts / "docs" / "changed").write_bytes(b"by hand")
    zfs("unmount", b.dataset("docs"))
    b.reopen()

    with pytest.raises(ConflictError, match="modified") as caught:
        await replicate(a, b, second, first)

    assert "rollback" in caught.value.hint
    assert list(await b.versions()) == ["1"]


async def test_encrypted_and_unencrypted_do_not_replace_each_other(zfs_sites):
    """A full stream over a placeholder works where both are alike, and is refused otherwise."""
    a, b = zfs_sites
    a.reopen(raw=True)
    a.filesystem("docs", **ENCRYPTED)
    await filled(a, "docs", "1")
    b.filesystem("docs")

    refused = await run_job(a, b)

    assert refused.replications[0].problem.kind == "conflict"
    assert b.get("docs", "encryption") == "off"
    assert await b.versions() == {}


async def test_a_receiver_that_fails_stops_the_sender_and_is_the_cause(zfs_sites, zfs_pools):
    """Its pool is full while most of the stream is still to come."""
    a, _ = zfs_sites
    small = Site(zfs_pools(size_bytes=64 << 20))
    taken_bytes = int(small.get("", "available")) - (8 << 20)
    zfs("create", "-o", f"reservation={taken_bytes}", small.dataset("reserved"))
    a.filesystem("docs")
    a.write("1", size_bytes=32 << 20)
    version = await a.snapshot("1")

    with trio.fail_after(120), pytest.raises(OutOfSpaceError) as caught:
        await replicate(a, small, version)

    assert small.pool.name in caught.value.message
    assert await small.versions() == {}


async def test_a_quota_is_told_apart(zfs_sites):
    a, b = zfs_sites
    a.filesystem("docs")
    a.write("1", size_bytes=12 << 20)
    version = await a.snapshot("1")
    zfs("set", "quota=6M", b.pool.name)

    with pytest.raises(OutOfSpaceError):
        await replicate(a, b, version)


async def test_a_version_that_exists_is_not_received_again(zfs_sites):
    """A completion that was lost is only noticed: nothing is sent, and the cursor moves."""
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    first, second = [await a.version(f"@{name}") for name in "12"]
    await replicate(a, b, first)
    received = await replicate(a, b, second, first)
    b.reopen()

    again = await replicate(a, b, second, first)
    report = await run_job(a, b)

    assert again == received
    assert report.status == "completed"
    assert all(step.mark_only for step in report.replications[0].completed)
    assert (await a.cursor()).guid == second.guid


async def test_another_snapshot_than_the_promised_one_is_refused(zfs_sites):
    """Nothing has changed then, though the stream is whole."""
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    first, second = [await a.version(f"@{name}") for name in "12"]
    await replicate(a, b, first)

    async with a.storage.send(
        SendRequest(job=JOB, filesystem="docs", to_version=second, from_version=first)
    ) as response:
        lie = attrs.evolve(second, guid="123456789")
        request = ReceiveRequest(job=JOB, filesystem="docs", to_version=lie, from_version=first)
        with pytest.raises(FsrepError):
            await b.storage.receive(request, response.stream)

    b.reopen()
    assert list(await b.versions()) == ["1"]


async def test_a_volume_holds_no_children(zfs_sites):
    a, b = zfs_sites
    b.volume("x")
    await filled(a, "x/docs", "1")

    report = await run_job(a, b, filesystems=("x/docs",))

    problem = report.replications[0].problem
    assert problem.kind == ConflictError.kind
    assert "volume" in problem.hint


async def test_a_name_taken_by_another_version_is_explained(zfs_sites):
    a, b = zfs_sites
    await filled(a, "docs", "1", "2")
    first, second = [await a.version(f"@{name}") for name in "12"]
    await replicate(a, b, first)
    zfs("snapshot", b.dataset("docs@2"))
    b.reopen()

    with pytest.raises(ConflictError, match="@2"):
        await replicate(a, b, second, first)
