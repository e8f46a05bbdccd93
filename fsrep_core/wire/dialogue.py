"""What may be said when: one dialogue at a time on a connection, seen from both ends.

A dialogue is a request, perhaps a stream one way, and an answer:

========  =====================================  ======================================
shape     the client says                        the server says
========  =====================================  ======================================
call      request                                answer or error
fetch     request … done, or abort               opened, data …, end; answer or error
push      request, data …, end, or abort         answer or error
========  =====================================  ======================================

The server says exactly one answer or error, whenever it knows it: also in the middle of
a stream that comes to it. The client then ends its stream at once, with an abort. In a
fetch the client says exactly one done or abort, and the server holds what makes the
stream until then. An abort may come at any time, and asks the server to stop what it
does for this dialogue; it still answers. So each side knows from what it has read and
written, and from nothing else, when the next dialogue may begin. An abort that crosses
the answer finds the server idle and changes nothing.

Heartbeats may stand between any two frames. A bye is the last frame of its direction: the
client says it when it is idle, the server at any time, perhaps with the problem that
made it; a request that is then underway was not begun.

As in h11, each end holds two states, its own and the other's, and both move by tables:
what is sent moves one's own, what is read moves the other's, and a few events move the
state of the side that hears them too (``CLIENT_FOLLOWS``, ``SERVER_FOLLOWS``). What is not
in the tables is refused: as a defect of ours when we would send it, as a
:class:`~fsrep_core.wire.WireError` when it was read.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fsrep_core.table import IllegalTransitionError, Table, advance
from fsrep_core.values import Problem
from fsrep_core.wire.hello import Hello
from fsrep_core.wire.messages import SendOpened, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CLIENT",
    "CLIENT_FOLLOWS",
    "REQUEST_EVENTS",
    "SERVER",
    "SERVER_FOLLOWS",
    "Abort",
    "Answer",
    "Bye",
    "CallRequest",
    "ClientState",
    "Data",
    "Dialogue",
    "Done",
    "End",
    "Event",
    "Failure",
    "FetchRequest",
    "Heartbeat",
    "Opened",
    "Part",
    "PushRequest",
    "Request",
    "ServerState",
]


@attrs.frozen
class Request:
    """An operation is asked for. Its shape is its class."""

    operation: str
    body: bytes = attrs.field(repr=False)
    """The last piece of the message; see :mod:`fsrep_core.wire.messages`."""


class CallRequest(Request):
    """A request without streams."""


class FetchRequest(Request):
    """A request whose stream the server makes."""


class PushRequest(Request):
    """A request whose stream the client makes."""


@attrs.frozen
class Part:
    """Some items of the message that follows."""

    content: bytes = attrs.field(repr=False)


@attrs.frozen
class Answer:
    """The operation was done."""

    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Failure:
    """The operation failed; the connection is as good as before."""

    problem: Problem


@attrs.frozen
class Opened:
    """The stream that was asked for follows."""

    opened: SendOpened


@attrs.frozen
class Data:
    """So many bytes of the stream follow this header."""

    size_bytes: int


@attrs.frozen
class End:
    """The stream is whole: its maker vouches for this many bytes."""

    total_bytes: int


@attrs.frozen
class Abort:
    """The client will not go on with this dialogue, and why."""

    problem: Problem


@attrs.frozen
class Done:
    """The client has done with the stream that it fetched what it wanted to do."""


@attrs.frozen
class Heartbeat:
    """The peer lives."""


@attrs.frozen
class Bye:
    """Nothing more comes from the peer."""

    problem: Problem | None = None


Event: TypeAlias = (
    Hello | Request | Part | Answer | Failure | Opened | Data | End | Abort | Done | Heartbeat | Bye
)

REQUEST_EVENTS: Mapping[Shape, type[Request]] = MappingProxyType(
    {Shape.CALL: CallRequest, Shape.FETCH: FetchRequest, Shape.PUSH: PushRequest}
)


class ClientState(enum.Enum):
    """What the client has still to say in this dialogue."""

    HELLO = "hello"
    IDLE = "idle"
    REQUESTING = "requesting"
    PUSHING = "pushing"
    FETCHING = "fetching"
    FETCHED = "fetched"
    SAID = "said"
    CLOSED = "closed"


class ServerState(enum.Enum):
    """What the server has still to say in this dialogue."""

    HELLO = "hello"
    IDLE = "idle"
    ANSWERING = "answering"
    OPENING = "opening"
    STREAMING = "streaming"
    STREAMED = "streamed"
    STOPPING = "stopping"
    SAID = "said"
    CLOSED = "closed"


CLIENT: Table[ClientState] = {
    ClientState.HELLO: {Hello: ClientState.IDLE},
    ClientState.IDLE: {
        Part: ClientState.REQUESTING,
        CallRequest: ClientState.SAID,
        FetchRequest: ClientState.FETCHING,
        PushRequest: ClientState.PUSHING,
        Abort: ClientState.IDLE,  # it crossed the answer
        Heartbeat: ClientState.IDLE,
        Bye: ClientState.CLOSED,
    },
    ClientState.REQUESTING: {
        Part: ClientState.REQUESTING,
        CallRequest: ClientState.SAID,
        FetchRequest: ClientState.FETCHING,
        PushRequest: ClientState.PUSHING,
        Heartbeat: ClientState.REQUESTING,
    },
    ClientState.PUSHING: {
        Data: ClientState.PUSHING,
        End: ClientState.SAID,
        Abort: ClientState.SAID,
        Heartbeat: ClientState.PUSHING,
    },
    ClientState.FETCHING: {
        Abort: ClientState.SAID,
        Heartbeat: ClientState.FETCHING,
    },
    ClientState.FETCHED: {
        Done: ClientState.SAID,
        Abort: ClientState.SAID,
        Heartbeat: ClientState.FETCHED,
    },
    ClientState.SAID: {
        Abort: ClientState.SAID,
        Heartbeat: ClientState.SAID,
    },
    ClientState.CLOSED: {},
}

SERVER: Table[ServerState] = {
    ServerState.HELLO: {Hello: ServerState.IDLE},
    ServerState.IDLE: {
        Heartbeat: ServerState.IDLE,
        Bye: ServerState.CLOSED,
    },
    ServerState.ANSWERING: {
        Part: ServerState.ANSWERING,
        Answer: ServerState.SAID,
        Failure: ServerState.SAID,
        Heartbeat: ServerState.ANSWERING,
        Bye: ServerState.CLOSED,
    },
    ServerState.OPENING: {
        Opened: ServerState.STREAMING,
        Failure: ServerState.SAID,
        Heartbeat: ServerState.OPENING,
        Bye: ServerState.CLOSED,
    },
    ServerState.STREAMING: {
        Data: ServerState.STREAMING,
        End: ServerState.STREAMED,
        Failure: ServerState.SAID,
        Heartbeat: ServerState.STREAMING,
        Bye: ServerState.CLOSED,
    },
    ServerState.STREAMED: {
        Answer: ServerState.SAID,
        Failure: ServerState.SAID,
        Heartbeat: ServerState.STREAMED,
        Bye: ServerState.CLOSED,
    },
    ServerState.STOPPING: {
        Opened: ServerState.STOPPING,  # these were underway when the client stopped
        Data: ServerState.STOPPING,
        End: ServerState.STOPPING,
        Answer: ServerState.SAID,
        Failure: ServerState.SAID,
        Heartbeat: ServerState.STOPPING,
        Bye: ServerState.CLOSED,
    },
    ServerState.SAID: {
        Heartbeat: ServerState.SAID,
        Bye: ServerState.CLOSED,
    },
    ServerState.CLOSED: {},
}

CLIENT_FOLLOWS: Table[ClientState] = {
    ClientState.FETCHING: {End: ClientState.FETCHED, Failure: ClientState.FETCHED},
}
"""Where the client's state goes when the server says something. What is not here stays."""

SERVER_FOLLOWS: Table[ServerState] = {
    ServerState.IDLE: {
        CallRequest: ServerState.ANSWERING,
        FetchRequest: ServerState.OPENING,
        PushRequest: ServerState.ANSWERING,
    },
    ServerState.OPENING: {Abort: ServerState.STOPPING},
    ServerState.STREAMING: {Abort: ServerState.STOPPING},
    ServerState.STREAMED: {Abort: ServerState.STOPPING},
}
"""Where the server's state goes when the client says something. What is not here stays."""


@attrs.define(eq=False)
class Dialogue:
    """Where one connection stands: the states of both sides, and the bytes of the stream."""

    client: ClientState = attrs.field(init=False, default=ClientState.HELLO)
    server: ServerState = attrs.field(init=False, default=ServerState.HELLO)
    stream_bytes: int = attrs.field(init=False, default=0)
    """How many bytes of the current stream were announced so far."""

    @property
    def idle(self) -> bool:
        """The next dialogue may begin."""
        return (self.client, self.server) == (ClientState.IDLE, ServerState.IDLE)

    def client_says(self, event: Event) -> None:
        """Take what the client sent.

        :raises IllegalTransitionError: and nothing changed
        """
        following = advance(CLIENT, self.client, event)
        self._count(event)
        self.client = following
        self.server = SERVER_FOLLOWS.get(self.server, {}).get(type(event), self.server)
        self._end_if_said()

    def server_says(self, event: Event) -> None:
        """Take what the server sent.

        :raises IllegalTransitionError: and nothing changed
        """
        following = advance(SERVER, self.server, event)
        self._count(event)
        self.server = following
        self.client = CLIENT_FOLLOWS.get(self.client, {}).get(type(event), self.client)
        self._end_if_said()

    def _count(self, event: Event) -> None:
        match event:
            case Data():
                self.stream_bytes += event.size_bytes
            case End() if event.total_bytes != self.stream_bytes:
                raise IllegalTransitionError(
                    f"the end of the stream vouches for {event.total_bytes} bytes, "
                    f"but {self.stream_bytes} came before it"
                )
            case _:
                pass

    def _end_if_said(self) -> None:
        if (self.client, self.server) == (ClientState.SAID, ServerState.SAID):
            self.client, self.server = ClientState.IDLE, ServerState.IDLE
            self.stream_bytes = 0
