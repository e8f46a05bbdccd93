"""local-pipe: the storage as it is, its bytes through the largest pipes that there are."""

from __future__ import annotations

import fcntl
import hashlib
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from fsrep_core import (
    ByteStream,
    Capabilities,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    Registry,
    SendRequest,
    SendResponse,
    Side,
    StorageError,
    Version,
    VersionKind,
    feed_process,
    hookimpl,
    open_process_stream,
)
from fsrep_core.runtime.binding import SideSettings, open_endpoint
from fsrep_core.runtime.options import OptionsError, structure_options
from fsrep_core.testing import no_leaks
from fsrep_local_pipe import LocalPipe, LocalPipeConfig, plugin

VERSION = Version(VersionKind.SNAPSHOT, "one", "guid-1", 1)
SEND = SendRequest(job="job", filesystem="data", to_version=VERSION)
RECEIVE = ReceiveRequest(job="job", filesystem="data", to_version=VERSION)
SIZE_BYTES = 3_000_001
DEADLINE_SECONDS = 30
LARGEST_PIPE_BYTES = int(Path("/proc/sys/fs/pipe-max-size").read_text())

TAKER = """
import fcntl, hashlib, sys
print(fcntl.fcntl(0, fcntl.F_GETPIPE_SZ))
print(hashlib.file_digest(sys.stdin.buffer, "sha256").hexdigest())
"""


def explain(status, stderr):
    return StorageError(f"status {status}: {stderr}")


class MadeHere(ByteStream):
    """A stream without a descriptor."""

    def __init__(self):
        self.pieces = [bytes(SIZE_BYTES)]

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return b""
        piece = self.pieces.pop()
        if len(piece) > max_bytes:
            self.pieces.append(piece[max_bytes:])
        return piece[:max_bytes]

    async def finish(self):
        await trio.lowlevel.checkpoint()


@attrs.frozen
class Options:
    maker: str = f"head -c {SIZE_BYTES} /dev/zero"
    """A shell's script; none = the stream is made in Python."""


@attrs.define(eq=False)
class Storage:
    """Sends what a script writes, and receives by letting a process hash it."""

    options: Options
    made_pipe_bytes: int | None = None
    taken_pipe_bytes: int | None = None
    received_hash: str | None = None

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        assert request is SEND
        if not self.options.maker:
            yield SendResponse(stream=MadeHere())
            return
        argv = ["sh", "-c", self.options.maker]
        async with open_process_stream(argv, explain=explain) as stream:
            yield SendResponse(stream=stream)

    @hookimpl
    async def receive(self, request, stream):
        assert request is RECEIVE
        if stream.descriptor is not None:
            self.made_pipe_bytes = fcntl.fcntl(stream.descriptor, fcntl.F_GETPIPE_SZ)
        output = await feed_process([sys.executable, "-c", TAKER], stream, explain=explain)
        size, self.received_hash = output.stdout.decode().split()
        self.taken_pipe_bytes = int(size)
        return ReceiveResponse(version=request.to_version)

    @hookimpl
    async def inventory(self, request):
        formats = frozenset({f"asked by {request.job}"})
        return Inventory(capabilities=Capabilities(stream_formats=formats))

    @hookimpl
    async def size_estimate(self): ...

    @hookimpl
    async def replication_cursor(self): ...

    @hookimpl
    async def create_version(self): ...

    @hookimpl
    async def destroy_versions(self): ...


@pytest.fixture
def storages():
    """Every storage that was made, in order."""
    return []


@pytest.fixture
def endpoint(storages):
    """Open one side of a job, as the driver does."""
    registry = Registry()
    plugin.register(registry)

    def create(options):
        storages.append(Storage(options))
        return storages[-1]

    registry.add_storage("test", create, config_class=Options, summary="For this test.")

    def open_side(maker=Options().maker):
        settings = SideSettings(
            side=Side.SENDER,
            transport="local-pipe",
            storage="test",
            storage_options={"maker": maker},
        )
        return open_endpoint(registry, settings, job="job")

    return open_side


async def replicate(sender, receiver):
    with trio.fail_after(DEADLINE_SECONDS):
        async with no_leaks(), sender.send(SEND) as response:
            return await receiver.receive(RECEIVE, response.stream)


@pytest.mark.parametrize("maker", [Options().maker, ""], ids=["process", "here"])
async def test_bytes_arrive(maker, endpoint, storages):
    async with endpoint(maker) as sender, endpoint() as receiver:
        response = await replicate(sender, receiver)

    assert response.version == VERSION
    assert storages[1].received_hash == hashlib.sha256(bytes(SIZE_BYTES)).hexdigest()


async def test_pipes_are_the_largest_that_there_are(endpoint, storages):
    async with endpoint() as sender, endpoint() as receiver:
        await replicate(sender, receiver)

    assert storages[1].made_pipe_bytes == LARGEST_PIPE_BYTES
    assert storages[1].taken_pipe_bytes == LARGEST_PIPE_BYTES


async def test_maker_that_fails_is_the_error(endpoint):
    failing = "head -c 100000 /dev/zero; echo pool gone >&2; exit 3"
    async with endpoint(failing) as sender, endpoint() as receiver:
        with pytest.raises(StorageError, match="status 3: pool gone"):
            await replicate(sender, receiver)


async def test_all_else_is_the_storage_s_own(endpoint):
    async with endpoint() as side:
        inventory = await side.inventory(InventoryRequest(job="nightly"))

    assert inventory.capabilities.stream_formats == {"asked by nightly"}


def test_options_are_refused():
    with pytest.raises(OptionsError, match="pipe_size: unknown key"):
        structure_options(LocalPipeConfig, {"pipe_size": "1 MiB"}, "sender.transport")


def test_transport_is_registered():
    registry = Registry()
    plugin.register(registry)

    (offer,) = registry.offers("transport")
    assert offer.name == "local-pipe"
    assert isinstance(offer.create(LocalPipeConfig()), LocalPipe)
