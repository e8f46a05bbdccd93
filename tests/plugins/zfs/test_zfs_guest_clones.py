"""A clone stays a clone where the receiver has its origin, and is whole where it has not."""

from __future__ import annotations

import pytest

from fsrep_core import InterruptedStreamError
from fsrep_core.planning import Initial
from fsrep_core.testing import CutStream
from real_zfs import ENCRYPTED, replicate, run_job, zfs

pytestmark = pytest.mark.zfs

ORIGIN_BYTES = 4 << 20
CHANGE_BYTES = 2 << 20


async def make_clone(site, name="variant", **properties):
    """Make a filesystem with two snapshots, and a clone of the first with one of its own."""
    if not site.exists("docs"):
        site.filesystem("docs", **properties)
        site.write("1", size_bytes=ORIGIN_BYTES)
        await site.snapshot("1")
        site.write("3")
        await site.snapshot("3")
    mountpoint = site.mounted_at("docs").parent / name
    zfs("clone", "-o", f"mountpoint={mountpoint}", site.dataset("docs@1"), site.dataset(name))
    site.reopen()
    site.write("2", name, CHANGE_BYTES)
    return await site.snapshot("2", name)


def sent_bytes(report, name="variant"):
    (replication,) = (each for each in report.replications if each.filesystem == name)
    assert replication.problem is None, replication.problem
    return sum(step.transferred_bytes for step in replication.completed)


async def test_a_clone_arrives_as_a_clone_of_what_arrives_with_it(zfs_sites):
    a, b = zfs_sites
    await make_clone(a)

    report = await run_job(a, b, initial=Initial.ALL)

    assert report.status == "completed", report
    assert b.get("variant", "origin") == b.dataset("docs@1")
    assert a.content("variant", "2") == b.content("variant", "2")
    assert sent_bytes(report) < ORIGIN_BYTES


async def test_a_clone_arrives_as_one_of_what_arrived_long_ago_and_goes_on(zfs_sites):
    a, b = zfs_sites
    await make_clone(a, "first")
    await run_job(a, b, initial=Initial.ALL)
    await make_clone(a, "second")
    a.write("4", "first")
    await a.snapshot("4", "first")

    report = await run_job(a, b)

    assert report.status == "completed", report
    assert b.get("second", "origin") == b.dataset("docs@1")
    assert a.content("second", "2") == b.content("second", "2")
    assert a.content("first", "4") == b.content("first", "4")
    assert sent_bytes(report, "second") < ORIGIN_BYTES


async def test_a_clone_that_was_cut_is_gone_on_with(zfs_sites):
    a, b = zfs_sites
    version = await make_clone(a)
    await run_job(a, b, initial=Initial.ALL, filesystems=("docs",))
    origin = (await a.version("@1")).guid
    with pytest.raises(InterruptedStreamError):
        await replicate(
            a,
            b,
            version,
            filesystem="variant",
            origin=origin,
            change=lambda stream: CutStream(stream, CHANGE_BYTES // 2),
        )
    b.reopen()
    token = (await b.listed("variant")).resume_token

    report = await run_job(a, b)

    assert token.from_guid == origin
    (step,) = next(each for each in report.replications if each.filesystem == "variant").completed
    assert step.resumed
    assert b.get("variant", "origin") == b.dataset("docs@1")
    assert a.content("variant", "2") == b.content("variant", "2")


@pytest.mark.parametrize("raw", [False, True], ids=["not raw", "raw"])
async def test_a_clone_of_what_is_encrypted_is_encrypted_like_it(zfs_sites, raw):
    a, b = zfs_sites
    a.reopen(raw=raw)
    await make_clone(a, **dict(ENCRYPTED))

    report = await run_job(a, b, initial=Initial.ALL)

    assert report.status == "completed", report
    assert b.get("variant", "origin") == b.dataset("docs@1")
    assert b.get("variant", "encryption") == b.get("docs", "encryption")
    assert (b.get("variant", "encryption") == "off") is not raw


async def test_a_clone_that_is_not_wanted_arrives_in_full(zfs_sites):
    a, b = zfs_sites
    a.reopen(clones=False)
    await make_clone(a)

    report = await run_job(a, b, initial=Initial.ALL)

    assert report.status == "completed", report
    assert b.get("variant", "origin") == "-"
    assert a.content("variant", "2") == b.content("variant", "2")
