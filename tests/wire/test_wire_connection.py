"""Two ends that talk: what may be said when, and what becomes of everything else."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsrep_core import Problem
from fsrep_core.table import IllegalTransitionError
from fsrep_core.wire import (
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
    Role,
    SendOpened,
    WireError,
)
from fsrep_core.wire.dialogue import (
    CLIENT,
    CLIENT_FOLLOWS,
    SERVER,
    SERVER_FOLLOWS,
    ClientState,
    Dialogue,
    ServerState,
)
from fsrep_core.wire.frames import FrameKind, encode_frame, encode_header

PROBLEM = Problem(message="no room", temporary=True, local=True, kind="out-of-space", hint="h")
CALL = CallRequest("inventory", b"{}")
FETCH = FetchRequest("send", b"{}")
PUSH = PushRequest("receive", b"{}")
EVENTS = [
    CALL,
    FETCH,
    PUSH,
    Part(b"{}"),
    Answer(b"{}"),
    Failure(PROBLEM),
    Opened(SendOpened(resumed=True, size_bytes=5)),
    Data(3),
    End(0),
    Abort(PROBLEM),
    Done(),
    Heartbeat(),
    Bye(),
    Bye(PROBLEM),
]


class Pair:
    """A client and a server, and the bytes between them."""

    def __init__(self, **options):
        self.client = Connection(Role.CLIENT, Hello(software="client 1"), **options)
        self.server = Connection(Role.SERVER, Hello(software="server 1"), **options)
        self.to = {self.client: bytearray(), self.server: bytearray()}

    def peer_of(self, end):
        return self.server if end is self.client else self.client

    def say(self, end, event):
        self.to[self.peer_of(end)] += end.send(event)
        if isinstance(event, Data):
            self.to[self.peer_of(end)] += bytes(event.size_bytes)

    def hear(self, end, size=None):
        """Move bytes to an end and give what it makes of them."""
        waiting = self.to[end]
        size = len(waiting) if size is None else size
        end.feed(waiting[:size])
        del waiting[:size]
        events = []
        while True:
            while end.data_remaining_bytes and end.take_data(2):
                pass
            if end.data_remaining_bytes:
                return events
            event = end.next_event()
            if event is None:
                return events
            events.append(event)

    def greet(self):
        self.say(self.client, self.client.hello)
        self.say(self.server, self.server.hello)
        assert self.hear(self.client) == [self.server.hello]
        assert self.hear(self.server) == [self.client.hello]
        return self


def talk(pair, script):
    """Say each line and hear it at once; ``>`` is the client's, ``<`` the server's."""
    for who, event in script:
        speaker = pair.client if who == ">" else pair.server
        pair.say(speaker, event)
        assert pair.hear(pair.peer_of(speaker)) == [event]


DIALOGUES = {
    "call": [(">", CALL), ("<", Answer(b"{}"))],
    "call that fails": [(">", CALL), ("<", Failure(PROBLEM))],
    "call in parts": [
        (">", Part(b"{}")),
        (">", Heartbeat()),
        (">", Part(b"{}")),
        (">", CALL),
        ("<", Part(b"{}")),
        ("<", Heartbeat()),
        ("<", Answer(b"{}")),
    ],
    "call that is aborted": [(">", CALL), (">", Abort(PROBLEM)), ("<", Failure(PROBLEM))],
    "call whose answer was quicker than the abort": [
        (">", CALL),
        ("<", Answer(b"{}")),
        (">", Abort(PROBLEM)),
    ],
    "push": [(">", PUSH), (">", Data(3)), (">", Data(4)), (">", End(7)), ("<", Answer(b"{}"))],
    "empty push": [(">", PUSH), (">", End(0)), ("<", Answer(b"{}"))],
    "push that the client aborts": [
        (">", PUSH),
        (">", Data(3)),
        (">", Abort(PROBLEM)),
        ("<", Failure(PROBLEM)),
    ],
    "push that fails early": [
        (">", PUSH),
        (">", Data(3)),
        ("<", Failure(PROBLEM)),
        (">", Data(1)),
        (">", Abort(PROBLEM)),
    ],
    "push that is answered early": [
        (">", PUSH),
        ("<", Answer(b"{}")),
        (">", Abort(PROBLEM)),
    ],
    "push with a long commit": [
        (">", PUSH),
        (">", End(0)),
        ("<", Heartbeat()),
        (">", Heartbeat()),
        ("<", Answer(b"{}")),
    ],
    "push that is aborted while the server commits": [
        (">", PUSH),
        (">", End(0)),
        (">", Abort(PROBLEM)),
        ("<", Answer(b"{}")),
    ],
    "fetch": [
        (">", FETCH),
        ("<", Opened(SendOpened())),
        ("<", Data(3)),
        ("<", End(3)),
        (">", Done()),
        ("<", Answer(b"{}")),
    ],
    "fetch that cannot be opened": [(">", FETCH), ("<", Failure(PROBLEM)), (">", Done())],
    "fetch that fails in the middle": [
        (">", FETCH),
        ("<", Opened(SendOpened())),
        ("<", Data(3)),
        ("<", Failure(PROBLEM)),
        (">", Abort(PROBLEM)),
    ],
    "fetch that the client stops early": [
        (">", FETCH),
        ("<", Opened(SendOpened())),
        ("<", Data(3)),
        (">", Abort(PROBLEM)),
        ("<", Data(3)),
        ("<", Answer(b"{}")),
    ],
    "fetch that is stopped before it is open": [
        (">", FETCH),
        (">", Abort(PROBLEM)),
        ("<", Opened(SendOpened())),
        ("<", Answer(b"{}")),
    ],
    "fetch whose maker fails after the end": [
        (">", FETCH),
        ("<", Opened(SendOpened())),
        ("<", End(0)),
        (">", Done()),
        ("<", Failure(PROBLEM)),
    ],
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_after_each_dialogue_both_ends_are_idle_and_can_have_another(name):
    pair = Pair().greet()

    for _ in range(2):
        assert pair.client.idle
        assert pair.server.idle
        talk(pair, DIALOGUES[name])
    assert pair.client.idle
    assert pair.server.idle


@pytest.mark.parametrize("name", DIALOGUES)
def test_no_end_is_idle_before_the_last_word_that_both_must_say(name):
    script = DIALOGUES[name]
    pair = Pair().greet()
    if script[-1] == (">", Abort(PROBLEM)) and script[-2][1] == Answer(b"{}"):
        script = script[:-1] if script[0] == (">", CALL) else script

    for step in range(len(script) - 1):
        talk(pair, script[step : step + 1])
        assert not pair.client.idle
        assert not (pair.server.idle and script[step][0] == "<")


ILLEGAL = {
    "answer without a request": ([], "<", Answer(b"{}")),
    "data without a request": ([], ">", Data(1)),
    "second request": ([(">", CALL)], ">", CALL),
    "data in a call": ([(">", CALL)], ">", Data(1)),
    "data after the end": ([(">", PUSH), (">", End(0))], ">", Data(1)),
    "opened in a call": ([(">", CALL)], "<", Opened(SendOpened())),
    "data before opened": ([(">", FETCH)], "<", Data(1)),
    "answer to a fetch that was not opened": ([(">", FETCH)], "<", Answer(b"{}")),
    "answer in the middle of a stream": (
        [(">", FETCH), ("<", Opened(SendOpened()))],
        "<",
        Answer(b"{}"),
    ),
    "done before the end": ([(">", FETCH), ("<", Opened(SendOpened()))], ">", Done()),
    "two answers": ([(">", PUSH), ("<", Answer(b"{}"))], "<", Answer(b"{}")),
    "bye in the middle of a request": ([(">", PUSH)], ">", Bye()),
    "request after bye": ([(">", Bye())], ">", CALL),
    "anything after the server's bye": ([("<", Bye(PROBLEM))], "<", Heartbeat()),
    "too few bytes vouched for": ([(">", PUSH), (">", Data(3))], ">", End(2)),
    "too many bytes vouched for": ([(">", PUSH), (">", Data(3))], ">", End(4)),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_the_tables_lack_is_neither_sent_nor_taken(name):
    script, who, event = ILLEGAL[name]
    pair = Pair().greet()
    talk(pair, script)
    speaker = pair.client if who == ">" else pair.server
    before = (speaker.dialogue.client, speaker.dialogue.server, speaker.dialogue.stream_bytes)

    with pytest.raises(IllegalTransitionError):
        speaker.send(event)
    after = (speaker.dialogue.client, speaker.dialogue.server, speaker.dialogue.stream_bytes)
    assert after == before

    listener = pair.peer_of(speaker)
    loose = Pair().greet()
    loose.client.dialogue = loose.server.dialogue = AnythingGoes()
    listener.feed((loose.client if who == ">" else loose.server).send(event))
    with pytest.raises(WireError) as caught:
        listener.next_event()
    assert caught.value.temporary
    assert not caught.value.local


class AnythingGoes(Dialogue):
    """A peer that keeps no table."""

    def client_says(self, event):
        pass

    def server_says(self, event):
        pass


def test_nothing_may_be_said_before_both_hellos():
    client = Connection(Role.CLIENT, Hello(software="x"))
    client.send(client.hello)

    with pytest.raises(IllegalTransitionError, match="before both hellos"):
        client.send(Heartbeat())


def test_the_hellos_agree_on_a_protocol():
    pair = Pair().greet()

    assert pair.client.protocol == pair.server.protocol == 1
    assert pair.client.peer == pair.server.hello
    assert pair.client.buffered_bytes == 0


@pytest.mark.parametrize(
    ("of_client", "of_server", "common"),
    [
        ({"zip", "later"}, {"zip", "other"}, {"zip"}),
        ({"zip"}, {"other"}, set()),
        ({"zip"}, set(), set()),
    ],
)
def test_only_what_both_sides_can_is_used(of_client, of_server, common):
    client = Connection(Role.CLIENT, Hello(software="a", capabilities=frozenset(of_client)))
    server = Connection(Role.SERVER, Hello(software="b", capabilities=frozenset(of_server)))
    assert client.capabilities == server.capabilities == frozenset()

    for end, peer in ((client, server), (server, client)):
        end.feed(peer.send(peer.hello))
        end.next_event()

    assert client.capabilities == server.capabilities == common


def test_a_peer_of_another_version_is_refused_by_both():
    pair = Pair()
    pair.server.hello = Hello(software="server 9", protocols=frozenset({9}))
    pair.say(pair.client, pair.client.hello)
    pair.say(pair.server, pair.server.hello)

    for end in (pair.client, pair.server):
        with pytest.raises(WireError, match="no common version"):
            pair.hear(end)


@pytest.mark.parametrize(
    ("who", "frame", "complaint"),
    [
        (">", encode_frame(FrameKind.REQUEST, b"\x04frob{}"), "'frob' is not known"),
        (">", encode_frame(FrameKind.REQUEST, b"\xffsend{}"), "is not known"),
        ("<", encode_frame(FrameKind.BYE, b"{]"), "BYE frame that cannot be read"),
        ("<", encode_frame(FrameKind.BYE, b"{}"), "is missing"),
        ("<", bytes([99]) + bytes(7), "unknown kind 99"),
    ],
)
def test_a_frame_that_cannot_be_read_is_refused(who, frame, complaint):
    pair = Pair().greet()
    listener = pair.server if who == ">" else pair.client
    listener.feed(frame)

    with pytest.raises(WireError, match=complaint):
        listener.next_event()


def test_parts_are_bounded_in_sum_and_each_message_counts_anew():
    pair = Pair(message_limit_bytes=1000).greet()
    for _ in range(3):
        talk(pair, [(">", Part(b"x" * 400)), (">", Part(b"x" * 400)), (">", CALL)])
        talk(pair, [("<", Answer(b"x" * 1000))])
    talk(pair, [(">", Part(b"x" * 400)), (">", Heartbeat()), (">", Part(b"x" * 400))])
    pair.say(pair.client, Part(b"x" * 201))

    with pytest.raises(WireError, match="more than 1000 bytes"):
        pair.hear(pair.server)


def test_the_peers_bye_is_known():
    pair = Pair().greet()
    talk(pair, [(">", Bye())])
    assert pair.server.peer_closed
    assert not pair.client.peer_closed

    talk(pair, [("<", Bye(PROBLEM))])
    assert pair.client.peer_closed


def test_every_state_has_a_row_and_can_be_reached():
    for states, table, follows, start in (
        (ClientState, CLIENT, CLIENT_FOLLOWS, ClientState.HELLO),
        (ServerState, SERVER, SERVER_FOLLOWS, ServerState.HELLO),
    ):
        assert set(table) == set(states)
        reached, waiting = {start}, [start]
        while waiting:
            state = waiting.pop()
            nexts = {*table[state].values(), *follows.get(state, {}).values()} - reached
            reached |= nexts
            waiting.extend(nexts)
        assert reached == set(states)
        assert table[states.CLOSED] == {}


def test_heartbeats_change_nothing_wherever_they_come():
    for table in (CLIENT, SERVER):
        for state, row in table.items():
            if state.name not in {"HELLO", "CLOSED"}:
                assert row[Heartbeat] is state


def may_say(end, own_table, dialogue):
    """Give the events that an end may say now, as a peer that keeps its promises."""
    client = end == "client"
    state = dialogue.client if client else dialogue.server
    for event in EVENTS:
        if type(event) not in own_table[state]:
            continue
        if client and isinstance(event, Abort) and state is ClientState.IDLE:
            continue  # said only to a dialogue that it believes to go on
        begins = isinstance(event, CallRequest | FetchRequest | PushRequest | Part | Bye)
        if client and begins and dialogue.server not in {ServerState.IDLE, ServerState.CLOSED}:
            continue  # the last dialogue is not over on the server's side
        yield event


def after(states, event, *, from_client):
    """Give the two states of one view after an event."""
    dialogue = Dialogue()
    dialogue.client, dialogue.server = states
    (dialogue.client_says if from_client else dialogue.server_says)(event)
    return dialogue.client, dialogue.server


def sayable(end, states):
    """Give what an end may say, but heartbeats, and data that is not counted."""
    dialogue = Dialogue()
    dialogue.client, dialogue.server = states
    for event in may_say(end, CLIENT if end == "client" else SERVER, dialogue):
        if not isinstance(event, Heartbeat):
            yield Data(0) if isinstance(event, Data) else event


def next_places(client, server, to_client, to_server):
    """Give where one more word, said or heard, can lead."""
    if to_client:
        yield after(client, to_client[0], from_client=False), server, to_client[1:], to_server
    if to_server and server[1] is not ServerState.CLOSED:
        yield client, after(server, to_server[0], from_client=True), to_client, to_server[1:]
    if len(to_server) < 3:
        for event in sayable("client", client):
            moved = after(client, event, from_client=True)
            yield moved, server, to_client, (*to_server, event)
    if len(to_client) < 3:
        for event in sayable("server", server):
            moved = after(server, event, from_client=False)
            yield client, moved, (*to_client, event), to_server


def test_both_views_agree_however_the_frames_cross():
    """Exhaustive: every order of saying and hearing, up to three frames underway each way."""
    idle = (ClientState.IDLE, ServerState.IDLE)
    seen, waiting = set(), [(idle, idle, (), ())]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        client, server, *underway = here
        assert client == server or any(underway)
        waiting.extend(next_places(*here))  # hearing what may not be said would raise
    assert len(seen) > 1000


class TwoEnds(RuleBasedStateMachine):
    """Both ends say whatever they may, and hear it in any pieces and any order."""

    def __init__(self):
        super().__init__()
        self.pair = Pair().greet()

    @rule(data=st.data(), who=st.sampled_from(["client", "server"]))
    def say(self, data, who):
        end = getattr(self.pair, who)
        table = CLIENT if who == "client" else SERVER
        events = [
            End(end.dialogue.stream_bytes) if isinstance(event, End) else event
            for event in may_say(who, table, end.dialogue)
            if not isinstance(event, Bye)
        ]
        self.pair.say(end, data.draw(st.sampled_from(events)))

    @rule(data=st.data(), who=st.sampled_from(["client", "server"]))
    def hear(self, data, who):
        end = getattr(self.pair, who)
        waiting = len(self.pair.to[end])
        self.pair.hear(end, data.draw(st.integers(0, waiting)))

    @precondition(lambda self: not any(self.pair.to.values()))
    @rule()
    def both_agree_when_nothing_is_underway(self):
        client, server = self.pair.client.dialogue, self.pair.server.dialogue
        assert (client.client, client.server) == (server.client, server.server)
        assert client.stream_bytes == server.stream_bytes

    @invariant()
    def memory_is_bounded(self):
        for end in (self.pair.client, self.pair.server):
            assert end.buffered_bytes < 200


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=30, stateful_step_count=40)


def heard(end, data):
    """Let an end hear bytes of a stranger; give how many events it made of them."""
    count = 0
    end.feed(data)
    while True:
        if end.data_remaining_bytes and not end.take_data(1 << 20):
            return count
        if end.data_remaining_bytes:
            continue
        if end.next_event() is None:
            return count
        count += 1


@given(st.sampled_from(["client", "server"]), st.lists(st.binary(max_size=40), max_size=6))
def test_nothing_but_a_wire_error_comes_of_any_bytes(who, pieces):
    end = getattr(Pair().greet(), who)
    fed = 0
    with suppress(WireError):
        for piece in pieces:
            fed += len(piece)
            heard(end, piece)
    assert end.buffered_bytes <= fed


kinds = st.integers(0, 13)
payloads = st.binary(max_size=30) | st.sampled_from(
    [b"", b"{}", b"[]", b'{"field":"versions","items":[]}', b"\x04send{}", b"\x09inventory{}"]
)


@given(st.sampled_from(["client", "server"]), st.lists(st.tuples(kinds, payloads), max_size=8))
@settings(max_examples=200)
def test_nothing_but_a_wire_error_comes_of_any_frames(who, frames):
    end = getattr(Pair().greet(), who)
    with suppress(WireError):
        for kind, payload in frames:
            heard(end, bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_byte_is_a_wire_error_or_another_message_never_a_crash(seed):
    """Seeded: every dialogue, with one byte changed somewhere."""
    rng = random.Random(seed)
    for name, script in DIALOGUES.items():
        pair = Pair().greet()
        for who, event in script:
            speaker = pair.client if who == ">" else pair.server
            listener = pair.peer_of(speaker)
            try:
                pair.say(speaker, event)
            except IllegalTransitionError:
                break  # it believes to be elsewhere now, and says nothing
            if rng.random() < 0.5:
                waiting = pair.to[listener]
                waiting[rng.randrange(len(waiting))] ^= 1 << rng.randrange(8)
            try:
                pair.hear(listener)
            except WireError:
                break
            except Exception as error:
                raise AssertionError(f"seed {seed}, {name}, {event}") from error


def test_a_header_alone_reserves_nothing():
    pair = Pair().greet()
    pair.server.feed(encode_header(FrameKind.PART, 1 << 20))

    assert pair.server.next_event() is None
    assert pair.server.buffered_bytes == 0


def test_data_behind_data_changes_no_state():
    """Many frames may pass a connection by, and it hears of them as of one."""
    for table, follows in ((CLIENT, SERVER_FOLLOWS), (SERVER, CLIENT_FOLLOWS)):
        states = [row[Data] for row in table.values() if Data in row]

        assert states
        assert all(table[state][Data] is state for state in states)
        assert not any(Data in row for row in follows.values())


def test_frames_that_pass_a_connection_by_count_for_the_end_of_the_stream():
    pair = Pair().greet()
    talk(pair, [(">", PUSH)])
    pair.client.said_data(10)
    pair.server.feed(encode_header(FrameKind.DATA, 4))
    assert pair.server.next_event() == Data(4)
    run = pair.server.begin_run()
    run.took_payload(4)
    header = encode_header(FrameKind.DATA, 6)
    run.header_rest[:] = header
    run.took_header(len(header))
    run.took_payload(6)
    pair.server.end_run(run)

    with pytest.raises(IllegalTransitionError, match="vouches for 9 bytes"):
        pair.client.send(End(9))
    pair.say(pair.client, End(10))
    assert pair.hear(pair.server) == [End(10)]


def test_frames_may_pass_a_connection_by_only_where_data_may_be_said():
    pair = Pair().greet()

    with pytest.raises(IllegalTransitionError):
        pair.client.said_data(0)
