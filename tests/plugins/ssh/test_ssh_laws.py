"""``ssh`` keeps every law of transports.

The far end of the laws is one probe that all connections share, and so it lives in this
process; :mod:`ways` says how ssh gets there. It vanishes by what resets all connections
between the two hosts.
"""

from __future__ import annotations

import shutil
import socket
from functools import partial

import pytest

from faulty_network import Detour
from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport
from ways import way_by_ssh


def way(scene):
    detour = Detour(socket.socket, "127.0.0.1")
    return way_by_ssh(scene, ProbeStorage(vanish=detour.reset), detour=detour.open)


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_ssh_keeps_the_law(scene, law):
    verdict = await check_transport(partial(way, scene), laws=[law])

    assert verdict.kept == (law,)


def test_the_real_ssh_is_used(scene):
    assert shutil.which("ssh") == str(scene.root / "bin" / "ssh")
