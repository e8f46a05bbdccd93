"""The hooks over connections: what a client's side of a job is, when it is elsewhere.

Each call is one dialogue on one connection of the pool. However a call ends, its dialogue
is brought to an end too: after an error, an early leave or a cancellation the peer is told
to abort and has a few seconds to confirm, so that on both sides nothing of the call is
left and the connection can serve the next. A peer that does not confirm is left.

The error that is raised is the one that tells why: the peer's own, where it said one.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fsrep_core import __version__
from fsrep_core.errors import (
    BrokenEndpointError,
    ConnectivityError,
    FsrepError,
    InterruptedStreamError,
    InvalidRequestError,
    TimeoutExpiredError,
)
from fsrep_core.hookspecs import hookimpl
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.remote.link import Link
from fsrep_core.runtime.remote.pool import Pool, Use
from fsrep_core.runtime.remote.streams import IncomingStream, OutgoingStream
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.values import (
    Inventory,
    Problem,
    ReceiveResponse,
    SendResponse,
    SizeEstimate,
)
from fsrep_core.wire import (
    OPERATIONS,
    REQUEST_EVENTS,
    Abort,
    Answer,
    Bye,
    Connection,
    CursorAnswer,
    Done,
    Event,
    Failure,
    Hello,
    Opened,
    Part,
    Results,
    Role,
    StorageAsk,
    Unpacker,
    WireError,
    make_error,
    pack,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fsrep_core.streams import ByteStream
    from fsrep_core.values import (
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        InventoryRequest,
        ReceiveRequest,
        SendRequest,
        Version,
        VersionResult,
    )

__all__ = ["CONNECTION_LIMIT", "SOFTWARE", "RemoteEndpoint", "open_remote_endpoint"]

SOFTWARE = f"fsrep {__version__}"
"""How this side calls itself in a hello."""

CONNECTION_LIMIT = 64
"""The most connections of one side of a job; more steps at once wait for one."""

_LEFT_EARLY = Problem(
    message="the client did not want the rest",
    temporary=True,
    local=True,
    kind=InterruptedStreamError.kind,
)
_CANCELLED = attrs.evolve(_LEFT_EARLY, message="the client cancelled it")

Connect = Callable[[], Awaitable[trio.abc.Stream]]


@asynccontextmanager
async def open_remote_endpoint(
    connect: Connect,
    *,
    peer_name: str,
    ask: StorageAsk | None = None,
    timing: Timing | None = None,
    connection_limit: int = CONNECTION_LIMIT,
) -> AsyncIterator[RemoteEndpoint]:
    """Give the endpoint behind ``connect``, which is called when a connection is needed.

    Leaving it says goodbye and closes every connection, in bounded time.

    :param connect: gives a new connection; what it raises is raised by the call
    :param peer_name: how messages call the peer, such as ``receiver at nas.example``
    :param ask: what to ask to be served, where the peer leaves that to its clients
    """
    dial = functools.partial(
        _open_link,
        connect,
        Hello(software=SOFTWARE, identity=socket.gethostname(), ask=ask),
        peer_name,
        timing or Timing(),
    )
    body_error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        pool = Pool(dial, nursery, connection_limit)
        try:
            yield RemoteEndpoint(pool, peer_name)
        except BaseException as error:  # noqa: BLE001  (raised again, outside the nursery)
            body_error = error
        else:
            await pool.part()
        nursery.cancel_scope.cancel()
    if body_error is not None:
        try:
            raise body_error
        finally:
            del body_error  # it refers to this frame, which would keep both alive


async def _open_link(connect: Connect, hello: Hello, peer_name: str, timing: Timing) -> Link:
    """Connect and greet, under one deadline.

    :raises ConnectivityError: or what ``connect`` raised
    """
    with trio.move_on_after(timing.connect_seconds):
        try:
            stream = await connect()
        except (trio.BrokenResourceError, OSError) as error:
            raise ConnectivityError(f"{peer_name}: cannot connect: {error}") from error
        link = Link(stream, Connection(Role.CLIENT, hello), peer_name=peer_name, timing=timing)
        try:
            await link.greet()
        except BaseException:
            await link.close()
            raise
        return link
    raise TimeoutExpiredError(
        f"{peer_name}: no connection and greeting within {timing.connect_seconds:g} seconds",
        hint="see whether fsrep answers there",
    )


@attrs.define(eq=False)
class RemoteEndpoint:
    """The endpoint hooks, carried to a peer."""

    _pool: Pool
    _peer_name: str

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """See :meth:`fsrep_core.EndpointSpec.inventory`."""
        answer: Inventory = await self._call("inventory", request)
        return answer

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """See :meth:`fsrep_core.EndpointSpec.size_estimate`."""
        answer: SizeEstimate = await self._call("size_estimate", request)
        return answer

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """See :meth:`fsrep_core.EndpointSpec.replication_cursor`."""
        answer: CursorAnswer = await self._call("replication_cursor", request)
        return answer.version

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """See :meth:`fsrep_core.EndpointSpec.create_version`."""
        answer: Results = await self._call("create_version", request)
        return answer.results

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """See :meth:`fsrep_core.EndpointSpec.destroy_versions`."""
        answer: Results = await self._call("destroy_versions", request)
        return answer.results

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """See :meth:`fsrep_core.EndpointSpec.send`."""
        async with self._dialogue("send", request, Use.STREAM) as link:
            match await link.hear():
                case Opened(opened):
                    pass
                case event:
                    raise _explain(link, event)
            stream = IncomingStream(link, functools.partial(_explain, link))
            yield SendResponse(stream=stream, resumed=opened.resumed, size_bytes=opened.size_bytes)
            if stream.whole:
                await link.say(Done())
                await _hear_answer(link, "send")

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """See :meth:`fsrep_core.EndpointSpec.receive`."""
        async with self._dialogue("receive", request, Use.STREAM) as link:
            return await _push(link, stream)

    async def _call(self, operation: str, request: object) -> Any:  # noqa: ANN401  (the operation's answer)
        async with self._dialogue(operation, request, Use.CALL) as link:
            return await _hear_answer(link, operation)

    @asynccontextmanager
    async def _dialogue(self, operation: str, request: object, use: Use) -> AsyncIterator[Link]:
        """Begin a dialogue, and bring it to its end however the body ends."""
        *parts, body = pack(request)  # before anything is said: a name may be refused
        async with self._pool.lease(use) as link:
            problem = _LEFT_EARLY
            try:
                await _say_all(link, [Part(part) for part in parts], operation, body)
                yield link
            except Exception as error:
                problem = classify(error)
                raise
            except BaseException:
                problem = _CANCELLED
                raise
            finally:
                if not link.wire.idle:
                    await _end_dialogue(link, problem)


async def _say_all(link: Link, parts: list[Part], operation: str, body: bytes) -> None:
    request = REQUEST_EVENTS[OPERATIONS[operation].shape](operation, body)
    try:
        for part in parts:
            await link.say(part)
        await link.say(request)
    except ConnectivityError as error:
        # The peer may have said why it goes before it went.
        raise await link.last_words() or error from error


async def _end_dialogue(link: Link, problem: Problem) -> None:
    """Tell the peer to stop, and wait until it says that it has. Bounded; never raises."""
    if link.torn or link.failure is not None or not link.wire.may_say(Abort):
        return
    with trio.move_on_after(link.timing.abort_seconds, shield=True), suppress(FsrepError):
        await link.say(Abort(problem))
        while not link.wire.idle and not link.wire.peer_closed:
            await link.hear_past_data()


async def _hear_answer(link: Link, operation: str) -> Any:  # noqa: ANN401  (the operation's answer)
    """Give the answer, whatever its length.

    :raises FsrepError: the peer's error, as it said it
    """
    unpacker = Unpacker(OPERATIONS[operation].answer_class)
    while True:
        match await link.hear():
            case Part(content):
                with _refusing_names(link, operation):
                    unpacker.add_part(content)
                await trio.lowlevel.checkpoint()  # reading a part takes its time
            case Answer(body):
                with _refusing_names(link, operation):
                    return unpacker.finish(body)
            case event:
                raise _explain(link, event)


@contextmanager
def _refusing_names(link: Link, operation: str) -> Iterator[None]:
    """A name that may not cross the wire is the peer's defect, where the peer said it."""
    try:
        yield
    except InvalidRequestError as error:
        raise BrokenEndpointError(
            f"{link.peer_name} answered {operation} with what cannot be used: {error.message}",
            local=False,
            hint=error.hint,
        ) from error


def _explain(link: Link, event: Event) -> FsrepError:
    """Make the error of a word that ends a dialogue, or the connection."""
    match event:
        case Failure(problem) | Bye(Problem() as problem):
            return make_error(problem)
        case Bye():
            return link.lost("the peer ended the connection")
        case _:
            return WireError(f"{link.peer_name} said {type(event).__name__} out of turn")


async def _push(link: Link, stream: ByteStream) -> ReceiveResponse:
    """Send a stream and hear the answer, which may come at any moment and ends it all."""
    pushing = _Push(link, OutgoingStream(link, stream))
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pushing.listen, nursery.cancel_scope)
        try:
            if await pushing.outgoing.run():
                await pushing.heard.wait()
        except Exception as error:  # noqa: BLE001  (raised below, or the peer's instead)
            failed = error
            if link.torn:
                with trio.move_on_after(link.timing.farewell_seconds):
                    await pushing.heard.wait()
        nursery.cancel_scope.cancel()
    if pushing.error is not None:
        raise pushing.error from failed
    if pushing.answer is None:
        assert failed is not None  # noqa: S101  (it ran to its end, or it failed)
        raise failed
    return pushing.answer


@attrs.define(eq=False)
class _Push:
    """A stream that goes out, and the task that listens for the answer meanwhile."""

    link: Link
    outgoing: OutgoingStream
    heard: trio.Event = attrs.field(init=False, factory=trio.Event)
    answer: ReceiveResponse | None = attrs.field(init=False, default=None)
    error: FsrepError | None = attrs.field(init=False, default=None)

    async def listen(self, pushing: trio.CancelScope) -> None:
        try:
            self.answer = await _hear_answer(self.link, "receive")
        except FsrepError as error:
            self.error = error
        self.heard.set()
        self.outgoing.stop()
        # A frame that was begun is said to its end, and may have to wait for the peer: as
        # long as the peer lives.
        if self.link.failure is None:
            with suppress(FsrepError):
                await self.link.hear()
        if self.link.failure is not None:
            pushing.cancel()
