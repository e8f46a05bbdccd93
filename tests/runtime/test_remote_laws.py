"""Remote endpoints keep every law of transports, over every kind of stream."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from fsrep_core import ConnectivityError
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.carrier import DescriptorStream
from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.testing import TRANSPORT_LAWS, ProbeStorage, check_transport


def lockstep_pair():
    """Streams without any buffer: whoever waits for the other to read first never goes on."""
    return trio.testing.lockstep_stream_pair()


def socket_pair():
    return tuple(
        trio.SocketStream(trio.socket.from_stdlib_socket(each))
        for each in socket.socketpair(socket.AF_UNIX)
    )


def pipe_pair():
    (here_reads, there_writes), (there_reads, here_writes) = os.pipe(), os.pipe()
    return DescriptorStream(here_reads, here_writes), DescriptorStream(there_reads, there_writes)


def descriptor_pair():
    pair = [each.detach() for each in socket.socketpair(socket.AF_UNIX)]
    return tuple(DescriptorStream(each, each) for each in pair)


TIMING = Timing(heartbeat_interval_seconds=0.1)
"""A server whose storage does not read finds out by its heartbeats that the client is gone."""

PAIRS = [lockstep_pair, socket_pair, pipe_pair, descriptor_pair]


@asynccontextmanager
async def remote(make_pair):
    """Serve a probe, and give a way to it."""
    lives = set()

    def vanish():
        for life in lives:
            life.cancel()

    def admit(_hello):
        probe = ProbeStorage(vanish)
        endpoint = Endpoint(probe, name="storage", call_timeout_seconds=float("inf"))
        return Admission(endpoint=endpoint, policy=PeerPolicy(identity="kit"))

    async with trio.open_nursery() as nursery:

        async def serve(stream):
            # A client may leave in the middle of a frame.
            with trio.CancelScope() as life, suppress(ConnectivityError):
                lives.add(life)
                await serve_connection(
                    stream, admit, peer_name="client", service=Service(timing=TIMING)
                )
            lives.discard(life)

        async def connect():
            here, there = make_pair()
            nursery.start_soon(serve, there)
            return here

        yield partial(open_remote_endpoint, connect, peer_name="server", timing=TIMING)


@pytest.mark.parametrize("make_pair", PAIRS)
@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_a_remote_endpoint_keeps_the_law(law, make_pair):
    verdict = await check_transport(partial(remote, make_pair), laws=[law])

    assert verdict.kept == (law,)
