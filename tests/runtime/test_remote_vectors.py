"""A server does with the bytes of the page what the page says."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from fsrep_core import FsrepError, ReceiveResponse, hookimpl, serve_endpoint
from fsrep_core.testing import ProbeStorage
from fsrep_core.wire import Bye, Connection, Failure, Heartbeat, Hello, Role
from wire_page import vectors

DIALOGUE = vectors("A dialogue")
HELLO = DIALOGUE[0][1]
BYE = dict(DIALOGUE)["client bye"]


class Keeper(ProbeStorage):
    """Receives a whole stream, and says that it has the version."""

    digest = None

    @hookimpl
    async def receive(self, request, stream):
        hasher = hashlib.sha256()
        while piece := await stream.receive_some(1000):
            hasher.update(piece)
        await stream.finish()
        self.digest = hasher.digest()
        return ReceiveResponse(version=attrs.evolve(request.to_version, order=7))


class Anything:
    """A dialogue of which nothing was said by this side, whatever bytes it has sent."""

    def server_says(self, event):
        pass


class Client:
    """Says bytes, whatever they are, and hears what a server makes of them."""

    def __init__(self, stream):
        self.stream = stream
        self.wire = Connection(Role.CLIENT, Hello(software="x"))
        self.wire.dialogue = Anything()
        self.said = bytearray()
        """By the server."""
        self.error = None
        """Of the server."""

    async def hear(self):
        """Give the next event; ``None`` = the server has closed."""
        while (event := self.wire.next_event()) is None or isinstance(event, Heartbeat):
            piece = await self.stream.receive_some(1000)
            if not piece:
                assert self.wire.buffered_bytes == 0
                return None
            self.said += piece
            self.wire.feed(piece)
        return event

    async def hear_out(self):
        """Give all further events."""
        events = []
        while (event := await self.hear()) is not None:
            events.append(event)
        await self.stream.aclose()
        return events


@asynccontextmanager
async def connected(storage):
    here, there = trio.testing.memory_stream_pair()
    client = Client(here)

    async def serve():
        try:
            await serve_endpoint(there, storage, peer_name="client")
        except FsrepError as error:
            client.error = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield client


async def test_a_server_answers_as_in_the_dialogue_of_the_page(autojump_clock):
    storage = Keeper()
    async with connected(storage) as client:
        for name, data in DIALOGUE:
            if name.startswith("client"):
                await client.stream.send_all(data)
            elif name != "server heartbeat":
                event = await client.hear()
                assert f"server {type(event).__name__.lower()}" == name
                if name != "server hello":
                    assert client.said == data
                client.said.clear()
        assert await client.hear_out() == []

    assert client.error is None
    assert storage.digest == hashlib.sha256(b"Call me Ishmael.").digest()


@pytest.mark.parametrize(("name", "data"), vectors("In place of a hello"))
async def test_whoever_has_no_hello_hears_that_of_the_server_only(name, data, autojump_clock):
    async with connected(ProbeStorage()) as client:
        await client.stream.send_all(data)
        heard = await client.hear_out()

    assert [type(event) for event in heard] == [Hello], name
    assert client.error.kind == "wire"


@pytest.mark.parametrize(("name", "data"), vectors("After the hellos"))
async def test_what_may_not_be_said_ends_the_connection(name, data, autojump_clock):
    async with connected(Keeper()) as client:
        await client.stream.send_all(HELLO)
        assert isinstance(await client.hear(), Hello)
        await client.stream.send_all(data)
        heard = await client.hear_out()

    [farewell] = heard
    assert isinstance(farewell, Bye), name
    assert farewell.problem.kind == client.error.kind == "wire"


@pytest.mark.parametrize(("name", "data"), vectors("With a name"))
async def test_a_bad_name_is_answered_and_the_connection_goes_on(name, data, autojump_clock):
    async with connected(ProbeStorage()) as client:
        await client.stream.send_all(HELLO)
        assert isinstance(await client.hear(), Hello)
        for _ in range(2):
            await client.stream.send_all(data)
            answer = await client.hear()
            assert isinstance(answer, Failure), name
            assert answer.problem.kind == "invalid-request"
        await client.stream.send_all(BYE)

        assert await client.hear_out() == [Bye()]
    assert client.error is None
