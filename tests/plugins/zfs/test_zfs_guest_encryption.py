"""Encrypted or not, sent raw or not, below an encrypted parent or not."""

from __future__ import annotations

import pytest

from fsrep_core import InterruptedStreamError, SendRequest
from fsrep_core.testing import CutStream
from real_zfs import ENCRYPTED, JOB, KEY, replicate, run_job, zfs

pytestmark = pytest.mark.zfs

CHANGE_BYTES = 2 << 20
CUT_AT = 1 << 20


def load_key(site, name, *, load):
    """Load or unload the key of a dataset that is not mounted."""
    words = ("load-key",) if load else ("unload-key",)
    zfs(*words, site.dataset(name), input=KEY)


async def step(a, b, name, number, *, cut):
    """Make a version and let a run carry it over, perhaps only its second attempt."""
    a.write(number, name, CHANGE_BYTES)
    await a.snapshot(f"{number}", name)
    if cut:
        version = await a.version(f"@{number}", name)
        base = await a.version(f"@{number - 1}", name) if number > 1 else None
        with pytest.raises(InterruptedStreamError):
            await replicate(
                a,
                b,
                version,
                base,
                name,
                change=lambda stream: CutStream(stream, CHANGE_BYTES // 2),
            )
        b.reopen()
    report = await run_job(a, b, filesystems=(name,))
    (replication,) = report.replications
    assert replication.problem is None, replication.problem
    assert [each.resumed for each in replication.completed] == [cut]


@pytest.mark.parametrize("below_encrypted", [False, True], ids=["into plain", "into encrypted"])
@pytest.mark.parametrize("raw", [False, True], ids=["not raw", "raw"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_every_combination_initial_and_incremental(
    zfs_sites, encrypted, raw, below_encrypted
):
    """Initial and incremental, whole and resumed; the copy is encrypted as the choices say."""
    a, b = zfs_sites
    if below_encrypted:
        b.filesystem("vault", **ENCRYPTED)
        b.reopen(root=b.dataset("vault"))
    a.reopen(raw=raw)

    for name, cut in (("whole", False), ("resumed", True)):
        a.filesystem(name, **(dict(ENCRYPTED) if encrypted else {}))
        for number in (1, 2, 3):
            await step(a, b, name, number, cut=cut)

    for name in ("whole", "resumed"):
        found = b.get(name, "encryption,encryptionroot,keystatus").split()
        assert (found[0] != "off") is (below_encrypted or (encrypted and raw))
        if encrypted and raw:
            assert found[1:] == [b.dataset(name), "unavailable"]
            load_key(b, name, load=True)
        elif below_encrypted:
            assert found[1:] == [b.root, "available"]
        assert a.content(name, "3") == b.content(name, "3")


async def test_raw_needs_no_key_on_either_side(zfs_sites):
    a, b = zfs_sites
    a.reopen(raw=True)
    a.filesystem("docs", **ENCRYPTED)
    a.write(1)
    first = await a.snapshot("1")
    zfs("unmount", a.dataset())
    load_key(a, "docs", load=False)

    report = await run_job(a, b)

    assert report.status == "completed"
    assert (await b.versions()) == {"1": first.guid}


async def test_without_raw_a_missing_key_is_explained_before_anything_is_sent(zfs_sites):
    a, b = zfs_sites
    a.filesystem("docs", **ENCRYPTED)
    await a.snapshot("1")
    zfs("unmount", a.dataset())
    load_key(a, "docs", load=False)

    report = await run_job(a, b)

    problem = report.replications[0].problem
    assert "key" in problem.message
    assert "raw" in problem.hint
    assert not b.exists("docs")


@pytest.mark.parametrize("was_raw", [False, True])
async def test_raw_is_a_choice_for_ever(zfs_sites, was_raw):
    """A job that changes its mind would make a copy that can never go on."""
    a, b = zfs_sites
    a.filesystem("docs", **ENCRYPTED)
    a.reopen(raw=was_raw)
    a.write(1)
    await a.snapshot("1")
    await run_job(a, b)
    a.write(2)
    await a.snapshot("2")
    a.reopen(raw=not was_raw)
    b.reopen()

    refused = await run_job(a, b)
    a.reopen(raw=was_raw)
    goes_on = await run_job(a, b)

    problem = refused.replications[0].problem
    assert problem is not None
    assert "raw" in problem.message
    assert problem.hint
    assert goes_on.replications[0].problem is None
    assert set(await b.versions()) == {"1", "2"}


async def test_properties_do_not_take_the_encryption_away(zfs_sites):
    """A stream with properties says that it is not encrypted; the receiver's parent decides."""
    a, b = zfs_sites
    b.filesystem("vault", **ENCRYPTED)
    b.reopen(root=b.dataset("vault"))
    a.reopen(properties=True)
    a.filesystem("docs")
    a.write(1)
    await a.snapshot("1")

    report = await run_job(a, b)

    assert report.replications[0].problem is None
    assert b.get("docs", "encryptionroot") == b.root
    assert a.content("docs", "1") == b.content("docs", "1")


async def test_properties_of_an_encrypted_filesystem_need_raw(zfs_sites):
    a, b = zfs_sites
    a.reopen(properties=True)
    a.filesystem("docs", **ENCRYPTED)
    await a.snapshot("1")

    report = await run_job(a, b)

    problem = report.replications[0].problem
    assert problem is not None
    assert "raw" in (problem.hint or "") + problem.message


async def test_each_filesystem_of_an_encrypted_tree_has_a_key_of_its_own_there(zfs_sites):
    """One that shares its parent's key here arrives as a root of its own; parents come first."""
    a, b = zfs_sites
    a.reopen(raw=True)
    a.filesystem("docs", **ENCRYPTED)
    a.filesystem("docs/a")
    for name in ("docs", "docs/a"):
        a.write(1, name)
        await a.snapshot("1", name)

    report = await run_job(a, b, concurrency=4)

    assert report.status == "completed"
    for name in ("docs", "docs/a"):
        assert b.get(name, "encryptionroot").strip() == b.dataset(name)
        load_key(b, name, load=True)
        assert a.content(name, "1") == b.content(name, "1")


async def test_a_size_is_estimated_though_the_send_would_fail(zfs_sites):
    """ZFS answers without the key; fsrep does not promise more than it can send."""
    a, _ = zfs_sites
    a.filesystem("docs", **ENCRYPTED)
    a.write(1)
    version = await a.snapshot("1")
    zfs("unmount", a.dataset())
    load_key(a, "docs", load=False)
    a.reopen()
    request = SendRequest(job=JOB, filesystem="docs", to_version=version)

    estimate = await a.storage.size_estimate(request)

    assert estimate.size_bytes > 1 << 20
