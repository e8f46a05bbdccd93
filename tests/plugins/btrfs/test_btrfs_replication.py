"""Replication between real btrfs file systems: chains, names, layouts of other tools."""

from __future__ import annotations

import errno
import os
import shutil

import attrs
import pytest
import trio

from fsrep_btrfs import writeback
from fsrep_btrfs.listing import parse_show
from fsrep_btrfs.tool import BtrfsTool
from fsrep_core import (
    ByteStream,
    Capabilities,
    ConflictError,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InvalidRequestError,
    InventoryRequest,
    PermissionDeniedError,
    SendRequest,
    StorageError,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.planning import Diverged, Initial

pytestmark = pytest.mark.btrfs


@pytest.fixture
def docs(sites):
    """Make a filesystem with something in it on the first site."""
    path = sites[0].subvolume("docs")
    (path / "big").write_bytes(os.urandom(4 << 20))
    (path / "dir").mkdir()
    (path / "dir" / "a b\nc").symlink_to("../big")
    os.setxattr(path / "dir", "user.note", b"kept")
    return path


def change(path, name):
    (path / name).write_bytes(os.urandom(100_000))


async def test_a_chain_and_the_way_back_stay_incremental(sites, docs, tools):
    """A to B to C, then C to A: each step sends what changed, found by identity."""
    a, b, c = sites
    sizes = []

    def counted(stream):
        return CountedStream(stream, sizes)

    first = await a.snapshot("1")
    for sender, receiver in ((a, b), (b, c)):
        assert (await tools.replicate(sender, receiver, first, change=counted)).guid == first.guid
    change(docs, "more")
    second = await a.snapshot("2")
    for sender, receiver in ((a, b), (b, c)):
        await tools.replicate(sender, receiver, second, first, change=counted)
    # A loses its newest, and gets it back from C on the base that A itself once made.
    (destroyed,) = await a.storage.destroy_versions(
        DestroyVersionsRequest(job="job", filesystem="docs", versions=(second,))
    )
    await tools.replicate(c, a, second, first, change=counted)

    assert destroyed.problem is None
    assert all(size > 4 << 20 for size in sizes[:2])
    assert all(size < 200_000 for size in sizes[2:])
    assert len(sizes) == 5
    for site in sites:
        assert await site.versions() == {"1": first.guid, "2": second.guid}
        assert tools.same_content(docs, site.place("2")) == []
        assert site.left_behind() == []


async def test_a_job_replicates_everything_and_then_nothing(sites, docs, tools):
    """The driver, the planner and the cursor agree with this storage."""
    a, b, _ = sites
    for name in ("1", "2", "3"):
        change(docs, name)
        await a.snapshot(name)

    report = await tools.run_job(a, b, initial=Initial.ALL)
    again = await tools.run_job(a, b)

    assert report.status == "completed"
    assert [step.to_version.name for step in report.replications[0].completed] == ["1", "2", "3"]
    assert again.replications[0].completed == ()
    assert await b.versions() == await a.versions()
    cursor = await a.cursor()
    assert (cursor.kind, cursor.guid) == (VersionKind.BOOKMARK, (await a.versions())["3"])
    assert (await a.filesystem()).cursor == cursor
    assert (await a.filesystem(job="other")).cursor is None


async def test_a_version_is_listed_only_when_its_data_is_on_the_disk(sites, docs, tools):
    """``btrfs receive`` ends earlier: a crash would leave the right identity on empty files."""
    a, b, _ = sites
    await tools.replicate(a, b, await a.snapshot("1"))

    extents = tools.run("filefrag", "-v", b.place("1") / "big")
    assert "extent" in extents
    assert "delalloc" not in extents


async def test_nested_subvolumes_are_filesystems_of_their_own(sites, docs, tools):
    """What a snapshot leaves out is replicated beside it, at any depth."""
    a, b, _ = sites
    nested = a.subvolume("docs/nested")
    change(nested, "inner")
    results = await a.storage.create_version(
        CreateVersionRequest(job="job", filesystems=("docs", "docs/nested"), name="1")
    )

    report = await tools.run_job(a, b)

    assert [each.problem for each in results] == [None, None]
    assert report.status == "completed"
    assert tools.same_content(nested, b.place("1", "docs/nested")) == []
    assert set((await b.versions("docs/nested")).values()) == {results[1].version.guid}
    assert not (b.place("1") / "nested").exists()


async def test_a_received_snapshot_that_was_renamed_stays_a_base(sites, docs, tools):
    """Inside its directory, with its directory, or moved elsewhere with it."""
    a, b, _ = sites
    base = await a.snapshot("0")
    await tools.replicate(a, b, base)
    old, renamed = b.place("0").parent, b.place("renamed").parent
    moves = [
        ("renamed", lambda: old.rename(renamed)),
        ("own", lambda: (renamed / "snapshot").rename(renamed / "own")),
        ("own", lambda: renamed.rename(b.root / "kept-for-ever")),
    ]

    for number, (name, move) in enumerate(moves):
        move()
        b.reopen()
        assert await b.versions() == {name: base.guid}
        change(docs, f"file{number}")
        version = await a.snapshot(f"new{number}")
        report = await tools.run_job(a, b)
        assert report.status == "completed"
        assert report.replications[0].completed[0].from_version.guid == base.guid
        # Only the renamed one may be the next base.
        for site in (a, b):
            (destroyed,) = await site.storage.destroy_versions(
                DestroyVersionsRequest(job="job", filesystem="docs", versions=(version,))
            )
            assert destroyed.problem is None


async def test_a_received_snapshot_made_writable_is_no_base(sites, docs, tools):
    """Whether its received UUID is gone, as with new tools, or still there, as with old."""
    a, b, c = sites
    first = await a.snapshot("1")
    for site in (b, c):
        await tools.replicate(a, site, first)
    change(docs, "more")
    second = await a.snapshot("2")

    tools.btrfs("property", "set", "-f", "-ts", b.place("1"), "ro", "false")
    tools.set_readonly(c.place("1"), readonly=False)

    for site in (b, c):
        site.reopen()
        assert await site.versions() == {}
        with pytest.raises(VersionMissingError, match=first.guid):
            await tools.replicate(a, site, second, first)
        assert site.left_behind() == []


async def test_a_copy_of_a_writable_received_snapshot_is_no_base_either(sites, docs, tools):
    """A snapshot of it inherits a received UUID that is no longer true."""
    a, b, _ = sites
    first = await a.snapshot("1")
    await tools.replicate(a, b, first)
    tools.set_readonly(b.place("1"), readonly=False)
    (b.place("1") / "scribble").write_text("not in the original")
    tools.btrfs("subvolume", "snapshot", "-r", b.place("1"), b.place("1").with_name("copy"))
    second = await a.snapshot("2")
    b.reopen()

    assert first.guid not in (await b.versions()).values()
    with pytest.raises(VersionMissingError):
        await tools.replicate(a, b, second, first)
    report = await tools.run_job(a, b)
    assert report.failed[0].problem.kind == "conflict"


async def test_a_writable_source_with_a_received_uuid_is_refused(sites, docs, tools):
    """Its snapshots all look like the one it was received as. The repair is explained."""
    a, b, _ = sites
    await tools.replicate(a, b, await a.snapshot("1"))
    live = b.root / "docs"
    tools.btrfs("subvolume", "snapshot", b.place("1"), live)
    received = b.place("1")
    tools.set_readonly(received, readonly=False)
    received.rename(received.with_name("x"))
    tools.btrfs("subvolume", "delete", live)
    received.with_name("x").rename(live)
    tools.btrfs("subvolume", "snapshot", "-r", live, b.root / "docs.1")

    (refused,) = await b.storage.create_version(
        CreateVersionRequest(job="job", filesystems=("docs",), name="2")
    )
    ((_, guid),) = (await b.versions()).items()
    version = (await b.filesystem()).versions[0]
    with pytest.raises(StorageError, match="received UUID") as caught:
        async with b.storage.send(SendRequest(job="job", filesystem="docs", to_version=version)):
            pass

    assert "make a writable snapshot" in refused.problem.hint
    assert refused.problem.hint == caught.value.hint
    assert not refused.problem.temporary
    # The repair works.
    tools.btrfs("subvolume", "snapshot", live, b.root / "new")
    tools.btrfs("subvolume", "delete", live)
    (b.root / "new").rename(live)
    assert (await b.snapshot("2")).guid != guid


async def test_snapshots_of_snapper(sites, docs, tools):
    """They are versions by their number, whoever made them, and need no option."""
    a, b, _ = sites
    a.subvolume("docs/.snapshots")
    for number in ("1", "2"):
        change(docs, number)
        (docs / ".snapshots" / number).mkdir()
        tools.btrfs("subvolume", "snapshot", "-r", docs, docs / ".snapshots" / number / "snapshot")

    report = await tools.run_job(a, b, initial=Initial.ALL)

    assert report.status == "completed"
    assert [each.filesystem for each in report.replications] == ["docs"]
    assert list(await b.versions()) == ["1", "2"]
    # What is left of a nested subvolume in a snapshot is an empty directory, never sent.
    assert tools.same_content(docs / ".snapshots/2/snapshot", b.place("2")) == [
        ".snapshots: only in the first tree"
    ]


async def test_backups_of_btrbk_go_on_incrementally(sites, docs, tools):
    """What btrbk made is found by its parent; what it has sent, by the operator's pattern."""
    a, b, _ = sites
    (a.root / "btrbk_snapshots").mkdir()
    source = a.root / "btrbk_snapshots" / "docs.20261122T0800"
    tools.btrfs("subvolume", "snapshot", "-r", docs, source)
    tools.send_and_receive(source, b.root)
    change(docs, "more")
    tools.btrfs("subvolume", "snapshot", "-r", docs, source.with_name("docs.20261122T0900"))
    b.reopen(also={"docs": ("docs.*",)})

    report = await tools.run_job(a, b)

    assert report.status == "completed"
    (step,) = report.replications[0].completed
    assert step.from_version.name == "docs.20261122T0800"
    assert step.transferred_bytes < 200_000
    assert list(await b.versions()) == ["docs.20261122T0800", "docs.20261122T0900"]


async def test_a_restored_filesystem_keeps_its_versions(sites, docs, tools):
    """fsrep's own lie in a place of their own, so replacing the live subvolume is nothing."""
    a, b, _ = sites
    first = await a.snapshot("1")
    await tools.replicate(a, b, first)
    tools.btrfs("subvolume", "delete", docs)
    tools.btrfs("subvolume", "snapshot", a.place("1"), docs)
    change(docs, "more")
    second = await a.snapshot("2")

    report = await tools.run_job(a, b)

    assert report.replications[0].completed[0].from_version.guid == first.guid
    assert await b.versions() == {"1": first.guid, "2": second.guid}


async def test_named_subvolumes_and_the_root_itself(sites, docs, tools):
    """The operator's names hold on both sides."""
    a, b, _ = sites
    a.root = docs
    a.reopen(subvolumes={"documents": "."})
    await a.snapshot("1", "documents")

    report = await tools.run_job(a, b)

    assert report.status == "completed"
    assert tools.same_content(docs, b.place("1", "documents")) != []  # "snapshots" came later
    assert set(await b.versions("documents")) == {"1"}


async def test_diverged_versions_are_destroyed_last_and_only_by_policy(sites, docs, tools):
    """A receive that fails has destroyed nothing."""
    a, b, _ = sites
    first = await a.snapshot("1")
    await tools.replicate(a, b, first)
    tools.btrfs("subvolume", "snapshot", b.place("1"), b.root / "docs")
    stray = await b.snapshot("2")
    change(docs, "more")
    second = await a.snapshot("2")
    b.reopen()

    refused = await tools.run_job(a, b)
    with pytest.raises(VersionMissingError):
        await tools.replicate(a, b, attrs.evolve(second, guid="x"), first, rollback=(stray,))
    kept = await b.versions()
    report = await tools.run_job(a, b, diverged=Diverged.ROLLBACK)

    assert refused.failed[0].problem.kind == "conflict"
    assert kept == {"1": first.guid, "2": stray.guid}
    assert report.status == "completed"
    assert await b.versions() == {"1": first.guid, "2": second.guid}


async def test_a_version_that_exists_is_not_received_again(sites, docs, tools):
    a, b, _ = sites
    first = await a.snapshot("1")
    received = await tools.replicate(a, b, first)
    before = tools.subvolumes_below(b.root)
    b.reopen()

    assert await tools.replicate(a, b, first) == received
    assert tools.subvolumes_below(b.root) == before


async def test_a_name_that_is_taken_is_a_conflict(sites, docs, tools):
    """Before anything moves where it is known, and before anything changes where not."""
    a, b, _ = sites
    first = await a.snapshot("1")
    await tools.replicate(a, b, first)
    change(docs, "more")
    second = attrs.evolve(await a.snapshot("2"), name="1")
    b.reopen()
    await b.versions()

    with pytest.raises(ConflictError, match="another version of that name"):
        await tools.replicate(a, b, second, first)
    (b.root / "snapshots/docs/@3").mkdir()
    (b.root / "snapshots/docs/@3/somebodys").touch()
    with pytest.raises(ConflictError, match="something is there"):
        await tools.replicate(a, b, attrs.evolve(second, name="3"), first)

    assert await b.versions() == {"1": first.guid}
    assert b.left_behind() == []


async def test_places_inside_a_live_subvolume_are_refused(sites, docs, tools):
    a, b, _ = sites
    first = await a.snapshot("1")
    b.subvolume("docs")
    b.reopen(snapshots=".")

    with pytest.raises(ConflictError, match="inside the writable subvolume of docs"):
        await tools.replicate(a, b, first)


async def test_versions_directly_in_the_root(sites, docs, tools):
    a, b, _ = sites
    first = await a.snapshot("1")
    b.reopen(snapshots=".")

    await tools.replicate(a, b, first)

    assert tools.same_content(docs, b.root / "docs/@1/snapshot") == []
    assert await b.versions() == {"1": first.guid}


async def test_a_subvolume_in_the_way_is_explained(sites, docs, tools):
    """Directories cannot be renamed from one subvolume to another."""
    a, b, _ = sites
    first = await a.snapshot("1")
    (b.root / "snapshots").mkdir()
    b.subvolume("snapshots/docs")

    with pytest.raises(StorageError, match="is a subvolume of its own") as caught:
        await tools.replicate(a, b, first)

    assert "plain directory" in caught.value.hint
    assert b.left_behind() == []
    assert await b.versions() == {}


async def test_compressed_data(sites, docs, tools):
    """Protocol 2 is used where the operator asks for it, and both can."""
    a, b, _ = sites
    a.reopen(compressed_data=True)
    (docs / "text").touch()
    tools.btrfs("property", "set", docs / "text", "compression", "zstd")
    (docs / "text").write_bytes(b"compresses well " * 200_000)
    first = await a.snapshot("1")
    sizes = []

    await tools.replicate(a, b, first, change=lambda stream: CountedStream(stream, sizes))

    assert tools.same_content(docs, b.place("1")) == []
    assert sizes[0] < 5 << 20  # the 4 MiB that cannot be compressed, and little else
    formats = (await a.storage.inventory(InventoryRequest(job="j"))).capabilities.stream_formats
    assert formats == {"btrfs-2"}
    formats = (await b.storage.inventory(InventoryRequest(job="j"))).capabilities.stream_formats
    assert formats == {"btrfs-1", "btrfs-2"}


async def test_what_btrfs_cannot_do_is_said(sites, docs):
    """No resume, no estimate, one snapshot in a stream, no bookmark as a base."""
    a = sites[0]
    first = await a.snapshot("1")
    capabilities = (await a.storage.inventory(InventoryRequest(job="j"))).capabilities
    request = SendRequest(job="j", filesystem="docs", to_version=first)

    assert attrs.evolve(capabilities, stream_formats=frozenset()) == Capabilities(
        stream_formats=frozenset()
    )
    assert (await a.storage.size_estimate(request)).size_bytes is None
    with pytest.raises(InvalidRequestError):
        async with a.storage.send(attrs.evolve(request, intermediates=(first,))):
            pass


async def test_creating_versions_fails_one_by_one(sites, docs):
    """Names are checked and never reused; a filesystem without a subvolume has none."""
    a = sites[0]
    await a.snapshot("1")

    taken, missing = await a.storage.create_version(
        CreateVersionRequest(job="j", filesystems=("docs", "none"), name="1")
    )
    (bad,) = await a.storage.create_version(
        CreateVersionRequest(job="j", filesystems=("docs",), name="a/b")
    )

    assert (taken.problem.kind, missing.problem.kind) == ("conflict", "storage")
    assert "docs" in missing.problem.hint
    assert bad.problem.kind == "invalid-request"
    assert set(await a.versions()) == {"1"}


async def test_destroying_versions(sites, docs, tools):
    """By identity; those in use are kept and say so; nothing empty stays behind."""
    a = sites[0]
    first, second = await a.snapshot("1"), await a.snapshot("2")
    gone = attrs.evolve(first, guid="00000000-0000-0000-0000-000000000000", name="gone")
    impostor = attrs.evolve(first, guid="11111111-0000-0000-0000-000000000000")
    everything = DestroyVersionsRequest(
        job="j", filesystem="docs", versions=(first, gone, second, impostor)
    )
    async with a.storage.send(SendRequest(job="j", filesystem="docs", to_version=first)) as sent:
        await sent.stream.receive_some(1)  # it runs
        # Another process only meets the kernel, which names no reason but "not permitted".
        others = await tools.Site(a.root).storage.destroy_versions(
            attrs.evolve(everything, versions=(first,))
        )
        results = await a.storage.destroy_versions(everything)

    for result in (others[0], results[0]):
        assert (result.problem.kind, result.problem.temporary) == ("busy", True)
    assert [each.problem for each in results[1:]] == [None, None, None]
    assert [each.name for each in results] == ["1", "gone", "2", "1"]
    assert await a.versions() == {"1": first.guid}
    assert not a.place("2").parent.exists()


async def test_the_cursor_needs_a_version_to_move_to(sites, docs):
    """But none to stay."""
    a = sites[0]
    first = await a.snapshot("1")
    move = CursorRequest(job="j", filesystem="docs", move_to=first)

    moved = await a.storage.replication_cursor(move)
    await a.storage.destroy_versions(
        DestroyVersionsRequest(job="j", filesystem="docs", versions=(first,))
    )
    a.reopen()

    assert await a.storage.replication_cursor(move) == moved
    with pytest.raises(VersionMissingError):
        await a.storage.replication_cursor(attrs.evolve(move, job="other"))
    with pytest.raises(VersionMissingError):
        await a.storage.replication_cursor(attrs.evolve(move, filesystem="other"))


async def test_the_kernel_and_the_program_say_the_same(sites, docs, tools):
    """Of a live subvolume, a snapshot, and a received one with and without a base."""
    a, b, _ = sites
    first = await a.snapshot("1")
    await tools.replicate(a, b, first)
    change(docs, "more")
    await tools.replicate(a, b, await a.snapshot("2"), first)
    program = BtrfsTool(("btrfs",))

    for path in (docs, a.place("1"), b.place("1"), b.place("2")):
        told = await program.show(str(path))
        assert attrs.evolve(told, path="") == attrs.evolve(
            parse_show(tools.btrfs("subvolume", "show", path)), path=""
        )


async def test_what_fsrep_may_not_open_the_program_is_asked_for(sites, docs, tools, monkeypatch):
    """As with sudo, where a received subvolume may be readable for root only."""
    a, b, _ = sites

    def forbidden(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("fsrep_btrfs.tool._information", forbidden)
    first = await a.snapshot("1")

    assert (await tools.replicate(a, b, first)).guid == first.guid


async def test_a_root_that_is_not_there_or_not_btrfs(sites, tmp_path):
    for root, message in ((tmp_path, "not on btrfs"), (tmp_path / "none", "cannot be reached")):
        sites[0].root = root
        sites[0].reopen()
        with pytest.raises(StorageError, match=message) as caught:
            await sites[0].versions()
        assert not caught.value.local
        assert "mounted" in caught.value.hint


async def test_a_mounted_part_of_a_file_system(sites, docs, tools, tmp_path):
    """Only what the mount shows can be used, and it is found under its paths there."""
    a, b, _ = sites
    outside = a.root / "outside"
    tools.btrfs("subvolume", "snapshot", "-r", docs, outside)
    (docs / ".snapshots" / "1").mkdir(parents=True)
    tools.btrfs("subvolume", "snapshot", "-r", docs, docs / ".snapshots/1/snapshot")
    point = tmp_path / "part"
    point.mkdir()
    with tools.bound(docs, point):
        part = tools.Site(point, {"subvolumes": {"docs": "."}})
        assert set(await part.versions()) == {"1"}
        report = await tools.run_job(part, b)

    assert report.status == "completed"
    assert set(await b.versions()) == {"1"}


@pytest.mark.skipif(shutil.which("sudo") is None, reason="sudo is not installed")
async def test_a_user_without_privileges_is_told_what_to_do(sites):
    """Without sudo, and with a sudo that has no rule."""
    for command, hint in (("btrfs", "root"), ("sudo -n btrfs", "without a password")):
        sites[0].reopen(command=("setpriv", "--reuid=65534", "--clear-groups", *command.split()))
        with pytest.raises(PermissionDeniedError) as caught:
            await sites[0].versions()
        assert hint in caught.value.hint
        assert not caught.value.local


async def test_what_arrives_goes_to_the_disk_at_once(sites, docs, tools, monkeypatch):
    """The sync in the end is not the first; one that fails in between fails nothing."""
    a, b, _ = sites
    docs.joinpath("large").write_bytes(os.urandom(4 << 20))
    version = await a.snapshot("1")
    synced = []

    def sync(directory):
        synced.append(directory)
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(writeback, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(writeback, "DIRTY_BYTES", 0)
    monkeypatch.setattr(writeback, "sync_file_system", sync)

    await tools.replicate(a, b, version, change=SlowStream)

    assert synced
    assert tools.same_content(a.place("1"), b.place("1")) == []


class SlowStream(ByteStream):
    """Takes its time."""

    def __init__(self, stream):
        self._stream = stream

    async def receive_some(self, max_bytes):
        await trio.sleep(0.05)
        return await self._stream.receive_some(max_bytes)

    async def finish(self):
        await self._stream.finish()


class CountedStream(ByteStream):
    """Counts the bytes of a stream while they move."""

    def __init__(self, stream, sizes):
        self._stream = stream
        self._sizes = sizes
        sizes.append(0)

    async def receive_some(self, max_bytes):
        piece = await self._stream.receive_some(max_bytes)
        self._sizes[-1] += len(piece)
        return piece

    async def finish(self):
        await self._stream.finish()
