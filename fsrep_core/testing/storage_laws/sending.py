"""Laws of leaving a stream: whatever made it is gone when its context is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.leaks import find_leaks, open_resources
from fsrep_core.testing.tampering import drain
from fsrep_core.values import Side, Version

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream
    from fsrep_core.testing.storage_trial import StorageTrial

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law()
async def a_stream_can_be_left_at_any_point(trial: StorageTrial) -> None:
    """Leaving a stream unread, begun, or read to its end takes bounded time and leaves nothing."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)
    for read_bytes in (0, 1, size_bytes // 2, size_bytes):
        what = f"leaving a stream after {read_bytes} of {size_bytes} bytes"
        before = open_resources()
        async with trial.bounded(what), trial.stream(version) as stream:
            await _read(stream, read_bytes)
        leaks = await find_leaks(before)
        trial.require(not leaks, f"{what} left {', '.join(leaks)}")
    await trial.converge(version)


@LAWS.law()
async def a_cancelled_stream_leaves_nothing(trial: StorageTrial) -> None:
    """Cancellation ends a stream in bounded time at any point, and nothing of it stays."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)
    for read_bytes in (0, 1, size_bytes // 2, size_bytes):
        what = f"cancelling a stream after {read_bytes} of {size_bytes} bytes"
        before = open_resources()
        async with trial.bounded(what):
            with trio.CancelScope() as scope:
                await _read_then_cancel(trial, version, read_bytes, scope)
        leaks = await find_leaks(before)
        trial.require(not leaks, f"{what} left {', '.join(leaks)}")
    await trial.converge(version)


@LAWS.law()
async def opening_a_stream_can_be_cancelled(trial: StorageTrial) -> None:
    """A send that is cancelled before it gives its stream leaves nothing."""
    version = await trial.snapshot()
    before = open_resources()
    async with trial.bounded("cancelling a send that opens"):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trial.stream(version) as stream:
                await _read(stream, 1)
    leaks = await find_leaks(before)
    trial.require(not leaks, f"it left {', '.join(leaks)}")


@LAWS.law()
async def a_stream_vouches_as_often_as_asked(trial: StorageTrial) -> None:
    """After the last byte, finish returns, also when it is called again."""
    version = await trial.snapshot()
    async with trial.bounded("reading a stream"), trial.stream(version) as stream:
        await drain(stream)
        await stream.finish()


@LAWS.law()
async def a_version_can_be_sent_again(trial: StorageTrial) -> None:
    """The same request gives the same content again, after the receiver has lost it."""
    version = await trial.snapshot()
    await trial.replicate(version)
    listed = await trial.listed(Side.RECEIVER, version)
    if listed is None:
        raise trial.broken("the version was not received")
    await trial.destroy(Side.RECEIVER, listed)
    await trial.require_absent(version, "after it was destroyed")

    await trial.replicate(version)

    await trial.require_equal(version)


async def _read_then_cancel(
    trial: StorageTrial, version: Version, read_bytes: int, scope: trio.CancelScope
) -> None:
    async with trial.stream(version) as stream:
        await _read(stream, read_bytes)
        scope.cancel()
        await trio.sleep_forever()


async def _read(stream: ByteStream, size_bytes: int) -> None:
    while size_bytes > 0:
        piece = await stream.receive_some(min(size_bytes, 1 << 16))
        if not piece:
            return
        size_bytes -= len(piece)
