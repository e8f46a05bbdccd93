"""What goes wrong between two hosts is told with its remedy, and typed."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest
import trio

from fsrep_core import (
    ConfigError,
    ConnectivityError,
    InventoryRequest,
    PermissionDeniedError,
    TimeoutExpiredError,
)
from fsrep_core.runtime.remote.reception import Left
from fsrep_core.testing import no_leaks
from fsrep_tls.problems import explain_connecting

ASK = InventoryRequest(job="kit")


async def ask(kit, port, files, **options):
    async with kit.reaching(port, files, **options) as endpoint:
        return await endpoint.inventory(ASK)


async def refusal_of(kit, port, files, expected, **options):
    """Ask, and give the error that must come of it; nothing may be left."""
    async with no_leaks():
        with pytest.raises(expected) as raised:
            await ask(kit, port, files, **options)
    return raised.value


async def test_a_host_is_believed(kit, hosts):
    async with kit.serving(hosts) as server:
        assert (await ask(kit, server.port, hosts.files("laptop"))).filesystems is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_name_to_prove_is_that_of_the_host(kit, hosts, host):
    async with kit.serving(hosts) as server:
        await ask(kit, server.port, hosts.files("laptop"), host=host, server_name=None)


# --- before TLS ---------------------------------------------------------------------------


async def test_refused(kit, hosts, closed_port):
    error = await refusal_of(kit, closed_port, hosts.files("laptop"), ConnectivityError)

    assert error.message == (f"127.0.0.1:{closed_port}: connection refused: nothing listens there")
    assert error.temporary
    assert error.hint == "start fsrep serve there, or correct host and port"


async def test_a_name_that_does_not_exist(kit, hosts):
    error = await refusal_of(
        kit, 1, hosts.files("laptop"), ConnectivityError, host="no-such-host.invalid"
    )

    assert error.message.startswith("no-such-host.invalid:1: the name cannot be resolved: ")
    assert error.temporary


async def test_what_can_be_no_name(kit, hosts):
    error = await refusal_of(kit, 1, hosts.files("laptop"), ConnectivityError, host="a..b")

    assert "the name cannot be resolved" in error.message


@pytest.mark.parametrize(
    "number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN]
)
def test_unreachable(number):
    failed = OSError("all attempts failed")
    failed.__cause__ = ExceptionGroup("", [OSError(number, os.strerror(number))])

    error = explain_connecting(failed, "nas:7766")
    assert error.message == "nas:7766: the host cannot be reached"
    assert error.temporary


def test_another_reason_is_repeated():
    error = explain_connecting(OSError(errno.EACCES, "Permission denied"), "nas:7766")

    assert error.message == "nas:7766: cannot connect: Permission denied"


async def test_a_host_that_does_not_answer(kit, hosts, monkeypatch):
    async def never(_host, _port):
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    error = await refusal_of(kit, 9, hosts.files("laptop"), TimeoutExpiredError, dial_timeout=0.05)

    assert error.message == "127.0.0.1:9: no connection within 0.05 seconds"


# --- TLS ----------------------------------------------------------------------------------


async def test_a_server_that_never_shakes_hands(kit, hosts):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        error = await refusal_of(
            kit, port, hosts.files("laptop"), TimeoutExpiredError, handshake_timeout=0.1
        )

    assert error.message == f"127.0.0.1:{port}: no TLS handshake within 0.1 seconds"


async def test_a_server_that_speaks_something_else(kit, hosts):
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        error = await refusal_of(kit, port, hosts.files("laptop"), ConnectivityError)
        nursery.cancel_scope.cancel()

    assert error.message == f"127.0.0.1:{port}: what answers there does not speak TLS"
    assert not error.temporary


async def test_a_server_that_speaks_only_older_tls(kit, hosts):
    async def answer(stream):
        await stream.receive_some()
        await stream.send_all(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal: protocol version

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        error = await refusal_of(kit, port, hosts.files("laptop"), ConnectivityError)
        nursery.cancel_scope.cancel()

    assert error.message == f"127.0.0.1:{port}: the other side does not speak TLS 1.3"
    assert not error.temporary


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("expired", "the server's certificate has expired"),
        ("early", "the server's certificate is not yet valid"),
        ("laptop", 'the server\'s certificate is for another host than "localhost"'),
    ],
)
async def test_a_server_whose_certificate_is_no_good(kit, hosts, name, said):
    async with kit.serving(hosts, name=name) as server:
        error = await refusal_of(kit, server.port, hosts.files("laptop"), ConnectivityError)

    assert error.message == f"127.0.0.1:{server.port}: {said}"
    assert (error.temporary, error.local) == (False, False)
    assert error.hint


async def test_a_server_that_another_ca_believes(kit, hosts, other_hosts):
    async with kit.serving(other_hosts, ca=hosts.ca) as server:
        error = await refusal_of(kit, server.port, hosts.files("laptop"), ConnectivityError)

    assert error.message == (
        f"127.0.0.1:{server.port}: the server's certificate is not from the CA in {hosts.ca}"
    )
    assert not error.temporary


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("expired", "it has expired"), ("early", "it is damaged or not yet valid")],
)
async def test_a_client_whose_certificate_is_no_good(kit, hosts, name, meaning):
    files = hosts.files(name)
    async with kit.serving(hosts) as server:
        error = await refusal_of(kit, server.port, files, PermissionDeniedError)

    assert error.message == (
        f"127.0.0.1:{server.port}: the server refuses this host's certificate "
        f"{files['certificate']}: {meaning}"
    )
    assert (error.temporary, error.local) == (False, False)
    assert_refused(server, "the client's certificate was refused")


async def test_a_client_that_another_ca_believes(kit, hosts, other_hosts):
    files = other_hosts.files("laptop", ca=hosts.ca)
    async with kit.serving(hosts) as server:
        error = await refusal_of(kit, server.port, files, PermissionDeniedError)

    assert "it is not from the CA that the peer believes" in error.message
    assert_refused(server, "the client's certificate was refused")


async def test_a_client_without_certificate(kit, hosts):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(hosts.ca)
    async with kit.serving(hosts) as server:
        tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
        stream = trio.SSLStream(tcp, context, server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError) as raised:
            await stream.receive_some()
        assert "CERTIFICATE_REQUIRED" in repr(raised.value.__cause__)
        await trio.aclose_forcefully(stream)
        await server.first_to_leave()

    assert_refused(server, "the client has shown no certificate")


async def test_a_client_that_speaks_something_else(kit, hosts):
    async with kit.serving(hosts) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            while await stream.receive_some():
                pass
        await server.first_to_leave()

    assert_refused(server, "does not speak TLS")


def assert_refused(server, said):
    (visit,) = server.visits
    assert isinstance(visit, Left)
    assert visit.identity is None
    assert said in visit.problem.message


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
async def test_a_file_that_is_missing_is_named(kit, hosts, missing):
    files = hosts.files("laptop")
    files[missing].unlink()

    error = await refusal_of(kit, 9, files, ConfigError)
    assert error.message == f"cannot read {files[missing]}: No such file or directory"


async def test_files_that_do_not_belong_together(kit, hosts):
    files = hosts.files("laptop") | {"key": hosts.directory / "desktop.key"}

    error = await refusal_of(kit, 9, files, ConfigError)
    assert "are no certificate with its key" in error.message


async def test_a_ca_that_is_none(kit, hosts):
    hosts.ca.write_text("nothing")

    error = await refusal_of(kit, 9, hosts.files("laptop"), ConfigError)
    assert error.message.startswith(f"{hosts.ca} holds no certificate of a CA: ")


async def test_a_key_that_everyone_can_read_is_refused(kit, hosts):
    key = hosts.directory / "laptop.key"
    key.chmod(0o644)

    error = await refusal_of(kit, 9, hosts.files("laptop"), ConfigError)
    assert error.message == f"the key {key} can be read by everyone on this host"


async def test_a_key_with_a_password_is_refused_without_asking(kit, hosts):
    from cryptography.hazmat.primitives import serialization

    path = hosts.directory / "laptop.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    error = await refusal_of(kit, 9, hosts.files("laptop"), ConfigError)
    assert "is protected by a password" in error.message


async def test_a_port_that_is_taken(kit, hosts):
    from fsrep_tls.config import TlsListenerConfig
    from fsrep_tls.listening import TlsListener

    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = TlsListenerConfig(
            address="127.0.0.1", port=taken.getsockname()[1], **hosts.files("localhost")
        )
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
            await TlsListener(config).serve(lambda _: None)
