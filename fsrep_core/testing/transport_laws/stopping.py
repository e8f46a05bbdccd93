"""Laws of slowing down, leaving, cancelling and failing: both ends stop, and soon."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.probe import Behaviour, ProbeStream
from fsrep_core.testing.tampering import HookedStream
from fsrep_core.testing.transport_trial import (
    BUFFER_LIMIT_BYTES,
    CallerError,
    TransportTrial,
    endless,
)

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["LAWS"]

LAWS: LawBook[TransportTrial] = LawBook()

_SIZE_BYTES = 1_000_000
_PLACES = (0, 1, _SIZE_BYTES // 2, _SIZE_BYTES)


@LAWS.law()
async def a_sender_that_is_not_read_waits(trial: TransportTrial) -> None:
    """While nobody reads, the far end's stream is read ahead by a bounded amount only."""

    async def produced() -> int:
        return (await trial.state()).produced_bytes

    async with trial.bounded("not reading"), trial.stream(size_bytes=1 << 50) as stream:
        await stream.receive_some(1)
        ahead_bytes = await trial.settled(produced)

    trial.require(ahead_bytes <= BUFFER_LIMIT_BYTES, f"{ahead_bytes} bytes were read ahead")
    await trial.require_idle("after the stream was left")


@LAWS.law()
async def a_receiver_that_does_not_read_slows_the_stream(trial: TransportTrial) -> None:
    """While the storage does not read, the near end's stream is read ahead only so far."""
    stream = endless()

    async def taken() -> int:
        return stream.passed_bytes

    async with trial.bounded("a receiver that does not read"), trio.open_nursery() as nursery:
        nursery.start_soon(partial(trial.receive, stream, size_bytes=1, then="stall"))
        ahead_bytes = await trial.settled(taken)
        nursery.cancel_scope.cancel()

    trial.require(ahead_bytes <= BUFFER_LIMIT_BYTES, f"{ahead_bytes} bytes were read ahead")
    await trial.require_idle("after the receive was cancelled")


@LAWS.law()
async def a_receiver_that_fails_stops_the_stream(trial: TransportTrial) -> None:
    """A receive that fails early is an error at once, typed, however much is still to come."""
    for size_bytes in (1, 100_000):
        behaviour = Behaviour(
            size_bytes=size_bytes, then="raise", kind="out-of-space", temporary=True
        )
        what = f"a receive that fails after {size_bytes} bytes"
        stream = endless()
        error = await trial.expect_error(
            what,
            partial(
                trial.receive,
                stream,
                size_bytes=size_bytes,
                then="raise",
                kind="out-of-space",
                temporary=True,
            ),
        )
        trial.require_error(what, error, behaviour)
        trial.require(
            stream.passed_bytes <= BUFFER_LIMIT_BYTES,
            f"{what}: {stream.passed_bytes} bytes were read before it ended",
        )
    await trial.require_idle("after receives that failed")


@LAWS.law()
async def a_sent_stream_can_be_left_at_any_point(trial: TransportTrial) -> None:
    """Leaving a stream takes bounded time wherever it stands, and ends the far end's too."""
    for read_bytes in _PLACES:
        what = f"leaving a stream after {read_bytes} of {_SIZE_BYTES} bytes"
        async with trial.bounded(what), trial.stream(size_bytes=_SIZE_BYTES) as stream:
            await _read(stream, read_bytes)
        await trial.require_idle(f"after {what}")


@LAWS.law()
async def a_cancelled_send_ends_at_both_ends(trial: TransportTrial) -> None:
    """Cancelled before, at the first, in the middle of and after the last byte, a send is over."""
    async with trial.bounded("cancelling a send that begins"):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trial.stream(size_bytes=_SIZE_BYTES):
                pass
    for read_bytes in _PLACES:
        what = f"cancelling a send after {read_bytes} of {_SIZE_BYTES} bytes"
        async with trial.bounded(what):
            with trio.CancelScope() as scope:
                await _read_then_cancel(trial, read_bytes, scope)
        await trial.require_idle(f"after {what}")


@LAWS.law()
async def a_stalled_send_can_be_cancelled(trial: TransportTrial) -> None:
    """A reader that waits for bytes which do not come can be cancelled."""
    async with trial.bounded("cancelling a read that waits"):
        with trio.move_on_after(0.05):
            async with trial.stream(size_bytes=10, then="stall") as stream:
                await trial.read(stream)
                raise trial.broken("a stalled stream ended")
    await trial.require_idle("after a stalled stream was left")


@LAWS.law()
async def a_cancelled_receive_ends_at_both_ends(trial: TransportTrial) -> None:
    """Cancelled at any byte, or while its stream vouches, a receive is over and not committed."""
    commits = (await trial.require_idle("before")).commits
    for at_byte in (*_PLACES, None):
        what = f"cancelling a receive at byte {at_byte} of {_SIZE_BYTES}"
        async with trial.bounded(what):
            with trio.CancelScope() as scope:

                async def cancel(scope: trio.CancelScope = scope) -> None:
                    scope.cancel()
                    await trio.sleep_forever()

                inner = ProbeStream(Behaviour(size_bytes=_SIZE_BYTES))
                await trial.receive(HookedStream(inner, at_byte, cancel), size_bytes=-1)
        state = await trial.require_idle(f"after {what}")
        trial.require(state.commits == commits, f"{what}: it was committed")


@LAWS.law()
async def a_receive_that_commits_can_be_cancelled(trial: TransportTrial) -> None:
    """While the storage is busy with what it got, a receive can be cancelled."""
    async with trial.bounded("cancelling a receive that waits for its answer"):
        with trio.move_on_after(0.05):
            await trial.receive(ProbeStream(Behaviour(size_bytes=10)), size_bytes=10, then="stall")
            raise trial.broken("a stalled receive was answered")
    await trial.require_idle("after a stalled receive was cancelled")


@LAWS.law()
async def an_error_of_the_caller_passes_through(trial: TransportTrial) -> None:
    """What the body of a send raises comes out of it as it is, not wrapped."""
    for read_bytes in _PLACES:
        found: BaseException | None = None
        async with trial.bounded("leaving a send by an error"):
            try:
                await _read_then_raise(trial, read_bytes)
            except BaseException as error:  # noqa: BLE001  (whatever came out is looked at)
                found = error
        trial.require(type(found) is CallerError, f"it came out as {found!r}")
    await trial.require_idle("after sends were left by an error")


async def _read_then_raise(trial: TransportTrial, read_bytes: int) -> None:
    async with trial.stream(size_bytes=_SIZE_BYTES) as stream:
        await _read(stream, read_bytes)
        raise CallerError


async def _read_then_cancel(
    trial: TransportTrial, read_bytes: int, scope: trio.CancelScope
) -> None:
    async with trial.stream(size_bytes=_SIZE_BYTES) as stream:
        await _read(stream, read_bytes)
        scope.cancel()
        await trio.sleep_forever()


async def _read(stream: ByteStream, size_bytes: int) -> None:
    while size_bytes > 0:
        size_bytes -= len(await stream.receive_some(min(size_bytes, 1 << 16)))
