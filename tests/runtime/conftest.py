"""What tests of bytes and processes share: streams to move, and proof that nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import socket

import attrs
import pytest
import trio

from fsrep_core import ByteStream, StorageError
from fsrep_core.testing import no_leaks, open_resources

DEADLINE_SECONDS = 30
"""Far beyond what any of these tests takes: it turns a hang into a failure."""


def explain(status, stderr):
    return StorageError(f"status {status}: {stderr}")


@pytest.fixture
def nothing_left():
    """Give a context that ends in time and leaves no descriptor, child or task."""

    @contextlib.asynccontextmanager
    async def context(deadline_seconds=DEADLINE_SECONDS):
        async with no_leaks():
            with trio.fail_after(deadline_seconds):
                yield

    return context


@pytest.fixture
def children():
    """Give the function that lists the process ids of our children."""
    return lambda: set(open_resources().children)


@pytest.fixture
def explain_failure():
    return explain


@attrs.define(eq=False)
class ListStream(ByteStream):
    """A stream of given pieces, without a descriptor, that can fail at its end."""

    pieces: list[bytes]
    piece_limit_bytes: int | None = None
    failure: Exception | None = None
    finished: int = 0

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def finish(self):
        await trio.lowlevel.checkpoint()
        self.finished += 1
        if self.failure is not None:
            raise self.failure


@attrs.define(eq=False)
class DescriptorStream(ByteStream):
    """A stream of what a descriptor gives; remembers every piece that was told of."""

    descriptor: int
    piece_limit_bytes: int | None = None
    failure: Exception | None = None
    finished: int = 0
    told: list[int] = attrs.field(factory=list)

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return os.read(self.descriptor, max_bytes)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.descriptor)

    async def moved(self, count_bytes):
        self.told.append(count_bytes)

    async def finish(self):
        await trio.lowlevel.checkpoint()
        self.finished += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def list_stream():
    return ListStream


@pytest.fixture
def descriptor_stream():
    return DescriptorStream


@pytest.fixture
def make_ends():
    """Give non-blocking (readable, writable) pairs of a kind, closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(kind):
            if kind == "pipe":
                reader, writer = os.pipe()
                ends = os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)
            else:
                ends = socket.socketpair()
            for end in ends:
                os.set_blocking(end.fileno(), False)
                stack.enter_context(end)
            return ends

        yield make


@pytest.fixture
def content():
    """Bytes of a size, the same in every run, without a period that could hide a shift."""
    return lambda size_bytes: random.Random(size_bytes).randbytes(size_bytes)
