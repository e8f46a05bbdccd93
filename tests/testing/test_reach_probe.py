"""A transport reaches the kit's probe through its own listener."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from fsrep_core import (
    Caller,
    ConfigError,
    ConnectivityError,
    FsrepError,
    Identified,
    InventoryRequest,
    Listener,
    PermissionDeniedError,
    StreamTransport,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.testing import no_leaks, reach_probe


@attrs.define(eq=False)
class Guest(Caller):
    stream: trio.abc.Stream
    refusal: FsrepError | None
    address: str = "next door"

    async def identify(self):
        if self.refusal:
            await self.stream.aclose()
            raise self.refusal
        return Identified(identity="anybody", stream=self.stream)


@attrs.define(eq=False)
class Door(StreamTransport, Listener):
    """Both ends of a transport through memory."""

    refusal: FsrepError | None = None
    failure: FsrepError | None = None
    welcome: Callable[[Caller], None] | None = None

    async def serve(self, welcome, *, task_status):
        if self.failure:
            raise self.failure
        self.welcome = welcome
        task_status.started(["next door"])
        await trio.sleep_forever()

    async def connect(self, context):  # noqa: ARG002  (the probe is all there is)
        here, there = trio.testing.memory_stream_pair()
        self.welcome(Guest(there, self.refusal))
        return here


async def look(door):
    async with reach_probe(door, door) as open_endpoint, open_endpoint() as plugin:
        return await Endpoint(plugin, name="probe").inventory(InventoryRequest(job="kit"))


async def test_the_endpoint_is_a_probe():
    async with no_leaks():
        inventory = await look(Door())

    assert inventory.capabilities.stream_formats == {"probe", "other"}


async def test_what_the_listener_says_is_told_with_the_error(autojump_clock):
    refusal = PermissionDeniedError("your shoes are dirty", local=False)
    with pytest.raises(ConnectivityError) as caught:
        await look(Door(refusal=refusal))

    assert caught.value.__notes__ == ["at the listener, next door: your shoes are dirty"]


async def test_a_listener_that_cannot_listen_says_why():
    with pytest.raises(ConfigError, match="the door is stuck"):
        await look(Door(failure=ConfigError("the door is stuck")))


async def test_an_error_of_the_body_comes_out_as_it_is():
    async with no_leaks():
        with pytest.raises(ZeroDivisionError):
            async with reach_probe(door := Door(), door):
                raise ZeroDivisionError
