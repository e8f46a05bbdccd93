"""The transport keeps every law, over TLS on loopback."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest

from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.testing import TRANSPORT_LAWS, check_transport

TIMING = Timing(heartbeat_interval_seconds=0.1)
"""A server whose storage does not read finds out by its heartbeats that the client is gone."""


@asynccontextmanager
async def probe_over_tls(kit, hosts, address):
    async with kit.serving(hosts, address=address, timing=TIMING) as server:
        transport = kit.transport_to(server.port, hosts.files("laptop"), host=address)
        async with transport.open_endpoint(kit.context_of()) as endpoint:
            yield endpoint


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_the_transport_keeps_the_law(kit, hosts, law):
    verdict = await check_transport(partial(probe_over_tls, kit, hosts, "127.0.0.1"), laws=[law])

    assert verdict.kept == (law,)


async def test_ipv6_carries_a_stream(kit, hosts):
    law = next(iter(TRANSPORT_LAWS))

    assert (await check_transport(partial(probe_over_tls, kit, hosts, "::1"), laws=[law])).kept
