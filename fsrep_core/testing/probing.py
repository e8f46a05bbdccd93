"""The far end of a transport that is checked: a probe, served at a listener.

Both ends run in this process, so that what either of them leaves behind is found.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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

    from fsrep_core.transports import Listener, Transport

__all__ = ["reach_probe"]


@asynccontextmanager
async def reach_probe(transport: Transport, listener: Listener) -> AsyncIterator[object]:
    """Reach a :class:`ProbeStorage` by a transport, through its own listener.

    Gives an endpoint, so it is what the maker of :func:`check_transport` needs where both
    ends of a transport are to be checked. Every identity is served. What the listener's
    side says of connections that failed is added to an error of the body as notes.
    """
    complaints: list[str] = []

    def admit(identity: str) -> Admission:
        endpoint = Endpoint(ProbeStorage(), name="probe", call_timeout_seconds=math.inf)
        return Admission(endpoint=endpoint, policy=PeerPolicy(identity=identity))

    def listen(visit: Admitted | Left) -> None:
        if isinstance(visit, Left) and visit.problem is not None:
            complaints.append(f"at the listener, {visit.address}: {visit.problem.message}")

    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        reception = Reception(nursery, admit, limits=Limits(), service=Service(), tell=listen)
        try:
            await nursery.start(listener.serve, reception.welcome)
            async with transport.open_endpoint(_CONTEXT) as endpoint:
                yield endpoint
        except Exception as error:  # noqa: BLE001  (raised below, outside the nursery)
            failed = error
            for complaint in complaints:
                failed.add_note(complaint)
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed


_CONTEXT = EndpointContext(
    job="kit",
    side=Side.SENDER,
    storage=StorageChoice(name="probe", options={}, create=ProbeStorage),
)
