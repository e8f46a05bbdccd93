"""One end of a connection, without input or output: bytes to events, events to bytes.

Whoever owns the real connection sends what :meth:`Connection.send` gives, feeds what it
reads, and asks for :meth:`Connection.next_event` until that needs more bytes. The bytes
of a stream pass by: see :class:`~fsrep_core.wire.Data`.

After a :class:`WireError` nothing more can be made of the connection but a bye.
"""

from __future__ import annotations

import enum
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import InvalidRequestError
from fsrep_core.table import IllegalTransitionError
from fsrep_core.values import Problem
from fsrep_core.wire.codec import decode, encode
from fsrep_core.wire.dialogue import (
    CLIENT,
    REQUEST_EVENTS,
    SERVER,
    Abort,
    Answer,
    Bye,
    ClientState,
    Data,
    Dialogue,
    Done,
    End,
    Event,
    Failure,
    Heartbeat,
    Opened,
    Part,
    Request,
    ServerState,
)
from fsrep_core.wire.errors import WireError
from fsrep_core.wire.frames import (
    DataRun,
    Frame,
    FrameDecoder,
    FrameKind,
    encode_frame,
    encode_header,
)
from fsrep_core.wire.hello import Hello, HelloDecoder, choose_protocol, encode_hello
from fsrep_core.wire.messages import OPERATIONS, SendOpened
from fsrep_core.wire.text import MalformedError, dump_json, load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MESSAGE_LIMITS_BYTES", "Connection", "Role"]

_END = struct.Struct(">Q")


class Role(enum.Enum):
    """Who asks and who answers."""

    CLIENT = "client"
    SERVER = "server"


MESSAGE_LIMITS_BYTES: Mapping[Role, int] = MappingProxyType(
    {Role.CLIENT: 1 << 30, Role.SERVER: 1 << 26}
)
"""The most that a message to this role may have, over all its parts: an inventory of
several million versions, or a request with several hundred thousand."""


@attrs.define(eq=False)
class Connection:
    """The state of one end.

    :param message_limit_bytes: the longest message that is taken, over all its parts
    """

    role: Role
    hello: Hello
    """Ours."""
    message_limit_bytes: int = attrs.field(kw_only=True)
    peer: Hello | None = attrs.field(init=False, default=None)
    """The peer's hello, once it has come."""
    protocol: int | None = attrs.field(init=False, default=None)
    """The version of the wire that both speak, once that is known."""
    dialogue: Dialogue = attrs.field(init=False, factory=Dialogue)
    _hellos: HelloDecoder = attrs.field(init=False, factory=HelloDecoder)
    _frames: FrameDecoder = attrs.field(init=False, factory=FrameDecoder)
    _message_bytes: int = attrs.field(init=False, default=0)

    @message_limit_bytes.default
    def _default_limit(self) -> int:
        return MESSAGE_LIMITS_BYTES[self.role]

    @property
    def idle(self) -> bool:
        """The next dialogue may begin here."""
        return self.dialogue.idle

    @property
    def capabilities(self) -> frozenset[str]:
        """What may be used here beyond the version of the wire: what both hellos name."""
        return self.hello.capabilities & self.peer.capabilities if self.peer else frozenset()

    @property
    def closed(self) -> bool:
        """This side has said its bye, behind which it may say nothing."""
        if self.role is Role.CLIENT:
            return self.dialogue.client is ClientState.CLOSED
        return self.dialogue.server is ServerState.CLOSED

    @property
    def peer_closed(self) -> bool:
        """The peer has said its bye."""
        if self.role is Role.CLIENT:
            return self.dialogue.server is ServerState.CLOSED
        return self.dialogue.client is ClientState.CLOSED

    @property
    def data_remaining_bytes(self) -> int:
        """How much is left of the payload of the last :class:`Data` that was read."""
        return self._frames.data_remaining_bytes

    @property
    def wanted_bytes(self) -> int:
        """How many bytes complete what has begun; reading no more leaves payloads alone."""
        return self._frames.wanted_bytes

    @property
    def buffered_bytes(self) -> int:
        """How much was fed and has not become an event."""
        return self._hellos.buffered_bytes if self.peer is None else self._frames.buffered_bytes

    def may_say(self, event_class: type[Any]) -> bool:
        """Tell whether an event of this class may be said now."""
        row: Mapping[type, object] = (
            CLIENT[self.dialogue.client]
            if self.role is Role.CLIENT
            else SERVER[self.dialogue.server]
        )
        return self.protocol is not None and event_class in row

    def send(self, event: Event) -> bytes:
        """Give the bytes that say ``event``; for :class:`Data`, those before the payload.

        :raises IllegalTransitionError: it may not be said now; nothing changed
        :raises ValueError: it is too long for a frame
        """
        if self.protocol is None and not isinstance(event, Hello):
            raise IllegalTransitionError(f"{type(event).__name__} before both hellos")
        encoded = _WRITERS[type(event)](event)
        self._says(event)
        return encoded

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that were read."""
        (self._hellos if self.peer is None else self._frames).feed(data)

    def next_event(self) -> Event | None:
        """Give the next thing that the peer said; ``None`` = more bytes are needed.

        :raises WireError: the peer said what the wire does not allow
        """
        if self.peer is None:
            return self._next_hello()
        frame = self._frames.next_frame()
        if frame is None:
            return None
        self._count_message(frame.kind, frame.size_bytes)
        try:
            event = _READERS[frame.kind](frame)
            self._heard(event)
        except (MalformedError, InvalidRequestError) as error:
            raise WireError(
                f"the peer sent a {frame.kind.name} frame that cannot be read: {error}",
                temporary=True,
            ) from error
        except IllegalTransitionError as error:
            raise WireError(
                f"the peer sent a {frame.kind.name} frame where none may be: {error}",
                temporary=True,
            ) from error
        return event

    def take_data(self, max_bytes: int) -> bytes:
        """Take what was read already of the current payload; ``b""`` = nothing."""
        return self._frames.take_data(max_bytes)

    def skip_data(self, count_bytes: int) -> None:
        """Hear that so much of the current payload was moved another way."""
        self._frames.skip_data(count_bytes)

    def begin_run(self) -> DataRun:
        """Let the current payload, and ``DATA`` frames behind it, move another way.

        Until :meth:`end_run`, nothing is fed.
        """
        return self._frames.begin_run()

    def end_run(self, run: DataRun) -> None:
        """Go on with what the run has left.

        ``DATA`` behind ``DATA`` changes no state, so that the dialogue hears of all at once.
        """
        self._frames.end_run(run)
        if run.announced_bytes:
            self._heard(Data(run.announced_bytes))

    def said_data(self, count_bytes: int) -> None:
        """Hear that ``DATA`` frames with so many bytes went out another way.

        :raises IllegalTransitionError: they may not be said now
        """
        self._says(Data(count_bytes))

    def _next_hello(self) -> Hello | None:
        found = self._hellos.next_hello()
        if found is None:
            return None
        hello, rest = found
        protocol = choose_protocol(self.hello, hello)
        self._heard(hello)
        self.peer, self.protocol = hello, protocol
        self._hellos = HelloDecoder()
        self._frames.feed(rest)
        return hello

    def _says(self, event: Event) -> None:
        if self.role is Role.CLIENT:
            self.dialogue.client_says(event)
        else:
            self.dialogue.server_says(event)

    def _heard(self, event: Event) -> None:
        if self.role is Role.CLIENT:
            self.dialogue.server_says(event)
        else:
            self.dialogue.client_says(event)

    def _count_message(self, kind: FrameKind, size_bytes: int) -> None:
        """Bound what parts may add up to, each with what it costs to hold it at least."""
        if kind in _MESSAGE_KINDS:
            self._message_bytes += size_bytes
            if self._message_bytes > self.message_limit_bytes:
                raise WireError(
                    f"the peer sent a message of more than {self.message_limit_bytes} bytes",
                    hint="divide the filesystems among several jobs",
                )
        if kind is not FrameKind.PART and kind is not FrameKind.HEARTBEAT:
            self._message_bytes = 0


_MESSAGE_KINDS = frozenset({FrameKind.PART, FrameKind.REQUEST, FrameKind.ANSWER})


# --- events to frames ----------------------------------------------------------------------


def _write_request(event: Request) -> bytes:
    name = event.operation.encode("ascii")
    return encode_frame(FrameKind.REQUEST, bytes([len(name)]) + name + event.body)


def _write_bye(event: Bye) -> bytes:
    payload = b"" if event.problem is None else dump_json(encode(event.problem))
    return encode_frame(FrameKind.BYE, payload)


_WRITERS: Mapping[type[Any], Callable[[Any], bytes]] = MappingProxyType(
    {
        Hello: encode_hello,
        **dict.fromkeys(REQUEST_EVENTS.values(), _write_request),
        Part: lambda event: encode_frame(FrameKind.PART, event.content),
        Answer: lambda event: encode_frame(FrameKind.ANSWER, event.body),
        Failure: lambda event: encode_frame(FrameKind.ERROR, dump_json(encode(event.problem))),
        Opened: lambda event: encode_frame(FrameKind.OPENED, dump_json(encode(event.opened))),
        Data: lambda event: encode_header(FrameKind.DATA, event.size_bytes),
        End: lambda event: encode_frame(FrameKind.END, _END.pack(event.total_bytes)),
        Abort: lambda event: encode_frame(FrameKind.ABORT, dump_json(encode(event.problem))),
        Done: lambda _: encode_frame(FrameKind.DONE),
        Heartbeat: lambda _: encode_frame(FrameKind.HEARTBEAT),
        Bye: _write_bye,
    }
)


# --- frames to events ----------------------------------------------------------------------


def _read_request(frame: Frame) -> Request:
    end = 1 + frame.payload[0]
    name = frame.payload[1:end].decode("ascii", "replace")
    operation = OPERATIONS.get(name)
    if operation is None:
        raise MalformedError(f"the operation {name!r} is not known in this version of the wire")
    return REQUEST_EVENTS[operation.shape](name, frame.payload[end:])


def _read_problem(frame: Frame) -> Problem:
    return decode(Problem, load_json(frame.payload))


_READERS: Mapping[FrameKind, Callable[[Frame], Event]] = MappingProxyType(
    {
        FrameKind.REQUEST: _read_request,
        FrameKind.PART: lambda frame: Part(frame.payload),
        FrameKind.ANSWER: lambda frame: Answer(frame.payload),
        FrameKind.ERROR: lambda frame: Failure(_read_problem(frame)),
        FrameKind.OPENED: lambda frame: Opened(decode(SendOpened, load_json(frame.payload))),
        FrameKind.DATA: lambda frame: Data(frame.size_bytes),
        FrameKind.END: lambda frame: End(_END.unpack(frame.payload)[0]),
        FrameKind.ABORT: lambda frame: Abort(_read_problem(frame)),
        FrameKind.DONE: lambda _: Done(),
        FrameKind.HEARTBEAT: lambda _: Heartbeat(),
        FrameKind.BYE: lambda frame: Bye(_read_problem(frame) if frame.payload else None),
    }
)
