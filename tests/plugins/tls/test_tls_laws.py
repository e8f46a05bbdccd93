"""The transport keeps every law, over TLS on loopback."""

from __future__ import annotations

from functools import partial

import pytest

from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport
from ways import over_tls


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_the_transport_keeps_the_law(kit, hosts, law):
    verdict = await check_transport(partial(over_tls, kit, hosts, ProbeStorage()), laws=[law])

    assert verdict.kept == (law,)


async def test_ipv6_carries_a_stream(kit, hosts):
    law = next(iter(TRANSPORT_LAWS))
    maker = partial(over_tls, kit, hosts, ProbeStorage(), address="::1")

    assert (await check_transport(maker, laws=[law])).kept
