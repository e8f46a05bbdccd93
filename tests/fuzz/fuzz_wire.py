"""Fuzzes the wire's decoder and dialogue, guided by coverage: ``nox -s fuzz -- -runs=N``.

The two lowest bits of an input's first byte say what it is:

- a **script** for two ends that keep the protocol: what one says, in which pieces the other
  hears it, and how the directions interleave. Whatever one may say, the other must
  understand, and when nothing is underway both must agree where they stand;
- what a **stranger** sends to a client or a server, in pieces of any size;
- **frames** from a stranger who writes their headers right, so that the fuzzer spends its
  inputs on what stands in them: divided by the byte ``FF``, each its kind and its payload.

With the third bit, an end is also told it with payloads that pass by the decoder in runs, as a
carrier moves them, and must hear the same.

Nothing but a ``WireError`` may come of the last two, or an ``InvalidRequestError`` from the
names in a message; no more may be kept than was fed; and a message that was understood must
be the same once it was written and read again. Every input has connections of its own.

libFuzzer's own arguments follow (``-runs``, ``-max_total_time``, a folder for the corpus).
It reports how many inputs were executed. An input that fails is written to a file, which
can be given as the only argument to repeat it. The corpus that is kept beside this file is
read by the tests too, without the fuzzer.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import atheris
except ImportError:  # the tests only read the corpus
    instrumented = nullcontext()
else:
    instrumented = atheris.instrument_imports(include=["fsrep_core.wire", "fsrep_core.table"])

with instrumented:
    from fsrep_core.errors import InvalidRequestError
    from fsrep_core.values import Problem
    from fsrep_core.wire import (
        OPERATIONS,
        REQUEST_EVENTS,
        Abort,
        Answer,
        Bye,
        CallRequest,
        Connection,
        Data,
        Done,
        End,
        Failure,
        FetchRequest,
        Heartbeat,
        Hello,
        Opened,
        Part,
        PushRequest,
        Request,
        Role,
        SendOpened,
        Unpacker,
        WireError,
        make_error,
        pack,
    )
    from fsrep_core.wire.dialogue import ClientState, ServerState
    from fsrep_core.wire.frames import FrameKind

LIMIT_BYTES = 4096
SCRIPT_STEPS = 32
"""Longer scripts show nothing that two shorter ones do not."""
PROBLEM = Problem(message="m", temporary=True, local=False)
REFUSAL = Failure(PROBLEM)
SAYABLE = (
    CallRequest("inventory", b"{}"),
    FetchRequest("send", b"{}"),
    PushRequest("receive", b"{}"),
    Part(b'{"field":"patterns","items":["a"]}'),
    Answer(b"{}"),
    REFUSAL,
    Opened(SendOpened()),
    Data(3),
    End(0),
    Abort(PROBLEM),
    Done(),
    Heartbeat(),
)
OURS, PEER = Hello(software="x"), Hello(software="y")
ASKED = tuple(REQUEST_EVENTS[each.shape](name, b"{}") for name, each in OPERATIONS.items())
PIECES_BYTES = (1 << 20, 64, 9, 1)
FRAME_KINDS = tuple(FrameKind)


def greeted(role: Role) -> Connection:
    """Give an end as it is after a good hello; saying one each time would take most of it."""
    end = Connection(role, OURS, message_limit_bytes=LIMIT_BYTES)
    end.peer, end.protocol = PEER, 1
    end.dialogue.client, end.dialogue.server = ClientState.IDLE, ServerState.IDLE
    return end


def drain(end: Connection) -> Iterator[object]:
    """Give all events that an end can make of what it was fed."""
    while True:
        while end.data_remaining_bytes:
            if not end.take_data(1 << 20):
                return
        event = end.next_event()
        if event is None:
            return
        yield event


def move_run(end: Connection, data: bytes, piece_bytes: int) -> int:
    """Let a run move payloads past an end, in pieces.

    :returns: how much of ``data`` it has moved
    """
    run, at = end.begin_run(), 0
    while at < len(data) and not run.over:
        if run.remaining_bytes:
            size_bytes = min(piece_bytes, len(data) - at, run.remaining_bytes)
            run.took_payload(size_bytes)
        else:
            header = run.header_rest
            size_bytes = min(piece_bytes, len(data) - at, len(header))
            header[:size_bytes] = data[at : at + size_bytes]
            run.took_header(size_bytes)
        at += size_bytes
    end.end_run(run)
    return at


def read_stranger(how: int, data: bytes, *, by_runs: bool) -> list[str]:
    """Let an end hear any bytes, and read what messages they make.

    :param how: who hears them, after what, and in which pieces
    :returns: what was heard, apart from data
    """
    role = Role.CLIENT if how & 1 else Role.SERVER
    end = greeted(role) if how & 2 else Connection(role, OURS)
    asked = ASKED[(how >> 4) % len(ASKED)]
    if how & 2 and role is Role.CLIENT:
        end.send(asked)
    piece_bytes = PIECES_BYTES[how >> 2 & 3]
    parts: list[bytes] = []
    heard: list[str] = []
    try:
        at = 0
        while at < len(data):
            if by_runs and end.data_remaining_bytes and not end.buffered_bytes:
                at += move_run(end, data[at:], piece_bytes)
            else:
                end.feed(data[at : at + piece_bytes])
                at += piece_bytes
            for event in drain(end):
                heed(end, event, parts, asked)
                if not isinstance(event, Data):
                    heard.append(type(event).__name__)
    except (WireError, InvalidRequestError) as error:
        heard.append(str(error))
    if end.buffered_bytes > len(data):
        raise AssertionError(f"{end.buffered_bytes} bytes are kept of {len(data)}")
    return heard


def heed(end: Connection, event: object, parts: list[bytes], asked: Request) -> None:
    """Read what an event says, and say what lets another dialogue follow."""
    match event:
        case Part(content):
            parts.append(content)
        case Request(operation, body):
            read_message(OPERATIONS[operation].request_class, parts, body)
            parts.clear()
            end.send(REFUSAL)
        case Answer(body):
            read_message(OPERATIONS[asked.operation].answer_class, parts, body)
            parts.clear()
            if not end.idle:
                end.send(Abort(PROBLEM))
            end.send(asked)
        case Failure(problem) | Abort(problem) | Bye(Problem() as problem):
            assert make_error(problem).message == problem.message


def read_message(message_class: type[object], parts: list[bytes], body: bytes) -> None:
    """Put a message together; one that was understood must survive another journey."""
    message = unpack(message_class, [*parts, body])
    again = unpack(message_class, list(pack(message)))
    assert again == message, (message, again)


def unpack(message_class: type[object], pieces: list[bytes]) -> object:
    """Put a message together."""
    unpacker = Unpacker(message_class)
    for content in pieces[:-1]:
        unpacker.add_part(content)
    return unpacker.finish(pieces[-1])


def write_frames(data: bytes) -> bytes:
    """Give the frames that an input describes."""
    frames = bytearray()
    for each in data.split(b"\xff"):
        kind = FRAME_KINDS[each[0] % len(FRAME_KINDS)] if each else FrameKind.HEARTBEAT
        payload = each[1:]
        frames += bytes((kind, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload
    return bytes(frames)


def follow_script(script: bytes) -> None:
    """Let two ends say and hear what the script says."""
    ends = (greeted(Role.CLIENT), greeted(Role.SERVER))
    underway = (bytearray(), bytearray())  # to the client, to the server
    for step in script[:SCRIPT_STEPS]:
        which, argument = step & 1, step >> 2
        waiting = underway[which]
        if not step & 2:
            say(ends, underway, which, SAYABLE[argument % len(SAYABLE)])
        elif waiting:
            ends[which].feed(waiting[: argument + 1])
            del waiting[: argument + 1]
            for _ in drain(ends[which]):
                pass
            if not underway[0] and not underway[1]:
                agree(*ends)


def say(
    ends: tuple[Connection, Connection],
    underway: tuple[bytearray, bytearray],
    which: int,
    event: object,
) -> None:
    """Say what may be said, as a peer that keeps its promises."""
    end, dialogue = ends[which], ends[which].dialogue
    if not end.may_say(type(event)):
        return
    if which == 0 and isinstance(event, Abort) and dialogue.client is ClientState.IDLE:
        return
    begins = isinstance(event, Request | Part)
    if which == 0 and begins and dialogue.server is not ServerState.IDLE:
        return
    if isinstance(event, End):
        event = End(dialogue.stream_bytes)
    underway[1 - which].extend(end.send(event))  # type: ignore[arg-type]  (one of SAYABLE)
    if isinstance(event, Data):
        underway[1 - which].extend(bytes(event.size_bytes))


def agree(client: Connection, server: Connection) -> None:
    """Both must think the same of both."""
    views = [
        (end.dialogue.client, end.dialogue.server, end.dialogue.stream_bytes)
        for end in (client, server)
    ]
    if not any(end.data_remaining_bytes or end.buffered_bytes for end in (client, server)):
        assert views[0] == views[1], views


def read_input(data: bytes) -> None:
    """Read one input."""
    if not data:
        return
    kind, by_runs = data[0] & 3, bool(data[0] & 4)
    if kind == 0:
        follow_script(data[1:])
        return
    how = int.from_bytes(data[1:2], "big")
    said = data[2:]
    if kind > 1:
        how, said = how | 2, write_frames(said)
    heard = read_stranger(how, said, by_runs=False)
    if by_runs:
        assert read_stranger(how, said, by_runs=True) == heard


if __name__ == "__main__":
    atheris.Setup(sys.argv, read_input)
    atheris.Fuzz()
