"""One link by itself: what may still be said at its end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from fsrep_core import ConnectivityError, Timing
from fsrep_core.runtime.remote.link import Link
from fsrep_core.wire import Connection, Heartbeat, Hello, Role

TIMING = Timing(heartbeat_interval_seconds=0.1, farewell_seconds=2.0)


def link_pair(make_streams=trio.testing.memory_stream_pair):
    near, far = make_streams()
    return [
        Link(stream, Connection(role, Hello(software="test")), peer_name=role.value, timing=TIMING)
        for role, stream in ((Role.CLIENT, near), (Role.SERVER, far))
    ]


async def test_no_heartbeat_follows_a_bye(autojump_clock):
    """A server that has said bye waits for the client to go, and says nothing meanwhile."""
    client, server = link_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.greet)
        nursery.start_soon(server.greet)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.beat)
        await server.leave()

    assert trio.current_time() >= TIMING.farewell_seconds
    assert server.failure is None


async def test_nothing_follows_a_frame_that_was_cut(autojump_clock):
    """Not even a heartbeat: the peer would take it for a part of the frame."""
    client, server = link_pair(trio.testing.lockstep_stream_pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.greet)
        nursery.start_soon(server.greet)
    with trio.move_on_after(1) as nobody_reads:
        await client.say(Heartbeat())

    assert nobody_reads.cancelled_caught
    for say in (client.beat, partial(client.say, Heartbeat())):
        with pytest.raises(ConnectivityError, match="middle of a frame"):
            await say()
