"""One peer of ``bench.tls``: serves or sends, with fsrep or with a bare ``trio.SSLStream``.

A server prints its port, a client that it is connected; it begins at a line on standard
input. Each prints the CPU seconds that it and its child have spent since the beginning.
"""

from __future__ import annotations

import os
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from bench.tls import MIB, maker, taker
from fsrep_core import (
    EndpointContext,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    Side,
    StorageChoice,
    StorageError,
    Version,
    VersionKind,
    feed_process,
    hookimpl,
    open_process_stream,
)
from fsrep_core.runtime.binding import HOOK_NAMES, Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, serve_connection
from fsrep_core.values import Capabilities
from fsrep_tls.config import TlsConfig, TlsListenerConfig
from fsrep_tls.dialing import TlsTransport
from fsrep_tls.listening import TlsListener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fsrep_core import ByteStream, Caller

PIECE_BYTES = MIB
CAPABILITIES = Capabilities(stream_formats=frozenset({"dd"}))


def explain(status: int, stderr: str) -> StorageError:
    return StorageError(f"dd ended with {status}: {stderr}")


def cpu_seconds() -> float:
    return sum(os.times()[:4])


def say(text: object) -> None:
    print(text, flush=True)


async def wait_for_go() -> float:
    say("connected")
    await trio.to_thread.run_sync(sys.stdin.readline)
    return cpu_seconds()


# --- fsrep --------------------------------------------------------------------------------


@attrs.define(eq=False)
class Sink:
    """A storage that gives all streams to ``dd``."""

    spent_before: float = attrs.field(factory=cpu_seconds)

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:  # noqa: ARG002  (as specified)
        self.spent_before = cpu_seconds()
        return Inventory(filesystems=(), capabilities=CAPABILITIES)

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        await feed_process(taker(), stream, explain=explain)
        say(cpu_seconds() - self.spent_before)
        return ReceiveResponse(version=request.to_version)


def refuse(self: object, request: object) -> None:  # noqa: ARG001  (as specified)
    raise AssertionError("the benchmark only receives")


for name in HOOK_NAMES:
    if not hasattr(Sink, name):
        setattr(Sink, name, hookimpl(refuse))


async def serve_fsrep(directory: Path, _size_mib: int) -> None:
    admission = Admission(
        endpoint=Endpoint(Sink(), name="sink"), policy=PeerPolicy(identity="localhost")
    )
    listener = TlsListener(
        TlsListenerConfig(
            address="127.0.0.1",
            port=0,
            ca=directory / "ca.pem",
            certificate=directory / "localhost.pem",
            key=directory / "localhost.key",
        )
    )
    async with trio.open_nursery() as nursery:

        async def attend(caller: Caller) -> None:
            identified = await caller.identify()
            await serve_connection(identified.stream, lambda _: admission, peer_name="client")
            nursery.cancel_scope.cancel()

        def welcome(caller: Caller) -> None:
            nursery.start_soon(attend, caller)

        addresses = await nursery.start(listener.serve, welcome)
        say(addresses[0].rpartition(":")[2])


async def send_fsrep(directory: Path, size_mib: int, port: int) -> None:
    transport = TlsTransport(
        TlsConfig(
            host="127.0.0.1",
            server_name="localhost",
            port=port,
            ca=directory / "ca.pem",
            certificate=directory / "localhost.pem",
            key=directory / "localhost.key",
        )
    )
    context = EndpointContext(
        job="bench",
        side=Side.RECEIVER,
        storage=StorageChoice(name="sink", options={}, create=Sink),
    )
    request = ReceiveRequest(
        job="bench",
        filesystem="data",
        to_version=Version(VersionKind.SNAPSHOT, "now", "guid", 1, None),
    )
    async with transport.open_endpoint(context) as plugin:
        endpoint = Endpoint(plugin, name="receiver")
        await endpoint.inventory(InventoryRequest(job="bench"))
        spent_before = await wait_for_go()
        async with open_process_stream(maker(size_mib), explain=explain) as stream:
            await endpoint.receive(request, stream)
        say(cpu_seconds() - spent_before)


# --- a bare trio.SSLStream ----------------------------------------------------------------


def tls_context(directory: Path, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "ca.pem")
    context.load_cert_chain(directory / "localhost.pem", directory / "localhost.key")
    return context


async def serve_ssl_stream(directory: Path, _size_mib: int) -> None:
    async with trio.open_nursery() as nursery:

        async def attend(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await stream.do_handshake()
            spent_before = cpu_seconds()
            process = await trio.lowlevel.open_process(taker(), stdin=-1)
            assert process.stdin is not None
            async with process.stdin:
                while piece := await stream.receive_some(PIECE_BYTES):
                    await process.stdin.send_all(piece)
            assert await process.wait() == 0
            say(cpu_seconds() - spent_before)
            await stream.aclose()
            nursery.cancel_scope.cancel()

        listeners = await nursery.start(
            partial(
                trio.serve_ssl_over_tcp,
                attend,
                0,
                tls_context(directory, server=True),
                host="127.0.0.1",
            )
        )
        say(listeners[0].transport_listener.socket.getsockname()[1])


async def send_ssl_stream(directory: Path, size_mib: int, port: int) -> None:
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, tls_context(directory, server=False), server_hostname="localhost")
    await stream.do_handshake()
    spent_before = await wait_for_go()
    process = await trio.lowlevel.open_process(maker(size_mib), stdout=-1)
    assert process.stdout is not None
    while piece := await process.stdout.receive_some(PIECE_BYTES):
        await stream.send_all(piece)
    assert await process.wait() == 0
    await stream.aclose()
    say(cpu_seconds() - spent_before)


PEERS: Mapping[tuple[str, str], Callable[..., Awaitable[None]]] = {
    ("fsrep", "serve"): serve_fsrep,
    ("fsrep", "send"): send_fsrep,
    ("ssl-stream", "serve"): serve_ssl_stream,
    ("ssl-stream", "send"): send_ssl_stream,
}


if __name__ == "__main__":
    way, part, scratch, *numbers = sys.argv[1:]
    trio.run(PEERS[way, part], Path(scratch), *map(int, numbers))
