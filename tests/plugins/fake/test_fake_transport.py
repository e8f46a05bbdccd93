from contextlib import asynccontextmanager, suppress

import pytest
import trio

import fsrep_fake
from fsrep_core import (
    ConnectivityError,
    CreateVersionRequest,
    DestroyVersionsRequest,
    EndpointContext,
    InterruptedStreamError,
    InventoryRequest,
    ReceiveRequest,
    SendRequest,
    SendResponse,
    Side,
    StorageChoice,
    StorageError,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.registry import load_plugins
from fsrep_fake import FakeTransport, Fault, Generated

SIZE = 100_000


@pytest.fixture
def version(pair):
    pair.source.change("a", Generated(1, SIZE))
    return pair.source.snapshot("a")


async def test_without_faults_nothing_goes_wrong(pair, version):
    sender, receiver = pair.fake_sender(), pair.fake_receiver()

    await pair.replicate(version)

    assert pair.same(version)
    (sent,), (received,) = sender.calls, receiver.calls
    assert (sent.outcome, received.outcome) == ("done", "done")
    assert sent.moved_bytes == received.moved_bytes > SIZE
    assert sent.request.to_version == version


async def test_an_endpoint_of_the_fake_keeps_the_contract(pair):
    Endpoint(pair.fake_sender() and pair.sender, name="sender (memory over fake)")


@pytest.mark.parametrize("side", ["sender", "receiver"])
@pytest.mark.parametrize(
    ("action", "error"), [("refuse", ConnectivityError), ("fail_before", StorageError)]
)
async def test_the_storage_never_hears_of_a_call_that_fails_before(
    pair, version, side, action, error
):
    operation = "send" if side == "sender" else "receive"
    transport = getattr(pair, f"fake_{side}")(Fault(operation, action, occurrence=1))

    with pytest.raises(error):
        await pair.replicate(version)

    assert transport.calls[0].outcome == error.kind
    assert await pair.found() is None
    await pair.replicate(version)
    assert pair.same(version)


@pytest.mark.parametrize("at_byte", [0, 1, SIZE // 2, None])
async def test_a_cut_send_ends_early_and_is_not_vouched_for(pair, version, at_byte):
    transport = pair.fake_sender(Fault("send", "cut", at_byte=at_byte))
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with pair.sender.send(request) as response:
        received = 0
        while piece := await response.stream.receive_some(1000):
            received += len(piece)
        with pytest.raises(InterruptedStreamError, match="cut"):
            await response.stream.finish()

    assert received == (response.size_bytes if at_byte is None else at_byte)
    assert transport.calls[0].outcome == "interrupted-stream"
    assert transport.calls[0].moved_bytes == received


async def test_a_cut_send_leaves_a_partial_that_goes_on(pair, version):
    pair.fake_sender(Fault("send", "cut", occurrence=1, at_byte=SIZE // 2))

    with pytest.raises(InterruptedStreamError):
        await pair.replicate(version)

    token = await pair.token()
    assert 0 < token.received_bytes < SIZE // 2
    await pair.replicate(version, token=token)
    assert pair.same(version)


@pytest.mark.parametrize("at_byte", [0, SIZE // 2, None])
async def test_a_cut_receive_loses_the_way_and_commits_nothing(pair, version, at_byte):
    transport = pair.fake_receiver(Fault("receive", "cut", occurrence=1, at_byte=at_byte))

    with pytest.raises(ConnectivityError) as caught:
        await pair.replicate(version)

    assert isinstance(caught.value.__cause__, InterruptedStreamError)
    assert transport.calls[0].outcome == "connectivity"
    found = await pair.found()
    assert found is None or found.versions == ()
    await pair.replicate(version, token=await pair.token())
    assert pair.same(version)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_stall_lasts_until_cancelled(pair, version, side, autojump_clock):
    operation = "send" if side == "sender" else "receive"
    transport = getattr(pair, f"fake_{side}")(Fault(operation, "stall", at_byte=1000))

    with trio.move_on_after(3600) as scope:
        await pair.replicate(version)

    assert scope.cancelled_caught
    assert transport.calls[0].outcome == "cancelled"
    assert trio.current_time() == 3600


async def test_a_stall_of_some_seconds_only_delays(pair, version, autojump_clock):
    pair.fake_sender(Fault("send", "stall", at_byte=1000, seconds=60))

    await pair.replicate(version)

    assert trio.current_time() == 60
    assert pair.same(version)


async def test_trickling_bytes_come_one_at_a_time(pair, version, autojump_clock):
    pair.fake_sender(Fault("send", "trickle", at_byte=10, seconds=2, length_bytes=5))
    pieces = []

    request = SendRequest(job="job", filesystem="a", to_version=version)
    async with pair.sender.send(request) as response:
        while piece := await response.stream.receive_some(1 << 20):
            pieces.append((trio.current_time(), len(piece)))
        await response.stream.finish()

    assert pieces[:6] == [(0, 10), (2, 1), (4, 1), (6, 1), (8, 1), (10, 1)]
    assert {when for when, _ in pieces[6:]} == {10}
    assert sum(size for _, size in pieces) == response.size_bytes


async def test_a_corrupt_byte_is_noticed_by_the_receiver(pair, version):
    pair.fake_sender(Fault("send", "corrupt", occurrence=1, at_byte=SIZE // 2))

    with pytest.raises(StorageError, match="not what was sent") as caught:
        await pair.replicate(version)

    assert caught.value.temporary
    assert await pair.found() is None
    await pair.replicate(version)
    assert pair.same(version)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_failure_in_the_middle_is_typed(pair, version, side):
    operation = "send" if side == "sender" else "receive"
    transport = getattr(pair, f"fake_{side}")(
        Fault(operation, "fail_in_middle", at_byte=SIZE // 2, temporary=True, local=False)
    )

    with pytest.raises(StorageError, match="as the script has it") as caught:
        await pair.replicate(version)

    assert (caught.value.temporary, caught.value.local) == (True, False)
    assert transport.calls[0].outcome == "storage"
    assert (await pair.token()).received_bytes > 0


async def test_after_a_lost_answer_the_version_is_there(pair, version):
    pair.fake_receiver(Fault("receive", "fail_after_commit", occurrence=1))

    with pytest.raises(ConnectivityError, match="receive: the answer was lost"):
        await pair.replicate(version)

    assert pair.same(version)
    await pair.replicate(version)  # succeeds, and changes nothing
    assert len((await pair.found()).versions) == 1


async def test_unary_calls_lose_their_answer_after_the_work(pair, version):
    pair.fake_sender(
        Fault("replication_cursor", "fail_after_commit", occurrence=1),
        Fault("create_version", "fail_after_commit"),
        Fault("destroy_versions", "fail_after_commit"),
    )

    with pytest.raises(ConnectivityError):
        await pair.cursor(move_to=version)
    assert (await pair.cursor()).guid == version.guid
    with pytest.raises(ConnectivityError):
        await pair.sender.create_version(
            CreateVersionRequest(job="job", filesystems=("a",), name="new")
        )
    assert pair.source.versions("a")[-1].name == "new"
    with pytest.raises(ConnectivityError):
        await pair.sender.destroy_versions(
            DestroyVersionsRequest(job="job", filesystem="a", versions=(version,))
        )
    assert version not in pair.source.versions("a")


@pytest.mark.parametrize("action", ["refuse", "fail_before", "stall"])
async def test_looking_can_fail_as_well(pair, version, action, autojump_clock):
    transport = pair.fake_sender(
        Fault("inventory", action, occurrence=2), Fault("size_estimate", action)
    )
    request = SendRequest(job="job", filesystem="a", to_version=version)

    assert await pair.found(endpoint=pair.sender)
    for call in (pair.found(endpoint=pair.sender), pair.sender.size_estimate(request)):
        with trio.move_on_after(10), suppress(ConnectivityError, StorageError):
            pytest.fail(f"answered {await call}")

    assert transport.calls[0].outcome == "done"
    assert len({call.outcome for call in transport.calls[1:]}) == 1
    assert trio.current_time() == (20 if action == "stall" else 0)


async def test_what_a_fault_states_is_what_its_error_says(pair, version):
    pair.fake_sender(Fault("send", "refuse", temporary=False, local=True))

    with pytest.raises(ConnectivityError) as caught:
        await pair.replicate(version)

    assert (caught.value.temporary, caught.value.local) == (False, True)


async def test_a_fault_can_mean_one_filesystem_and_one_call(pair, version):
    other = pair.source.add_history("b", 1)[0]
    transport = pair.fake_sender(Fault("send", "refuse", filesystem="b", occurrence=2))

    await pair.replicate(version)
    await pair.replicate(other, "b")
    pair.target.destroy("b", other)
    with pytest.raises(ConnectivityError):
        await pair.replicate(other, "b")

    assert [call.fault for call in transport.calls][:2] == [None, None]
    assert transport.met_faults == (Fault("send", "refuse", filesystem="b", occurrence=2),)


async def test_little_is_read_ahead(pair, version, autojump_clock):
    transport = pair.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with pair.sender.send(request) as response:
        await response.stream.receive_some(1)
        await trio.sleep(1)

    (call,) = transport.calls
    assert call.moved_bytes <= 64 * 1024 + 1
    assert call.outcome == "left"


async def test_finishing_before_the_end_is_an_error(pair, version):
    pair.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with pair.sender.send(request) as response:
        await response.stream.receive_some(1)
        with pytest.raises(InterruptedStreamError, match="not read to its end"):
            await response.stream.finish()


async def test_an_error_of_the_caller_passes_through_as_it_is(pair, version):
    transport = pair.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    with pytest.raises(ZeroDivisionError):
        async with pair.sender.send(request):
            raise ZeroDivisionError

    assert transport.calls[0].outcome == "left"


async def test_a_stranger_error_of_a_storage_passes_through_as_it_is(pair, version):
    class Broken:
        async def receive(self, stream, **_):
            await stream.receive_some(1)
            raise ZeroDivisionError

    transport = FakeTransport()
    pair.receiver = transport.endpoint(Broken())

    with pytest.raises(ZeroDivisionError):
        await pair.replicate(version)

    assert transport.calls[0].outcome == "ZeroDivisionError"


async def test_a_stranger_error_of_a_stream_reaches_who_reads_it(pair, version):
    class Broken:
        async def receive_some(self, _max_bytes):
            raise ZeroDivisionError

    pair.fake_receiver()
    request = ReceiveRequest(job="j", filesystem="a", to_version=version)

    with pytest.raises(ZeroDivisionError):
        await pair.receiver.receive(request, Broken())


async def test_a_send_without_a_stream_stays_one(version):
    class Broken:
        @asynccontextmanager
        async def send(self, **_):
            yield SendResponse(stream=None)

    endpoint = FakeTransport().endpoint(Broken())

    async with endpoint.send(
        SendRequest(job="job", filesystem="a", to_version=version)
    ) as response:
        assert response.stream is None


async def test_the_configured_transport_opens_the_configured_storage():
    registry = load_plugins()
    storage = registry.find("storage", "memory")
    transport = registry.find("transport", "fake")
    fsrep_fake.named_store("configured").add_history("a", 2)

    options = transport.config_class(faults=(Fault("inventory", "refuse", occurrence=2),))
    context = EndpointContext(
        job="job",
        side=Side.SENDER,
        storage=StorageChoice(
            name="memory",
            options={},
            create=lambda: storage.create(storage.config_class(store="configured")),
        ),
    )
    async with transport.create(options).open_endpoint(context) as endpoint:
        inventory = await endpoint.inventory(InventoryRequest(job="job"))
        with pytest.raises(ConnectivityError):
            await endpoint.inventory(InventoryRequest(job="job"))

    assert len(inventory.filesystems[0].versions) == 2
    fsrep_fake.reset_stores()
    assert fsrep_fake.named_store("configured").filesystems == {}
