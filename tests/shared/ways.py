"""Every bundled transport, on the way to a storage of this process.

A test that speaks of transports and storages alike makes a storage here, where it can look
at it, and reaches it as another host would: the connection is a real one, whatever the
transport makes of that, and at its far end the storage is served from this process.

A transport that is registered and is not in :data:`WAYS` fails a test of the matrix.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from fsrep_core import EndpointContext, FsrepError, Side, StorageChoice
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.options import structure_options
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.runtime.remote.timing import Timing
from fsrep_fake import FakeTransport
from fsrep_local_pipe import LocalPipe, LocalPipeConfig
from fsrep_ssh import Ssh, SshConfig
from fsrep_tls.config import TlsConfig
from fsrep_tls.dialing import TlsTransport

__all__ = ["WAYS", "over_ssh", "over_tls", "reach", "way_by_ssh", "way_by_tls"]

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
"""What ssh starts on the other side: it passes bytes on between its standard streams and a
socket of this process."""

TIMING = Timing(heartbeat_interval_seconds=0.1)
"""A server whose storage does not read finds out by its heartbeats that the client is gone."""

CLIENT = "laptop"


LOGIN_TIMEOUT = "2m"
"""On a machine that is emulated, and has other work, a login takes more than half a minute."""


def admission_to(storage):
    """Let the client do everything with a storage, for as long as it takes."""
    endpoint = Endpoint(storage, name="storage", call_timeout_seconds=float("inf"))
    return Admission(endpoint=endpoint, policy=PeerPolicy(identity=CLIENT))


def context_of(create):
    choice = StorageChoice(name="storage", options={}, create=create)
    return EndpointContext(job="kit", side=Side.RECEIVER, storage=choice)


@asynccontextmanager
async def in_this_process(transport, storage):
    async with transport.open_endpoint(context_of(lambda: storage)) as endpoint:
        yield endpoint


@asynccontextmanager
async def straight(host, port):
    """Make no detour."""
    yield host, port


def in_time(transport_class, timing):
    """Give a transport that keeps other deadlines than its own."""
    if timing is None:
        return transport_class
    return type(transport_class.__name__, (transport_class,), {"timing": lambda _: timing})


@asynccontextmanager
async def way_by_ssh(scene, storage, *, detour=straight, timing=None):
    """Give what opens an endpoint that reaches a storage through a real ssh and a real sshd.

    :param detour: takes the server's address, and gives the one to connect to
    :param timing: of both ends
    """
    path = scene.root / f"far-{id(storage)}"
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(path))
    listener.listen()

    async def serve(stream):
        admission = admission_to(storage)
        with suppress(FsrepError):  # a client that leaves in the middle of a frame
            await serve_connection(
                stream,
                lambda _: admission,
                peer_name="client",
                service=Service(timing=timing or TIMING),
            )

    words = [sys.executable, "-S", "-c", RELAY, str(path)]
    port = scene.server.port
    try:
        async with trio.open_nursery() as nursery, detour("127.0.0.1", port) as (host, via):
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
            options = scene.options(command=shlex.join(words), host=host, port=via)
            options["options"].append(f"HostKeyAlias=[127.0.0.1]:{port}")
            if timing is None:
                options["connect_timeout"] = LOGIN_TIMEOUT
            config = structure_options(SshConfig, options, "")
            yield partial(in_this_process, in_time(Ssh, timing)(config), storage)
            nursery.cancel_scope.cancel()
    finally:
        path.unlink()


@asynccontextmanager
async def way_by_tls(  # noqa: PLR0913  (each is what some test varies)
    kit, hosts, storage, *, address="127.0.0.1", detour=straight, timing=None
):
    """Give what opens an endpoint over TLS on loopback. Options as with ssh."""
    admissions = {CLIENT: admission_to(storage)}
    async with (
        kit.serving(hosts, admissions, address=address, timing=timing or TIMING) as server,
        detour(address, server.port) as (host, port),
    ):
        options = {"host": host, "port": port, "server_name": "localhost"}
        config = TlsConfig(**options, **hosts.files(CLIENT))
        yield partial(in_this_process, in_time(TlsTransport, timing)(config), storage)


@asynccontextmanager
async def over_ssh(*arguments, **options):
    """Reach a storage of this process by ssh."""
    async with way_by_ssh(*arguments, **options) as open_endpoint, open_endpoint() as endpoint:
        yield endpoint


@asynccontextmanager
async def over_tls(*arguments, **options):
    """Reach a storage of this process by TLS."""
    async with way_by_tls(*arguments, **options) as open_endpoint, open_endpoint() as endpoint:
        yield endpoint


WAYS = {
    "fake": lambda _: partial(in_this_process, FakeTransport()),
    "local-pipe": lambda _: partial(in_this_process, LocalPipe(LocalPipeConfig())),
    "ssh": lambda fixture: partial(over_ssh, fixture("scene")),
    "tls": lambda fixture: partial(over_tls, fixture("kit"), fixture("hosts")),
}
"""By the name of the transport; each asks for the fixtures that it needs."""


@pytest.fixture
def reach(request, transport):
    """Give what reaches a storage by the transport of the test's parameter.

    It takes the storage, and is an async context manager that gives an endpoint.
    """
    return WAYS[transport](request.getfixturevalue)
