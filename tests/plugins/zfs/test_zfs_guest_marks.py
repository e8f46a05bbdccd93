"""The marks that fsrep leaves on a pool: cursors, and holds on what a step still needs."""

from __future__ import annotations

import attrs
import pytest
import trio

from fsrep_core import (
    BusyError,
    CursorRequest,
    InterruptedStreamError,
    SendRequest,
    Version,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.ops.commands.zfs import list_abstractions, release_stale
from fsrep_core.planning import Initial
from fsrep_core.testing import CutStream, drain
from real_zfs import JOB, replicate, run_job, zfs

pytestmark = pytest.mark.zfs

OTHERS = ("fsrep_step_other-job", "fsrep_last_job", "zrepl_STEP_J_job", "my own")
"""Tags that a sender of the job never made."""
FOREIGN = ("my own", "zrepl_STEP_J_job")
"""Tags that fsrep never makes."""
PROTECTIONS = ("resumable", "incremental", "none")


def cursors(site, filesystem="docs"):
    """Give the names of the bookmarks that are cursors, whoever's."""
    names = zfs("list", "-H", "-d1", "-t", "bookmark", "-o", "name", site.dataset(filesystem))
    return [name.partition("#")[2] for name in names.splitlines() if "#fsrep_cursor_" in name]


async def three_versions(site):
    """Make a filesystem with three snapshots that differ."""
    site.filesystem("docs")
    versions = []
    for name in ("1", "with space", "3"):
        site.write(name)
        versions.append(await site.snapshot(name))
    return versions


async def test_a_cursor_is_set_from_a_snapshot_a_bookmark_and_itself(zfs_sites):
    """Repeating each changes nothing, and there is never more than one."""
    site, _ = zfs_sites
    first, second, _ = await three_versions(site)
    zfs("bookmark", site.dataset("docs@with space"), site.dataset("docs#mark"))
    bookmark = await site.version("#mark")

    assert await site.cursor() is None
    set_first = await site.cursor(move_to=first)
    again = await site.cursor(move_to=first)
    before = cursors(site)
    from_bookmark = await site.cursor(move_to=bookmark)
    after = cursors(site)
    for move_to in (bookmark, second, from_bookmark, first):
        assert (await site.cursor(move_to=move_to)) == from_bookmark

    assert set_first.guid == again.guid == first.guid
    assert from_bookmark.guid == second.guid
    assert from_bookmark.kind is VersionKind.BOOKMARK
    assert len(before) == len(after) == 1
    assert before != after
    assert cursors(site) == after
    assert await site.cursor() == from_bookmark
    site.reopen()
    assert await site.cursor() == from_bookmark
    assert (await site.listed()).cursor == from_bookmark


async def test_cursors_of_jobs_do_not_touch_each_other(zfs_sites):
    """Not even of jobs with names of which one begins with the other, or that need escapes."""
    site, _ = zfs_sites
    versions = await three_versions(site)
    jobs = ("job", "job_2", "job 2/ü@#")

    for job, version in zip(jobs, versions, strict=True):
        await site.storage.replication_cursor(
            CursorRequest(job=job, filesystem="docs", move_to=version)
        )

    site.reopen()
    for job, version in zip(jobs, versions, strict=True):
        assert (await site.listed(job=job)).cursor.guid == version.guid
    assert len(cursors(site)) == 3


async def test_an_increment_starts_from_the_cursor_when_its_snapshot_is_gone(zfs_sites):
    a, b = zfs_sites
    first, second, third = await three_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    zfs("destroy", a.dataset("docs@1"))
    a.reopen()

    report = await run_job(a, b)

    (replication,) = report.replications
    assert replication.problem is None
    step = replication.completed[0]
    assert step.from_version.kind is VersionKind.BOOKMARK
    assert step.from_version.guid == first.guid
    assert await b.versions() == {
        "1": first.guid,
        "with space": second.guid,
        "3": third.guid,
    }
    assert a.content("docs", "3") == b.content("docs", "3")
    assert (await a.cursor()).guid == third.guid
    assert len(cursors(a)) == 1


async def test_a_leftover_cursor_that_is_the_base_is_not_destroyed(zfs_sites):
    """A crash left the older cursor beside the newer one, and its snapshot is gone."""
    a, b = zfs_sites
    first, second, third = await three_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    (old,) = cursors(a)
    await a.cursor(move_to=second)
    zfs("bookmark", a.dataset("docs@1"), a.dataset(f"docs#{old}"))
    zfs("destroy", a.dataset("docs@1"))
    a.reopen()
    base = await a.version(f"#{old}")

    received = await replicate(a, b, third, base)

    assert received.guid == third.guid
    await a.cursor(move_to=third)
    assert len(cursors(a)) == 1


async def test_a_step_holds_its_ends_until_it_is_confirmed(zfs_sites):
    """From before the first byte until the cursor has moved."""
    a, b = zfs_sites
    first, second, _ = await three_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    ends = ("docs@1", "docs@with space")
    request = SendRequest(job=JOB, filesystem="docs", to_version=second, from_version=first)

    async with a.storage.send(request) as response:
        await response.stream.receive_some(1)
        while_sending = [a.holds(end) for end in ends]
        (kept,) = await a.destroy([second])
    after_the_cut = [a.holds(end) for end in ends]
    a.reopen()
    await replicate(a, b, second, first)
    await a.cursor(move_to=second)
    await a.cursor(move_to=second)

    assert while_sending == after_the_cut == [[f"fsrep_step_{JOB}"]] * 2
    assert kept.problem.kind == BusyError.kind
    assert [a.holds(end) for end in ends] == [[], []]
    for received in ends:  # the older one until a step has started from the newer
        assert b.holds(received) == [f"fsrep_last_{JOB}"]


async def test_the_weaker_protections_hold_less(zfs_sites):
    a, _ = zfs_sites
    first, second, _ = await three_versions(a)
    found = {}

    for protection in PROTECTIONS:
        a.reopen(protect_initial=protection, protect_incremental=protection)
        job = f"{protection}-job"
        full = SendRequest(job=job, filesystem="docs", to_version=first)
        incremental = attrs.evolve(full, to_version=second, from_version=first)
        for request in (full, incremental):
            async with a.storage.send(request) as response:
                await drain(response.stream)
        found[protection] = sum(job in each for each in a.holds("docs@1", "docs@with space"))

    assert found == {"resumable": 2, "incremental": 0, "none": 0}


async def test_holds_of_others_stay_and_own_leftovers_go(zfs_sites):
    """Of a step that was given up, on the next send; with two tags on one snapshot."""
    a, b = zfs_sites
    first, _, third = await three_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    leftover = f"fsrep_step_{JOB}"
    for snapshot in ("docs@1", "docs@with space"):
        for tag in (leftover, *OTHERS):
            zfs("hold", tag, a.dataset(snapshot))
    a.reopen()

    await replicate(a, b, third, first)
    await a.cursor(move_to=third)

    assert a.holds("docs@1") == sorted(OTHERS)
    assert a.holds("docs@with space") == sorted(OTHERS)
    assert a.holds("docs@3") == []
    assert await b.versions() == {"1": first.guid, "3": third.guid}


async def test_cursors_that_a_crash_left_go_and_those_of_others_stay(zfs_sites):
    a, b = zfs_sites
    first, second, third = await three_versions(a)
    for job, version in ((JOB, first), ("other", first)):
        await a.storage.replication_cursor(
            CursorRequest(job=job, filesystem="docs", move_to=version)
        )
    old = next(name for name in cursors(a) if name.endswith(f"_{JOB}"))
    await a.cursor(move_to=second)
    zfs("bookmark", a.dataset("docs@1"), a.dataset(f"docs#{old}"))
    zfs("bookmark", a.dataset("docs@1"), a.dataset("docs#mine"))
    a.reopen()
    assert (await a.cursor()).guid == second.guid

    await replicate(a, b, third)
    await a.cursor(move_to=third)

    guids = {name.split("_")[2] for name in cursors(a) if name.endswith(f"_{JOB}")}
    assert guids == {f"{int(third.guid):016x}"}
    assert sum(name.endswith("_other") for name in cursors(a)) == 1
    assert a.exists("docs#mine")


CONFIG = """
[[job]]
name = "{job}"
filesystems = ["**"]
[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{sender}" }}
[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{receiver}" }}
"""


async def leave_marks(a, b):
    """Replicate, and leave what a crash would; give the cursors, the stale one first."""
    first, _, _ = await three_versions(a)
    await a.cursor(move_to=first)
    (old,) = cursors(a)
    report = await run_job(a, b)
    assert report.replications[0].problem is None
    (new,) = cursors(a)
    zfs("bookmark", a.dataset("docs@1"), a.dataset(f"docs#{old}"))
    for tag in (f"fsrep_step_{JOB}", *FOREIGN):
        zfs("hold", tag, a.dataset("docs@1"))
    return old, new


def test_what_is_left_is_listed_and_what_is_stale_is_removed(zfs_sites, tmp_path, capsys):
    """Then all of a job that is gone; what others have made stays."""
    a, b = zfs_sites
    old, new = trio.run(leave_marks, a, b)
    config = tmp_path / "fsrep.toml"
    config.write_text(CONFIG.format(job=JOB, sender=a.root, receiver=b.root))

    def said(work, *arguments):
        assert work(None, None, *arguments, config) == 0
        return set(capsys.readouterr().out.splitlines())

    stale = {
        f"{JOB}, sender: cursor {a.dataset('docs')}#{old} of job {JOB}",
        f"{JOB}, sender: step-hold {a.dataset('docs@1')} of job {JOB}",
    }
    needed = {
        f"{JOB}, sender: cursor {a.dataset('docs')}#{new} of job {JOB}",
        f"{JOB}, receiver: last-received-hold {b.dataset('docs@3')} of job {JOB}",
    }

    assert said(list_abstractions) == {f"{line} (stale)" for line in stale} | needed
    assert said(release_stale, []) == stale
    assert said(release_stale, []) == set()
    assert a.holds("docs@1") == sorted(FOREIGN)
    assert cursors(a) == [new]
    assert said(release_stale, [JOB]) == needed
    assert cursors(a) == []
    assert b.holds("docs@3") == []


async def test_protection_lowered_in_the_middle_of_a_step(zfs_sites):
    """The next run goes on, and what the stronger one held is released."""
    a, b = zfs_sites
    first, second, _ = await three_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    with pytest.raises(InterruptedStreamError, match="cut"):
        await replicate(a, b, second, first, change=lambda stream: CutStream(stream, 300_000))
    held = a.holds("docs@1", "docs@with space")
    a.reopen(protect_initial="none", protect_incremental="none")

    report = await run_job(a, b)

    assert held == [f"fsrep_step_{JOB}"] * 2
    assert report.replications[0].problem is None
    assert await b.versions() == await a.versions()
    assert a.holds("docs@1", "docs@with space", "docs@3") == []


@pytest.mark.parametrize("initial", list(Initial))
async def test_the_first_step_follows_the_policy(zfs_sites, initial):
    a, b = zfs_sites
    await three_versions(a)

    report = await run_job(a, b, initial=initial)
    again = await run_job(a, b, initial=initial)

    expected = {
        Initial.NEWEST: ["3"],
        Initial.ALL: ["1", "with space", "3"],
        Initial.FAIL: [],
    }[initial]
    assert list(await b.versions()) == expected
    for each in (report, again):
        (replication,) = each.replications
        assert (replication.problem is not None) is (initial is Initial.FAIL)
    assert again.replications[0].completed == ()


async def test_a_version_that_a_step_needs_is_not_destroyed_under_it(zfs_sites):
    """Whoever tries: the storage itself, or an operator."""
    a, _ = zfs_sites
    first, second, _ = await three_versions(a)
    request = SendRequest(job=JOB, filesystem="docs", to_version=second, from_version=first)

    async with a.storage.send(request) as response:
        await response.stream.receive_some(1)
        results = await a.destroy([first, second])
        with pytest.raises(AssertionError, match="held"):
            zfs("destroy", a.dataset("docs@1"))

    assert [each.problem.kind for each in results] == [BusyError.kind] * 2
    assert set(await a.versions()) == {"1", "with space", "3"}


async def test_an_unknown_cursor_target_is_refused(zfs_sites):
    site, _ = zfs_sites
    await three_versions(site)
    gone = Version(kind=VersionKind.SNAPSHOT, name="1", guid="77", order=5)

    with pytest.raises(VersionMissingError, match="@1"):
        await site.cursor(move_to=gone)

    assert await site.cursor() is None
