"""Fuzzes the wire's decoder and dialogue, guided by coverage: ``nox -s fuzz -- -runs=N``.

An input that begins with ``s`` is a **script** for two ends that keep the protocol: what
one says, in which pieces the other hears it, and how the directions interleave. Whatever
one may say, the other must understand, and when nothing is underway both must agree where
they stand.

Any other input is what a **stranger** sends to a client or a server, in pieces of any
size. Nothing but a ``WireError`` may come of it, or an ``InvalidRequestError`` from the
names in a message, and no more may be kept than was fed.

libFuzzer's own arguments follow (``-runs``, ``-max_total_time``, a folder for the corpus).
It reports how many inputs were executed. An input that fails is written to a file, which
can be given as the only argument to repeat it. The corpus that is kept beside this file is
read by the tests too, without the fuzzer.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

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
        Abort,
        Answer,
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
    )
    from fsrep_core.wire.dialogue import ClientState, ServerState

LIMIT_BYTES = 4096
PROBLEM = Problem(message="m", temporary=True, local=False)
SAYABLE = (
    CallRequest("inventory", b"{}"),
    FetchRequest("send", b"{}"),
    PushRequest("receive", b"{}"),
    Part(b'{"field":"patterns","items":["a"]}'),
    Answer(b"{}"),
    Failure(PROBLEM),
    Opened(SendOpened()),
    Data(3),
    End(0),
    Abort(PROBLEM),
    Done(),
    Heartbeat(),
)


PEER = Hello(software="y")


def greeted(role: Role) -> Connection:
    """Give an end as it is after a good hello; saying one each time would take most of it."""
    end = Connection(role, Hello(software="x"), message_limit_bytes=LIMIT_BYTES)
    end.peer, end.protocol = PEER, 1
    end.dialogue.client, end.dialogue.server = ClientState.IDLE, ServerState.IDLE
    return end


def drain(end: Connection) -> list[object]:
    """Give all events that an end can make of what it was fed."""
    events: list[object] = []
    while True:
        while end.data_remaining_bytes:
            if not end.take_data(1 << 20):
                return events
        event = end.next_event()
        if event is None:
            return events
        events.append(event)


MESSAGES = [cls for each in OPERATIONS.values() for cls in (each.request_class, each.answer_class)]
ASKED = (None, *SAYABLE[:3])


def read_stranger(how: int, data: bytes) -> None:
    """Let an end hear any bytes, and read what messages they make.

    :param how: who hears them, after what, in which pieces, and what it expects
    """
    role = Role.CLIENT if how & 1 else Role.SERVER
    end = greeted(role) if how & 2 else Connection(role, Hello(software="x"))
    asked = ASKED[how >> 2 & 3]
    if how & 2 and role is Role.CLIENT and asked is not None:
        end.send(asked)
    unpacker = Unpacker(MESSAGES[(how >> 4) % len(MESSAGES)])
    piece_bytes = 1 + (how >> 8) * 3
    try:
        for at in range(0, len(data), piece_bytes):
            end.feed(data[at : at + piece_bytes])
            for event in drain(end):
                if isinstance(event, Part):
                    unpacker.add_part(event.content)
                elif isinstance(event, Request | Answer):
                    unpacker.finish(event.body)
    except (WireError, InvalidRequestError):
        pass
    if end.buffered_bytes > len(data):
        raise AssertionError(f"{end.buffered_bytes} bytes are kept of {len(data)}")


def follow_script(script: bytes) -> None:
    """Let two ends say and hear what the script says."""
    ends = (greeted(Role.CLIENT), greeted(Role.SERVER))
    underway = (bytearray(), bytearray())  # to the client, to the server
    for step in script:
        which, argument = step & 1, step >> 2
        if step & 2:
            waiting = underway[which]
            ends[which].feed(waiting[: argument + 1])
            del waiting[: argument + 1]
            drain(ends[which])
        else:
            say(ends, underway, which, SAYABLE[argument % len(SAYABLE)])
        if not any(underway):
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
    if data[:1] == b"s":
        follow_script(data[1:])
    else:
        read_stranger(int.from_bytes(data[:2], "big"), data[2:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, read_input)
    atheris.Fuzz()
