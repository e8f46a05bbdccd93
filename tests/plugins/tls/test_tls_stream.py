"""A TLS stream is a good trio stream, and only a farewell is a clean end."""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
from contextlib import suppress

import pytest
import trio
import trio.testing

from fsrep_core import ConnectivityError, Way
from fsrep_core.testing import no_leaks
from fsrep_tls.credentials import Credentials
from fsrep_tls.problems import explain_tls
from fsrep_tls.stream import begin_tls


def explain(error):
    return explain_tls(error, "peer")


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


@pytest.fixture
def make_pair(hosts):
    """Make two streams that have shaken hands, over TCP on loopback or as told."""
    server = Credentials(**hosts.files("localhost"), server=True)
    client = Credentials(**hosts.files("laptop"), server=False)

    async def make(sockets=tcp_pair):
        here, there = sockets()
        streams = (
            begin_tls(here, client.context(), explain, server_name="localhost"),
            begin_tls(there, server.context(), explain),
        )
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.do_handshake)
        return streams

    return make


def clog(stream):
    """Fill the socket with records; the last one waits inside OpenSSL.

    Whatever is sent next goes on with that one. Done over a UNIX socket, which moves
    nothing behind one's back.
    """
    with suppress(ssl.SSLWantWriteError):
        while True:
            stream.connection.send(b"x")


async def test_a_tls_stream_keeps_the_laws_of_trio(make_pair):
    async def make_clogged():
        pair = await make_pair(socket.socketpair)
        for stream in pair:
            clog(stream)
        return pair

    async with no_leaks():
        await trio.testing.check_two_way_stream(make_pair, make_clogged)


async def test_only_tls_1_3_is_spoken(make_pair):
    here, there = await make_pair()

    assert here.connection.version() == there.connection.version() == "TLSv1.3"
    await here.aclose()
    await there.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_both_directions_move_at_once_byte_for_byte(make_pair, seed):
    chance = random.Random(seed)
    content = {name: chance.randbytes(chance.randrange(1 << 20, 1 << 22)) for name in "ab"}
    arrived = {"a": bytearray(), "b": bytearray()}

    async def send(stream, name):
        rest = memoryview(content[name])
        while rest:
            size = chance.choice([1, 100, 16384, 16385, 1 << 18])
            await stream.send_all(rest[:size])
            rest = rest[size:]

    async def receive(stream, name):
        buffer = memoryview(bytearray(1 << 18))
        while len(arrived[name]) < len(content[name]):
            size = chance.choice([1, 100, 16384, 16385, 1 << 18])
            count = await stream.receive_into(buffer[:size])
            arrived[name] += buffer[:count]

    here, there = await make_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, here, "a")
        nursery.start_soon(receive, there, "a")
        nursery.start_soon(send, there, "b")
        nursery.start_soon(receive, here, "b")

    assert arrived == content, f"seed {seed}"
    await here.aclose()
    await there.aclose()


async def test_a_header_arrives_joined_with_its_payload(make_pair):
    payload = random.Random(7).randbytes(700_001)
    here, there = await make_pair()
    arrived = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_both, b"header", payload)
        while len(arrived) < 6 + len(payload):
            arrived += await there.receive_some(1 << 20)

    assert arrived == b"header" + payload
    await here.aclose()
    await there.aclose()


async def test_a_stream_closed_while_a_thread_moves_its_bytes_is_closed_for_all(make_pair):
    async with no_leaks():
        here, there = await make_pair()

        async def send():
            with pytest.raises(trio.ClosedResourceError):
                await here.send_all(bytes(1 << 25))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await there.receive_some(1)
            here.close()
        there.close()


async def test_a_cancelled_receive_loses_nothing(make_pair):
    here, there = await make_pair()
    with trio.move_on_after(0.01):
        await there.receive_some(10)
    await here.send_all(b"content")

    assert await there.receive_some(10) == b"content"
    await here.aclose()
    await there.aclose()


async def test_a_receive_that_is_cancelled_as_bytes_arrive_gives_them(make_pair, monkeypatch):
    here, there = await make_pair()
    scope = trio.CancelScope()
    wait = there.wait

    async def wait_and_cancel(way):
        await wait(way)
        scope.cancel()

    monkeypatch.setattr(there, "wait", wait_and_cancel)
    buffer = memoryview(bytearray(1 << 18))
    taken = None
    async with trio.open_nursery() as nursery:

        async def receive():
            nonlocal taken
            with scope:
                taken = await there.receive_into(buffer)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await here.send_all(b"content")

    assert taken == 7
    here.close()
    there.close()


async def test_a_farewell_is_a_clean_end(make_pair):
    here, there = await make_pair()
    await here.send_all(b"last")
    await here.aclose()

    assert await there.receive_some() == b"last"
    assert await there.receive_some() == b""
    assert await there.receive_some() == b""
    assert await there.why_it_ended() is None
    await there.aclose()


async def test_an_end_without_farewell_is_a_cut(make_pair):
    """Whoever cuts the line between the hosts can make TCP end, but not TLS."""
    here, there = await make_pair()
    await here.send_all(b"last")
    socket.socket(fileno=here.connection.detach()).close()

    assert await there.receive_some() == b"last"
    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    why = await there.why_it_ended()
    assert isinstance(why, ConnectivityError)
    assert why.message == "peer: the connection was cut: it ended without a farewell"
    assert why.temporary
    await there.aclose()


async def test_a_reset_is_a_cut(make_pair):
    here, there = await make_pair()
    raw = socket.socket(fileno=here.connection.detach())
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()

    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    why = await there.why_it_ended()
    assert why is not None
    assert why.message.startswith("peer: the connection was cut: ")
    await there.aclose()


async def test_what_was_said_is_heard_also_when_nothing_can_be_said_any_more(make_pair):
    here, there = await make_pair()
    await there.send_all(b"last words")
    with socket.socket(fileno=os.dup(here.connection.fileno())) as below:
        below.shutdown(socket.SHUT_WR)

    with pytest.raises(trio.BrokenResourceError):
        await here.send_all(b"x")
    assert await here.receive_some() == b"last words"
    here.close()
    there.close()


async def test_a_byte_flipped_below_tls_breaks_the_stream(make_pair):
    here, there = await make_pair()
    raw = socket.socket(fileno=here.connection.detach())
    raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))

    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    assert isinstance(await there.why_it_ended(), ConnectivityError)
    raw.close()
    await there.aclose()


async def test_bytes_before_a_cut_are_given_before_the_error(make_pair):
    here, there = await make_pair()
    await here.send_all(bytes(40_000))
    socket.socket(fileno=here.connection.detach()).close()
    buffer = memoryview(bytearray(1 << 17))

    taken = 0
    with suppress(trio.BrokenResourceError):
        while True:
            taken += await there.receive_into(buffer)
    assert taken == 40_000
    await there.aclose()


async def test_nothing_goes_out_behind_a_send_that_was_cut(make_pair):
    """OpenSSL would take other bytes for the rest of those that it has begun to send."""
    here, there = await make_pair(socket.socketpair)
    clog(here)
    with trio.move_on_after(0.05) as scope:
        await here.send_all(b"a" * 100_000)
    assert scope.cancelled_caught

    with pytest.raises(trio.BrokenResourceError):
        await here.send_all(b"b" * 200_000)
    here.close()
    arrived = set()
    with suppress(trio.BrokenResourceError):
        while piece := await there.receive_some():
            arrived |= set(piece)
    assert arrived <= {ord("x"), ord("a")}
    await there.aclose()


async def test_two_tasks_may_wait_for_the_same_direction(make_pair):
    """A send that finds its socket full, and a reader that must write first (a key update)."""
    here, there = await make_pair(socket.socketpair)
    clog(here)
    woken = []

    async def wait(name):
        await here.wait(Way.SEND)
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "send")
        nursery.start_soon(wait, "receive")
        await trio.testing.wait_all_tasks_blocked()
        buffer = memoryview(bytearray(1 << 20))
        while len(woken) < 2:
            with trio.move_on_after(0.01):
                await there.receive_into(buffer)
    assert sorted(woken) == ["receive", "send"]
    here.close()
    await there.aclose()


def test_kernel_tls_is_asked_for_where_python_can(hosts):
    wanted = getattr(ssl, "OP_ENABLE_KTLS", 0)

    for server in (False, True):
        context = Credentials(**hosts.files("localhost"), server=server).context()
        assert context.options & wanted == wanted


async def test_the_representation_tells_no_secret(make_pair, hosts):
    here, there = await make_pair()

    for text in (repr(here), repr(there), repr(Credentials(**hosts.files("laptop"), server=False))):
        assert "PRIVATE" not in text
        assert "SSLContext" not in text
    await here.aclose()
    await there.aclose()
    assert "closed" in repr(here)
