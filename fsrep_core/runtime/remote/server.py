"""The serving side of one connection: dialogues, one after another, for one client.

The storage is called as the driver would call it, through the same checks
(:class:`~fsrep_core.runtime.binding.Endpoint`). While it works, the server keeps
listening: a client that aborts or disappears ends the work, and what it had started is
gone before anything else happens on the connection.

Nothing that the client says is believed: names were checked as they were read, then the
policy decides (:mod:`fsrep_core.runtime.remote.policy`), then the storage. An error of
one operation is answered and the connection goes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fsrep_core.errors import ConnectivityError, FsrepError
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.remote.endpoint import SOFTWARE
from fsrep_core.runtime.remote.link import Link
from fsrep_core.runtime.remote.policy import PeerPolicy, check_request
from fsrep_core.runtime.remote.streams import IncomingStream, OutgoingStream
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.values import Problem
from fsrep_core.wire import (
    OPERATIONS,
    Abort,
    Answer,
    Bye,
    Connection,
    CursorAnswer,
    Event,
    Failure,
    FetchRequest,
    Hello,
    Opened,
    Part,
    PushRequest,
    Request,
    Results,
    Role,
    SendEnded,
    SendOpened,
    Unpacker,
    WireError,
    make_error,
    pack,
)

if TYPE_CHECKING:
    from fsrep_core.values import SendRequest

__all__ = ["Admission", "Admit", "Served", "Service", "serve_connection", "serve_endpoint"]


@attrs.frozen(kw_only=True)
class Admission:
    """What a client is served."""

    endpoint: Endpoint
    policy: PeerPolicy


_UNANSWERED = Problem(
    message="the server ended the connection before it answered",
    temporary=True,
    local=False,
    kind=ConnectivityError.kind,
)
TELL_SECONDS = 1.0
"""How long a storage has to read why its stream ended, before it is cancelled."""

HEEDLESS_BYTES = 1 << 14
"""An answer up to this size is on its way at once: nothing else waits to be taken."""

Admit = Callable[[Hello], Admission]
"""Decides what the client of this hello is served; a typed error refuses it, and is told."""


@attrs.frozen(kw_only=True)
class Served:
    """One operation that has ended, as a log wants to know it."""

    identity: str
    operation: str
    filesystem: str | None
    """``None`` where the request names none, or several."""
    seconds: float
    stream_bytes: int = 0
    problem: Problem | None = None
    """``None`` = it was done."""


def _ignore(_: Served) -> None:
    """Nobody listens."""


@attrs.frozen(kw_only=True)
class Service:
    """What holds for all connections of one server."""

    timing: Timing = attrs.field(factory=Timing)
    stopping: trio.Event = attrs.field(factory=trio.Event)
    """Once set, no dialogue is begun any more; those that go on are finished."""
    on_served: Callable[[Served], None] = _ignore
    """Hears of each operation. Must not block."""


async def serve_connection(
    stream: trio.abc.Stream, admit: Admit, *, peer_name: str, service: Service | None = None
) -> None:
    """Serve one client until it says goodbye. Closes the stream, in every case.

    :param peer_name: how messages call the client
    :raises WireError: the client does not speak the wire
    :raises ConnectivityError: the client is gone without a goodbye
    :raises FsrepError: the client was refused, with the reason that it was told
    """
    service = service or Service()
    link = Link(
        stream,
        Connection(Role.SERVER, Hello(software=SOFTWARE)),
        peer_name=peer_name,
        timing=service.timing,
    )
    try:
        await _greet(link)
        try:
            admission = admit(_hello_of(link))
        except FsrepError as error:
            await link.leave(classify(error))
            raise
        await _Session(link, admission, service.on_served).run(service.stopping)
    finally:
        await link.close()


async def serve_endpoint(
    stream: trio.abc.Stream, endpoint: object, *, peer_name: str, timing: Timing | None = None
) -> None:
    """Serve one endpoint to one client, who may ask for everything.

    The other end of :class:`fsrep_core.StreamTransport`, where both are in one process, as
    in tests. ``fsrep serve`` and ``fsrep endpoint`` do this for hosts, and grant what their
    configuration says. Returns when the client says goodbye; closes the stream, in every
    case, and leaves nothing of what it asked for, also when cancelled.

    :param endpoint: has the hooks of :class:`fsrep_core.EndpointSpec`
    :param peer_name: how messages call the client
    :raises PluginError: a hook is missing
    :raises FsrepError: the client is gone without a goodbye, or does not speak the wire
    """
    bound = Endpoint(endpoint, name=f"endpoint of {peer_name}", call_timeout_seconds=math.inf)
    admission = Admission(endpoint=bound, policy=PeerPolicy(identity=peer_name))
    await serve_connection(
        stream,
        lambda _hello: admission,
        peer_name=peer_name,
        service=Service(timing=timing or Timing()),
    )


async def _greet(link: Link) -> None:
    with trio.move_on_after(link.timing.connect_seconds):
        await link.greet()
        return
    raise link.lost(f"no greeting within {link.timing.connect_seconds:g} seconds")


def _answer_events(answer: object) -> Iterator[Part | Answer]:
    """Give what says an answer, one after the other: it may be long."""
    previous: bytes | None = None
    for piece in pack(answer):
        if previous is not None:
            yield Part(previous)
        previous = piece
    assert previous is not None  # noqa: S101  (a message has at least one piece)
    yield Answer(previous)


def _hello_of(link: Link) -> Hello:
    assert link.wire.peer is not None  # noqa: S101  (it has greeted)
    return link.wire.peer


@attrs.define(eq=False)
class _Dialogue:
    """What goes on for one request, and what the client has said to it meanwhile."""

    operation: str
    working: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    outgoing: OutgoingStream | None = attrs.field(init=False, default=None)
    incoming: IncomingStream | None = attrs.field(init=False, default=None)
    filesystem: str | None = attrs.field(init=False, default=None)
    aborted: Problem | None = attrs.field(init=False, default=None)
    released: trio.Event = attrs.field(init=False, factory=trio.Event)
    """The client has done with the stream that it fetched."""

    @property
    def stream_bytes(self) -> int:
        """How many bytes of its stream have moved."""
        stream = self.outgoing or self.incoming
        return stream.total_bytes if stream is not None else 0

    def abort(self, problem: Problem) -> None:
        """Stop what is done for this request, but never in the middle of a frame."""
        self.aborted = problem
        self.released.set()
        if self.outgoing is None:
            self.working.cancel()
        else:
            self.outgoing.stop()


@attrs.define(eq=False)
class _Session:
    """One client's dialogues."""

    link: Link
    admission: Admission
    on_served: Callable[[Served], None]
    _stopped: bool = attrs.field(init=False, default=False)
    _waiting: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    """Around the wait for the next request."""
    _heard_early: Event | None = attrs.field(init=False, default=None)
    """What the client said while it was answered."""

    async def run(self, stopping: trio.Event) -> None:
        """Serve dialogues, with heartbeats meanwhile. Raises one error, never a group."""
        failed: Exception | None = None
        finished = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when, stopping)
            nursery.start_soon(self._beat, nursery.cancel_scope)
            try:
                await self._serve()
                finished = True
            except Exception as error:  # noqa: BLE001  (raised below, outside the nursery)
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        if not finished:
            assert self.link.failure is not None  # noqa: S101  (it is why heartbeats ended)
            raise self.link.failure

    async def _stop_when(self, stopping: trio.Event) -> None:
        await stopping.wait()
        self._stopped = True
        self._waiting.cancel()

    async def _beat(self, serving: trio.CancelScope) -> None:
        try:
            await self.link.beat()
        except FsrepError:
            # Nobody is there to be served. This also ends a storage that never reads.
            serving.cancel()

    async def _serve(self) -> None:
        try:
            while (asked := await self._next_request()) is not None:
                await self._answer(*asked)
        except WireError as error:
            await self.link.leave(classify(error))
            raise
        await self.link.leave()

    async def _next_request(self) -> tuple[Request, list[bytes]] | None:
        """Give the next request and its parts; ``None`` = the connection ends here."""
        with trio.CancelScope() as self._waiting:
            if self._stopped:
                return None
            parts: list[bytes] = []
            while True:
                heard, self._heard_early = self._heard_early, None
                match heard or await self.link.hear():
                    case Part(content):
                        parts.append(content)
                    case Request() as request:
                        return request, parts
                    case Bye():
                        return None
                    case _:
                        pass  # an abort that crossed the answer
        return None

    async def _answer(self, asked: Request, parts: list[bytes]) -> None:
        """Do what was asked for and say what came of it."""
        started_at = trio.current_time()
        dialogue = _Dialogue(asked.operation)
        problem: Problem | None = _UNANSWERED
        try:
            await self._say_answer(await self._do(dialogue, asked, parts))
            problem = dialogue.aborted
        except WireError as error:
            problem = classify(error)
            raise
        except Exception as error:
            problem = classify(error)
            if self.link.failure is not None:
                raise self.link.failure from error
            if dialogue.outgoing is None:
                await self.link.say(Failure(problem))
            else:
                await self._say_heeding([Failure(problem)])
        finally:
            self.on_served(
                Served(
                    identity=self.admission.policy.identity,
                    operation=asked.operation,
                    filesystem=dialogue.filesystem,
                    seconds=trio.current_time() - started_at,
                    stream_bytes=dialogue.stream_bytes,
                    problem=problem,
                )
            )
        await self._hear_last_word(asked)

    async def _do(self, dialogue: _Dialogue, asked: Request, parts: list[bytes]) -> object:
        """Carry out a request that may be asked.

        :returns: the answer
        """
        unpacker = Unpacker(OPERATIONS[asked.operation].request_class)
        for content in parts:
            unpacker.add_part(content)
            await trio.lowlevel.checkpoint()  # reading a part takes its time
        request = unpacker.finish(asked.body)
        dialogue.filesystem = getattr(request, "filesystem", None)
        check_request(self.admission.policy, asked.operation, request)
        match asked:
            case FetchRequest():
                return await self._work(dialogue, partial(self._fetch, dialogue, request))
            case PushRequest():
                dialogue.incoming = IncomingStream(self.link, _explain)
                receive = self.admission.endpoint.receive
                return await self._work(dialogue, partial(receive, request, dialogue.incoming))
            case _:
                return await self._work(dialogue, partial(self._call, asked.operation, request))

    async def _work(self, dialogue: _Dialogue, work: Callable[[], Awaitable[object]]) -> object:
        """Do the storage's part, while listening for what else the client says."""
        answer, failed = None, None
        with dialogue.working:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, dialogue)
                try:
                    answer = await work()
                except Exception as error:  # noqa: BLE001  (raised below, outside the nursery)
                    failed = error
                nursery.cancel_scope.cancel()
        if self.link.failure is not None:
            raise self.link.failure from failed
        if failed is not None:
            raise failed
        if answer is None:
            assert dialogue.aborted is not None  # noqa: S101  (what else cancels the work)
            raise make_error(dialogue.aborted)
        return answer

    async def _listen(self, dialogue: _Dialogue) -> None:
        """Hear what the client says to a dialogue that goes on, apart from its stream."""
        stream = dialogue.incoming
        if stream is not None:
            await stream.watch()
            if stream.error is not None:
                # A storage that reads on learns why from the stream; any other cannot.
                await trio.sleep(TELL_SECONDS)
                if not stream.error_told:
                    dialogue.abort(classify(stream.error))
                return
        try:
            while True:
                match await self.link.hear():
                    case Abort(problem):
                        dialogue.abort(problem)
                    case _:
                        dialogue.released.set()
        except FsrepError:  # noted with the link
            dialogue.working.cancel()

    async def _call(self, operation: str, request: Any) -> object:  # noqa: ANN401  (the operation's request)
        endpoint = self.admission.endpoint
        match operation:
            case "replication_cursor":
                return CursorAnswer(await endpoint.replication_cursor(request))
            case "create_version":
                return Results(await endpoint.create_version(request))
            case "destroy_versions":
                return Results(await endpoint.destroy_versions(request))
            case "size_estimate":
                return await endpoint.size_estimate(request)
            case _:
                return await endpoint.inventory(request)

    async def _fetch(self, dialogue: _Dialogue, request: SendRequest) -> object:
        """Send a stream, and keep what makes it until the client releases it."""
        async with self.admission.endpoint.send(request) as response:
            assert response.stream is not None  # noqa: S101  (Endpoint has checked)
            # An abort that came while it was opened must not cut a frame.
            await trio.lowlevel.checkpoint_if_cancelled()
            dialogue.outgoing = OutgoingStream(self.link, response.stream)
            await self.link.say(
                Opened(SendOpened(resumed=response.resumed, size_bytes=response.size_bytes))
            )
            await dialogue.outgoing.run()
            await dialogue.released.wait()
        return SendEnded()

    async def _say_answer(self, answer: object) -> None:
        events = _answer_events(answer)
        first = next(events)
        if isinstance(first, Answer) and len(first.body) <= HEEDLESS_BYTES:
            await self.link.say(first)
        else:
            await self._say_heeding(itertools.chain([first], events))

    async def _say_heeding(self, events: Iterable[Event]) -> None:
        """Say what ends a dialogue, while hearing whether the client is still there.

        One that vanished takes nothing any more, and saying it would never end.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_early, nursery.cancel_scope)
            with suppress(ConnectivityError):  # noted with the link
                for event in events:
                    await self.link.say(event)
            nursery.cancel_scope.cancel()
        if self.link.failure is not None:
            raise self.link.failure

    async def _hear_early(self, saying: trio.CancelScope) -> None:
        try:
            self._heard_early = await self.link.hear()
        except FsrepError:  # noted with the link
            saying.cancel()

    async def _hear_last_word(self, asked: Request) -> None:
        """Read until the client has ended its part of the dialogue too.

        A client that pushes ends its stream as soon as it hears the answer, so that what
        still comes is bounded in time. One that fetches gets there as fast as what
        consumes its stream; that it lives is all that can be asked.
        """
        seconds = self.link.timing.drain_seconds if isinstance(asked, PushRequest) else math.inf
        with trio.move_on_after(seconds):
            while not self.link.wire.idle:
                await self.link.hear_past_data()
            return
        raise WireError(
            f"{self.link.peer_name} went on sending for {seconds:g} seconds after it was answered"
        )


def _explain(event: Event) -> FsrepError:
    """Make the error of what ends a stream that is not whole: the client's own."""
    if isinstance(event, Abort):
        return make_error(event.problem)
    return WireError(f"the client said {type(event).__name__} in the middle of a stream")
