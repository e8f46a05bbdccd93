"""The far side of ``bench.ssh``: ``fsrep endpoint`` with a storage that only takes streams."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import (
    Capabilities,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    StorageError,
    feed_process,
    hookimpl,
)
from fsrep_core.ops.commands.endpoint import serve, take_standard_streams
from fsrep_core.runtime.binding import HOOK_NAMES, Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service

if TYPE_CHECKING:
    from fsrep_core import ByteStream
    from fsrep_core.wire import Hello

TAKER = ("dd", "of=/dev/null", "bs=1M", "status=none")


def explain(status: int, stderr: str) -> StorageError:
    return StorageError(f"dd ended with {status}: {stderr}")


@attrs.define(eq=False)
class Sink:
    """A storage that gives all streams to ``dd``."""

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        del request  # all jobs see the same
        return Inventory(
            filesystems=(), capabilities=Capabilities(stream_formats=frozenset({"dd"}))
        )

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        await feed_process(TAKER, stream, explain=explain)
        return ReceiveResponse(version=request.to_version)


def refuse(self: object, request: object) -> None:
    raise AssertionError(f"the benchmark only receives: {self}, {request}")


for name in HOOK_NAMES:
    if not hasattr(Sink, name):
        setattr(Sink, name, hookimpl(refuse))


def admit(_hello: Hello) -> Admission:
    return Admission(
        endpoint=Endpoint(Sink(), name="sink"), policy=PeerPolicy(identity=str(os.getuid()))
    )


if __name__ == "__main__":
    trio.run(serve, *take_standard_streams(), admit, Service())
