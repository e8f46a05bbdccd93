"""Faults of a connection: at a byte of either direction, and at a frame of either side."""

import pytest
import trio

from fsrep_core import (
    ConnectivityError,
    FsrepError,
    SendRequest,
    StorageError,
    TimeoutExpiredError,
)
from fsrep_core.wire import FrameKind, WireError
from fsrep_fake import DIRECTIONS, FRAMES, WIRE_ACTIONS, Fault, Generated, WireFault
from fsrep_fake.cable import Cable

SIZE = 100_000
HEADER_BYTES = 8


@pytest.fixture
def version(wired):
    wired.source.change("a", Generated(1, SIZE))
    return wired.source.snapshot("a")


def test_the_names_of_frames_are_those_of_the_wire():
    assert set(FRAMES) == {"hello", *(kind.name.lower() for kind in FrameKind)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "refuse"},
        {"direction": "up"},
        {"connection": 0},
        {"frame": "letter"},
        {"occurrence": 0},
        {"at_byte": -1},
        {"seconds": -1.0},
        {"length_bytes": 0},
    ],
)
def test_a_fault_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WireFault(**{"action": "cut", "direction": "to_server", **wrong})


# Every action at every place: the call fails, typed and in time, and the next one works.

PLACES = [
    ("send", "to_server", None, 0),
    ("send", "to_server", None, 3),
    ("send", "to_server", "hello", 20),
    ("send", "to_server", "request", 0),
    ("send", "to_server", "request", HEADER_BYTES + 5),
    ("send", "to_server", "done", 0),
    ("send", "to_client", None, 5000),
    ("send", "to_client", "hello", 0),
    ("send", "to_client", "opened", 4),
    ("send", "to_client", "data", 0),
    ("send", "to_client", "data", HEADER_BYTES + 1000),
    ("send", "to_client", "end", 0),
    ("send", "to_client", "end", HEADER_BYTES + 2),
    ("send", "to_client", "answer", 0),
    ("receive", "to_server", "data", 7),
    ("receive", "to_server", "end", 0),
    ("receive", "to_client", "answer", 0),
    ("receive", "to_client", "answer", HEADER_BYTES + 3),
]


@pytest.mark.parametrize("action", WIRE_ACTIONS)
@pytest.mark.parametrize("place", PLACES)
async def test_what_befalls_a_connection_is_typed_and_the_next_one_is_good(
    wired, version, action, place, autojump_clock
):
    side, direction, frame, at_byte = place
    seconds = 0.1 if action == "trickle" else None
    fault = WireFault(
        action, direction, connection=1, frame=frame, at_byte=at_byte, seconds=seconds
    )
    transport = await getattr(wired, "fake_sender" if side == "send" else "fake_receiver")(fault)
    failed = None

    with trio.fail_after(600):
        try:
            await wired.replicate(version)
        except FsrepError as error:
            failed = error
            found = await wired.found()
            if found is None or version.guid not in {each.guid for each in found.versions}:
                await wired.replicate(version, token=await wired.token())

    typed = ConnectivityError, StorageError, TimeoutExpiredError, WireError
    assert failed is None or isinstance(failed, typed)
    assert failed is None or action != "trickle", "slow is not broken"
    assert wired.same(version)
    assert transport.met_faults == (fault,)


async def read_until_cut(stream):
    """How many bytes come before the connection is cut."""
    received = 0
    try:
        while piece := await stream.receive_some(100):
            received += len(piece)
    except ConnectivityError as error:
        return received, error.message
    return received, "it was not"


async def test_a_cut_at_a_byte_lets_just_those_before_it_through(wired, version):
    await wired.fake_sender(WireFault("cut", "to_client", frame="data", at_byte=HEADER_BYTES + 123))
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with wired.sender.send(request) as response:
        received, said = await read_until_cut(response.stream)

    assert received == 123
    assert "the connection was cut" in said


async def test_a_cut_at_a_later_frame_of_a_kind_spares_the_ones_before(wired, version):
    transport = await wired.fake_receiver(
        WireFault("cut", "to_client", frame="answer", occurrence=3)
    )

    assert await wired.found() is None
    assert await wired.found() is None
    with pytest.raises(ConnectivityError):
        await wired.found()
    assert await wired.found() is None

    assert [call.outcome for call in transport.calls] == ["done", "done", "connectivity", "done"]


async def test_an_answer_that_is_cut_comes_after_the_work(wired, version):
    await wired.fake_receiver(WireFault("cut", "to_client", connection=1, frame="answer"))

    with pytest.raises(ConnectivityError):
        await wired.replicate(version)

    assert wired.same(version)


async def test_a_silent_connection_is_given_up_at_its_deadline(wired, version, autojump_clock):
    transport = await wired.fake_sender(WireFault("stall", "to_client", frame="opened"))

    with pytest.raises(ConnectivityError, match="no sign of life for 30 seconds"):
        await wired.replicate(version)

    assert trio.current_time() == pytest.approx(30, abs=6)
    assert transport.calls[0].outcome == "connectivity"


async def test_a_stall_shorter_than_the_deadline_only_delays(wired, version, autojump_clock):
    await wired.fake_sender(WireFault("stall", "to_client", frame="opened", seconds=20))

    await wired.replicate(version)

    assert trio.current_time() == 20
    assert wired.same(version)


async def test_trickling_bytes_are_slow_and_unharmed(wired, version, autojump_clock):
    await wired.fake_receiver(
        WireFault("trickle", "to_server", frame="data", seconds=2, length_bytes=50)
    )

    await wired.replicate(version)

    assert trio.current_time() == 100
    assert wired.same(version)


async def test_a_corrupt_header_is_an_error_of_the_wire(wired, version):
    await wired.fake_sender(WireFault("corrupt", "to_client", frame="opened"))

    with pytest.raises(WireError, match="unknown kind"):
        await wired.replicate(version)


async def test_a_corrupt_byte_of_a_stream_is_for_the_storage_to_notice(wired, version):
    await wired.fake_sender(
        WireFault("corrupt", "to_client", frame="data", at_byte=HEADER_BYTES + 30_000)
    )

    with pytest.raises(StorageError, match="not what was sent"):
        await wired.replicate(version)


async def test_a_fault_may_mean_one_connection(wired, version):
    fault = WireFault("cut", "to_server", connection=2, frame="request")
    transport = await wired.fake_sender(fault)
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with wired.sender.send(request):  # has the first connection to itself
        with pytest.raises(ConnectivityError):
            await wired.sender.size_estimate(request)
        assert await wired.sender.size_estimate(request)

    assert transport.met_faults == (fault,)


async def test_faults_of_calls_and_of_connections_make_one_script(wired, version):
    call_fault = Fault("send", "refuse", filesystem="a", occurrence=1)
    wire_fault = WireFault("cut", "to_client", connection=2, frame="data")
    transport = await wired.fake_sender(call_fault, wire_fault)

    for _ in range(2):
        with pytest.raises(ConnectivityError):
            await wired.replicate(version)
    await wired.replicate(version)

    assert transport.met_faults == (call_fault, wire_fault)


# The cable by itself


def make_cable(*faults, buffer_bytes=100):
    met = []
    return Cable(1, faults, buffer_bytes, met.append), met


async def test_a_cable_holds_so_many_bytes(autojump_clock):
    cable, _ = make_cable(buffer_bytes=100)

    with trio.move_on_after(1) as scope:
        await cable.client.send_all(bytes(101))

    assert scope.cancelled_caught
    assert len(await cable.server.receive_some()) == 100


async def test_what_was_sent_before_a_close_still_arrives():
    cable, _ = make_cable()
    await cable.client.send_all(b"bye")
    await cable.client.aclose()

    assert await cable.server.receive_some() == b"bye"
    assert await cable.server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await cable.server.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await cable.client.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await cable.client.receive_some(1)


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_a_reader_that_is_cancelled_loses_nothing(direction, autojump_clock):
    cable, met = make_cable(WireFault("stall", direction, at_byte=2, seconds=10))
    ends = cable.client, cable.server
    sender, receiver = ends if direction == "to_server" else reversed(ends)
    await sender.send_all(b"abcd")
    assert await receiver.receive_some() == b"ab"

    for _ in range(3):
        with trio.move_on_after(2):
            raise AssertionError(await receiver.receive_some())

    assert await receiver.receive_some() == b"cd"
    assert trio.current_time() == 10
    assert [each.connection for each in met] == [1]
