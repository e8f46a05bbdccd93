"""A plugin as a stranger writes it: its types must check against the installed fsrep."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, assert_type

import attrs

from fsrep_core import (
    ByteStream,
    Capabilities,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    EndpointContext,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    Registry,
    SendRequest,
    SendResponse,
    SizeEstimate,
    StorageError,
    Transport,
    Version,
    VersionResult,
    feed_process,
    hookimpl,
    open_process_stream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager


@attrs.frozen(kw_only=True)
class ShelfConfig:
    """The options of the shelf storage."""

    root: str


def explain(status: int, stderr: str) -> StorageError:
    """Turn the failure of a child into an error of this storage."""
    return StorageError(f"shelf ended with {status}: {stderr}", hint="look at the shelf")


@attrs.define(eq=False)
class ShelfStorage:
    """A storage with every hook."""

    config: ShelfConfig

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List nothing."""
        assert_type(request.patterns, tuple[str, ...])
        return Inventory(capabilities=Capabilities(stream_formats=frozenset({"shelf"})))

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Say nothing."""
        assert_type(request.from_version, Version | None)
        return SizeEstimate(size_bytes=None)

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Stream from a child."""
        argv = ["shelf", "send", request.filesystem]
        async with open_process_stream(argv, explain=explain) as stream:
            assert_type(stream, ByteStream)
            yield SendResponse(stream=stream)

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Stream into a child."""
        await feed_process(["shelf", "receive"], stream, explain=explain)
        return ReceiveResponse(version=request.to_version)

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Keep no cursor."""
        return request.move_to

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Make nothing."""
        return tuple(
            VersionResult(filesystem=each, name=request.name) for each in request.filesystems
        )

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Destroy nothing."""
        return tuple(
            VersionResult(filesystem=request.filesystem, name=each.name)
            for each in request.versions
        )


@attrs.define(eq=False)
class DirectTransport(Transport):
    """A transport that opens the storage right here."""

    config: ShelfConfig

    def open_endpoint(self, context: EndpointContext) -> AbstractAsyncContextManager[object]:
        """Open the side's own storage."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[object]:
            yield context.storage.create()

        return opened()


class Plugin:
    """What the entry point names."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """Offer both."""
        registry.add_storage("shelf", ShelfStorage, config_class=ShelfConfig, summary="A shelf")
        registry.add_transport(
            "direct", DirectTransport, config_class=ShelfConfig, summary="No way at all"
        )


plugin = Plugin()
