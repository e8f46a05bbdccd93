"""What a connection that fails, stalls or vanishes does to the calls that it carries."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing

from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    ByteStream,
    ConnectivityError,
    CursorRequest,
    DescriptorStream,
    FsrepError,
    Inventory,
    InventoryRequest,
    OutOfSpaceError,
    PermissionDeniedError,
    ReceiveRequest,
    ReceiveResponse,
    SendRequest,
    StorageError,
    TimeoutExpiredError,
    Timing,
    VersionMissingError,
    hookimpl,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Service, serve_connection
from fsrep_core.testing import no_leaks
from fsrep_core.wire import Answer, Connection, Data, Hello, PushRequest, Role, WireError, pack
from fsrep_fake import MemoryStorage, named_store, reset_stores

CONTENT = bytes(range(256))
SILENCE_SECONDS = 30.0
ABORT_SECONDS = 5.0


@attrs.define(eq=False)
class Cable:
    """A connection that fails after so many bytes one way.

    It is cut; or it goes dead, and what is sent is lost (vanish) or never taken (clog); or
    only this way takes no more (jam).
    """

    fault: str = "none"
    direction: str = "up"
    at_byte: int = 0
    passed: dict[str, int] = attrs.field(factory=lambda: {"up": 0, "down": 0})
    written: list[str] = attrs.field(factory=list)
    """The direction of each write, in order."""
    dead: bool = False

    def plug(self):
        here, there = trio.testing.memory_stream_pair()
        return Plug(here, self, "up"), Plug(there, self, "down")


class Plug(trio.abc.Stream):
    """One end of a cable."""

    def __init__(self, inner, cable, direction):
        self.inner, self.cable, self.direction = inner, cable, direction

    async def send_all(self, data):
        cable, data = self.cable, bytes(data)
        await trio.lowlevel.checkpoint()
        cable.written.append(self.direction)
        if cable.dead:
            if cable.fault == "clog":
                await trio.sleep_forever()
            return
        before = cable.passed[self.direction]
        cable.passed[self.direction] += len(data)
        hits = cable.direction == self.direction and cable.at_byte < cable.passed[self.direction]
        if cable.fault == "none" or not hits:
            await self.inner.send_all(data)
            return
        await self.inner.send_all(data[: cable.at_byte - before])
        if cable.fault == "jam":
            await trio.sleep_forever()
        if cable.fault in {"vanish", "clog"}:
            cable.dead = True
            if cable.fault == "clog":
                await trio.sleep_forever()
            return
        await self.inner.aclose()
        raise trio.BrokenResourceError

    async def receive_some(self, max_bytes=None):
        data = await self.inner.receive_some(max_bytes)
        if self.cable.dead and not data:
            await trio.sleep_forever()
        return data

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self):
        if not self.cable.dead:
            await self.inner.aclose()
        else:
            await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Wired:
    """An endpoint of a memory storage behind cables."""

    endpoint: object
    cables: list[Cable]
    served: list
    problems: list[FsrepError]


@asynccontextmanager
async def wired(storage, *cables, timing=None, limit=64, admit=None, stopping=None):
    """Serve a storage; the n-th connection uses the n-th cable, later ones are good."""
    timing = timing or Timing(silence_seconds=SILENCE_SECONDS, abort_seconds=ABORT_SECONDS)
    given, used, served, problems = list(cables), [], [], []
    service = Service(timing=timing, on_served=served.append)
    if stopping is not None:
        service = attrs.evolve(service, stopping=stopping)
    bound = Endpoint(storage, name="storage", call_timeout_seconds=float("inf"))
    admission = Admission(endpoint=bound, policy=PeerPolicy(identity="test"))

    async def serve(stream):
        try:
            await serve_connection(
                stream, admit or (lambda _: admission), peer_name="client", service=service
            )
        except FsrepError as error:
            problems.append(error)

    async with trio.open_nursery() as nursery:

        async def connect():
            cable = given.pop(0) if given else Cable()
            used.append(cable)
            here, there = cable.plug()
            nursery.start_soon(serve, there)
            return here

        opened = open_remote_endpoint(
            connect, peer_name="server", timing=timing, connection_limit=limit
        )
        async with opened as plugin:
            endpoint = Endpoint(plugin, name="remote", call_timeout_seconds=float("inf"))
            yield Wired(endpoint, used, served, problems)
        # Within the deadlines, whatever was served ends by itself.
        nursery.cancel_scope.deadline = trio.current_time() + 2 * SILENCE_SECONDS + ABORT_SECONDS
    assert not nursery.cancel_scope.cancelled_caught


@pytest.fixture(autouse=True)
def empty_stores():
    reset_stores()


def make_storage():
    store = named_store("far")
    store.change("docs", CONTENT)
    version = store.snapshot("docs")
    return store, version, MemoryStorage(store)


class Given(ByteStream):
    """A stream of bytes at hand."""

    def __init__(self, *pieces, pause_seconds=0.0, error=None):
        self.pieces, self.pause_seconds, self.error = list(pieces), pause_seconds, error

    async def receive_some(self, max_bytes):
        await trio.sleep(self.pause_seconds)
        if not self.pieces:
            if self.error is not None:
                raise self.error
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def finish(self):
        await trio.lowlevel.checkpoint()


async def read_all(stream):
    data = b""
    while piece := await stream.receive_some(100):
        data += bytes(piece)
    await stream.finish()
    return data


async def replicate_here(endpoint, version):
    """Fetch the stream of a version."""
    request = SendRequest(job="j", filesystem="docs", to_version=version)
    async with endpoint.send(request) as response:
        return await read_all(response.stream)


async def push_there(endpoint, version, data):
    """Push a stream to a new filesystem; give what was committed."""
    request = ReceiveRequest(
        job="j", filesystem="copy", to_version=version, clear_resume_token=True
    )
    return await endpoint.receive(request, Given(data[:100], data[100:]))


async def look(endpoint):
    return await endpoint.inventory(InventoryRequest(job="j"))


async def converse(endpoint, version, data):
    """A dialogue of each shape."""
    await look(endpoint)
    assert await replicate_here(endpoint, version) == data
    await push_there(endpoint, version, data)
    request = CursorRequest(job="j", filesystem="docs", move_to=version)
    assert (await endpoint.replication_cursor(request)).guid == version.guid


async def whole_stream(version, storage):
    endpoint = Endpoint(storage, name="storage")
    return await replicate_here(endpoint, version)


async def count_bytes():
    """Tell how many bytes the conversation takes each way."""
    _, version, storage = make_storage()
    data = await whole_stream(version, storage)
    async with wired(storage) as wire:
        await converse(wire.endpoint, version, data)
        (cable,) = wire.cables
        return dict(cable.passed)  # before the goodbyes


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.proof), 17])
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("fault", ["cut", "vanish"])
async def test_wherever_a_connection_fails_the_error_is_typed_and_the_next_call_works(
    fault, direction, stride, autojump_clock
):
    total = (await count_bytes())[direction]
    failed, facts = 0, set()
    for at_byte in range(0, total, stride):
        reset_stores()
        store, version, storage = make_storage()
        data = await whole_stream(version, storage)
        place = f"{fault} {direction} at byte {at_byte} of {total}"
        async with no_leaks(), wired(storage, Cable(fault, direction, at_byte)) as wire:
            started_at = trio.current_time()
            try:
                await converse(wire.endpoint, version, data)
            except FsrepError as error:
                failed += 1
                facts.add((error.temporary, error.local))
            seconds = trio.current_time() - started_at
            assert seconds <= SILENCE_SECONDS + ABORT_SECONDS + 2, (place, seconds)
            copies = store.versions("copy")
            assert [each.guid for each in copies] in ([], [version.guid]), place
            # What was cut can be done again, over a new connection.
            await converse(wire.endpoint, version, data)
            assert len(wire.cables) == 2, place
            assert store.read("copy", store.versions("copy")[0]) == CONTENT, place
    assert facts == {(True, False)}
    assert failed == len(range(0, total, stride))


async def test_a_peer_that_vanishes_is_noticed_within_the_silence(autojump_clock):
    _, _version, storage = make_storage()
    cable = Cable()
    async with wired(storage, cable) as wire:
        await look(wire.endpoint)
        cable.dead = True
        started_at = trio.current_time()
        with pytest.raises(ConnectivityError, match="no sign of life for 30 seconds"):
            await look(wire.endpoint)
        assert trio.current_time() - started_at <= SILENCE_SECONDS + ABORT_SECONDS


async def test_an_idle_connection_that_dies_is_replaced_without_an_error(autojump_clock):
    _, _, storage = make_storage()
    cable = Cable()
    async with wired(storage, cable) as wire:
        await look(wire.endpoint)
        cable.dead = True
        await trio.sleep(SILENCE_SECONDS + 1)

        await look(wire.endpoint)
        assert len(wire.cables) == 2


async def test_a_connection_stays_good_through_a_long_idle_time(autojump_clock):
    _, _, storage = make_storage()
    async with wired(storage) as wire:
        for _ in range(3):
            await look(wire.endpoint)
            await trio.sleep(3600)
        assert len(wire.cables) == 1


HOUR_SECONDS = 3600


class SlowStorage(MemoryStorage):
    """Takes an hour before and after everything."""

    @hookimpl
    async def inventory(self, request):
        await trio.sleep(HOUR_SECONDS)
        return await super().inventory(request)

    @hookimpl
    async def receive(self, request, stream):
        await trio.sleep(HOUR_SECONDS)
        response = await super().receive(request, stream)
        await trio.sleep(HOUR_SECONDS)
        return response

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        await trio.sleep(HOUR_SECONDS)
        async with super().send(request) as response:
            yield response
        await trio.sleep(HOUR_SECONDS)


async def test_what_takes_hours_is_not_taken_for_dead(autojump_clock):
    store, version, storage = make_storage()
    data = await whole_stream(version, storage)
    async with wired(SlowStorage(store)) as wire:
        started_at = trio.current_time()
        await converse(wire.endpoint, version, data)

        assert trio.current_time() - started_at >= 5 * HOUR_SECONDS
        assert len(wire.cables) == 1


async def test_a_consumer_that_reads_once_an_hour_gets_its_stream(autojump_clock):
    _, version, storage = make_storage()
    data = await whole_stream(version, storage)
    request = SendRequest(job="j", filesystem="docs", to_version=version)
    async with wired(storage) as wire, wire.endpoint.send(request) as response:
        read = b""
        while piece := await response.stream.receive_some(300):
            read += bytes(piece)
            await trio.sleep(HOUR_SECONDS)
        await response.stream.finish()
        await trio.sleep(HOUR_SECONDS)  # the receiver commits

        assert read == data
        assert len(wire.cables) == 1


async def test_a_source_that_trickles_is_received(autojump_clock):
    store, version, storage = make_storage()
    data = await whole_stream(version, storage)
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with wired(storage) as wire:
        await wire.endpoint.receive(request, Given(*pieces, pause_seconds=HOUR_SECONDS))

        assert store.read("copy", version) == CONTENT
        assert len(wire.cables) == 1


class CommittingStorage(MemoryStorage):
    """Takes an hour to commit what it got."""

    @hookimpl
    async def receive(self, request, stream):
        response = await super().receive(request, stream)
        await trio.sleep(HOUR_SECONDS)
        return response


async def test_a_server_notices_that_its_client_vanished_while_the_storage_works(autojump_clock):
    store, version, storage = make_storage()
    data = await whole_stream(version, storage)
    cable = Cable()
    async with wired(CommittingStorage(store), cable) as wire, trio.open_nursery() as nursery:

        async def push():
            with pytest.raises(ConnectivityError, match="no sign of life"):
                await push_there(wire.endpoint, version, data)

        nursery.start_soon(push)
        await trio.sleep(60)
        cable.dead = True
        await trio.sleep(SILENCE_SECONDS + ABORT_SECONDS + 1)

        (served,) = wire.served
        assert served.operation == "receive"
        assert served.problem.kind == "connectivity"
        assert "no sign of life" in wire.problems[0].message


class FullOfFilesystems(MemoryStorage):
    """A storage with more to list than any connection takes at once."""

    @hookimpl
    async def inventory(self, request):
        inventory = await super().inventory(request)
        (one,) = inventory.filesystems
        many = [attrs.evolve(one, name=f"docs/{number}") for number in range(5_000)]
        return attrs.evolve(inventory, filesystems=(one, *many))


async def test_a_server_that_can_only_write_notices_that_its_client_vanished(autojump_clock):
    """Nobody takes the answer, and no more is heard."""
    store, _, _ = make_storage()
    cable = Cable("clog", "down", at_byte=100_000)
    async with no_leaks():
        async with wired(FullOfFilesystems(store), cable) as wire:
            with pytest.raises(ConnectivityError, match="no sign of life"):
                await look(wire.endpoint)
            started_at = trio.current_time()
        (problem,) = wire.problems

    assert trio.current_time() - started_at <= SILENCE_SECONDS
    assert "no sign of life" in problem.message


async def test_a_client_that_can_only_write_notices_that_its_server_vanished(autojump_clock):
    _, version, storage = make_storage()
    pieces = [bytes(100)] * 10_000
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with no_leaks(), wired(storage, Cable("clog", "up", at_byte=5000)) as wire:
        with trio.fail_after(SILENCE_SECONDS + ABORT_SECONDS):
            with pytest.raises(ConnectivityError, match="no sign of life"):
                await wire.endpoint.receive(request, Given(*pieces))


async def test_an_answer_is_heard_although_nothing_more_can_be_said(autojump_clock):
    _, version, _ = make_storage()
    pieces = [bytes(100)] * 10_000
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    storage = RefusingStorage(named_store("far"))
    async with no_leaks(), wired(storage, Cable("jam", "up", at_byte=5000)) as wire:
        with trio.fail_after(2 * SILENCE_SECONDS), pytest.raises(OutOfSpaceError):
            await wire.endpoint.receive(request, Given(*pieces))


class RefusingStorage(MemoryStorage):
    """Finds out soon that it has no room."""

    @hookimpl
    async def receive(self, request, stream):  # noqa: ARG002  (the hook has it)
        await stream.receive_some(1)
        await trio.sleep(1)
        raise OutOfSpaceError("no room")


async def test_the_errors_of_operations_cost_no_connection(autojump_clock):
    _, version, storage = make_storage()
    gone = attrs.evolve(version, guid="another", name="gone")
    async with wired(storage) as wire:
        for _ in range(3):
            with pytest.raises(VersionMissingError):
                await replicate_here(wire.endpoint, gone)
            with pytest.raises(StorageError, match="no header"):
                await push_there(wire.endpoint, version, b"x" * 99 + b"\n" + b"y" * 200)
            request = CursorRequest(job="j", filesystem="docs", move_to=gone)
            with pytest.raises(VersionMissingError):
                await wire.endpoint.replication_cursor(request)

        assert len(wire.cables) == 1
        assert {each.problem.kind for each in wire.served} == {"version-missing", "storage"}


class OpeningStorage(MemoryStorage):
    """Takes an hour to list, and to open a stream."""

    @hookimpl
    async def inventory(self, request):
        await trio.sleep(HOUR_SECONDS)
        return await super().inventory(request)

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        await trio.sleep(HOUR_SECONDS)
        async with super().send(request) as response:
            yield response


async def test_leaving_and_cancelling_cost_no_connection(autojump_clock):
    store, version, _ = make_storage()
    async with wired(OpeningStorage(store)) as wire:
        with trio.move_on_after(10):
            await look(wire.endpoint)
        with trio.move_on_after(10):
            await replicate_here(wire.endpoint, version)
        request = SendRequest(job="j", filesystem="docs", to_version=version)
        async with wire.endpoint.send(request) as response:
            await response.stream.receive_some(10)
        receive = ReceiveRequest(job="j", filesystem="copy", to_version=version)
        with trio.move_on_after(10):
            await wire.endpoint.receive(receive, Given(b"x" * 10, b"y", pause_seconds=8))
        await look(wire.endpoint)

        assert len(wire.cables) == 1
        kinds = [each.problem and each.problem.kind for each in wire.served]
        assert kinds == ["interrupted-stream"] * 4 + [None]


class StubbornStorage(MemoryStorage):
    """Does not stop when it is cancelled, for a while."""

    @hookimpl
    async def inventory(self, request):
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        return await super().inventory(request)


async def test_a_connection_in_doubt_is_closed_and_never_used_again(autojump_clock):
    store, _, _ = make_storage()
    async with wired(StubbornStorage(store)) as wire:
        started_at = trio.current_time()
        with trio.move_on_after(1):
            await look(wire.endpoint)
        assert trio.current_time() - started_at == pytest.approx(1 + ABORT_SECONDS)

        assert isinstance(await look(wire.endpoint), Inventory)
        assert len(wire.cables) == 2


@pytest.mark.parametrize("error", [OutOfSpaceError("full"), BusyError("used", local=False)])
async def test_the_error_of_the_stream_is_raised_and_not_its_echo(error, autojump_clock):
    _, version, storage = make_storage()
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with wired(storage) as wire:
        with pytest.raises(type(error)) as caught:
            await wire.endpoint.receive(request, Given(b"x" * 50, error=error))

        assert caught.value is error
        assert wire.served[0].problem.kind == error.kind
        assert wire.served[0].problem.local == error.local
        assert wire.served[0].stream_bytes == 50


class EagerStorage(MemoryStorage):
    """Has the version already."""

    @hookimpl
    async def receive(self, request, stream):  # noqa: ARG002  (has no need of it)
        await trio.lowlevel.checkpoint()
        return ReceiveResponse(version=request.to_version)


async def test_an_early_answer_is_an_answer_and_stops_the_stream(autojump_clock):
    store, version, _ = make_storage()
    endless = Given(*[b"x" * 1000] * 10_000, pause_seconds=0.01)
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with wired(EagerStorage(store)) as wire:
        answer = await wire.endpoint.receive(request, endless)

        assert answer.version == version
        assert len(endless.pieces) > 9_900
        await look(wire.endpoint)
        assert len(wire.cables) == 1


async def test_a_client_that_goes_on_sending_is_left(autojump_clock):
    """It never ends the stream that was answered; its peer does not wait for ever."""
    store, version, _ = make_storage()
    cable = Cable()
    async with wired(EagerStorage(store), cable) as wire:
        here, there = cable.plug()
        bound = Endpoint(EagerStorage(store), name="storage")
        admission = Admission(endpoint=bound, policy=PeerPolicy(identity="hostile"))
        client = Connection(Role.CLIENT, Hello(software="hostile"))

        async def send_for_ever():
            with suppress(trio.BrokenResourceError):
                while True:
                    await here.send_all(client.send(Data(10)) + bytes(10))
                    await trio.sleep(1)

        await here.send_all(client.send(client.hello))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet_and_push, here, client, version, send_for_ever)
            with pytest.raises(WireError, match="went on sending for 60 seconds"):
                await serve_connection(there, lambda _: admission, peer_name="client")
            nursery.cancel_scope.cancel()
        del wire


async def greet_and_push(stream, client, version, send_for_ever):
    while client.next_event() is None:
        client.feed(await stream.receive_some())
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    (body,) = pack(request)
    await stream.send_all(client.send(PushRequest("receive", body)))
    await send_for_ever()


async def test_calls_take_turns_and_streams_do_not(autojump_clock):
    store, version, _storage = make_storage()
    request = SendRequest(job="j", filesystem="docs", to_version=version)

    class Pausing(MemoryStorage):
        @hookimpl
        async def size_estimate(self, request):
            await trio.sleep(1)
            return await super().size_estimate(request)

    async with wired(Pausing(store)) as wire, trio.open_nursery() as nursery:
        for _ in range(3):
            await nursery.start(hold_stream, wire.endpoint, request)
        for _ in range(20):
            nursery.start_soon(wire.endpoint.size_estimate, request)
        await trio.sleep(10)
        assert len(wire.cables) == 4
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(wire.cables) == 4
    assert sum(each.operation == "size_estimate" for each in wire.served) == 20


async def hold_stream(endpoint, request, task_status):
    async with endpoint.send(request) as response:
        await response.stream.receive_some(1)
        task_status.started()
        await trio.sleep_forever()


async def test_two_hundred_dialogues_share_eight_connections(autojump_clock):
    _store, version, storage = make_storage()
    data = await whole_stream(version, storage)
    done = []

    async def work(number):
        await trio.sleep(number % 7)
        if number % 2:
            assert await replicate_here(wire.endpoint, version) == data
        else:
            assert (await look(wire.endpoint)).filesystems
        done.append(number)

    async with no_leaks(), wired(storage, limit=8) as wire, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(work, number)
    assert len(done) == 200
    assert len(wire.cables) <= 8


async def test_a_waiter_that_is_cancelled_leaves_its_turn_to_the_next(autojump_clock):
    _, version, storage = make_storage()
    request = SendRequest(job="j", filesystem="docs", to_version=version)
    async with wired(storage, limit=1) as wire:
        async with wire.endpoint.send(request):
            with trio.move_on_after(5):
                await look(wire.endpoint)
                raise AssertionError("there was no connection for it")
        await look(wire.endpoint)
        assert len(wire.cables) == 1


async def test_a_connection_that_cannot_be_opened_leaves_no_trace(autojump_clock):
    _, _, storage = make_storage()
    async with wired(storage, Cable("cut", "down", 0), Cable("cut", "up", 0), limit=1) as wire:
        for _ in range(2):
            with pytest.raises(ConnectivityError):
                await look(wire.endpoint)
        await look(wire.endpoint)


async def open_with(connect, **timing):
    opened = open_remote_endpoint(connect, peer_name="nas", timing=Timing(**timing))
    async with opened as endpoint:
        await Endpoint(endpoint, name="remote").inventory(InventoryRequest(job="j"))


async def test_connecting_has_a_deadline(autojump_clock):
    started_at = trio.current_time()
    with pytest.raises(TimeoutExpiredError, match="nas: no connection and greeting within 7"):
        await open_with(trio.sleep_forever, connect_seconds=7)
    assert trio.current_time() - started_at == 7


async def test_a_peer_that_does_not_greet_is_left(autojump_clock):
    here, there = trio.testing.memory_stream_pair()

    async def connect():
        await trio.lowlevel.checkpoint()
        return here

    with pytest.raises(TimeoutExpiredError, match="within 30 seconds"):
        await open_with(connect)
    await there.aclose()


async def test_a_client_that_does_not_greet_is_left(autojump_clock):
    here, there = trio.testing.memory_stream_pair()

    with pytest.raises(ConnectivityError, match=r"no greeting within 30 seconds|no sign of life"):
        await serve_connection(there, lambda _: None, peer_name="client")
    assert trio.current_time() == 30
    await here.aclose()


@pytest.mark.parametrize("error", [OSError("no route"), trio.BrokenResourceError("gone")])
async def test_what_connect_raises_is_typed(error):
    async def connect():
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(ConnectivityError, match="nas: cannot connect"):
        await open_with(connect)


async def test_a_stranger_is_quoted_and_not_tried_again(autojump_clock):
    here, there = trio.testing.memory_stream_pair()

    async def connect():
        await there.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        return here

    with pytest.raises(WireError, match=r"SSH-2\.0") as caught:
        await open_with(connect)
    assert not caught.value.temporary
    await there.aclose()


class KnowingCarrier(DescriptorStream):
    """A stream whose peer has gone, and that knows why."""

    def __init__(self):
        here, there = socket.socketpair()
        there.close()
        descriptor = here.detach()
        super().__init__(descriptor, descriptor)

    async def why_it_ended(self):
        await trio.lowlevel.checkpoint()
        return PermissionDeniedError("the key was refused", hint="add it there")


async def test_a_carrier_says_why_its_connection_ended():
    async def connect():
        await trio.lowlevel.checkpoint()
        return KnowingCarrier()

    with pytest.raises(PermissionDeniedError, match="the key was refused"):
        await open_with(connect)


async def test_a_client_that_is_refused_learns_why(autojump_clock):
    _, _, storage = make_storage()

    def refuse(_):
        raise PermissionDeniedError("laptop is not known here", local=False, hint="add it")

    async with wired(storage, admit=refuse) as wire:
        for _ in range(2):
            with pytest.raises(PermissionDeniedError, match="not known here") as caught:
                await look(wire.endpoint)
            assert caught.value.hint == "add it"


async def test_a_server_that_stops_finishes_what_it_does(autojump_clock):
    store, version, storage = make_storage()
    data = await whole_stream(version, storage)
    stopping = trio.Event()
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with wired(storage, stopping=stopping) as wire:
        await look(wire.endpoint)
        async with trio.open_nursery() as nursery:
            source = Given(data[:100], data[100:], pause_seconds=5)
            nursery.start_soon(wire.endpoint.receive, request, source)
            await trio.sleep(1)
            stopping.set()
        assert store.read("copy", version) == CONTENT
        assert wire.problems == []
        with pytest.raises(ConnectivityError, match="the peer ended the connection"):
            await look(wire.endpoint)


async def test_a_server_that_stops_says_goodbye_to_the_idle(autojump_clock):
    _, _, storage = make_storage()
    stopping = trio.Event()
    async with wired(storage, stopping=stopping) as wire:
        await look(wire.endpoint)
        stopping.set()
        await trio.sleep(1)
        assert wire.problems == []


async def test_a_server_that_is_cancelled_says_that_it_did_not_answer(autojump_clock):
    store, _, _ = make_storage()
    served = []
    here, there = trio.testing.memory_stream_pair()
    bound = Endpoint(SlowStorage(store), name="storage", call_timeout_seconds=float("inf"))
    admission = Admission(endpoint=bound, policy=PeerPolicy(identity="test"))

    async def connect():
        await trio.lowlevel.checkpoint()
        return here

    async def serve():
        with trio.move_on_after(60):
            await serve_connection(
                there, lambda _: admission, peer_name="c", service=Service(on_served=served.append)
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(ConnectivityError):
            await open_with(connect)

    (done,) = served
    assert done.problem.temporary
    assert "before it answered" in done.problem.message


class InattentiveStorage(MemoryStorage):
    """Does not read the stream that it was asked to receive."""

    @hookimpl
    async def receive(self, request, stream):  # noqa: ARG002  (that is the point)
        await trio.sleep_forever()


async def test_a_storage_that_does_not_read_is_stopped_all_the_same(autojump_clock):
    store, version, _ = make_storage()
    request = ReceiveRequest(job="j", filesystem="copy", to_version=version)
    async with wired(InattentiveStorage(store)) as wire:
        started_at = trio.current_time()
        with trio.move_on_after(10):
            await wire.endpoint.receive(request, Given(b"late", pause_seconds=60))
        assert trio.current_time() - started_at < 10 + ABORT_SECONDS

        await look(wire.endpoint)
        assert len(wire.cables) == 1
        assert wire.served[0].problem.kind == "interrupted-stream"


@pytest.mark.parametrize("name", ["../etc", "/etc", "-rf", "a@b", "a\x1b[2J"])
async def test_a_server_that_lists_hostile_names_is_a_broken_endpoint(name, autojump_clock):
    """What a server says becomes paths and arguments on this side, and is checked like that."""
    here, there = trio.testing.memory_stream_pair()
    server = Connection(Role.SERVER, Hello(software="hostile"))

    async def connect():
        await trio.lowlevel.checkpoint()
        return here

    async def serve():
        await there.send_all(server.send(server.hello))
        for _ in range(2):
            while server.next_event() is None:
                server.feed(await there.receive_some())
        body = {
            "capabilities": {"stream_formats": ["x"]},
            "filesystems": [{"name": "good"}, {"name": name}],
        }
        await there.send_all(server.send(Answer(json.dumps(body).encode())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(BrokenEndpointError, match="nas answered inventory") as caught:
            await open_with(connect)
    assert not caught.value.local
    await there.aclose()
