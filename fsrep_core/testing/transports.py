"""Checks that a transport carries the contract."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fsrep_core.testing.laws import Deviations, Law, LawBook, LawBroken, check_laws
from fsrep_core.testing.transport_laws import answers, closing, stopping, streams, vanishing
from fsrep_core.testing.transport_trial import EndpointOpener, TransportMaker, TransportTrial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from fsrep_core.testing.laws import Verdict

__all__ = ["TRANSPORT_LAWS", "check_transport"]

TRANSPORT_LAWS: LawBook[TransportTrial] = LawBook(
    {**answers.LAWS, **streams.LAWS, **stopping.LAWS, **vanishing.LAWS, **closing.LAWS}
)
"""All laws of transports, by name."""


async def check_transport(
    maker: TransportMaker,
    *,
    deviations: Deviations | None = None,
    laws: Iterable[str] | None = None,
) -> Verdict:
    """Check that a transport carries the contract, law by law.

    :param maker: gives what opens an endpoint that reaches a
        :class:`~fsrep_core.testing.ProbeStorage`, in this process or another; called once
        for each law. Several endpoints are opened at once
    :param deviations: what the transport does not keep, on purpose
    :param laws: names of :data:`TRANSPORT_LAWS`; ``None`` = all
    :raises LawBroken: the first law that is broken
    """
    declared = deviations or Deviations()

    @asynccontextmanager
    async def reach() -> AsyncIterator[tuple[object, EndpointOpener]]:
        broken: LawBroken | None = None
        async with maker() as open_endpoint:
            async with open_endpoint() as plugin:
                try:
                    yield plugin, open_endpoint
                except LawBroken as error:
                    broken = error  # past the endpoint, which may do anything with an error
            if broken is not None:
                raise broken

    async def begin(
        law: Law[TransportTrial], reached: tuple[object, EndpointOpener]
    ) -> TransportTrial:
        return await TransportTrial.begin(law, *reached, declared)

    return await check_laws(
        TRANSPORT_LAWS,
        reach,
        begin=begin,
        lacks=_lacks,
        deviations=declared,
        laws=laws,
    )


def _lacks(trial: TransportTrial, _capability: str) -> str | None:
    return None if trial.can_vanish else "the probe at the far end has no way to vanish"
