"""Moves the bytes of a stream into a descriptor, in the kernel where that is possible.

``splice(2)`` moves pages from pipe to pipe, or between a pipe and a socket or file,
without a copy through this process. A stream without a descriptor may know a way of its
own into ours. Otherwise bytes go through one buffer that is used again and again.

While bytes flow, the splicing loop borrows a thread, a turn at a time: a round through
trio's loop for each piece would cost the processes at both ends a third of their speed
where they compete for processors, and streams that run side by side would take turns on
one. A stream that stands still has no thread; it is waited for as everything else is.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["PIECE_BYTES", "pump"]

PIECE_BYTES = 1 << 20
"""The most that is moved at once: the largest pipe that an unprivileged process has."""

TURN_SECONDS = 0.02
"""How long a turn in a thread lasts, and so how long cancelling may take."""

COPY_TURN_SECONDS = 0.002
"""How long the copy may keep trio's thread without letting other tasks run."""


async def pump(stream: ByteStream, descriptor: int) -> int:
    """Move all bytes of ``stream`` into ``descriptor``, then ``await stream.finish()``.

    Cancelling it leaves both ends open; bytes that were taken may not have been told of
    through :meth:`~fsrep_core.ByteStream.moved`.

    :param descriptor: non-blocking and writable; stays open, its owner closes it
    :returns: how many bytes were moved
    :raises BrokenPipeError: nobody reads the descriptor any more; its owner knows why
    :raises FsrepError: from the stream
    """
    moved_bytes, at_end = 0, False
    if stream.descriptor is not None:
        moved_bytes, at_end = await _splice(stream, stream.descriptor, descriptor)
    if not at_end:
        moved_bytes += await _carry(stream, descriptor)
    await stream.finish()
    return moved_bytes


class _Turn(enum.Enum):
    """Why a turn ended."""

    OVER = enum.auto()
    BLOCKED = enum.auto()
    AT_END = enum.auto()
    REFUSED = enum.auto()
    """The kernel will not splice these two, or not any more."""


async def _splice(stream: ByteStream, source: int, target: int) -> tuple[int, bool]:
    """Move in the kernel; give the bytes moved and whether that was all of them.

    If not, the kernel will not splice these two, and what remains is in the stream.
    """
    limit = stream.piece_limit_bytes
    piece_bytes, seconds = (PIECE_BYTES, TURN_SECONDS) if limit is None else (limit, 0)
    # Of its own, so that it never waits for a thread that waits for these bytes.
    limiter = trio.CapacityLimiter(1)
    total_bytes = 0
    while True:
        moved_bytes, turn = await trio.to_thread.run_sync(
            _take_turn, source, target, piece_bytes, seconds, limiter=limiter
        )
        if moved_bytes:
            total_bytes += moved_bytes
            await stream.moved(moved_bytes)
        if turn in (_Turn.AT_END, _Turn.REFUSED):
            return total_bytes, turn is _Turn.AT_END
        if turn is _Turn.BLOCKED:
            await _wait(source, target)


def _take_turn(source: int, target: int, piece_bytes: int, seconds: float) -> tuple[int, _Turn]:
    """Splice for some seconds, at least one piece; give the bytes moved. Runs in a thread.

    Seconds are real ones, whatever trio's clock is: they bound how long a call blocks.
    """
    ends = time.monotonic() + seconds
    moved_bytes = 0
    while True:
        try:
            count_bytes = os.splice(source, target, piece_bytes, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            if not _unblocks(source, target, ends - time.monotonic()):
                return moved_bytes, _Turn.BLOCKED
        except OSError as error:
            # EPIPE comes even if nothing is left to write; the copy tells that apart.
            if error.errno in (errno.EINVAL, errno.EPIPE):
                return moved_bytes, _Turn.REFUSED
            raise
        else:
            if count_bytes == 0:
                return moved_bytes, _Turn.AT_END
            moved_bytes += count_bytes
            if time.monotonic() >= ends:
                return moved_bytes, _Turn.OVER


async def _wait(source: int, target: int) -> None:
    """Wait for the side that the kernel would have had to wait for.

    By now neither may be; the next turn will tell.
    """
    if not _is_ready(source, select.POLLIN):
        await trio.lowlevel.wait_readable(source)
    elif not _is_ready(target, select.POLLOUT):
        await trio.lowlevel.wait_writable(target)


def _unblocks(source: int, target: int, patience_seconds: float) -> bool:
    """Whether the side that the kernel would have had to wait for gets ready in time."""
    if patience_seconds <= 0:
        return False
    if _is_ready(source, select.POLLIN):
        return _is_ready(target, select.POLLOUT, patience_seconds)
    return _is_ready(source, select.POLLIN, patience_seconds)


def _is_ready(descriptor: int, event: int, patience_seconds: float = 0) -> bool:
    """Whether a descriptor is ready, or becomes so, or is broken, which the next try tells."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(patience_seconds * 1000))


async def _carry(stream: ByteStream, target: int) -> int:
    """Move by the stream's own means, or through its buffer; give the bytes moved."""
    moved_bytes = 0
    turn_ends = trio.current_time() + COPY_TURN_SECONDS
    while True:
        count_bytes = await stream.move_into(target, stream.piece_limit_bytes)
        if count_bytes is None:
            count_bytes = await _copy_piece(stream, target)
        if not count_bytes:
            return moved_bytes
        moved_bytes += count_bytes
        if trio.current_time() >= turn_ends:
            await trio.lowlevel.checkpoint()
            turn_ends = trio.current_time() + COPY_TURN_SECONDS


async def _copy_piece(stream: ByteStream, target: int) -> int:
    """Move what the stream gives next; ``0`` = it is at its end."""
    piece = await stream.receive_some(min(stream.piece_limit_bytes or PIECE_BYTES, PIECE_BYTES))
    with memoryview(piece) as view:
        written_bytes = 0
        while written_bytes < len(view):
            try:
                written_bytes += os.write(target, view[written_bytes:])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(target)
    return written_bytes
