"""The transport ``fake``: reaches a storage of this process by the real wire, which can fail.

Both ends of a connection run here, with bytes in memory between them
(:mod:`fsrep_fake.cable`): what a job meets over ``fake`` is what it would meet over ``ssh``,
heartbeats and deadlines included. A call goes through the journal, which asks the script
what goes wrong with it and records what came of it. Time is trio's clock and nothing is
left to chance, so that under a ``MockClock`` a run with stalls of hours takes no time, and
the same script gives the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
import trio

from fsrep_core import (
    ByteStream,
    EndpointContext,
    EndpointSpec,
    FsrepError,
    Side,
    StorageChoice,
    StreamTransport,
    Timing,
    Transport,
    hookimpl,
    serve_endpoint,
)
from fsrep_fake.cable import Cable
from fsrep_fake.faults import Fault, Script, WireFault
from fsrep_fake.faulty import FaultyStorage
from fsrep_fake.journal import Call, Entry, Journal, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

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

__all__ = ["FakeEndpoint", "FakeTransport"]

RequestT = TypeVar("RequestT", bound=Request)
AnswerT = TypeVar("AnswerT")


@attrs.define(eq=False, repr=False)
class FakeTransport(Transport):
    """Reaches storages of this process and fails by a script.

    One transport counts the calls and the connections of all endpoints that it opens.
    ``repr`` gives what makes the same transport again.

    :param script: faults, of which the first that fits a call befalls it, and each that fits
        a connection; or a :class:`~fsrep_fake.Script` such as
        :class:`~fsrep_fake.SeededFaults`
    :param buffer_bytes: how many bytes a connection holds at most in each direction
    :param timing: the deadlines and intervals of both ends
    """

    script: Script | tuple[Fault | WireFault, ...] = ()
    buffer_bytes: int = attrs.field(default=64 * 1024, kw_only=True)
    timing: Timing = attrs.field(factory=Timing, kw_only=True)
    _journal: Journal = attrs.field(init=False)
    _connections: int = attrs.field(init=False, default=0)
    _cables: list[Cable] = attrs.field(init=False, factory=list)
    """Those that have not ended."""

    def __attrs_post_init__(self) -> None:
        self._journal = Journal(self.script)

    def __repr__(self) -> str:
        timing = "" if self.timing == Timing() else f", timing={self.timing!r}"
        return f"FakeTransport({self.script!r}, buffer_bytes={self.buffer_bytes}{timing})"

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls that have ended, in the order in which they did."""
        return tuple(self._journal.calls)

    @property
    def met_faults(self) -> tuple[Fault | WireFault, ...]:
        """The faults that calls and connections met: a script that repeats just these.

        It names each call by its filesystem and number, so it holds also where another
        order of work would change what a call counts as; and each connection by its number.
        """
        calls = sorted(self._journal.calls, key=lambda call: call.number)
        of_calls = (call.fault for call in calls if call.fault is not None)
        return (*of_calls, *self._journal.wire_faults)

    @asynccontextmanager
    async def open_endpoint(self, context: EndpointContext) -> AsyncIterator[FakeEndpoint]:
        """Make the storage, and give what reaches it."""
        storage = cast("EndpointSpec", context.storage.create())
        body_error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            dialer = _Dialer(
                self._plug, self._cables.remove, self._journal, self.timing, storage, nursery
            )
            try:
                async with dialer.open_endpoint(context) as remote:
                    yield FakeEndpoint(cast("EndpointSpec", remote), self._journal)
            except BaseException as error:  # noqa: BLE001  (raised again, outside the nursery)
                body_error = error
            nursery.cancel_scope.cancel()
        if body_error is not None:
            try:
                raise body_error
            finally:
                del body_error  # it refers to this frame, which would keep both alive

    @asynccontextmanager
    async def reach(self, storage: object) -> AsyncIterator[FakeEndpoint]:
        """Give what reaches a storage, for a test that needs no configuration."""
        choice = StorageChoice(name="given", options={}, create=lambda: storage)
        context = EndpointContext(job="fake", side=Side.SENDER, storage=choice)
        async with self.open_endpoint(context) as endpoint:
            yield endpoint

    def cut(self) -> None:
        """Cut every connection that there is, for a test that decides itself when.

        The far end is gone without a word, and what it does for calls is cancelled; the next
        call connects again. The script has no part in it, nor has :attr:`met_faults`.
        """
        for cable in self._cables:
            cable.cut()

    def _plug(self) -> Cable:
        """Make the next connection."""
        self._connections += 1
        wire_faults: tuple[WireFault, ...] = ()
        if isinstance(self.script, tuple):
            wire_faults = tuple(each for each in self.script if isinstance(each, WireFault))
        cable = Cable(
            self._connections, wire_faults, self.buffer_bytes, self._journal.wire_faults.append
        )
        self._cables.append(cable)
        return cable


@attrs.define(eq=False)
class _Dialer(StreamTransport):
    """Connects to one storage, which is served at the other end of each cable."""

    _plug: Callable[[], Cable]
    _unplug: Callable[[Cable], None]
    _journal: Journal
    _timing: Timing
    _storage: EndpointSpec
    _nursery: trio.Nursery

    def describe(self, context: EndpointContext) -> str:
        """See :meth:`fsrep_core.StreamTransport.describe`."""
        return f"fake transport: {context.side.value}"

    def timing(self) -> Timing:
        """See :meth:`fsrep_core.StreamTransport.timing`."""
        return self._timing

    async def connect(self, context: EndpointContext) -> trio.abc.Stream:  # noqa: ARG002  (one storage)
        """See :meth:`fsrep_core.StreamTransport.connect`."""
        await trio.lowlevel.checkpoint()
        cable = self._plug()
        self._nursery.start_soon(self._serve, cable)
        return cable.client

    async def _serve(self, cable: Cable) -> None:
        storage = FaultyStorage(self._storage, self._journal, cable)
        try:
            with suppress(FsrepError):  # the client is told, or gone
                await serve_endpoint(
                    cable.server, storage, peer_name="fake transport: client", timing=self._timing
                )
        finally:
            self._unplug(cable)


@attrs.define(eq=False)
class FakeEndpoint:
    """The hooks of a storage at the other end of the wire, with a record of each call."""

    remote: EndpointSpec
    journal: Journal

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """Ask the far end."""
        return await self._ask("inventory", request, self.remote.inventory)

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Ask the far end."""
        return await self._ask("size_estimate", request, self.remote.size_estimate)

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Ask the far end."""
        return await self._ask("replication_cursor", request, self.remote.replication_cursor)

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Ask the far end."""
        return await self._ask("create_version", request, self.remote.create_version)

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Ask the far end."""
        return await self._ask("destroy_versions", request, self.remote.destroy_versions)

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Fetch the far end's stream."""
        with self.journal.begin("send", request) as entry, entry.explaining():
            async with self.remote.send(request=request) as response:
                assert response.stream is not None  # noqa: S101  (the wire has one, or an error)
                entry.opened = entry.unfinished = True
                yield attrs.evolve(response, stream=_RecordedStream(response.stream, entry))
                entry.opened = False

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Push a stream to the far end."""
        with self.journal.begin("receive", request) as entry, entry.explaining():
            return await self.remote.receive(request=request, stream=stream)

    async def _ask(
        self,
        operation: Operation,
        request: RequestT,
        hook: Callable[[RequestT], Awaitable[AnswerT]],
    ) -> AnswerT:
        with self.journal.begin(operation, request) as entry, entry.explaining():
            return await hook(request)


@attrs.define(eq=False)
class _RecordedStream(ByteStream):
    """Passes a fetched stream on, and keeps the call's record."""

    _stream: ByteStream
    _entry: Entry

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """See :class:`~fsrep_core.ByteStream`."""
        with self._entry.noting():
            piece = await self._stream.receive_some(max_bytes)
        self._entry.moved_bytes += len(piece)
        return piece

    async def finish(self) -> None:
        """See :class:`~fsrep_core.ByteStream`."""
        with self._entry.noting():
            await self._stream.finish()
        self._entry.unfinished = False
