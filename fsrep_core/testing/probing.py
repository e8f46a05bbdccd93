"""The far end of a transport that is checked: a probe, served at a listener.

Both ends run in this process, so that what either of them leaves behind is found.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.reception import Admitted, Left, Limits, Reception
from fsrep_core.runtime.remote.server import Admission, Service
from fsrep_core.testing.probe import ProbeStorage
from fsrep_core.transports import EndpointContext, StorageChoice
from fsrep_core.values import Side

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core.testing.transport_trial import EndpointOpener
    from fsrep_core.transports import Caller, Listener, Transport

__all__ = ["reach_probe"]


@asynccontextmanager
async def reach_probe(transport: Transport, listener: Listener) -> AsyncIterator[EndpointOpener]:
    """Reach a :class:`ProbeStorage` by a transport, through its own listener.

    Gives what opens an endpoint, so it is what the maker of :func:`check_transport` needs
    where both ends of a transport are to be checked. Every identity is served. The probe
    can vanish: its connections end, and the listener goes on. What the listener's side says
    of connections that failed is added to an error of the body as notes.
    """
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        far_end = _FarEnd(nursery)
        try:
            await nursery.start(listener.serve, far_end.welcome)
            yield partial(transport.open_endpoint, _CONTEXT)
        except Exception as error:  # noqa: BLE001  (raised below, outside the nursery)
            failed = error
            for complaint in far_end.complaints:
                failed.add_note(complaint)
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed


@attrs.define(eq=False)
class _FarEnd:
    """A probe for each connection that a listener accepts; all of them vanish at once."""

    nursery: trio.Nursery
    complaints: list[str] = attrs.field(init=False, factory=list)
    """What went wrong with connections."""
    _lives: set[trio.CancelScope] = attrs.field(init=False, factory=set)

    def welcome(self, caller: Caller) -> None:
        self.nursery.start_soon(self._attend, caller)

    async def _attend(self, caller: Caller) -> None:
        async with trio.open_nursery() as life:
            self._lives.add(life.cancel_scope)
            Reception(
                life, self._admit, limits=Limits(), service=Service(), tell=self._listen
            ).welcome(caller)
        self._lives.discard(life.cancel_scope)

    def _admit(self, identity: str) -> Admission:
        probe = ProbeStorage(vanish=self._vanish)
        endpoint = Endpoint(probe, name="probe", call_timeout_seconds=math.inf)
        return Admission(endpoint=endpoint, policy=PeerPolicy(identity=identity))

    def _vanish(self) -> None:
        for life in self._lives:
            life.cancel()

    def _listen(self, visit: Admitted | Left) -> None:
        if isinstance(visit, Left) and visit.problem is not None:
            self.complaints.append(f"at the listener, {visit.address}: {visit.problem.message}")


_CONTEXT = EndpointContext(
    job="kit",
    side=Side.SENDER,
    storage=StorageChoice(name="probe", options={}, create=ProbeStorage),
)
