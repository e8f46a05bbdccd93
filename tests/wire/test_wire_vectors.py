"""The page of the wire says what the code does: its vectors, limits and tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fsrep_core import Problem, ReceiveRequest, Version, VersionKind
from fsrep_core.wire import (
    OPERATIONS,
    Abort,
    Answer,
    Bye,
    Connection,
    Data,
    Done,
    End,
    Failure,
    Heartbeat,
    Hello,
    Opened,
    Part,
    PushRequest,
    Role,
    SendOpened,
    StorageAsk,
    pack,
)
from fsrep_core.wire.connection import MESSAGE_LIMITS_BYTES
from fsrep_core.wire.dialogue import Dialogue
from fsrep_core.wire.frames import PAYLOAD_LIMITS_BYTES, FrameKind
from fsrep_core.wire.hello import HELLO_LIMIT_BYTES
from fsrep_core.wire.names import NAME_LIMIT, OPAQUE_LIMIT, TEXT_LIMIT, WORD_LIMIT

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "wire.md"
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
    block = re.search(r"```text\nhello\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    parts = re.findall(r"^(\S[^\n]*)\n((?:  [0-9a-f ]+\n)+)", "hello\n" + block[1], re.MULTILINE)
    return {name: bytes.fromhex(digits) for name, digits in parts}


def test_the_page_has_a_vector_for_every_kind_of_frame():
    assert set(page_vectors()) == set(VECTORS)
    assert {kind.name.lower() for kind in FrameKind} <= set(VECTORS)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_what_the_code_writes_and_reads(name):
    role, event = VECTORS[name]
    data = page_vectors()[name]

    assert encode(role, event) == data
    assert decode(role, data) == event


def test_the_page_lists_every_kind_with_its_number_and_limits():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+) \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    listed = {(int(number), name): (int(a), int(b)) for number, name, a, b in rows}

    assert listed == {
        (int(kind), kind.name): limits for kind, limits in PAYLOAD_LIMITS_BYTES.items()
    }


def test_the_page_lists_every_operation_with_its_shape():
    rows = re.findall(
        r"^\| `(\w+)` \| (call|fetch|push) \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE
    )

    assert {(name, shape, request) for name, shape, request in rows} == {
        (name, each.shape.value, each.request_class.__name__) for name, each in OPERATIONS.items()
    }


@pytest.mark.parametrize(
    "number", [HELLO_LIMIT_BYTES, NAME_LIMIT, WORD_LIMIT, TEXT_LIMIT, OPAQUE_LIMIT]
)
def test_the_page_says_the_limits(number):
    assert f" {number} " in PAGE.read_text()


def test_the_page_says_the_limits_of_messages():
    text = PAGE.read_text()

    assert f"{MESSAGE_LIMITS_BYTES[Role.SERVER] >> 20} MiB" in text
    assert f"{MESSAGE_LIMITS_BYTES[Role.CLIENT] >> 30} GiB" in text
