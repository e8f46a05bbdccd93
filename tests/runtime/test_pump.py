"""The pump: every byte, once, in order, by every way that the kernel offers."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os

import pytest
import trio

from fsrep_core import InterruptedStreamError, pump
from fsrep_core.runtime.pump import COPY_TURN_SECONDS, PIECE_BYTES

PAGE = 4096
SIZES = sorted(
    {0, 1, 3 * PIECE_BYTES + 17}
    | {size + off for size in (PAGE, 1 << 16, PIECE_BYTES) for off in (-1, 0, 1)}
)


async def write_all(end, data):
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            try:
                written += os.write(end.fileno(), view[written:])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(end.fileno())
    end.close()


async def read_all(end, into):
    while True:
        await trio.lowlevel.wait_readable(end.fileno())
        piece = os.read(end.fileno(), 1 << 16)
        if not piece:
            return
        into += piece


@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("kinds", [*itertools.product(["pipe", "socket"], repeat=2)], ids="-".join)
async def test_descriptor_to_descriptor_is_exact(
    kinds, size_bytes, make_ends, content, descriptor_stream
):
    """Spliced where one end is a pipe, copied where neither is; the same bytes each time."""
    source, source_writer = make_ends(kinds[0])
    target_reader, target = make_ends(kinds[1])
    stream = descriptor_stream(source.fileno())
    data, received = content(size_bytes), bytearray()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, source_writer, data)
            nursery.start_soon(read_all, target_reader, received)
            moved_bytes = await pump(stream, target.fileno())
            target.close()

    assert received == data
    assert moved_bytes == size_bytes
    assert stream.finished == 1
    if "pipe" in kinds:
        assert sum(stream.told) == size_bytes


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_stream_without_a_descriptor_is_exact(size_bytes, make_ends, content, list_stream):
    reader, target = make_ends("pipe")
    data, received = content(size_bytes), bytearray()
    stream = list_stream([piece for piece in (data[:PAGE], data[PAGE:]) if piece])

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, reader, received)
            moved_bytes = await pump(stream, target.fileno())
            target.close()

    assert received == data
    assert moved_bytes == size_bytes
    assert stream.finished == 1


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND])
async def test_into_a_file(flags, tmp_path, make_ends, content, descriptor_stream):
    """The kernel refuses to splice into a file opened to append; the bytes arrive still."""
    source, source_writer = make_ends("pipe")
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT | flags, 0o600)
    data = content(3 * PIECE_BYTES + 1)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, source_writer, data)
            await pump(descriptor_stream(source.fileno()), target)
    os.close(target)

    assert (tmp_path / "target").read_bytes() == data


async def test_from_a_file(tmp_path, make_ends, content, descriptor_stream):
    (tmp_path / "source").write_bytes(data := content(2 * PIECE_BYTES + 1))
    source = os.open(tmp_path / "source", os.O_RDONLY)
    reader, target = make_ends("pipe")
    received = bytearray()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, reader, received)
            await pump(descriptor_stream(source), target.fileno())
            target.close()
    os.close(source)

    assert received == data


@pytest.mark.parametrize("limit_bytes", [1, 100, PAGE + 1])
async def test_piece_limit_is_kept(limit_bytes, make_ends, content, descriptor_stream):
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    data, received = content(3 * PAGE), bytearray()
    await write_all(source_writer, data)
    stream = descriptor_stream(source.fileno(), piece_limit_bytes=limit_bytes)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all, reader, received)
            await pump(stream, target.fileno())
            target.close()

    assert received == data
    assert max(stream.told) <= limit_bytes


async def test_piece_limit_is_kept_by_the_copy(make_ends, list_stream):
    class Recording(list_stream):
        async def receive_some(self, max_bytes):
            asked.append(max_bytes)
            return await super().receive_some(max_bytes)

    asked = []
    reader, target = make_ends("pipe")
    await pump(Recording([bytes(PAGE)], piece_limit_bytes=100), target.fileno())

    assert set(asked) == {100}
    assert len(os.read(reader.fileno(), 2 * PAGE)) == PAGE


@pytest.mark.parametrize("way", ["splice", "copy"])
async def test_no_more_is_taken_than_the_target_holds(
    way, make_ends, content, descriptor_stream, list_stream
):
    """A reader that stands still stops the pump after one pipe full."""
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    room_bytes = 1 << 16
    data = content(4 * room_bytes)
    pieces = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    spliced = descriptor_stream(source.fileno())
    stream = spliced if way == "splice" else list_stream(pieces)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, source_writer, data)
            nursery.start_soon(pump, stream, target.fileno())
            while way == "splice" and not spliced.told:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            if way == "splice":
                assert sum(spliced.told) == room_bytes
            else:
                assert sum(map(len, pieces)) == len(data) - room_bytes - PAGE
            nursery.cancel_scope.cancel()

    assert os.read(reader.fileno(), 2 * room_bytes) == data[:room_bytes]


@pytest.mark.parametrize("way", ["splice", "copy"])
async def test_nobody_reads(way, make_ends, descriptor_stream, list_stream):
    """A broken target is told as such, and the stream is not asked to vouch."""
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    os.write(source_writer.fileno(), b"bytes")
    stream = descriptor_stream(source.fileno()) if way == "splice" else list_stream([b"bytes"])
    reader.close()

    with pytest.raises(BrokenPipeError):
        await pump(stream, target.fileno())
    assert stream.finished == 0


async def test_reader_leaves_while_the_target_is_full(make_ends, descriptor_stream):
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    with pytest.RaisesGroup(BrokenPipeError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, source_writer, bytes(1 << 18))
            nursery.start_soon(pump, descriptor_stream(source.fileno()), target.fileno())
            await trio.testing.wait_all_tasks_blocked()
            reader.close()


@pytest.mark.parametrize("way", ["splice", "copy"])
async def test_end_of_bytes_is_not_success(way, make_ends, descriptor_stream, list_stream):
    """What the maker says at the end is raised, after all bytes have been moved."""
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    os.write(source_writer.fileno(), b"bytes")
    source_writer.close()
    failure = InterruptedStreamError("cut")
    stream = (
        descriptor_stream(source.fileno(), failure=failure)
        if way == "splice"
        else list_stream([b"bytes"], failure=failure)
    )

    with pytest.raises(InterruptedStreamError, match="cut"):
        await pump(stream, target.fileno())
    assert os.read(reader.fileno(), 100) == b"bytes"


async def test_descriptor_that_does_not_exist_is_an_error(descriptor_stream, make_ends):
    _, target = make_ends("pipe")
    source, _ = make_ends("pipe")
    stream = descriptor_stream(source.fileno())
    source.close()

    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        await pump(stream, target.fileno())


async def test_others_run_while_the_kernel_moves(make_ends, descriptor_stream):
    """Nothing makes this pump wait for long, and still the other task runs, and ends it."""
    source, source_writer = make_ends("pipe")
    os.set_blocking(source_writer.fileno(), True)
    maker = await trio.lowlevel.open_process(["cat", "/dev/zero"], stdout=source_writer)
    target = os.open("/dev/null", os.O_WRONLY)
    stream = descriptor_stream(source.fileno())
    with trio.fail_after(30), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def take_turns():
                while len(stream.told) < 5:
                    await trio.lowlevel.checkpoint()
                for _ in range(1000):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(take_turns)
            await pump(stream, target)
    os.close(target)
    maker.kill()
    await maker.wait()

    assert scope.cancelled_caught


@pytest.mark.parametrize("limit_bytes", [None, PAGE])
@pytest.mark.parametrize("stalled", ["source", "target"])
async def test_stalled_stream_holds_no_thread(
    stalled, limit_bytes, make_ends, descriptor_stream, monkeypatch
):
    """It is waited for by trio, not in turns that never end."""
    source, source_writer = make_ends("pipe")
    _reader, target = make_ends("pipe")
    waits_for = {
        "source": ("wait_readable", source.fileno()),
        "target": ("wait_writable", target.fileno()),
    }[stalled]
    waiting = trio.Event()
    wait = getattr(trio.lowlevel, waits_for[0])

    async def noted_wait(descriptor):
        if descriptor == waits_for[1]:
            waiting.set()
        await wait(descriptor)

    monkeypatch.setattr(trio.lowlevel, waits_for[0], noted_wait)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            if stalled == "target":
                nursery.start_soon(write_all, source_writer, bytes(1 << 18))
            stream = descriptor_stream(source.fileno(), piece_limit_bytes=limit_bytes)
            nursery.start_soon(pump, stream, target.fileno())
            await waiting.wait()
            nursery.cancel_scope.cancel()


async def test_others_get_their_turn_while_the_copy_moves(mock_clock, list_stream):
    """Nothing ever makes this pump wait, and still the other task runs, and ends it."""

    class Endless(list_stream):
        async def receive_some(self, _max_bytes):
            mock_clock.jump(COPY_TURN_SECONDS / 2)
            return b"x"

    target = os.open("/dev/null", os.O_WRONLY)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def take_turns():
                for _ in range(100):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(take_turns)
            await pump(Endless([]), target)
    os.close(target)

    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(100 * COPY_TURN_SECONDS, rel=0.1)


async def test_already_cancelled_moves_nothing(make_ends, descriptor_stream):
    source, source_writer = make_ends("pipe")
    _, target = make_ends("pipe")
    os.write(source_writer.fileno(), b"bytes")
    stream = descriptor_stream(source.fileno())
    with trio.CancelScope() as scope:
        scope.cancel()
        await pump(stream, target.fileno())

    assert scope.cancelled_caught
    assert stream.told == []
    assert os.read(source.fileno(), 100) == b"bytes"


async def test_cancelled_while_it_waits_for_bytes(make_ends, descriptor_stream):
    source, _writer = make_ends("pipe")
    _, target = make_ends("pipe")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, descriptor_stream(source.fileno()), target.fileno())
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert os.get_blocking(source.fileno()) is False  # both are open and usable
    os.write(target.fileno(), b"still open")


async def test_both_sides_ready_again_before_the_wait(
    tmp_path, make_ends, descriptor_stream, monkeypatch
):
    """The kernel said "try again", and by the time of asking neither side blocks.

    One side is a file, which cannot be waited for.
    """
    (tmp_path / "source").write_bytes(b"bytes")
    source = os.open(tmp_path / "source", os.O_RDONLY)
    reader, target = make_ends("pipe")
    splice, refusals = os.splice, [BlockingIOError(errno.EAGAIN, "scripted")]

    def refuse_once(*args, **options):
        if refusals:
            raise refusals.pop()
        return splice(*args, **options)

    monkeypatch.setattr(os, "splice", refuse_once)
    with trio.fail_after(30):
        assert await pump(descriptor_stream(source), target.fileno()) == 5
    os.close(source)

    assert os.read(reader.fileno(), 100) == b"bytes"


async def test_large_transfer_in_uneven_pieces_keeps_its_hash(make_ends, descriptor_stream):
    """64 MiB written and read in pieces that match no page, pipe or piece boundary."""
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    block = os.urandom(1 << 20)
    written, received = hashlib.sha256(), hashlib.sha256()

    async def write():
        for round_number in range(64):
            data = block[round_number:] + block[:round_number]
            written.update(data)
            for at in range(0, len(data), 99_991):
                with memoryview(data)[at : at + 99_991] as view:
                    done = 0
                    while done < len(view):
                        try:
                            done += os.write(source_writer.fileno(), view[done:])
                        except BlockingIOError:
                            await trio.lowlevel.wait_writable(source_writer.fileno())
        source_writer.close()

    async def read():
        while True:
            await trio.lowlevel.wait_readable(reader.fileno())
            piece = os.read(reader.fileno(), 77_773)
            if not piece:
                return
            received.update(piece)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)
            assert await pump(descriptor_stream(source.fileno()), target.fileno()) == 64 << 20
            target.close()

    assert received.hexdigest() == written.hexdigest()
