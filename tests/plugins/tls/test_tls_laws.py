"""The transport keeps every law, over TLS on loopback."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from faulty_network import Detour
from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport
from ways import way_by_tls


def way(kit, hosts):
    detour = Detour(socket.socket, "127.0.0.1")
    return way_by_tls(kit, hosts, ProbeStorage(vanish=detour.reset), detour=detour.open)


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_the_transport_keeps_the_law(kit, hosts, law):
    verdict = await check_transport(partial(way, kit, hosts), laws=[law])

    assert verdict.kept == (law,)


async def test_ipv6_carries_a_stream(kit, hosts):
    law = next(iter(TRANSPORT_LAWS))
    maker = partial(way_by_tls, kit, hosts, ProbeStorage(), address="::1")

    assert (await check_transport(maker, laws=[law])).kept
