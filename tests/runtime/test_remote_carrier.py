"""Streams over descriptors are good trio streams, and splice what pipes hold."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

import pytest
import trio
import trio.testing

from fsrep_core import (
    ByteStream,
    DescriptorStream,
    ReceiveRequest,
    ReceiveResponse,
    Version,
    VersionKind,
    hookimpl,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, serve_connection
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
                    os.write(each._sending.descriptor, bytes(1 << 16))
        return pair

    async with no_leaks():
        await trio.testing.check_two_way_stream(make_pair, clogged)


async def test_what_a_pipe_holds_is_moved_in_the_kernel(monkeypatch):
    here, there = await socket_pair()
    source, feed = os.pipe()
    os.write(feed, b"x" * 50_000)
    spliced = []
    splice = os.splice

    def counting(*arguments, **named):
        spliced.append(splice(*arguments, **named))
        return spliced[-1]

    monkeypatch.setattr(os, "splice", counting)
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_from, source, 50_000)
        while len(got) < 50_000:
            got += await there.receive_some()

    assert bytes(got) == b"x" * 50_000
    assert sum(spliced) == 50_000
    os.close(source)
    os.close(feed)
    await here.aclose()
    await there.aclose()


class PipeStream(ByteStream):
    """A stream whose bytes stand in a pipe."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self.told_bytes = 0

    @property
    def descriptor(self):
        return self._descriptor

    async def receive_some(self, _max_bytes):
        raise AssertionError("it was not spliced")

    async def moved(self, count_bytes):
        self.told_bytes += count_bytes
        await trio.lowlevel.checkpoint()

    async def finish(self):
        await trio.lowlevel.checkpoint()


class SocketStream(PipeStream):
    """A stream whose bytes stand in a socket: no pipe, and so nothing that splices."""

    async def receive_some(self, max_bytes):
        while True:
            try:
                return os.read(self.descriptor, max_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.descriptor)


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


def socket_source():
    source, feed = (each.detach() for each in socket.socketpair(socket.AF_UNIX))
    return SocketStream(source), feed


def pipe_source():
    source, feed = os.pipe()
    return PipeStream(source), feed


@pytest.mark.parametrize("make_pair", [socket_pair, pipe_pair])
@pytest.mark.parametrize("make_source", [pipe_source, socket_source])
async def test_a_stream_with_a_descriptor_goes_out_whole(make_source, make_pair):
    """From a pipe it is spliced; from anything else, it is read."""
    seed = 3
    data = random.Random(seed).randbytes(3_000_000)
    storage = CollectingStorage()
    admission = Admission(
        endpoint=Endpoint(storage, name="storage"), policy=PeerPolicy(identity="test")
    )
    request = ReceiveRequest(
        job="j", filesystem="a", to_version=Version(VersionKind.SNAPSHOT, "s", "g", 1)
    )

    async def fill(feed):
        async with trio.lowlevel.FdStream(feed) as pipe:
            for at in range(0, len(data), 70_001):
                await pipe.send_all(data[at : at + 70_001])

    async def serve(stream):
        await serve_connection(stream, lambda _: admission, peer_name="client")

    async with no_leaks(), trio.open_nursery() as nursery:

        async def connect():
            here, there = await make_pair()
            nursery.start_soon(serve, there)
            return here

        async with open_remote_endpoint(connect, peer_name="server") as plugin:
            stream, feed = make_source()
            os.set_blocking(stream.descriptor, False)
            nursery.start_soon(fill, feed)
            await Endpoint(plugin, name="remote").receive(request, stream)
            os.close(stream.descriptor)

    assert storage.data == data
    assert stream.told_bytes == (len(data) if make_source is pipe_source else 0)


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
        while not stream._receiving.in_thread:
            await trio.lowlevel.checkpoint()
        stream.close()
        others = os.pipe()  # the lowest free numbers: never the one that is being read
    os.close(sending)

    assert receiving not in others
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(receiving)
    for each in others:
        os.close(each)
