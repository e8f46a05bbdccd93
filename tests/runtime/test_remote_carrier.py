"""Streams over descriptors are good trio streams, and splice what pipes hold."""

from __future__ import annotations

import os
import random
import socket
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from fsrep_core import (
    ByteStream,
    ConnectivityError,
    DescriptorStream,
    FsrepError,
    OutOfSpaceError,
    ReceiveRequest,
    ReceiveResponse,
    Timing,
    Version,
    VersionKind,
    Way,
    hookimpl,
    pump,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.metering import MeteredStream
from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.runtime.throttle import RateLimit, ThrottledStream
from fsrep_core.runtime.wrapping import WrappingStream
from fsrep_core.testing import ProbeStorage, no_leaks


async def socket_pair():
    await trio.lowlevel.checkpoint()
    pair = [each.detach() for each in socket.socketpair(socket.AF_UNIX)]
    return tuple(DescriptorStream(each, each) for each in pair)


async def pipe_pair():
    await trio.lowlevel.checkpoint()
    (here_reads, there_writes), (there_reads, here_writes) = os.pipe(), os.pipe()
    return DescriptorStream(here_reads, here_writes), DescriptorStream(there_reads, there_writes)


@pytest.mark.parametrize("make_pair", [socket_pair, pipe_pair])
async def test_a_descriptor_stream_keeps_the_laws_of_trio(make_pair):
    async def clogged():
        """Nothing more goes in on either side."""
        pair = await make_pair()
        for each in pair:
            with suppress(BlockingIOError):
                while True:
                    os.write(each._sending, bytes(1 << 16))
        return pair

    async with no_leaks():
        await trio.testing.check_two_way_stream(make_pair, clogged)


@pytest.fixture
def spliced(monkeypatch):
    """Note how many bytes each splice has moved."""
    counts = []
    splice = os.splice

    def counting(*arguments, **named):
        counts.append(splice(*arguments, **named))
        return counts[-1]

    monkeypatch.setattr(os, "splice", counting)
    return counts


class DescribedStream(ByteStream):
    """A stream whose bytes stand in a descriptor."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self.told_bytes = 0

    @property
    def descriptor(self):
        return self._descriptor

    async def receive_some(self, _max_bytes):
        raise AssertionError("it was not taken from its descriptor")

    async def moved(self, count_bytes):
        self.told_bytes += count_bytes
        await trio.lowlevel.checkpoint()

    async def finish(self):
        await trio.lowlevel.checkpoint()


class CollectingStorage(ProbeStorage):
    """Keeps what it receives."""

    def __init__(self):
        self.data = bytearray()

    @hookimpl
    async def receive(self, request, stream):
        while piece := await stream.receive_some(1 << 20):
            self.data += piece
        await stream.finish()
        return ReceiveResponse(version=request.to_version)


class PumpingStorage(ProbeStorage):
    """Keeps what the pump moves into a descriptor of its own."""

    def __init__(self, make_target=os.pipe):
        self.data = bytearray()
        self._make_target = make_target

    @hookimpl
    async def receive(self, request, stream):
        reading, writing = self._make_target()
        os.set_blocking(writing, False)
        failed = None
        async with trio.lowlevel.FdStream(reading) as ours, trio.open_nursery() as nursery:
            nursery.start_soon(self._collect, ours)
            try:
                await pump(stream, writing)
            except FsrepError as error:  # raised below, outside the nursery
                failed = error
            finally:
                os.close(writing)
        if failed is not None:
            raise failed
        return ReceiveResponse(version=request.to_version)

    async def _collect(self, ours):
        async for piece in ours:
            self.data += piece


def socket_source():
    source, feed = (each.detach() for each in socket.socketpair(socket.AF_UNIX))
    return DescribedStream(source), feed


def pipe_source():
    source, feed = os.pipe()
    return DescribedStream(source), feed


def socket_target():
    return tuple(each.detach() for each in socket.socketpair(socket.AF_UNIX))


REQUEST = ReceiveRequest(
    job="j", filesystem="a", to_version=Version(VersionKind.SNAPSHOT, "s", "g", 1)
)


@asynccontextmanager
async def connected(storage, make_pair=socket_pair, timing=None):
    """Give an endpoint for a storage at the other end of a carrier."""
    admission = Admission(
        endpoint=Endpoint(storage, name="storage"), policy=PeerPolicy(identity="test")
    )
    service = Service() if timing is None else Service(timing=timing)

    async def serve(stream):
        with suppress(ConnectivityError):  # some tests cut it
            await serve_connection(stream, lambda _: admission, peer_name="client", service=service)

    async with no_leaks(), trio.open_nursery() as nursery:

        async def connect():
            here, there = await make_pair()
            nursery.start_soon(serve, there)
            return here

        more = {} if timing is None else {"timing": timing}
        async with open_remote_endpoint(connect, peer_name="server", **more) as plugin:
            yield Endpoint(plugin, name="remote")


async def push(endpoint, data, make_source=None, piece_bytes=70_001, wrap=lambda stream: stream):
    """Send data that somebody writes into a descriptor, piece by piece."""
    stream, feed = (make_source or pipe_source)()
    os.set_blocking(stream.descriptor, False)

    async def fill():
        async with trio.lowlevel.FdStream(feed) as pipe:
            for at in range(0, len(data), piece_bytes):
                await pipe.send_all(data[at : at + piece_bytes])

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await endpoint.receive(REQUEST, wrap(stream))
    finally:
        os.close(stream.descriptor)
    return stream


def make_data(seed, size_bytes=3_000_000):
    return random.Random(seed).randbytes(size_bytes)


@pytest.mark.parametrize("make_pair", [socket_pair, pipe_pair])
@pytest.mark.parametrize("make_source", [pipe_source, socket_source])
async def test_a_stream_with_a_descriptor_goes_out_whole(make_source, make_pair, spliced):
    """From a pipe it is spliced; from anything else, it is read."""
    data, storage = make_data(3), CollectingStorage()
    async with connected(storage, make_pair) as endpoint:
        stream = await push(endpoint, data, make_source)

    assert storage.data == data
    assert stream.told_bytes == len(data)
    assert sum(spliced) == (len(data) if make_source is pipe_source else 0)


@pytest.mark.parametrize("make_pair", [socket_pair, pipe_pair])
@pytest.mark.parametrize("make_target", [os.pipe, socket_target])
async def test_what_comes_in_moves_into_the_descriptor_of_a_storage(
    make_target, make_pair, spliced
):
    """Where either is a pipe it is spliced; two sockets go through a buffer."""
    data, storage = make_data(4), PumpingStorage(make_target)
    async with connected(storage, make_pair) as endpoint:
        await push(endpoint, data, socket_source, piece_bytes=10_007)

    assert storage.data == data
    through_a_buffer = make_pair is socket_pair and make_target is socket_target
    assert sum(spliced) == (0 if through_a_buffer else len(data))


async def test_heartbeats_between_frames_do_not_end_the_stream():
    """The sender pauses for many heartbeats, in the middle of the stream."""
    data, storage = make_data(5, 300_000), PumpingStorage()
    timing = Timing(heartbeat_interval_seconds=0.01)

    class Pausing(DescribedStream):
        async def moved(self, count_bytes):
            await super().moved(count_bytes)
            await trio.sleep(0.03)

    def pausing_source():
        source, feed = os.pipe()
        return Pausing(source), feed

    async with connected(storage, timing=timing) as endpoint:
        await push(endpoint, data, pausing_source, piece_bytes=50_000)

    assert storage.data == data


@pytest.mark.parametrize("make_source", [pipe_source, socket_source])
async def test_a_limit_holds_for_what_moves_between_descriptors(make_source):
    """Each piece is told of before the next may move, at both ends."""
    data, pieces = make_data(6, 100_000), []

    class Limited(WrappingStream):
        piece_limit_bytes = 7000

        async def receive_some(self, _max_bytes):
            raise AssertionError("it has a descriptor")

        async def moved(self, count_bytes):
            pieces.append(count_bytes)
            await self.inner.moved(count_bytes)

    class LimitedStorage(PumpingStorage):
        def __init__(self):
            super().__init__()
            self.metered = None

        @hookimpl
        async def receive(self, request, stream):
            self.metered = MeteredStream(stream, lambda _: None)
            limited = ThrottledStream(self.metered, RateLimit(2_000_000))
            return await super().receive(request, limited)

    storage = LimitedStorage()
    async with connected(storage) as endpoint:
        await push(endpoint, data, make_source, wrap=Limited)

    assert storage.data == data
    assert storage.metered.total_bytes == len(data)
    assert sum(pieces) == len(data)
    assert max(pieces) <= 7000


async def test_a_storage_that_reads_no_more_stops_the_sender():
    class Leaving(PumpingStorage):
        @hookimpl
        async def receive(self, request, stream):  # noqa: ARG002  (as specified)
            reading, writing = os.pipe()
            os.close(reading)
            os.set_blocking(writing, False)
            try:
                await pump(stream, writing)
            except BrokenPipeError:
                raise OutOfSpaceError("no space left") from None
            finally:
                os.close(writing)

    async with connected(Leaving()) as endpoint:
        stream, feed = pipe_source()
        os.set_blocking(stream.descriptor, False)
        os.write(feed, b"x" * 10)
        with pytest.raises(OutOfSpaceError), trio.fail_after(10):
            await endpoint.receive(REQUEST, stream)
        os.close(feed)
        os.close(stream.descriptor)


async def test_a_connection_that_is_cut_within_a_payload_is_an_error_of_the_stream():
    """The bytes that came before are in the storage's pipe; the stream is not whole."""
    ended = []

    class Noting(PumpingStorage):
        @hookimpl
        async def receive(self, request, stream):
            try:
                return await super().receive(request, stream)
            except FsrepError as error:
                ended.append(error)
                raise

    storage = Noting()
    carriers = []

    async def noted_pair():
        carriers.extend(await socket_pair())
        return carriers

    async with connected(storage, noted_pair) as endpoint:
        stream, feed = pipe_source()
        os.set_blocking(stream.descriptor, False)
        os.write(feed, b"x" * 10_000)
        async with trio.open_nursery() as nursery:

            async def cut():
                while len(storage.data) < 10_000:  # noqa: ASYNC110  (nobody tells of bytes)
                    await trio.sleep(0.001)
                carriers[0].close()

            nursery.start_soon(cut)
            with pytest.raises(ConnectivityError):
                await endpoint.receive(REQUEST, stream)
        os.close(feed)
        os.close(stream.descriptor)

    assert [type(error) for error in ended] == [ConnectivityError]
    assert storage.data == b"x" * 10_000


@pytest.mark.parametrize("make_pair", [pipe_pair, socket_pair])
async def test_a_large_payload_that_comes_in_small_pieces_fills_the_buffer(make_pair):
    payload = random.Random(3).randbytes(1 << 20)
    here, there = await make_pair()

    async def say():
        for start in range(0, len(payload), 5000):
            await there.send_all(payload[start : start + 5000])
        await there.aclose()

    received, calls = bytearray(), 0
    buffer = bytearray(1 << 19)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        while count_bytes := await here.receive_into(memoryview(buffer)):
            received += buffer[:count_bytes]
            calls += 1
    await here.aclose()

    assert received == payload
    assert calls < len(payload) // 5000


async def test_closing_while_a_thread_reads_frees_the_descriptor_only_after_it():
    receiving, sending = os.pipe()
    os.write(sending, b"something")
    stream = DescriptorStream(receiving, os.open(os.devnull, os.O_WRONLY))

    async def read():
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_into(memoryview(bytearray(1 << 20)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while not stream._lanes[Way.RECEIVE].limiter.borrowed_tokens:
            await trio.lowlevel.checkpoint()
        stream.close()
        others = os.pipe()  # the lowest free numbers: never the one that is being read
    os.close(sending)

    assert receiving not in others
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(receiving)
    for each in others:
        os.close(each)
