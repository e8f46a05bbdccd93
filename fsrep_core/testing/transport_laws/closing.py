"""Laws of what ends twice, or after a failure: streams, sends, and whole endpoints.

The end of one thing is the end of nothing else, is as quiet the second time as the first,
and lets the error pass by which it was left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from fsrep_core.errors import FsrepError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.transport_trial import CallerError, TransportTrial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["LAWS"]

LAWS: LawBook[TransportTrial] = LawBook()

_SIZE_BYTES = 1_000_000


@LAWS.law()
async def a_stream_that_has_ended_stays_ended(trial: TransportTrial) -> None:
    """After its end a stream gives the end again; after an error it never vouches."""
    for size_bytes in (0, 1, _SIZE_BYTES):
        async with (
            trial.bounded(f"reading on after {size_bytes} bytes, the end"),
            trial.stream(size_bytes=size_bytes) as stream,
        ):
            await trial.read(stream)
            for _ in range(2):
                trial.require(not await stream.receive_some(1), "bytes came after the end")
                await stream.finish()
    for then in ("raise", "refuse", "cut"):

        async def ask_again(then: str = then) -> None:
            async with trial.stream(size_bytes=1, then=then) as stream:
                with suppress(FsrepError):
                    await trial.read(stream)
                    await stream.finish()
                await stream.finish()

        await trial.expect_error(f"a stream that failed ({then}) and is asked again", ask_again)


@LAWS.law()
async def a_send_that_has_failed_is_left_quietly(trial: TransportTrial) -> None:
    """Whoever has heard the error of a stream leaves its send without another one."""
    for then in ("raise", "refuse", "cut"):
        for size_bytes in (1, _SIZE_BYTES):
            what = f"leaving a send that failed after {size_bytes} bytes ({then})"
            async with (
                trial.bounded(what),
                trial.stream(size_bytes=size_bytes, then=then) as stream,
            ):
                with suppress(FsrepError):
                    await trial.read(stream)
                    await stream.finish()
            await trial.require_idle(f"after {what}")


@LAWS.law()
async def an_error_leaves_an_endpoint_as_it_is(trial: TransportTrial) -> None:
    """What the body of an endpoint raises comes out of it as it is, whatever it was used for."""
    for use, body in _USES.items():
        what = f"leaving an endpoint by an error, {use}"
        found: BaseException | None = None
        async with trial.bounded(what):
            try:
                async with trial.another() as other:
                    await body(other, _raise)
            except BaseException as error:  # noqa: BLE001  (whatever came out is looked at)
                found = error
        trial.require(type(found) is CallerError, f"{what}: it came out as {found!r}")
    await _require_idle(trial, "after endpoints were left by an error")


@LAWS.law()
async def a_cancelled_endpoint_is_left_soon(trial: TransportTrial) -> None:
    """Cancelled, an endpoint is left in bounded time, whatever it was used for."""
    for use, body in _USES.items():
        async with trial.bounded(f"leaving an endpoint that is cancelled, {use}"):
            with trio.CancelScope() as scope:

                async def cancel(scope: trio.CancelScope = scope) -> None:
                    scope.cancel()
                    await trio.sleep_forever()

                async with trial.another() as other:
                    await body(other, cancel)
    await _require_idle(trial, "after endpoints were cancelled")


@LAWS.law()
async def an_endpoint_outlives_another(trial: TransportTrial) -> None:
    """An endpoint that is closed, used or not, closes nothing of one that was opened before."""
    async with (
        trial.bounded("opening and closing other endpoints in the middle of a stream"),
        trial.stream(size_bytes=_SIZE_BYTES, seed=3) as stream,
    ):
        async with trial.another():
            pass
        async with trial.another() as other, other.stream(size_bytes=1) as short:
            await other.read(short)
            await short.finish()
        found = await trial.read(stream)
        await stream.finish()
    trial.require_exact(found, 3, _SIZE_BYTES)
    await trial.require_idle("after other endpoints were closed")


async def _require_idle(trial: TransportTrial, when: str) -> None:
    """Ask by an endpoint that was opened after all others were closed."""
    async with trial.another() as latest:
        await latest.require_idle(when)


async def _raise() -> None:
    raise CallerError


async def _unused(_: TransportTrial, leave: Callable[[], Awaitable[None]]) -> None:
    await leave()


async def _after_a_call(other: TransportTrial, leave: Callable[[], Awaitable[None]]) -> None:
    await other.state()
    await leave()


async def _in_a_stream(other: TransportTrial, leave: Callable[[], Awaitable[None]]) -> None:
    async with other.stream(size_bytes=_SIZE_BYTES) as stream:
        await stream.receive_some(1)
        await leave()


_USES: Mapping[str, Callable[[TransportTrial, Callable[[], Awaitable[None]]], Awaitable[None]]] = {
    "unused": _unused,
    "after a call": _after_a_call,
    "in the middle of a stream": _in_a_stream,
}
"""What an endpoint may have been used for when it is left."""
