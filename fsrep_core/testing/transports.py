"""Checks that a transport carries the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core.runtime.binding import Endpoint
from fsrep_core.testing.laws import Deviations, Law, LawBook, check_laws
from fsrep_core.testing.transport_laws import answers, stopping, streams
from fsrep_core.testing.transport_trial import TransportMaker, TransportTrial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_core.testing.laws import Verdict

__all__ = ["TRANSPORT_LAWS", "check_transport"]

TRANSPORT_LAWS: LawBook[TransportTrial] = LawBook({**answers.LAWS, **streams.LAWS, **stopping.LAWS})
"""All laws of transports, by name."""


async def check_transport(
    maker: TransportMaker,
    *,
    deviations: Deviations | None = None,
    laws: Iterable[str] | None = None,
) -> Verdict:
    """Check that a transport carries the contract, law by law.

    :param maker: opens an endpoint that reaches a :class:`~fsrep_core.testing.ProbeStorage`,
        in this process or another; called once for each law
    :param deviations: what the transport does not keep, on purpose
    :param laws: names of :data:`TRANSPORT_LAWS`; ``None`` = all
    :raises LawBroken: the first law that is broken
    """
    declared = deviations or Deviations()

    async def begin(law: Law[TransportTrial], plugin: object) -> TransportTrial:
        return TransportTrial(law.name, Endpoint(plugin, name="endpoint of the kit"), declared)

    return await check_laws(
        TRANSPORT_LAWS,
        maker,
        begin=begin,
        lacks=lambda _trial, _capability: False,
        deviations=declared,
        laws=laws,
    )
