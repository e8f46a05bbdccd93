"""The transport ``fake``: reaches a storage of this process by a way that can fail.

Every call goes through a journal, which asks the script what goes wrong with it and
records what came of it. Sent streams are carried by a task of their own
(:mod:`fsrep_fake.carriage`), so that a sender goes on while nobody reads, up to a bound.
Time is trio's clock and nothing is left to chance, so that under a ``MockClock`` a run
with stalls of hours takes no time, and the same script gives the same run.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
import trio

from fsrep_core import (
    ConnectivityError,
    EndpointSpec,
    FsrepError,
    StorageError,
    Transport,
    hookimpl,
)
from fsrep_fake.carriage import carry
from fsrep_fake.faults import Fault, Script
from fsrep_fake.faulty import FaultyStream
from fsrep_fake.journal import Call, Entry, Journal, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fsrep_core import (
        ByteStream,
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        EndpointContext,
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

__all__ = ["FakeEndpoint", "FakeTransport"]

RequestT = TypeVar("RequestT", bound=Request)
AnswerT = TypeVar("AnswerT")


@attrs.define(eq=False, repr=False)
class FakeTransport(Transport):
    """Opens storages of this process and fails by a script.

    One transport counts the calls of all endpoints that it opens. ``repr`` gives what
    makes the same transport again.

    :param script: faults, the first that fits a call befalls it; or a
        :class:`~fsrep_fake.Script` such as :class:`~fsrep_fake.SeededFaults`
    :param buffer_bytes: how many bytes of a sent stream are read ahead at most
    """

    script: Script | tuple[Fault, ...] = ()
    buffer_bytes: int = attrs.field(default=64 * 1024, kw_only=True)
    _journal: Journal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._journal = Journal(self.script)

    def __repr__(self) -> str:
        return f"FakeTransport({self.script!r}, buffer_bytes={self.buffer_bytes})"

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls that have ended, in the order in which they did."""
        return tuple(self._journal.calls)

    @property
    def met_faults(self) -> tuple[Fault, ...]:
        """The faults that calls met: a script that repeats just these.

        It names each call by its filesystem and number, so it holds also where another
        order of work would change what a call counts as.
        """
        calls = sorted(self._journal.calls, key=lambda call: call.number)
        return tuple(call.fault for call in calls if call.fault is not None)

    def endpoint(self, storage: object) -> FakeEndpoint:
        """Give the endpoint of a storage, for a test that needs no configuration."""
        return FakeEndpoint(cast("EndpointSpec", storage), self._journal, self.buffer_bytes)

    @asynccontextmanager
    async def open_endpoint(self, context: EndpointContext) -> AsyncIterator[object]:
        """Make the storage and give its endpoint; there is nothing to connect."""
        yield self.endpoint(context.storage.create())


@attrs.define(eq=False)
class FakeEndpoint:
    """A storage's hooks, each with what its script adds."""

    storage: EndpointSpec
    journal: Journal
    buffer_bytes: int

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
        """Open the storage's stream and carry it."""
        with self.journal.begin("send", request) as entry:
            await _before(entry)
            async with self.storage.send(request=request) as response:
                if response.stream is None:
                    yield response
                    return
                async with carry(response.stream, buffer_bytes=self.buffer_bytes) as carried:
                    entry.opened = True
                    yield attrs.evolve(response, stream=FaultyStream(carried, entry))

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Give the stream to the storage."""
        with self.journal.begin("receive", request) as entry:
            await _before(entry)
            faulty = FaultyStream(stream, entry)
            try:
                response = await self.storage.receive(request=request, stream=faulty)
            except FsrepError as error:
                if faulty.cut:
                    raise _lost(entry) from error
                raise
            entry.unfinished = False  # a receiver that has the version already reads nothing
            if faulty.cut:
                raise _lost(entry)
            _after(entry)
            return response

    async def _ask(
        self,
        operation: Operation,
        request: RequestT,
        hook: Callable[[RequestT], Awaitable[AnswerT]],
    ) -> AnswerT:
        with self.journal.begin(operation, request) as entry:
            await _before(entry)
            if entry.fault is not None and entry.fault.action == "stall":
                seconds = entry.fault.seconds
                await trio.sleep(math.inf if seconds is None else seconds)
            answer = await hook(request)
            _after(entry)
            return answer


async def _before(entry: Entry) -> None:
    """Let a call fail that never reaches the storage."""
    await trio.lowlevel.checkpoint()
    fault = entry.fault
    if fault is not None and fault.action == "refuse":
        raise ConnectivityError(
            f"fake transport: {entry.operation} was refused, as the script has it",
            temporary=fault.temporary,
            local=fault.local,
        )
    if fault is not None and fault.action == "fail_before":
        raise StorageError(
            f"fake transport: {entry.operation} failed before it began, as the script has it",
            temporary=fault.temporary,
            local=fault.local,
        )


def _after(entry: Entry) -> None:
    """Lose the answer of a call that the storage has carried out."""
    if entry.fault is not None and entry.fault.action == "fail_after_commit":
        raise _lost(entry)


def _lost(entry: Entry) -> ConnectivityError:
    fault = entry.fault
    what = "the way was cut" if fault and fault.action == "cut" else "the answer was lost"
    return ConnectivityError(
        f"fake transport: {entry.operation}: {what}, as the script has it",
        temporary=fault.temporary if fault else None,
        local=fault.local if fault else None,
    )
