"""What is listed, made and destroyed, on real pools."""

from __future__ import annotations

import attrs
import pytest

from fsrep_core import (
    BusyError,
    CreateVersionRequest,
    DestroyVersionsRequest,
    FsrepError,
    InventoryRequest,
    SendRequest,
    Version,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.testing import drain
from fsrep_zfs import batching
from real_zfs import JOB, Site, zfs

pytestmark = pytest.mark.zfs

GONE = Version(kind=VersionKind.SNAPSHOT, name="gone", guid="1", order=1)


async def read_all(site, **request):
    """Read a whole stream; give its size."""
    async with site.storage.send(
        SendRequest(**{"job": JOB, "filesystem": "docs"} | request)
    ) as sent:
        return await drain(sent.stream)


async def test_a_whole_tree_is_listed_with_all_that_there_is_of_it(zfs_sites):
    """Filesystems and volumes, spaces in every name, bookmarks, holds, and children of none."""
    site, other = zfs_sites
    site.filesystem("docs")
    site.volume("docs/disk")
    site.filesystem("with space/a  b")
    zfs("snapshot", "-r", site.dataset("docs@one two"))
    zfs("snapshot", site.dataset("with space/a  b@1"))
    zfs("bookmark", site.dataset("docs@one two"), site.dataset("docs#mark"))
    zfs("hold", "somebody's", site.dataset("docs@one two"))

    inventory = await site.storage.inventory(InventoryRequest(job=JOB))
    nothing = await other.storage.inventory(InventoryRequest(job=JOB))

    listed = {each.name: each for each in inventory.filesystems}
    assert set(listed) == {"docs", "docs/disk", "with space", "with space/a  b"}
    assert {each.relative_name for each in listed["docs"].versions} == {"@one two", "#mark"}
    assert len({each.guid for each in listed["docs"].versions}) == 1
    assert listed["with space"].versions == ()
    assert listed["docs"].attributes["type"] == "filesystem"
    assert listed["docs"].attributes["held"] == "1"
    assert listed["docs/disk"].attributes["type"] == "volume"
    (version,) = listed["docs/disk"].versions
    guid, order, created = site.get("docs/disk@one two", "guid,createtxg,creation").splitlines()
    assert (version.guid, version.order, version.created) == (guid, int(order), float(created))
    assert nothing.filesystems == ()


async def test_a_pattern_bounds_what_is_listed_and_never_hides_a_match(zfs_sites):
    site, _ = zfs_sites
    for name in ("a", "aa", "a/b"):
        site.filesystem(name)
        await site.snapshot("1", name)

    inventory = await site.storage.inventory(InventoryRequest(job=JOB, patterns=("a/**",)))

    listed = {each.name for each in inventory.filesystems if each.versions}
    assert "a/b" in listed


async def test_a_missing_root_is_an_error_that_names_it(zfs_sites):
    site, _ = zfs_sites
    site.reopen(root=f"{site.pool.name}/nowhere")

    with pytest.raises(FsrepError, match=f"{site.pool.name}/nowhere") as caught:
        await site.storage.inventory(InventoryRequest(job=JOB))

    assert not caught.value.local
    assert caught.value.hint


async def test_a_missing_pool_is_an_error_that_names_it(zfs_pools):
    site = Site(pool=None, options={"root": "fsrep-no-such-pool"})

    with pytest.raises(FsrepError, match="fsrep-no-such-pool") as caught:
        await site.storage.inventory(InventoryRequest(job=JOB))

    assert not caught.value.local


@pytest.mark.parametrize("missing", ["filesystem", "to_version", "from_version", "bookmark"])
async def test_what_is_missing_has_a_type(zfs_sites, missing):
    """Sending what is gone is a reason to plan again."""
    site, _ = zfs_sites
    site.filesystem("docs")
    there = await site.snapshot("1")
    later = await site.snapshot("2")
    bookmark = attrs.evolve(GONE, kind=VersionKind.BOOKMARK)
    request = {
        "filesystem": SendRequest(job=JOB, filesystem="nowhere", to_version=there),
        "to_version": SendRequest(job=JOB, filesystem="docs", to_version=GONE),
        "from_version": SendRequest(
            job=JOB, filesystem="docs", to_version=later, from_version=attrs.evolve(GONE, order=0)
        ),
        "bookmark": SendRequest(
            job=JOB, filesystem="docs", to_version=later, from_version=bookmark
        ),
    }[missing]

    with pytest.raises(VersionMissingError) as caught:
        async with site.storage.send(request):
            pass
    with pytest.raises(VersionMissingError):
        await site.storage.size_estimate(request)

    assert caught.value.local
    assert caught.value.temporary


async def test_a_snapshot_that_was_made_anew_is_another(zfs_sites):
    """The name is the same; what was planned is gone."""
    site, _ = zfs_sites
    site.filesystem("docs")
    old = await site.snapshot("1")
    zfs("destroy", site.dataset("docs@1"))
    zfs("snapshot", site.dataset("docs@1"))
    site.reopen()

    with pytest.raises(VersionMissingError):
        await read_all(site, to_version=old)
    (result,) = await site.destroy([old])

    assert result.problem is None
    assert site.exists("docs@1")


async def test_versions_of_one_instant(zfs_sites):
    """One transaction group for all; a filesystem that is missing does not stop the others."""
    site, _ = zfs_sites
    for name in ("a", "a/b", "c d"):
        site.filesystem(name)
    zfs("snapshot", site.dataset("c d@taken"))

    results = await site.storage.create_version(
        CreateVersionRequest(job=JOB, filesystems=("a", "c d", "a/b"), name="together")
    )
    with_missing = await site.storage.create_version(
        CreateVersionRequest(job=JOB, filesystems=("a", "nowhere", "a/b"), name="later")
    )
    taken = await site.storage.create_version(
        CreateVersionRequest(job=JOB, filesystems=("c d", "a"), name="taken")
    )

    assert [each.filesystem for each in results] == ["a", "c d", "a/b"]
    assert [each.problem for each in results] == [None] * 3
    assert len({each.version.order for each in results}) == 1
    assert [each.problem is None for each in with_missing] == [True, False, True]
    assert "nowhere" in with_missing[1].problem.message
    assert [each.problem is None for each in taken] == [False, True]
    assert site.exists("a@taken")


async def test_a_batch_is_destroyed_but_for_what_is_in_use(zfs_sites):
    """A hold and a clone keep one version each, whose results say so; the others go."""
    site, _ = zfs_sites
    site.filesystem("docs")
    versions = [await site.snapshot(f"{number} of it") for number in range(6)]
    zfs("hold", "somebody's", site.dataset("docs@1 of it"))
    zfs("clone", site.dataset("docs@3 of it"), site.dataset("clone"))

    results = await site.destroy(versions)
    again = await site.destroy([versions[0], versions[5]])

    assert [each.name for each in results] == [each.name for each in versions]
    kinds = [each.problem.kind if each.problem else None for each in results]
    assert kinds == [None, BusyError.kind, None, BusyError.kind, None, None]
    assert "hold" in results[1].problem.message + (results[1].problem.hint or "")
    assert "clone" in results[3].problem.message + (results[3].problem.hint or "")
    assert list(await site.versions()) == ["1 of it", "3 of it"]
    assert [each.problem for each in again] == [None, None]


async def test_snapshots_and_bookmarks_are_destroyed_by_one_request(zfs_sites):
    site, _ = zfs_sites
    site.filesystem("docs")
    for name in ("1", "2"):
        await site.snapshot(name)
        zfs("bookmark", site.dataset(f"docs@{name}"), site.dataset(f"docs#{name}"))
    chosen = [await site.version("#1"), await site.version("@2"), GONE]

    results = await site.destroy(chosen)

    assert [each.problem for each in results] == [None] * 3
    listed = await site.listed()
    assert {each.relative_name for each in listed.versions} == {"@1", "#2"}


async def test_destroying_versions_of_a_missing_filesystem_is_no_error(zfs_sites):
    site, _ = zfs_sites
    request = DestroyVersionsRequest(job=JOB, filesystem="nowhere", versions=(GONE,))

    (result,) = await site.storage.destroy_versions(request)

    assert result.problem is None


async def test_more_versions_than_one_command_takes(zfs_sites, monkeypatch):
    """A command takes fewer here: each snapshot of a filesystem is one transaction to wait for."""
    monkeypatch.setattr(batching, "ARGUMENTS_LIMIT_BYTES", 1000)
    site, _ = zfs_sites
    site.filesystem("docs")
    for number in range(12):
        zfs("snapshot", site.dataset(f"docs@{number:03}{'n' * 190}"))
    listed = await site.listed()

    results = await site.destroy(listed.versions)

    assert len(results) == 12
    assert [each.problem for each in results] == [None] * 12
    assert await site.versions() == {}
