"""Moves the bytes of a stream into a descriptor, in the kernel where that is possible.

``splice(2)`` moves pages from pipe to pipe, or between a pipe and a socket or file,
without a copy through this process. Where it cannot (neither end is a pipe, or the
stream has no descriptor) bytes go through one buffer that is used again and again.

The pump tries first and waits only when the kernel says that it must: between two busy
processes most tries succeed, and a wait costs more than a try. So that other tasks get
their turn while nothing makes it wait, it lets them run after every
:data:`TURN_SECONDS` of uninterrupted moving.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["PIECE_BYTES", "pump"]

PIECE_BYTES = 1 << 20
"""The most that is moved at once: the largest pipe that an unprivileged process has."""

TURN_SECONDS = 0.002
"""How long the pump may keep the thread without letting other tasks run."""


async def pump(stream: ByteStream, descriptor: int) -> int:
    """Move all bytes of ``stream`` into ``descriptor``, then ``await stream.finish()``.

    Cancelling it leaves both ends open; bytes that were taken may not have been told of
    through :meth:`~fsrep_core.ByteStream.moved`.

    :param descriptor: non-blocking and writable; stays open, its owner closes it
    :returns: how many bytes were moved
    :raises BrokenPipeError: nobody reads the descriptor any more; its owner knows why
    :raises FsrepError: from the stream
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    limit = stream.piece_limit_bytes or PIECE_BYTES
    piece_bytes = min(limit, PIECE_BYTES)
    moved_bytes, at_end = 0, False
    if stream.descriptor is not None:
        moved_bytes, at_end = await _splice(stream, stream.descriptor, descriptor, piece_bytes)
    if not at_end:
        moved_bytes += await _copy(stream, descriptor, piece_bytes)
    await stream.finish()
    return moved_bytes


async def _splice(
    stream: ByteStream, source: int, target: int, piece_bytes: int
) -> tuple[int, bool]:
    """Move in the kernel; give the bytes moved and whether that was all of them.

    Not all: the kernel will not splice these two (any more); what remains is in the stream.
    """
    ready = select.poll()
    ready.register(source, select.POLLIN)
    ready.register(target, select.POLLOUT)
    moved_bytes = 0
    turn_ends = trio.current_time() + TURN_SECONDS
    while True:
        try:
            count_bytes = os.splice(source, target, piece_bytes, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            await _wait(ready, source, target)
            turn_ends = trio.current_time() + TURN_SECONDS
            continue
        except OSError as error:
            # EPIPE comes even if nothing is left to write; the copy tells that apart.
            if error.errno in (errno.EINVAL, errno.EPIPE):
                return moved_bytes, False
            raise
        if count_bytes == 0:
            return moved_bytes, True
        moved_bytes += count_bytes
        await stream.moved(count_bytes)
        if trio.current_time() >= turn_ends:
            await trio.lowlevel.checkpoint()
            turn_ends = trio.current_time() + TURN_SECONDS


async def _wait(ready: select.poll, source: int, target: int) -> None:
    """Wait for the side that the kernel would have had to wait for."""
    ready_now = {descriptor for descriptor, _ in ready.poll(0)}
    if source not in ready_now:
        await trio.lowlevel.wait_readable(source)
    elif target not in ready_now:
        await trio.lowlevel.wait_writable(target)
    else:
        # Both became ready since the try.
        await trio.lowlevel.checkpoint()


async def _copy(stream: ByteStream, target: int, piece_bytes: int) -> int:
    """Move through a buffer, the stream's own; give the bytes moved."""
    moved_bytes = 0
    turn_ends = trio.current_time() + TURN_SECONDS
    while piece := await stream.receive_some(piece_bytes):
        with memoryview(piece) as view:
            written_bytes = 0
            while written_bytes < len(view):
                try:
                    written_bytes += os.write(target, view[written_bytes:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(target)
                    turn_ends = trio.current_time() + TURN_SECONDS
            moved_bytes += written_bytes
        if trio.current_time() >= turn_ends:
            await trio.lowlevel.checkpoint()
            turn_ends = trio.current_time() + TURN_SECONDS
    return moved_bytes
