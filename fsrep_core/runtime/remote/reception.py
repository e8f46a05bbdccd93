"""Where connections arrive: who may come in, how many, and how long they may take to.

Until a caller has proved who it is and has greeted, it is nobody: such callers are limited
in number and in time. Where one too many comes, the one that has taken longest is dropped,
never the newcomer. So hundreds that are slow on purpose cost an honest client, which needs
some milliseconds, nothing.

Then the identity decides what it is served. Clients beyond the limit are told to come
again. What goes wrong with one connection is told to the log, and concerns no other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio
from attrs import validators

from fsrep_core.errors import BusyError, ConnectivityError, FsrepError, TimeoutExpiredError
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.values import Problem

if TYPE_CHECKING:
    from fsrep_core.transports import Caller
    from fsrep_core.wire import Hello

__all__ = ["Admitted", "Left", "Limits", "Reception"]


@attrs.frozen(kw_only=True)
class Limits:
    """How many connections there may be, and how long they may take to begin."""

    connections: int = attrs.field(default=256, validator=validators.gt(0))
    """Of clients that were let in."""
    handshakes: int = attrs.field(default=256, validator=validators.gt(0))
    """Of callers that have not yet proved who they are, or not yet greeted."""
    handshake_seconds: float = attrs.field(default=10.0, validator=validators.gt(0))
    """From a caller's arrival until it must have done both."""


@attrs.frozen(kw_only=True)
class Admitted:
    """A client was let in."""

    identity: str
    address: str | None
    """``None`` = not known."""


@attrs.frozen(kw_only=True)
class Left:
    """A connection has ended."""

    identity: str | None
    """``None`` = it was never proved."""
    address: str | None
    """``None`` = not known."""
    seconds: float
    problem: Problem | None = None
    """``None`` = the client said goodbye."""


Visit: TypeAlias = Admitted | Left


@attrs.define(eq=False)
class _Visitor:
    """One connection, from its arrival to its end."""

    address: str
    scope: trio.CancelScope
    arrived_at: float = attrs.field(init=False, factory=trio.current_time)
    identity: str | None = attrs.field(init=False, default=None)
    crowded_out: bool = attrs.field(init=False, default=False)


@attrs.define(eq=False)
class Reception:
    """Lets callers in, each in a task of its own.

    :param nursery: where the connections are served; cancelling it ends them at once
    :param admission_of: what the client of this name is served; a typed error refuses it
    :param tell: hears of every visit. Must not block
    """

    nursery: trio.Nursery
    admission_of: Callable[[str], Admission]
    limits: Limits = attrs.field(kw_only=True)
    service: Service = attrs.field(kw_only=True)
    tell: Callable[[Visit], None] = attrs.field(kw_only=True)
    _arriving: dict[_Visitor, None] = attrs.field(init=False, factory=dict)
    """Who is nobody yet; the first has taken longest."""
    _inside: set[_Visitor] = attrs.field(init=False, factory=set)

    def welcome(self, caller: Caller) -> None:
        """Take over somebody who has connected. Does not block."""
        visitor = _Visitor(
            caller.address,
            trio.CancelScope(deadline=trio.current_time() + self.limits.handshake_seconds),
        )
        self._arriving[visitor] = None
        if len(self._arriving) > self.limits.handshakes:
            longest = next(iter(self._arriving))
            del self._arriving[longest]
            longest.crowded_out = True
            longest.scope.cancel()
        self.nursery.start_soon(self._attend, caller, visitor)

    async def _attend(self, caller: Caller, visitor: _Visitor) -> None:
        problem: Problem | None = classify(ConnectivityError("the server stopped"))
        try:
            with visitor.scope:
                problem = await self._serve(caller, visitor)
            if visitor.scope.cancelled_caught:
                problem = classify(self._explain_late(visitor))
        finally:
            self._arriving.pop(visitor, None)
            self._inside.discard(visitor)
            seconds = trio.current_time() - visitor.arrived_at
            self.tell(
                Left(
                    identity=visitor.identity,
                    address=visitor.address,
                    seconds=seconds,
                    problem=problem,
                )
            )

    async def _serve(self, caller: Caller, visitor: _Visitor) -> Problem | None:
        try:
            identified = await caller.identify()
            visitor.identity = identified.identity
            await serve_connection(
                identified.stream,
                partial(self._admit, visitor),
                peer_name=f"{identified.identity} at {visitor.address}",
                service=self.service,
            )
        except Exception as error:  # noqa: BLE001  (no connection may end the others)
            return classify(error)
        return None

    def _admit(self, visitor: _Visitor, _hello: Hello) -> Admission:
        """Decide about a client that has greeted. One that is refused hears why."""
        assert visitor.identity is not None  # noqa: S101  (nobody greets before that)
        admission = self.admission_of(visitor.identity)
        if len(self._inside) >= self.limits.connections:
            raise BusyError(
                f"the server has as many connections as it may: {self.limits.connections}",
                local=False,
                hint="raise connections in [serve], or lower the concurrency of jobs",
            )
        self._arriving.pop(visitor, None)
        self._inside.add(visitor)
        visitor.scope.deadline = float("inf")
        self.tell(Admitted(identity=visitor.identity, address=visitor.address))
        return admission

    def _explain_late(self, visitor: _Visitor) -> FsrepError:
        if visitor.crowded_out:
            return TimeoutExpiredError(
                f"dropped before its greeting: {self.limits.handshakes} others came after it",
                hint="raise handshakes in [serve] if they were honest",
            )
        return TimeoutExpiredError(f"no greeting within {self.limits.handshake_seconds:g} seconds")
