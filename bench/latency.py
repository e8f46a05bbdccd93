"""What one small step costs over an open connection: round trips, and milliseconds.

A server process holds a storage in memory behind loopback TCP; this process takes the
other side. A step is what the driver does for one: open the stream, receive and commit
it, move the cursor. ``push`` sends to the server, whose cursor is here; ``pull`` fetches
from it, and moves the cursor there. A round trip is counted at the socket, each time this
side hears something after it has said something. ``bare`` is eight bytes there and back
between two plain sockets, for scale. All storages are in memory, so the figures are what
fsrep and the connection add.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from fsrep_core import CursorRequest, InventoryRequest, ReceiveRequest, SendRequest
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_fake import MemoryStorage, MemoryStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from fsrep_core import Version

STEPS = 500
WARM_UP_STEPS = 20
CONTENT_BYTES = 1024
ECHO = b"12345678"


def run(options: argparse.Namespace) -> dict[str, float]:
    return trio.run(measure, 50 if options.quick else STEPS)


async def measure(steps: int) -> dict[str, float]:
    argv = [sys.executable, "-m", "bench._latency_server", str(steps)]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some()
        push_port, pull_port, echo_port = map(int, said.split())
        return {
            "steps": steps,
            **await measure_push(push_port, steps),
            **await measure_pull(pull_port, steps),
            **await measure_echo(echo_port, steps),
        }
    finally:
        await process.stdin.aclose()
        await process.stdout.aclose()
        await process.wait()


class CountingStream(trio.abc.Stream):
    """Counts the times at which this side waits for the other."""

    def __init__(self, inner: trio.SocketStream) -> None:
        self.inner = inner
        self.round_trips = 0
        self._said = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Say something."""
        await self.inner.send_all(data)
        self._said = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Hear something, which ends a round trip."""
        data = await self.inner.receive_some(max_bytes)
        self.round_trips += self._said
        self._said = False
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """Pass on."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Pass on."""
        await self.inner.aclose()


async def measure_push(port: int, steps: int) -> dict[str, float]:
    store, versions = make_history("here", steps)
    here = Endpoint(MemoryStorage(store), name="here")
    async with open_there(port) as (there, stream):
        return await measure_steps("push", here, there, versions, stream)


async def measure_pull(port: int, steps: int) -> dict[str, float]:
    _, versions = make_history("there", steps)
    here = Endpoint(MemoryStorage(MemoryStore("pulled")), name="here")
    async with open_there(port) as (there, stream):
        return await measure_steps("pull", there, here, versions, stream)


@asynccontextmanager
async def open_there(port: int) -> AsyncIterator[tuple[Endpoint, CountingStream]]:
    """Give the endpoint behind a port, and its one connection, opened already."""
    streams = []

    async def connect() -> CountingStream:
        streams.append(CountingStream(await trio.open_tcp_stream("127.0.0.1", port)))
        return streams[-1]

    async with open_remote_endpoint(connect, peer_name="there") as plugin:
        endpoint = Endpoint(plugin, name="there")
        await endpoint.inventory(InventoryRequest(job="bench"))
        yield endpoint, streams[0]
        assert len(streams) == 1, "the steps took more than one connection"


async def measure_steps(
    name: str,
    sender: Endpoint,
    receiver: Endpoint,
    versions: list[Version],
    stream: CountingStream,
) -> dict[str, float]:
    seconds, round_trips = [], []
    base: Version | None = None
    for version in versions:
        before, started = stream.round_trips, time.perf_counter()
        await step(sender, receiver, base, version)
        seconds.append(time.perf_counter() - started)
        round_trips.append(stream.round_trips - before)
        base = version
    settled = seconds[WARM_UP_STEPS:]
    return {
        f"{name}_round_trips": max(round_trips),
        f"{name}_ms_p50": milliseconds(statistics.median(settled)),
        f"{name}_ms_p99": milliseconds(statistics.quantiles(settled, n=100)[98]),
    }


async def step(
    sender: Endpoint, receiver: Endpoint, base: Version | None, version: Version
) -> None:
    send = SendRequest(job="bench", filesystem="docs", from_version=base, to_version=version)
    receive = ReceiveRequest(job="bench", filesystem="docs", from_version=base, to_version=version)
    async with sender.send(send) as response:
        assert response.stream is not None
        await receiver.receive(receive, response.stream)
    cursor = CursorRequest(job="bench", filesystem="docs", move_to=version)
    await sender.replication_cursor(cursor)


def make_history(name: str, steps: int) -> tuple[MemoryStore, list[Version]]:
    """Make a store of small versions, the same one wherever it is made."""
    store = MemoryStore(name)
    versions = []
    for number in range(steps + WARM_UP_STEPS):
        store.change("docs", bytes([number % 256]) * CONTENT_BYTES)
        versions.append(store.snapshot("docs"))
    return store, versions


async def measure_echo(port: int, steps: int) -> dict[str, float]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        seconds = []
        for _ in range(steps):
            started_at = time.perf_counter()
            await stream.send_all(ECHO)
            await stream.receive_some(len(ECHO))
            seconds.append(time.perf_counter() - started_at)
    return {"bare_round_trip_ms_p50": milliseconds(statistics.median(seconds))}


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
