"""A storage that fails where its calls' faults say so: the serving end of the fake.

Here the faults at an operation befall a call, after its request has come over the wire and
before its answer goes back. What happens is decided by the byte of the stream that is
asked for, in the task that asks: it does not depend on the order in which trio runs tasks.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from fsrep_core import (
    ByteStream,
    ConnectivityError,
    EndpointSpec,
    FsrepError,
    StorageError,
    hookimpl,
)
from fsrep_fake.cable import Cable
from fsrep_fake.faults import Fault
from fsrep_fake.journal import Entry, Journal, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fsrep_core import (
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        Inventory,
        InventoryRequest,
        ReceiveRequest,
        ReceiveResponse,
        SendRequest,
        SendResponse,
        SizeEstimate,
        Version,
        VersionResult,
    )
    from fsrep_fake.faults import Operation

__all__ = ["FaultyStorage"]

RequestT = TypeVar("RequestT", bound=Request)
AnswerT = TypeVar("AnswerT")

_IN_STREAM = {"cut", "stall", "trickle", "corrupt", "fail_in_middle"}


@attrs.define(eq=False)
class FaultyStorage:
    """A storage's hooks behind one cable, each with what its call's fault adds."""

    storage: EndpointSpec
    journal: Journal
    cable: Cable

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """Ask the storage."""
        return await self._ask("inventory", request, self.storage.inventory)

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Ask the storage."""
        return await self._ask("size_estimate", request, self.storage.size_estimate)

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Ask the storage."""
        return await self._ask("replication_cursor", request, self.storage.replication_cursor)

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Ask the storage."""
        return await self._ask("create_version", request, self.storage.create_version)

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Ask the storage."""
        return await self._ask("destroy_versions", request, self.storage.destroy_versions)

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Open the storage's stream."""
        entry = self.journal.find("send", request)
        await self._before(entry)
        async with self.storage.send(request=request) as response:
            stream = response.stream
            if stream is not None:
                stream = _FaultyStream(stream, entry, self.cable)
            yield attrs.evolve(response, stream=stream)

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Give the stream to the storage."""
        entry = self.journal.find("receive", request)
        await self._before(entry)
        faulty = _FaultyStream(stream, entry, self.cable, counts=True)
        response = await self.storage.receive(request=request, stream=faulty)
        self._after(entry)
        return response

    async def _ask(
        self,
        operation: Operation,
        request: RequestT,
        hook: Callable[[RequestT], Awaitable[AnswerT]],
    ) -> AnswerT:
        entry = self.journal.find(operation, request)
        await self._before(entry)
        if entry.fault is not None and entry.fault.action == "stall":
            seconds = entry.fault.seconds
            await trio.sleep(math.inf if seconds is None else seconds)
        answer = await hook(request)
        self._after(entry)
        return answer

    async def _before(self, entry: Entry) -> None:
        """Let a call fail that never reaches the storage."""
        await trio.lowlevel.checkpoint()
        fault = entry.fault
        if fault is not None and fault.action == "refuse":
            raise _cut(self.cable, entry, "it was refused")
        if fault is not None and fault.action == "fail_before":
            raise StorageError(
                f"fake transport: {entry.operation} failed before it began, as the script has it",
                temporary=fault.temporary,
                local=fault.local,
            )

    def _after(self, entry: Entry) -> None:
        """Lose the answer of a call that the storage has carried out."""
        if entry.fault is not None and entry.fault.action == "fail_after_commit":
            raise _cut(self.cable, entry, "the answer was lost")


def _cut(cable: Cable, entry: Entry, what: str) -> ConnectivityError:
    """Cut the cable in the middle of a call, and make the error that says so at both ends."""
    cable.cut()
    assert entry.fault is not None  # noqa: S101  (it is what cuts)
    entry.lost = ConnectivityError(
        f"fake transport: {entry.operation}: {what}, as the script has it",
        temporary=entry.fault.temporary,
        local=entry.fault.local,
    )
    return entry.lost


@attrs.define(eq=False)
class _FaultyStream(ByteStream):
    """Passes a stream on, lets a call's fault befall it, and keeps the call's record."""

    _stream: ByteStream
    _entry: Entry
    _cable: Cable
    _counts: bool = attrs.field(default=False, kw_only=True)
    """The record of the call says how far this stream was read."""
    _fault: Fault | None = attrs.field(init=False)
    """What has still to happen."""
    _error: FsrepError | None = attrs.field(init=False, default=None)
    """What whoever reads is told, since the fault has happened."""
    _moved_bytes: int = attrs.field(init=False, default=0)
    _trickling_bytes: int = attrs.field(init=False, default=0)
    _pause_seconds: float = attrs.field(init=False, default=0.0)
    _damaged: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        fault = self._entry.fault
        self._fault = fault if fault is not None and fault.action in _IN_STREAM else None

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """See :class:`~fsrep_core.ByteStream`."""
        if self._fault is not None and self._fault.at_byte is not None:
            if self._fault.at_byte == self._moved_bytes:
                await self._befall()
            elif self._fault.at_byte > self._moved_bytes:
                max_bytes = min(max_bytes, self._fault.at_byte - self._moved_bytes)
        if self._error is not None:
            raise self._error
        if self._trickling_bytes:
            self._trickling_bytes -= 1
            await trio.sleep(self._pause_seconds)
            max_bytes = 1
        piece = await self._stream.receive_some(max_bytes)
        self._moved_bytes += len(piece)
        if self._counts:
            self._entry.moved_bytes = self._moved_bytes
        if self._damaged and piece:
            self._damaged = False
            return bytes([piece[0] ^ 0xFF]) + bytes(piece[1:])
        return piece

    async def finish(self) -> None:
        """See :class:`~fsrep_core.ByteStream`."""
        if self._fault is not None and self._fault.at_byte in {None, self._moved_bytes}:
            await self._befall()
        if self._error is not None:
            raise self._error
        await self._stream.finish()

    async def _befall(self) -> None:
        """Let the fault happen, once."""
        fault, self._fault = self._fault, None
        assert fault is not None  # noqa: S101  (the callers have looked)
        match fault.action:
            case "cut":
                self._error = _cut(self._cable, self._entry, f"cut at byte {self._moved_bytes}")
            case "fail_in_middle":
                self._error = StorageError(
                    f"fake transport: {self._entry.operation} {self._entry.filesystem} failed at "
                    f"byte {self._moved_bytes}, as the script has it",
                    temporary=fault.temporary,
                    local=fault.local,
                )
            case "stall":
                await trio.sleep(math.inf if fault.seconds is None else fault.seconds)
            case "trickle":
                self._trickling_bytes = fault.length_bytes
                self._pause_seconds = 1.0 if fault.seconds is None else fault.seconds
            case _:
                self._damaged = True
