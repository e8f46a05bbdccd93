"""What a law of transports has at hand: an endpoint whose far end is a probe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from fsrep_core.errors import ConnectivityError, FsrepError
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.testing.laws import Deviations, LawBroken, bounded
from fsrep_core.testing.probe import STATE, Behaviour, ProbeState, ProbeStream
from fsrep_core.values import (
    InventoryRequest,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    Version,
    VersionKind,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from fsrep_core.streams import ByteStream
    from fsrep_core.testing.laws import Law
    from fsrep_core.values import ReceiveResponse

__all__ = [
    "BUFFER_LIMIT_BYTES",
    "VERSION",
    "CallerError",
    "EndpointOpener",
    "TransportMaker",
    "TransportTrial",
]

EndpointOpener: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]
"""Opens an endpoint that reaches a :class:`~fsrep_core.testing.ProbeStorage`."""

TransportMaker: TypeAlias = Callable[[], AbstractAsyncContextManager[EndpointOpener]]
"""Gives a way to such endpoints for as long as its context."""

VERSION = Version(VersionKind.SNAPSHOT, "snäp", "guid-1", 5, 1.5e9)
BUFFER_LIMIT_BYTES = 32 << 20
"""The most that may be on the way: all buffers from one end to the other together."""

_POLL_SECONDS = 0.05
_STILL_POLLS = 5


class CallerError(Exception):
    """What the caller of an endpoint raises: nothing that a transport knows."""


@attrs.define(eq=False)
class TransportTrial:
    """An endpoint, and the usual ways to ask it."""

    law: str
    endpoint: Endpoint
    open_endpoint: EndpointOpener
    deviations: Deviations
    can_vanish: bool = False
    """Whether the far end can."""

    @classmethod
    async def begin(
        cls,
        law: Law[TransportTrial],
        plugin: object,
        open_endpoint: EndpointOpener,
        deviations: Deviations,
    ) -> TransportTrial:
        """Bind an endpoint, and learn what its far end can do where the law needs to know."""
        trial = cls(law.name, _bound(plugin), open_endpoint, deviations)
        if law.needs is not None:
            trial.can_vanish = (await trial.state()).can_vanish
        return trial

    def broken(self, message: str) -> LawBroken:
        """Make the error that says this law is broken."""
        return LawBroken(self.law, message)

    def require(self, condition: object, message: str) -> None:
        """Break the law unless the condition holds."""
        if not condition:
            raise self.broken(message)

    def bounded(self, what: str) -> AbstractAsyncContextManager[None]:
        """Break the law where the body takes longer than the deviations allow."""
        return bounded(self.law, what, self.deviations.time_limit_seconds)

    @asynccontextmanager
    async def another(self) -> AsyncIterator[TransportTrial]:
        """Open another endpoint beside this one, for the same law."""
        async with self.open_endpoint() as plugin:
            yield attrs.evolve(self, endpoint=_bound(plugin))

    @asynccontextmanager
    async def stream(self, **behaviour: int | str | bool) -> AsyncIterator[ByteStream]:
        """Open a stream of the far end that behaves like this."""
        async with self.endpoint.send(send_request(Behaviour(**behaviour).name)) as response:  # type: ignore[arg-type]
            if response.stream is None:
                raise self.broken("send gave no stream")
            yield response.stream

    async def receive(self, stream: ByteStream, **behaviour: int | str | bool) -> ReceiveResponse:
        """Have the far end receive a stream, and behave like this."""
        request = ReceiveRequest(
            job="kit",
            filesystem=Behaviour(**behaviour).name,  # type: ignore[arg-type]
            to_version=VERSION,
        )
        return await self.endpoint.receive(request, stream)

    async def state(self) -> ProbeState:
        """Ask what goes on at the far end."""
        inventory = await self.endpoint.inventory(InventoryRequest(job=STATE))
        return ProbeState.of(inventory.filesystems[0])

    async def require_idle(self, when: str) -> ProbeState:
        """Break the law unless the far end has nothing open, at once or soon."""
        async with self.bounded(f"waiting for the far end to be idle {when}"):
            while True:
                state = await self.state()
                if state.open_sends == state.open_receives == 0:
                    return state
                await trio.sleep(_POLL_SECONDS)
        raise AssertionError  # bounded() has raised

    async def reach_again(
        self, when: str, call: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Break the law unless a call gets through, at once or soon."""
        async with self.bounded(f"reaching the far end again {when}"):
            while True:
                try:
                    await (call or self.state)()
                except ConnectivityError:
                    await trio.sleep(_POLL_SECONDS)
                else:
                    return

    async def settled(self, measure: Callable[[], Awaitable[int]]) -> int:
        """Wait until a number does not change any more, and give it."""
        async with self.bounded("waiting until nothing moves"):
            still, last = 0, -1
            while still < _STILL_POLLS:
                await trio.sleep(_POLL_SECONDS)
                now = await measure()
                still = still + 1 if now == last else 0
                last = now
            return last
        raise AssertionError  # bounded() has raised

    async def read(self, stream: ByteStream, *, max_bytes: int = 1 << 16) -> tuple[int, str]:
        """Read all bytes of a stream; give their number and digest."""
        hasher = hashlib.sha256()
        size_bytes = 0
        while piece := await stream.receive_some(max_bytes):
            self.require(
                len(piece) <= max_bytes, f"{len(piece)} bytes came where {max_bytes} were asked for"
            )
            hasher.update(piece)
            size_bytes += len(piece)
        return size_bytes, hasher.hexdigest()

    def require_exact(self, found: tuple[int, str], seed: int, size_bytes: int) -> None:
        """Break the law unless what was read is so many bytes of a seed."""
        self.require(
            found[0] == size_bytes, f"{found[0]} bytes of a stream of {size_bytes} arrived"
        )
        self.require(
            found[1] == ProbeStream.digest(seed, size_bytes),
            f"other bytes than those of a stream of {size_bytes} arrived",
        )

    async def expect_error(self, what: str, call: Callable[[], Awaitable[object]]) -> FsrepError:
        """Break the law unless a call raises an error of ours, in bounded time."""
        try:
            async with self.bounded(what):
                await call()
        except FsrepError as error:
            return error
        raise self.broken(f"{what}: it succeeded")

    def require_error(self, what: str, error: FsrepError, behaviour: Behaviour) -> None:
        """Break the law unless an error is the one that a behaviour makes."""
        made = behaviour.error()
        wanted = [getattr(made, name) for name in _FACTS]
        found = [getattr(error, name) for name in _FACTS]
        self.require(
            type(error) is type(made) and found == wanted,
            f"{what}: {made!r} {wanted} arrived as {error!r} {found}",
        )


_FACTS = ("kind", "message", "temporary", "local", "hint")


def _bound(plugin: object) -> Endpoint:
    return Endpoint(plugin, name="endpoint of the kit")


def send_request(filesystem: str, *, token: ResumeToken | None = None) -> SendRequest:
    """Ask for the stream of this name."""
    return SendRequest(job="kit", filesystem=filesystem, to_version=VERSION, resume_token=token)


def endless() -> ProbeStream:
    """Make a stream that nobody reads to its end."""
    return ProbeStream(Behaviour(size_bytes=1 << 50))
