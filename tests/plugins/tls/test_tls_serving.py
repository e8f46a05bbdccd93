"""What a server lets its clients do, and what clients can do to each other: nothing."""

from __future__ import annotations

import logging
import socket
import struct
import time
from datetime import timedelta

import pytest
import trio
import trio.testing

from fsrep_core import (
    BusyError,
    ByteStream,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    FsrepError,
    InvalidRequestError,
    InventoryRequest,
    PermissionDeniedError,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    StaleTokenError,
    Version,
    VersionKind,
)
from fsrep_core.ops import certificates
from fsrep_core.runtime.remote.policy import Permission
from fsrep_core.runtime.remote.reception import Admitted, Left, Limits
from fsrep_core.testing import no_leaks
from fsrep_core.wire import Hello
from fsrep_tls.config import TlsListenerConfig
from fsrep_tls.credentials import Credentials
from fsrep_tls.listening import TlsListener, identity_of
from fsrep_tls.stream import (
    KEEPALIVE_IDLE_SECONDS,
    KEEPALIVE_INTERVAL_SECONDS,
    KEEPALIVE_PROBES,
    begin_tls,
)

ASK = InventoryRequest(job="kit")
VERSION = Version(VersionKind.SNAPSHOT, "daily", "guid-1", 1)
SEND = SendRequest(job="kit", filesystem="a", to_version=VERSION)


class Nothing(ByteStream):
    """A stream without bytes."""

    async def receive_some(self, _max_bytes):
        await trio.lowlevel.checkpoint()
        return b""

    async def finish(self):
        await trio.lowlevel.checkpoint()


# --- who ----------------------------------------------------------------------------------


async def test_an_unknown_identity_is_refused_and_told(kit, hosts):
    async with no_leaks(), kit.served(hosts, client="stranger") as (server, endpoint):
        with pytest.raises(PermissionDeniedError) as raised:
            await endpoint.inventory(ASK)

    assert raised.value.message == 'this server does not know "stranger"'
    assert not raised.value.temporary
    assert [type(each) for each in server.visits] == [Left]
    assert server.visits[0].identity == "stranger"


@pytest.mark.parametrize(
    ("certificate", "identity"),
    [
        ({"subjectAltName": (("DNS", "a"), ("DNS", "b"))}, "a"),
        ({"subjectAltName": (("IP Address", "::1"), ("DNS", "b"))}, "b"),
        ({"subject": ((("commonName", "c"),),)}, "c"),
        (
            {
                "subjectAltName": (("DNS", "a"),),
                "subject": ((("organizationName", "o"),), (("commonName", "c"),)),
            },
            "a",
        ),
    ],
)
def test_the_identity_is_the_first_dns_name_or_the_common_name(certificate, identity):
    assert identity_of(certificate) == identity


@pytest.mark.parametrize("certificate", [None, {}, {"subjectAltName": (("IP Address", "::1"),)}])
def test_a_certificate_that_names_nobody_is_refused(certificate):
    with pytest.raises(PermissionDeniedError):
        identity_of(certificate)


async def test_each_identity_has_its_own_storage_and_permissions(kit, hosts):
    admissions = {
        "laptop": kit.probe_admission("laptop", frozenset({Permission.SEND})),
        "desktop": kit.probe_admission("desktop", frozenset({Permission.RECEIVE})),
    }
    receive = ReceiveRequest(job="kit", filesystem="a", to_version=VERSION)
    async with kit.serving(hosts, admissions) as server:
        async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
            assert await endpoint.size_estimate(SEND)
            with pytest.raises(PermissionDeniedError, match="laptop may not ask for receive"):
                await endpoint.receive(receive, Nothing())
        async with kit.reaching(server.port, hosts.files("desktop")) as endpoint:
            with pytest.raises(PermissionDeniedError, match="desktop may not ask for size_est"):
                await endpoint.size_estimate(SEND)

    assert {each.identity for each in server.operations} == {"laptop", "desktop"}


async def test_what_is_not_granted_is_refused(kit, hosts):
    admissions = {"laptop": kit.probe_admission("laptop", frozenset())}
    async with kit.served(hosts, admissions) as (server, endpoint):
        for call in (
            endpoint.inventory(ASK),
            endpoint.size_estimate(SEND),
            endpoint.replication_cursor(CursorRequest(job="kit", filesystem="a")),
            endpoint.create_version(CreateVersionRequest(job="kit", filesystems=("a",), name="n")),
            endpoint.destroy_versions(
                DestroyVersionsRequest(job="kit", filesystem="a", versions=(VERSION,))
            ),
        ):
            with pytest.raises(PermissionDeniedError):
                await call
    assert all(each.problem is not None for each in server.operations)
    assert len([each for each in server.visits if isinstance(each, Admitted)]) == 1


# --- whether it is still there ------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_kernel_of_either_end_asks_whether_the_other_is_there(kit, hosts, address):
    listener = TlsListener(TlsListenerConfig(address=address, port=0, **hosts.files("localhost")))
    callers, arriving = trio.open_memory_channel(1)
    streams = []

    async def identify():
        caller = await arriving.receive()
        streams.append((await caller.identify()).stream)

    async with trio.open_nursery() as nursery:
        (where,) = await nursery.start(listener.serve, callers.send_nowait)
        port = int(where.rpartition(":")[2])
        transport = kit.transport_to(port, hosts.files("laptop"), host=address)
        async with trio.open_nursery() as both:
            both.start_soon(identify)
            streams.append(await transport.connect(kit.context_of()))
        nursery.cancel_scope.cancel()

    tcp = socket.IPPROTO_TCP
    for stream in streams:
        ask = stream.connection.getsockopt
        assert ask(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert ask(tcp, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_SECONDS
        assert ask(tcp, socket.TCP_KEEPINTVL) == KEEPALIVE_INTERVAL_SECONDS
        assert ask(tcp, socket.TCP_KEEPCNT) == KEEPALIVE_PROBES
        assert ask(tcp, socket.TCP_NODELAY)
        stream.close()
    assert len(streams) == 2


# --- what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "-rf", "a/../b", "a@b", "a\0b", ""])
async def test_a_name_that_could_mean_something_else_is_refused(kit, hosts, monkeypatch, name):
    """Also where the client does not look at what it says."""
    import fsrep_core.runtime.remote.endpoint as client

    body = (
        b'{"job":"kit","filesystem":%s,"to_version":{"kind":"snapshot","name":"n","guid":"g",'
        b'"order":1}}'
    )
    import json

    monkeypatch.setattr(client, "pack", lambda _: [body % json.dumps(name).encode()])
    async with kit.served(hosts) as (server, endpoint):
        with pytest.raises(InvalidRequestError):
            await endpoint.size_estimate(SEND)
    (operation,) = server.operations
    assert operation.problem.kind == "invalid-request"


async def test_a_forged_resume_token_is_refused(kit, hosts):
    token = ResumeToken(value="forged", to_guid="guid-2")
    request = SendRequest(job="kit", filesystem="a", to_version=VERSION, resume_token=token)
    async with kit.served(hosts) as (_, endpoint):
        with pytest.raises(StaleTokenError):
            async with endpoint.send(request):
                pass


# --- frames -------------------------------------------------------------------------------


async def raw_client(hosts, port, name="laptop"):
    """Shake hands, and speak whatever one likes."""
    context = Credentials(**hosts.files(name), server=False).context()
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    raw = socket.socket(fileno=tcp.socket.detach())
    stream = begin_tls(raw, context, FsrepError, server_name="localhost")
    await stream.do_handshake()
    return stream


def hello_bytes() -> bytes:
    from fsrep_core.wire import Connection, Role

    wire = Connection(Role.CLIENT, Hello(software="fsrep test", identity="raw"))
    return bytes(wire.send(wire.hello))


HOSTILE = {
    "a hello that never ends": b"\xfffsrep\r\n\xff\xff\xff\xff" + b"{" * 70_000,
    "something else": b"GET / HTTP/1.1\r\n\r\n",
    "an oversized frame": hello_bytes() + b"\x01\x00\x00\x00\xff\xff\xff\xff",
    "an unknown frame": hello_bytes() + b"\x63\x00\x00\x00\x00\x00\x00\x00",
    "data out of turn": hello_bytes() + b"\x06\x00\x00\x00\x00\x00\x00\x01x",
    "no json": hello_bytes() + b"\x01\x00\x00\x00\x00\x00\x00\x0c\x09inventory{}",
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
async def test_a_client_that_breaks_the_rules_harms_only_itself(kit, hosts, said):
    async with kit.served(hosts) as (server, endpoint):
        await endpoint.inventory(ASK)
        stream = await raw_client(hosts, server.port)
        with trio.fail_after(20):
            try:
                await stream.send_all(said)
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        stream.close()
        await endpoint.inventory(ASK)
        left = await server.first_to_leave()
    assert left.problem.kind in {"wire", "invalid-request"}


async def test_parts_without_end_are_cut_off(kit, hosts):
    """The parts of one message are bounded together, however many there are."""
    part = b"\x02\x00\x00\x00" + (1 << 20).to_bytes(4, "big") + b"x" * (1 << 20)

    async def send_parts(stream):
        while True:
            await stream.send_all(part)

    async with kit.serving(hosts) as server:
        stream = await raw_client(hosts, server.port)
        await stream.send_all(hello_bytes())
        with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
            await send_parts(stream)
        stream.close()
        left = await server.first_to_leave()

    assert left.problem.kind == "wire"


# --- how many -----------------------------------------------------------------------------


async def test_hundreds_of_slow_handshakes_hold_up_nobody(kit, hosts):
    limits = Limits(handshakes=50, handshake_seconds=30)
    async with kit.serving(hosts, limits=limits) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
        await trio.testing.wait_all_tasks_blocked(0.1)
        started = time.monotonic()
        async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
            await endpoint.inventory(ASK)
        took = time.monotonic() - started
        for each in slow:
            each.close()

    assert took < 10
    crowded_out = [
        each for each in server.visits if isinstance(each, Left) and each.identity is None
    ]
    assert len(crowded_out) >= 250
    assert "others came after it" in crowded_out[0].problem.message


async def test_callers_that_reset_at_once_stop_nobody(kit, hosts):
    async with kit.served(hosts) as (server, endpoint):
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", server.port)) as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await endpoint.inventory(ASK)


async def test_a_handshake_that_takes_too_long_is_ended(kit, hosts):
    async with kit.serving(hosts, limits=Limits(handshake_seconds=0.1)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            with trio.socket.from_stdlib_socket(slow) as client:
                assert await client.recv(1) == b""
            left = await server.first_to_leave()
    assert left.problem.message == "no greeting within 0.1 seconds"


async def test_a_client_that_never_greets_is_ended(kit, hosts):
    async with kit.serving(hosts, limits=Limits(handshake_seconds=0.3)) as server:
        stream = await raw_client(hosts, server.port)
        left = await server.first_to_leave()
        stream.close()

    assert left.identity == "laptop"
    assert left.problem.kind == "timeout"


async def test_one_client_too_many_is_told_to_come_again(kit, hosts):
    async with kit.serving(hosts, limits=Limits(connections=1)) as server:
        async with kit.reaching(server.port, hosts.files("laptop")) as first:
            await first.inventory(ASK)
            async with kit.reaching(server.port, hosts.files("laptop")) as second:
                with pytest.raises(BusyError, match="as many connections as it may: 1") as raised:
                    await second.inventory(ASK)
            await first.inventory(ASK)
        await server.first_to_leave()
        async with kit.reaching(server.port, hosts.files("laptop")) as third:
            await server.left(2)
            await third.inventory(ASK)

    assert (raised.value.temporary, raised.value.local) == (True, False)


# --- certificates that change -------------------------------------------------------------


async def test_a_renewed_certificate_needs_no_restart(kit, hosts):
    """An open connection stays; the next handshake shows and believes the new files."""
    directory = hosts.directory
    async with kit.serving(hosts) as server:
        transport = kit.transport_to(server.port, hosts.files("laptop"))
        stream = await transport.connect(kit.context_of())
        first = stream.connection.getpeercert()["serialNumber"]
        for name in ("localhost", "laptop"):
            certificates.renew(directory, name, lifetime=timedelta(days=2))
        again = await transport.connect(kit.context_of())
        second = again.connection.getpeercert()["serialNumber"]
        await stream.aclose()
        await again.aclose()

    assert first != second


async def test_another_ca_is_believed_from_the_next_handshake_on(kit, hosts, other_hosts):
    async with kit.serving(hosts) as server:
        async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
            await endpoint.inventory(ASK)
        hosts.ca.write_bytes(other_hosts.ca.read_bytes())
        async with kit.reaching(server.port, hosts.files("laptop", ca=hosts.ca)) as endpoint:
            with pytest.raises(FsrepError):
                await endpoint.inventory(ASK)


async def test_files_that_do_not_fit_yet_leave_the_old_ones_in_use(kit, hosts, caplog):
    key = hosts.directory / "localhost.key"
    async with kit.serving(hosts) as server:
        async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
            await endpoint.inventory(ASK)
        right = key.read_bytes()
        key.write_bytes((hosts.directory / "laptop.key").read_bytes())
        with caplog.at_level(logging.WARNING):
            async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
                await endpoint.inventory(ASK)
        assert "the old ones stay in use" in caplog.text
        caplog.clear()
        key.write_bytes(right)
        async with kit.reaching(server.port, hosts.files("laptop")) as endpoint:
            await endpoint.inventory(ASK)
    assert caplog.text == ""


# --- stopping -----------------------------------------------------------------------------


async def test_a_stop_ends_idle_connections_politely(kit, hosts):
    async with kit.served(hosts) as (server, endpoint):
        await endpoint.inventory(ASK)
        server.stopping.set()
        left = await server.first_to_leave()

    assert left.problem is None
