"""Whatever goes wrong in the middle: nothing partial is listed or left, and a retry works."""

from __future__ import annotations

import fcntl
import os
import random

import pytest
import trio

from fsrep_btrfs.files import slug
from fsrep_core import (
    BusyError,
    ByteStream,
    ConnectivityError,
    FsrepError,
    InterruptedStreamError,
    OutOfSpaceError,
    ReceiveRequest,
    SendRequest,
    StorageError,
)

pytestmark = pytest.mark.btrfs

POSITIONS = 40
"""How many places of a stream are tried."""


class Tampered(ByteStream):
    """Wraps a stream; subclasses change what comes out."""

    def __init__(self, stream, position):
        self._stream = stream
        self._position = position
        self._passed = 0

    async def receive_some(self, max_bytes):
        piece = bytes(await self._stream.receive_some(max_bytes))
        start, self._passed = self._passed, self._passed + len(piece)
        return self._tamper(piece, self._position - start)

    async def finish(self):
        await self._stream.finish()


class Cut(Tampered):
    """Ends at a position as if that were the end."""

    def _tamper(self, piece, offset):
        return piece if offset >= len(piece) else piece[: max(offset, 0)]

    async def finish(self):
        """Vouch for it, as a broken transport would."""


class CutAndKnown(Cut):
    """Ends at a position and knows that this is not the end."""

    async def finish(self):
        raise InterruptedStreamError("the stream was cut")


class Lost(Tampered):
    """Fails at a position, as a connection does."""

    def _tamper(self, piece, offset):
        if offset < len(piece):
            raise ConnectivityError("the connection is lost")
        return piece


class Corrupted(Tampered):
    """Has one wrong bit."""

    def _tamper(self, piece, offset):
        if not 0 <= offset < len(piece):
            return piece
        return piece[:offset] + bytes([piece[offset] ^ 1]) + piece[offset + 1 :]


class Stalled(Tampered):
    """Stops at a position and says so."""

    def __init__(self, stream, position, reached):
        super().__init__(stream, position)
        self._reached = reached

    async def receive_some(self, max_bytes):
        if self._passed >= self._position:
            self._reached.set()
            await trio.sleep_forever()
        return await super().receive_some(min(max_bytes, 1000))

    def _tamper(self, piece, _offset):
        return piece


@pytest.fixture
async def steps(sites):
    """Make a full and an incremental step; give each with the size of its stream."""
    a = sites[0]
    docs = a.subvolume("docs")
    for number in range(20):
        (docs / f"file{number}").write_bytes(os.urandom(3000))
    first = await a.snapshot("1")
    for number in range(10):
        (docs / f"file{number}").write_bytes(os.urandom(2000))
    second = await a.snapshot("2")
    return [
        (to_version, base, await size_of(a, to_version, base))
        for to_version, base in ((first, None), (second, first))
    ]


async def size_of(site, to_version, base):
    size_bytes = 0
    request = SendRequest(job="j", filesystem="docs", to_version=to_version, from_version=base)
    async with site.storage.send(request) as response:
        while piece := await response.stream.receive_some(1 << 16):
            size_bytes += len(piece)
        await response.stream.finish()
    return size_bytes


@pytest.mark.parametrize("tamper", [Cut, CutAndKnown, Lost, Corrupted])
async def test_a_damaged_stream_leaves_nothing_and_a_retry_works(sites, steps, tools, tamper):
    """At seeded positions of the stream, the first and the last byte among them."""
    a, b, _ = sites
    seed = random.Random(tamper.__name__)
    for to_version, base, size_bytes in steps:
        before = await b.versions()
        positions = [0, size_bytes - 1, *(seed.randrange(size_bytes) for _ in range(POSITIONS))]
        for position in positions:
            with pytest.raises(FsrepError) as caught:
                await tools.replicate(
                    a, b, to_version, base, change=lambda stream, at=position: tamper(stream, at)
                )
            where = f"position {position} of {size_bytes}: {caught.value}"
            assert caught.value.temporary or isinstance(caught.value, StorageError), where
            assert b.left_behind() == [], where
            b.reopen()
            assert await b.versions() == before, where
        await tools.replicate(a, b, to_version, base)
        assert tools.same_content(a.place(to_version.name), b.place(to_version.name)) == []
    assert len(tools.subvolumes_below(b.root)) == 2


async def test_a_sender_without_room_to_receive(sites, steps, tools, pools):
    """The receiver says that it is full, and has as much room as before."""
    a, b, _ = sites
    docs = a.root / "docs"
    (docs / "large").write_bytes(os.urandom(64 << 20))
    large = await a.snapshot("3")
    first, _, _ = steps[0]
    await tools.replicate(a, b, first)
    fill(pools[1], leave_bytes=40 << 20)
    try:
        with pytest.raises(OutOfSpaceError) as caught:
            await tools.replicate(a, b, large, first)
        assert caught.value.temporary
        assert b.left_behind() == []
        assert await b.versions() == {"1": first.guid}
    finally:
        (pools[1] / "ballast").unlink()
        tools.btrfs("filesystem", "sync", pools[1])
    await tools.replicate(a, b, large, first)

    assert tools.same_content(a.place("3"), b.place("3")) == []


async def test_a_cancelled_receive_leaves_nothing(sites, steps, tools):
    """Before, at the first, and in the middle of the bytes; in bounded time."""
    a, b, _ = sites
    for to_version, base, size_bytes in steps:
        for position in (0, 1, size_bytes // 2, size_bytes - 1):
            reached = trio.Event()

            async def receive(to_version=to_version, base=base, position=position, reached=reached):
                await tools.replicate(
                    a,
                    b,
                    to_version,
                    base,
                    change=lambda stream: Stalled(stream, position, reached),
                )

            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive)
                    await reached.wait()
                    nursery.cancel_scope.cancel()
            assert b.left_behind() == []
        await tools.replicate(a, b, to_version, base)

    assert len(await b.versions()) == 2


async def test_one_receive_at_a_time(sites, steps, tools):
    """The second is told that the first is at work, and disturbs nothing."""
    a, b, _ = sites
    first, _, size_bytes = steps[0]
    reached = trio.Event()
    request = ReceiveRequest(job="job", filesystem="docs", to_version=first)
    other = tools.Site(b.root)

    async def receive():
        await tools.replicate(
            a, b, first, change=lambda stream: Stalled(stream, size_bytes // 2, reached)
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await reached.wait()
        for site in (b, other):
            with pytest.raises(BusyError, match="locked"):
                await site.storage.receive(request, Cut(None, 0))
        assert await other.versions() == {}
        assert b.left_behind() != []
        nursery.cancel_scope.cancel()

    assert b.left_behind() == []


async def test_the_engine_of_a_killed_run_keeps_the_lock(sites, steps, tools):
    """As long as its ``btrfs receive`` lives, nobody deletes what that writes."""
    a, b, _ = sites
    first, _, _ = steps[0]
    staging = b.root / "snapshots" / ".fsrep" / "staging" / slug("docs")
    (staging / "@1").mkdir(parents=True)
    tools.btrfs("subvolume", "create", staging / "@1" / "partial")
    descriptor = os.open(staging, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    # The run is dead; its child still has the descriptor.
    child_has_it = await trio.lowlevel.open_process(["sleep", "60"], pass_fds=(descriptor,))
    os.close(descriptor)

    with pytest.raises(BusyError):
        await tools.replicate(a, b, first)
    assert (staging / "@1" / "partial").exists()
    child_has_it.kill()
    await child_has_it.wait()
    await tools.replicate(a, b, first)

    assert b.left_behind() == []
    assert await b.versions() == {"1": first.guid}


async def test_what_a_killed_run_left_is_swept_with_the_next_receive(sites, steps, tools):
    """Also that of a filesystem that is never received again."""
    a, b, _ = sites
    first, _, _ = steps[0]
    staging = b.root / "snapshots" / ".fsrep" / "staging" / slug("other")
    (staging / "@1").mkdir(parents=True)
    tools.btrfs("subvolume", "create", staging / "@1" / "partial")
    (staging / "@2").mkdir()

    assert await b.versions() == {}
    await tools.replicate(a, b, first)

    assert b.left_behind() == []


async def test_an_unproven_copy_of_the_base_elsewhere_is_never_built_upon(sites, steps, tools):
    """``btrfs receive`` would take the oldest of the identity, wherever it lies."""
    a, b, _ = sites
    (first, _, _), (second, base, _) = steps
    elsewhere = b.root / "another-root" / ".fsrep" / "staging" / "docs" / "@1"
    elsewhere.mkdir(parents=True)
    tools.send_and_receive(a.place("1"), elsewhere)
    await tools.replicate(a, b, first)
    b.reopen()

    with pytest.raises(BusyError, match="not known to be whole") as caught:
        await tools.replicate(a, b, second, base)
    assert "another-root" in caught.value.message
    assert b.left_behind() == []
    tools.btrfs("subvolume", "delete", elsewhere / "snapshot")
    await tools.replicate(a, b, second, base)

    assert tools.same_content(a.place("2"), b.place("2")) == []


async def test_another_snapshot_under_the_name_is_not_committed(sites, steps, tools):
    """The snapshot was replaced between plan and send: what arrives is not what was promised."""
    a, b, _ = sites
    first, _, _ = steps[0]
    await a.versions()  # remembers the path
    tools.btrfs("subvolume", "delete", a.place("1"))
    tools.btrfs("subvolume", "snapshot", "-r", a.root / "docs", a.place("1"))

    with pytest.raises(FsrepError, match="arrived instead of") as caught:
        await tools.replicate(a, b, first)

    assert caught.value.kind == "version-missing"
    assert b.left_behind() == []
    assert await b.versions() == {}


def fill(directory, leave_bytes):
    """Write until about so much room is left."""
    status = os.statvfs(directory)
    free_bytes = status.f_bavail * status.f_frsize
    with (directory / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free_bytes - leave_bytes))
        os.fsync(file.fileno())
