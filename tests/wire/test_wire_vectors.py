"""The page of the wire says what the code does: its vectors, limits and tables."""

from __future__ import annotations

import re

import attrs
import pytest

from fsrep_core import InvalidRequestError, Problem, ReceiveRequest, Timing, Version, VersionKind
from fsrep_core.runtime.remote.reception import Limits
from fsrep_core.wire import (
    OPERATIONS,
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
    StorageAsk,
    Unpacker,
    WireError,
    codec,
    hello,
    messages,
    names,
    pack,
)
from fsrep_core.wire.connection import MESSAGE_LIMITS_BYTES
from fsrep_core.wire.dialogue import (
    CLIENT,
    CLIENT_FOLLOWS,
    SERVER,
    SERVER_FOLLOWS,
    ClientState,
    Dialogue,
    ServerState,
)
from fsrep_core.wire.frames import PAYLOAD_LIMITS_BYTES, FrameKind
from wire_page import TEXT, rows, vectors

VERSION = Version(VersionKind.SNAPSHOT, "daily", "5f1c", 42, 1.5)
REQUEST = ReceiveRequest(job="docs", filesystem="a/b", to_version=VERSION)
PROBLEM = Problem(
    message="no room", temporary=True, local=True, kind="out-of-space", hint="free some"
)
VECTORS = {
    "hello": (
        Role.CLIENT,
        Hello(
            software="fsrep 1.0.0",
            identity="laptop",
            ask=StorageAsk(
                job="docs", side="receiver", storage="directory", options={"root": "/b"}
            ),
        ),
    ),
    "request": (Role.CLIENT, PushRequest("receive", next(pack(REQUEST)))),
    "part": (
        Role.CLIENT,
        Part(b'{"field":"rollback","items":[{"kind":"snapshot","name":"x","guid":"y","order":1}]}'),
    ),
    "answer": (
        Role.SERVER,
        Answer(
            b'{"version":{"kind":"snapshot","name":"daily","guid":"5f1c","order":7,"created":1.5}}'
        ),
    ),
    "error": (Role.SERVER, Failure(PROBLEM)),
    "opened": (Role.SERVER, Opened(SendOpened(resumed=True, size_bytes=4096))),
    "data": (Role.SERVER, Data(65536)),
    "end": (Role.SERVER, End(131072)),
    "abort": (Role.CLIENT, Abort(PROBLEM)),
    "done": (Role.CLIENT, Done()),
    "heartbeat": (Role.SERVER, Heartbeat()),
    "bye": (Role.SERVER, Bye()),
    "bye with a problem": (Role.SERVER, Bye(PROBLEM)),
}


class AnythingGoes(Dialogue):
    """A single frame has no dialogue around it."""

    def client_says(self, event):
        pass

    def server_says(self, event):
        pass


def make_end(role):
    end = Connection(role, Hello(software="x"))
    end.dialogue = AnythingGoes()
    return end


def encode(role, event):
    end = make_end(role)
    end.protocol = 1
    return end.send(event)


def decode(role, data):
    end = make_end(Role.SERVER if role is Role.CLIENT else Role.CLIENT)
    if data[0] < 0x80:
        end.feed(Connection(role, Hello(software="y")).send(Hello(software="y")))
        end.next_event()
    end.feed(data)
    return end.next_event()


def page_vectors():
    return dict(vectors("Test vectors"))


def test_the_page_has_a_vector_for_every_kind_of_frame():
    assert set(page_vectors()) == set(VECTORS)
    assert {kind.name.lower() for kind in FrameKind} <= set(VECTORS)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_code_writes_and_reads(name):
    role, event = VECTORS[name]
    data = page_vectors()[name]

    assert encode(role, event) == data
    assert decode(role, data) == event


# A dialogue

DIALOGUE = [
    ("client hello", VECTORS["hello"][1]),
    ("server hello", Hello(software="fsrep 1.0.0")),
    ("client request", VECTORS["request"][1]),
    ("client data", Data(8)),
    ("server heartbeat", Heartbeat()),
    ("client data", Data(8)),
    ("client end", End(16)),
    ("server answer", VECTORS["answer"][1]),
    ("client bye", Bye()),
    ("server bye", Bye()),
]
CONTENT = b"Call me Ishmael."


def test_the_dialogue_of_the_page_is_what_two_ends_say_and_hear():
    steps = vectors("A dialogue")
    ends = {
        "client": Connection(Role.CLIENT, DIALOGUE[0][1]),
        "server": Connection(Role.SERVER, DIALOGUE[1][1]),
    }
    content = bytearray()
    assert [name for name, _ in steps] == [name for name, _ in DIALOGUE]

    for (name, data), (_, event) in zip(steps, DIALOGUE, strict=True):
        who = name.split()[0]
        hearer = ends["server" if who == "client" else "client"]
        said = ends[who].send(event)
        payload = data[len(said) :]
        assert said + payload == data, name
        assert len(payload) == (event.size_bytes if isinstance(event, Data) else 0), name

        hearer.feed(data)
        assert hearer.next_event() == event, name
        content += hearer.take_data(len(payload))
        assert hearer.buffered_bytes == 0, name

    assert content == CONTENT
    assert all(end.closed and end.peer_closed for end in ends.values())


# What a server refuses

COMPLAINTS = {
    "the banner of another protocol": "does not speak",
    "line ends that were translated": "does not speak",
    "a hello of one byte": "a hello of 1 bytes",
    "a hello that is too long": "a hello of 65537 bytes",
    "a hello that is no object": "it is no object",
    "a key is missing": "identity is not a word",
    "no version in common": "no common version",
    "a version that is no integer": "protocols is not a list",
    "a line end in a word": "software is not a word",
    "an unknown kind": "unknown kind 12",
    "a second hello": "unknown kind 255",
    "bytes that are not zero": "reserved bytes",
    "a payload that is too short": "REQUEST frame of 1 bytes",
    "a payload that is too long": "REQUEST frame of 1048577 bytes",
    "a heartbeat with a payload": "HEARTBEAT frame of 1 bytes",
    "data without a stream": "DATA frame where none may be",
    "an end without a stream": "END frame where none may be",
    "done without a stream": "DONE frame where none may be",
    "an answer from a client": "ANSWER frame where none may be",
    "an end that vouches for other bytes": "vouches for 9 bytes, but 8 came",
    "a request in the middle of a stream": "REQUEST frame where none may be",
    "an abort behind a part": "ABORT frame where none may be",
    "an unknown operation": "'erase' is not known",
    "a request that is not JSON": "it is not JSON: ",
    "a request that is not ASCII": "not JSON in ASCII",
    "a key that is missing": "job is missing",
    "a key that is not known": "'x' is not known",
    "a value of another type": "job: expected a string",
    "an integer of 65 bits": "more than 64 bits",
    "a number that is not finite": "NaN is no number",
    "a part without items": "is not empty",
    "a part of a list that is not there": "a list that the message does not have",
    "an absolute name": "is absolute",
    "a name that leads out": "has the component '..'",
    "a name like an option": "begins with '-'",
    "a name that holds a version": "holds '@'",
    "a control character in a name": "a control character",
    "a job with components": "name of the job 'a/b' holds '/'",
    "an empty pattern": "the pattern is empty",
    "a resume token like an option": "not one that a storage makes",
}


def serve(data):
    """Hear what a client says, and read each request as a server does."""
    end = Connection(Role.SERVER, Hello(software="x"))
    end.send(end.hello)
    end.feed(data)
    parts = []
    while (event := end.next_event()) is not None:
        match event:
            case Data():
                end.take_data(event.size_bytes)
            case Part(content):
                parts.append(content)
            case Request():
                unpacker = Unpacker(OPERATIONS[event.operation].request_class)
                for content in parts:
                    unpacker.add_part(content)
                unpacker.finish(event.body)
                parts.clear()


def test_every_refusal_of_the_page_has_its_reason_here():
    headings = ("In place of a hello", "After the hellos", "With a name")
    named = [name for heading in headings for name, _ in vectors(heading)]

    assert named == list(COMPLAINTS)


@pytest.mark.parametrize(("name", "data"), vectors("In place of a hello"))
def test_no_hello_is_refused(name, data):
    with pytest.raises(WireError, match=re.escape(COMPLAINTS[name])):
        serve(data)


@pytest.mark.parametrize(("name", "data"), vectors("After the hellos"))
def test_what_may_not_be_said_is_refused(name, data):
    with pytest.raises(WireError, match=re.escape(COMPLAINTS[name])):
        serve(page_vectors()["hello"] + data)


@pytest.mark.parametrize(("name", "data"), vectors("With a name"))
def test_a_name_that_may_not_cross_the_wire_is_refused(name, data):
    with pytest.raises(InvalidRequestError, match=re.escape(COMPLAINTS[name])):
        serve(page_vectors()["hello"] + data)


# Tables


def test_the_page_lists_every_kind_with_its_number_and_limits():
    listed = {
        (int(number), name.strip("`")): (int(least), int(most))
        for number, name, least, most, _ in rows("Frames", "number | kind")
    }

    assert listed == {
        (int(kind), kind.name): limits for kind, limits in PAYLOAD_LIMITS_BYTES.items()
    }


def test_the_page_lists_every_operation_with_its_shape():
    listed = {
        (name.strip("`"), shape, request.strip("`"))
        for name, shape, request, _ in rows("Messages", "operation | shape")
    }

    assert listed == {
        (name, each.shape.value, each.request_class.__name__) for name, each in OPERATIONS.items()
    }


EVENTS = {
    "hello": Hello,
    "call": CallRequest,
    "fetch": FetchRequest,
    "push": PushRequest,
    "`ERROR`": Failure,
    **{f"`{each.__name__.upper()}`": each for each in (Part, Answer, Opened, Data, End)},
    **{f"`{each.__name__.upper()}`": each for each in (Abort, Done, Bye)},
}


def page_table(columns, states):
    """A table of the page, as the code has it."""
    table = {}
    for state, moves in rows("States", columns):
        row = table[states(state.strip("`"))] = {}
        for move in moves.split(", ") if moves else ():
            event, following = move.split(" → ")
            row[EVENTS[event]] = states(following.strip("`"))
    return table


@pytest.mark.parametrize(
    ("columns", "states", "table"),
    [
        ("client | what it may say", ClientState, CLIENT),
        ("server | what it may say", ServerState, SERVER),
        ("client | what the server says", ClientState, CLIENT_FOLLOWS),
        ("server | what the client says", ServerState, SERVER_FOLLOWS),
    ],
)
def test_the_page_has_the_tables_of_the_dialogue(columns, states, table):
    without_heartbeats = {
        state: {event: following for event, following in row.items() if event is not Heartbeat}
        for state, row in table.items()
    }

    assert page_table(columns, states) == without_heartbeats


def test_heartbeats_may_stand_where_the_page_says():
    for table, hello_state, closed in (
        (CLIENT, ClientState.HELLO, ClientState.CLOSED),
        (SERVER, ServerState.HELLO, ServerState.CLOSED),
    ):
        for state, row in table.items():
            following = None if state in {hello_state, closed} else state
            assert row.get(Heartbeat) is following


def test_the_page_says_the_deadlines():
    timing = {
        field.name.removesuffix("_seconds").removesuffix("_interval"): field.default
        for field in attrs.fields(Timing)
    }

    listed = {name: float(seconds) for name, seconds, *_ in rows("Deadlines", "deadline")}
    assert listed == timing | {"handshake": Limits().handshake_seconds}


def test_the_page_says_the_limits():
    listed = {what: int(limit.split()[0]) for what, limit, _ in rows("Limits", "what")}

    assert listed == {
        "a hello, behind its length": hello.HELLO_LIMIT_BYTES,
        "a string in a hello, apart from `options`": hello.WORD_LIMIT,
        "a list in a hello": hello.LIST_LIMIT,
        "a request and its parts, all payloads": MESSAGE_LIMITS_BYTES[Role.SERVER],
        "an answer and its parts, all payloads": MESSAGE_LIMITS_BYTES[Role.CLIENT],
        "an integer, without its sign": codec.INTEGER_BITS,
        "`stream_formats`": codec.FORMATS_LIMIT,
        "`attributes`": codec.ATTRIBUTES_LIMIT,
        "a filesystem's name": names.NAME_LIMIT,
        "a word": names.WORD_LIMIT,
        "a pattern": names.PATTERN_LIMIT,
        "a resume token": names.OPAQUE_LIMIT,
        "a text for people": names.TEXT_LIMIT,
        "a key or a value in `attributes`": names.ATTRIBUTE_LIMIT,
    }


def test_the_page_names_the_lists_that_may_be_sent_ahead():
    sentence = re.search(r"There are parts\s+for (.*?)\. In an", TEXT, re.DOTALL)

    assert sentence is not None
    named = set(re.findall(r"`([a-z]+)`", sentence[1]))
    assert named == {field for fields in messages._LISTS.values() for field in fields}
