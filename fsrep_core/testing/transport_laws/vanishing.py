"""Laws of a far end that vanishes: whoever waits for it learns so, and reaches the next one.

They need a harness whose probe can vanish; see :class:`~fsrep_core.testing.ProbeStorage`.
A far end that is there and silent is no matter of these laws: how soon that is noticed is
a transport's own deadline.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from fsrep_core.errors import ConnectivityError, FsrepError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.probe import Behaviour, ProbeStream
from fsrep_core.testing.transport_trial import (
    BUFFER_LIMIT_BYTES,
    TransportTrial,
    endless,
    send_request,
)
from fsrep_core.values import InventoryRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LAWS"]

LAWS: LawBook[TransportTrial] = LawBook()

_SIZE_BYTES = 1_000_000
_PLACES = (0, 1, _SIZE_BYTES // 2, _SIZE_BYTES)


@LAWS.law(needs="vanish")
async def a_call_ends_when_its_far_end_vanishes(trial: TransportTrial) -> None:
    """A call whose far end is gone is a ConnectivityError at once, and worth trying again."""
    name = Behaviour(then="vanish").name
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "inventory": partial(trial.endpoint.inventory, InventoryRequest(job=name)),
        "size_estimate": partial(trial.endpoint.size_estimate, send_request(name)),
    }
    for hook, call in calls.items():
        what = f"{hook}, whose far end vanishes"
        _require_lost(trial, what, await trial.expect_error(what, call))
        await trial.reach_again(f"after {what}")


@LAWS.law(needs="vanish")
async def a_sent_stream_is_cut_when_its_far_end_vanishes(trial: TransportTrial) -> None:
    """At any byte, and after the last, a stream whose maker is gone is lost and never whole."""
    for size_bytes in _PLACES:

        async def read(size_bytes: int = size_bytes) -> None:
            async with trial.stream(size_bytes=size_bytes, then="vanish") as stream:
                await trial.read(stream)
                await stream.finish()

        what = f"reading a stream whose far end vanishes after {size_bytes} bytes"
        _require_lost(trial, what, await trial.expect_error(what, read))
        await trial.reach_again(f"after {what}")


@LAWS.law(needs="vanish")
async def a_receive_ends_when_its_far_end_vanishes(trial: TransportTrial) -> None:
    """A receive whose far end is gone, also while it commits, is lost, and reads no further."""
    for size_bytes in _PLACES:
        for stream in (endless(), ProbeStream(Behaviour(size_bytes=size_bytes))):
            what = (
                f"a receive whose far end vanishes after {size_bytes} bytes of a stream of "
                f"{stream.behaviour.size_bytes}"
            )
            error = await trial.expect_error(
                what, partial(trial.receive, stream, size_bytes=size_bytes, then="vanish")
            )
            _require_lost(trial, what, error)
            trial.require(
                stream.passed_bytes <= BUFFER_LIMIT_BYTES,
                f"{what}: {stream.passed_bytes} bytes were read before it ended",
            )
            await trial.reach_again(f"after {what}")


@LAWS.law(needs="vanish")
async def a_far_end_that_vanished_is_reached_again(trial: TransportTrial) -> None:
    """What was opened to a far end that is gone, and was idle, keeps nobody from the next one."""
    size_bytes = 1000

    async def use_two_at_once() -> None:
        async with trial.stream(size_bytes=size_bytes) as one, trial.stream() as other:
            for stream in (one, other):
                await trial.read(stream)
                await stream.finish()

    async with trial.bounded("two streams at once"):
        await use_two_at_once()
    async with trial.bounded("a stream whose far end vanishes"):
        with suppress(FsrepError):
            async with trial.stream(size_bytes=size_bytes, then="vanish") as stream:
                await trial.read(stream)
    await trial.reach_again("by a call")
    await trial.reach_again("by two streams at once", use_two_at_once)
    await trial.require_idle("after a far end vanished")


def _require_lost(trial: TransportTrial, what: str, error: FsrepError) -> None:
    """Break the law unless an error says that the way to the far end was cut."""
    trial.require(
        isinstance(error, ConnectivityError) and error.temporary and not error.local,
        f"{what}: a temporary ConnectivityError that concerns all filesystems was due, but "
        f"this came (temporary: {error.temporary}, local: {error.local}): {error!r}",
    )
