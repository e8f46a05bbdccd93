"""``ssh`` keeps every law of transports.

The far end of the laws is one probe that all connections share, and so it lives in this
process: what ssh starts on the other side passes bytes on between its standard streams and
the probe's socket.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from fsrep_core import EndpointContext, FsrepError, Side, StorageChoice
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.options import structure_options
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport
from fsrep_ssh import Ssh, SshConfig

RELAY = """\
import os, socket, sys, threading
far = socket.socket(socket.AF_UNIX)
far.connect(sys.argv[1])
def pass_on(read, write, end):
    try:
        while piece := read(1 << 16):
            write(piece)
    except OSError:
        pass
    end()
def write(piece):
    while piece:
        piece = piece[os.write(1, piece):]
back = threading.Thread(target=pass_on, args=(far.recv, write, lambda: os._exit(0)), daemon=True)
back.start()
pass_on(lambda size: os.read(0, size), far.sendall, lambda: far.shutdown(socket.SHUT_WR))
back.join()
"""

TIMING = Timing(heartbeat_interval_seconds=0.1)


def admit(_hello):
    endpoint = Endpoint(ProbeStorage(), name="storage", call_timeout_seconds=float("inf"))
    return Admission(endpoint=endpoint, policy=PeerPolicy(identity="kit"))


async def serve(stream):
    with suppress(FsrepError):  # a client that leaves in the middle of a frame
        await serve_connection(stream, admit, peer_name="client", service=Service(timing=TIMING))


def maker(scene):
    @asynccontextmanager
    async def open_probe():
        path = scene.root / "probe"
        path.unlink(missing_ok=True)
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(path))
        listener.listen()
        words = [sys.executable, "-c", RELAY, str(path)]
        options = scene.options(command=shlex.join(words))
        transport = Ssh(structure_options(SshConfig, options, ""))
        choice = StorageChoice(name="probe", options={}, create=ProbeStorage)
        context = EndpointContext(job="kit", side=Side.RECEIVER, storage=choice)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
            async with transport.open_endpoint(context) as endpoint:
                yield endpoint
            nursery.cancel_scope.cancel()

    return open_probe


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_ssh_keeps_the_law(scene, law):
    verdict = await check_transport(maker(scene), laws=[law])

    assert verdict.kept == (law,)


def test_the_real_ssh_is_used(scene):
    assert shutil.which("ssh") == str(scene.root / "bin" / "ssh")
