"""A watch names the frames that pass, in whatever pieces."""

from __future__ import annotations

import random

import pytest

from fsrep_core import Problem
from fsrep_core.wire import (
    Abort,
    CallRequest,
    Connection,
    Data,
    End,
    FetchRequest,
    Heartbeat,
    Hello,
    Opened,
    Part,
    Role,
    SendOpened,
)
from fsrep_core.wire.watch import FrameWatch, PassingFrame


def spoken():
    """What a server says in one fetch, and what it is made of."""
    client = Connection(Role.CLIENT, Hello(software="c"))
    server = Connection(Role.SERVER, Hello(software="s"))
    pieces = [("hello", server.send(server.hello))]
    client.feed(pieces[0][1])
    server.feed(client.send(client.hello))
    client.next_event()
    server.next_event()
    server.feed(client.send(FetchRequest("send", b"{}")))
    server.next_event()
    for kind, event, payload in [
        ("heartbeat", Heartbeat(), b""),
        ("opened", Opened(SendOpened(size_bytes=4)), b""),
        ("data", Data(100), bytes(100)),
        ("data", Data(1), b"\x06"),
        ("heartbeat", Heartbeat(), b""),
        ("end", End(101), b""),
    ]:
        pieces.append((kind, server.send(event) + payload))
    return pieces


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_named_with_its_place_and_size(seed):
    chance = random.Random(seed)
    wanted, whole = [], b""
    for kind, encoded in spoken():
        wanted.append(PassingFrame(kind, len(whole), len(encoded)))
        whole += encoded

    watch, found, at = FrameWatch(), [], 0
    while at < len(whole):
        size = chance.choice([1, 2, 7, 8, 30, 1000])
        found += watch.feed(whole[at : at + size])
        at += size

    assert found == wanted, f"seed {seed}"


def test_a_frame_is_named_as_soon_as_its_header_has_passed():
    watch = FrameWatch()
    hello = spoken()[0][1]

    assert watch.feed(hello[:11]) == []
    assert [each.kind for each in watch.feed(hello[11:12])] == ["hello"]
    assert watch.feed(hello[12:]) == []


def test_what_a_client_says_is_named_too():
    client = Connection(Role.CLIENT, Hello(software="c"))
    watch = FrameWatch()
    watch.feed(client.send(client.hello))
    client.feed(Connection(Role.SERVER, Hello(software="s")).send(Hello(software="s")))
    client.next_event()
    problem = Problem(message="m", temporary=True, local=True)

    kinds = [
        each.kind
        for event in (Part(b"{}"), CallRequest("inventory", b"{}"), Abort(problem))
        for each in watch.feed(client.send(event))
    ]

    assert kinds == ["part", "request", "abort"]
