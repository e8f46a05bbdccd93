from contextlib import asynccontextmanager, suppress

import pytest
import trio

import fsrep_fake
from fsrep_core import (
    BrokenEndpointError,
    ByteStream,
    ConnectivityError,
    CreateVersionRequest,
    DestroyVersionsRequest,
    EndpointContext,
    FsrepError,
    InterruptedStreamError,
    InventoryRequest,
    ReceiveRequest,
    SendRequest,
    SendResponse,
    Side,
    StorageChoice,
    StorageError,
    hookimpl,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.registry import load_plugins
from fsrep_core.testing import drain
from fsrep_fake import Fault, Generated, MemoryStorage

SIZE = 100_000


@pytest.fixture
def version(pair):
    pair.source.change("a", Generated(1, SIZE))
    return pair.source.snapshot("a")


async def test_without_faults_nothing_goes_wrong(wired, version):
    sender, receiver = await wired.fake_sender(), await wired.fake_receiver()

    await wired.replicate(version)

    assert wired.same(version)
    (sent,), (received,) = sender.calls, receiver.calls
    assert (sent.outcome, received.outcome) == ("done", "done")
    assert sent.moved_bytes == received.moved_bytes > SIZE
    assert sent.request.to_version == version


async def test_an_endpoint_of_the_fake_keeps_the_contract(wired):
    Endpoint(await wired.fake_sender() and wired.sender, name="sender (memory over fake)")


@pytest.mark.parametrize("side", ["sender", "receiver"])
@pytest.mark.parametrize(
    ("action", "error"), [("refuse", ConnectivityError), ("fail_before", StorageError)]
)
async def test_the_storage_never_hears_of_a_call_that_fails_before(
    wired, version, side, action, error
):
    operation = "send" if side == "sender" else "receive"
    transport = await getattr(wired, f"fake_{side}")(Fault(operation, action, occurrence=1))

    with pytest.raises(error):
        await wired.replicate(version)

    assert transport.calls[0].outcome == error.kind
    assert await wired.found() is None
    await wired.replicate(version)
    assert wired.same(version)


@pytest.mark.parametrize("at_byte", [0, 1, SIZE // 2, None])
async def test_a_cut_send_ends_at_its_byte_with_an_error(wired, version, at_byte):
    transport = await wired.fake_sender(Fault("send", "cut", at_byte=at_byte))
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async def read(stream):
        while await stream.receive_some(1000):
            pass

    async with wired.sender.send(request) as response:
        with pytest.raises(ConnectivityError, match=r"send: cut at byte \d+, as the script"):
            await read(response.stream)

    assert transport.calls[0].outcome == "connectivity"
    received = transport.calls[0].moved_bytes
    assert received == (response.size_bytes if at_byte is None else at_byte)


async def test_a_cut_send_leaves_a_partial_that_goes_on(wired, version):
    await wired.fake_sender(Fault("send", "cut", occurrence=1, at_byte=SIZE // 2))

    with pytest.raises(ConnectivityError):
        await wired.replicate(version)

    token = await wired.token()
    assert 0 < token.received_bytes < SIZE // 2
    await wired.replicate(version, token=token)
    assert wired.same(version)


@pytest.mark.parametrize("at_byte", [0, SIZE // 2, None])
async def test_a_cut_receive_loses_the_way_and_commits_nothing(wired, version, at_byte):
    transport = await wired.fake_receiver(Fault("receive", "cut", occurrence=1, at_byte=at_byte))

    with pytest.raises(ConnectivityError) as caught:
        await wired.replicate(version)

    assert "as the script has it" in caught.value.message
    assert transport.calls[0].outcome == "connectivity"
    found = await wired.found()
    assert found is None or found.versions == ()
    await wired.replicate(version, token=await wired.token())
    assert wired.same(version)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_stall_lasts_until_cancelled(wired, version, side, autojump_clock):
    operation = "send" if side == "sender" else "receive"
    transport = await getattr(wired, f"fake_{side}")(Fault(operation, "stall", at_byte=1000))

    with trio.move_on_after(3600) as scope:
        await wired.replicate(version)

    assert scope.cancelled_caught
    assert transport.calls[0].outcome == "cancelled"
    # A server whose storage does not read hears late that the client has gone.
    assert 3600 <= trio.current_time() <= 3605


async def test_a_stall_of_some_seconds_only_delays(wired, version, autojump_clock):
    await wired.fake_sender(Fault("send", "stall", at_byte=1000, seconds=60))

    await wired.replicate(version)

    assert trio.current_time() == 60
    assert wired.same(version)


async def test_trickling_bytes_come_one_at_a_time(wired, version, autojump_clock):
    await wired.fake_sender(Fault("send", "trickle", at_byte=10, seconds=2, length_bytes=5))
    pieces = []

    request = SendRequest(job="job", filesystem="a", to_version=version)
    async with wired.sender.send(request) as response:
        while piece := await response.stream.receive_some(1 << 20):
            pieces.append((trio.current_time(), len(piece)))
        await response.stream.finish()

    assert pieces[:6] == [(0, 10), (2, 1), (4, 1), (6, 1), (8, 1), (10, 1)]
    assert {when for when, _ in pieces[6:]} == {10}
    assert sum(size for _, size in pieces) == response.size_bytes


async def test_a_corrupt_byte_is_noticed_by_the_receiver(wired, version):
    await wired.fake_sender(Fault("send", "corrupt", occurrence=1, at_byte=SIZE // 2))

    with pytest.raises(StorageError, match="not what was sent") as caught:
        await wired.replicate(version)

    assert caught.value.temporary
    assert await wired.found() is None
    await wired.replicate(version)
    assert wired.same(version)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_failure_in_the_middle_is_typed(wired, version, side):
    operation = "send" if side == "sender" else "receive"
    transport = await getattr(wired, f"fake_{side}")(
        Fault(operation, "fail_in_middle", at_byte=SIZE // 2, temporary=True, local=False)
    )

    with pytest.raises(StorageError, match="as the script has it") as caught:
        await wired.replicate(version)

    assert (caught.value.temporary, caught.value.local) == (True, False)
    assert transport.calls[0].outcome == "storage"
    assert (await wired.token()).received_bytes > 0


async def test_after_a_lost_answer_the_version_is_there(wired, version):
    await wired.fake_receiver(Fault("receive", "fail_after_commit", occurrence=1))

    with pytest.raises(ConnectivityError, match="receive: the answer was lost"):
        await wired.replicate(version)

    assert wired.same(version)
    await wired.replicate(version)  # succeeds, and changes nothing
    assert len((await wired.found()).versions) == 1


async def test_unary_calls_lose_their_answer_after_the_work(wired, version):
    await wired.fake_sender(
        Fault("replication_cursor", "fail_after_commit", occurrence=1),
        Fault("create_version", "fail_after_commit"),
        Fault("destroy_versions", "fail_after_commit"),
    )

    with pytest.raises(ConnectivityError):
        await wired.cursor(move_to=version)
    assert (await wired.cursor()).guid == version.guid
    with pytest.raises(ConnectivityError):
        await wired.sender.create_version(
            CreateVersionRequest(job="job", filesystems=("a",), name="new")
        )
    assert wired.source.versions("a")[-1].name == "new"
    with pytest.raises(ConnectivityError):
        await wired.sender.destroy_versions(
            DestroyVersionsRequest(job="job", filesystem="a", versions=(version,))
        )
    assert version not in wired.source.versions("a")


@pytest.mark.parametrize("action", ["refuse", "fail_before", "stall"])
async def test_looking_can_fail_as_well(wired, version, action, autojump_clock):
    transport = await wired.fake_sender(
        Fault("inventory", action, occurrence=2), Fault("size_estimate", action)
    )
    request = SendRequest(job="job", filesystem="a", to_version=version)

    assert await wired.found(endpoint=wired.sender)
    for call in (wired.found(endpoint=wired.sender), wired.sender.size_estimate(request)):
        with trio.move_on_after(10), suppress(ConnectivityError, StorageError):
            pytest.fail(f"answered {await call}")

    assert transport.calls[0].outcome == "done"
    assert len({call.outcome for call in transport.calls[1:]}) == 1
    assert trio.current_time() == (20 if action == "stall" else 0)


async def test_what_a_fault_states_is_what_its_error_says(wired, version):
    await wired.fake_sender(Fault("send", "refuse", temporary=False, local=True))

    with pytest.raises(ConnectivityError) as caught:
        await wired.replicate(version)

    assert (caught.value.temporary, caught.value.local) == (False, True)


async def test_a_fault_can_mean_one_filesystem_and_one_call(wired, version):
    other = wired.source.add_history("b", 1)[0]
    transport = await wired.fake_sender(Fault("send", "refuse", filesystem="b", occurrence=2))

    await wired.replicate(version)
    await wired.replicate(other, "b")
    wired.target.destroy("b", other)
    with pytest.raises(ConnectivityError):
        await wired.replicate(other, "b")

    assert [call.fault for call in transport.calls][:2] == [None, None]
    assert transport.met_faults == (Fault("send", "refuse", filesystem="b", occurrence=2),)


async def test_little_is_read_ahead(wired, version, autojump_clock):
    transport = await wired.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with wired.sender.send(request) as response:
        await response.stream.receive_some(1)
        await trio.sleep(1)

    (call,) = transport.calls
    assert call.moved_bytes <= 64 * 1024 + 1
    assert call.outcome == "left"


async def test_finishing_before_the_end_is_an_error(wired, version):
    await wired.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with wired.sender.send(request) as response:
        await response.stream.receive_some(1)
        with pytest.raises(InterruptedStreamError, match="not read to its end"):
            await response.stream.finish()


async def test_an_error_of_the_caller_passes_through_as_it_is(wired, version):
    transport = await wired.fake_sender()
    request = SendRequest(job="job", filesystem="a", to_version=version)

    with pytest.raises(ZeroDivisionError):
        async with wired.sender.send(request):
            raise ZeroDivisionError

    assert transport.calls[0].outcome == "left"


async def test_a_defect_of_a_storage_arrives_as_an_error(wired, version):
    class Broken(MemoryStorage):
        @hookimpl
        async def receive(self, stream, **_):
            await stream.receive_some(1)
            raise ZeroDivisionError

    transport, wired.receiver = await wired.reach(Broken(wired.target))

    with pytest.raises(FsrepError, match="ZeroDivisionError"):
        await wired.replicate(version)

    assert transport.calls[0].outcome == "error"


async def test_a_stranger_error_of_a_stream_reaches_who_gave_it(wired, version):
    class Broken(ByteStream):
        async def receive_some(self, _max_bytes):
            raise ZeroDivisionError

        async def finish(self):
            raise NotImplementedError

    await wired.fake_receiver()
    request = ReceiveRequest(job="j", filesystem="a", to_version=version)

    with pytest.raises(ZeroDivisionError):
        await wired.receiver.receive(request, Broken())


async def test_a_send_without_a_stream_is_a_broken_endpoint(wired, version):
    class Broken(MemoryStorage):
        @hookimpl
        @asynccontextmanager
        async def send(self, **_):
            yield SendResponse(stream=None)

    _, endpoint = await wired.reach(Broken(wired.source))

    with pytest.raises(BrokenEndpointError, match="opened no stream"):
        async with endpoint.send(SendRequest(job="job", filesystem="a", to_version=version)):
            pass


async def test_a_test_can_cut_everything_when_it_likes(wired, version):
    transport = await wired.fake_sender()
    await wired.found(endpoint=wired.sender)
    request = SendRequest(job="job", filesystem="a", to_version=version)

    async with wired.sender.send(request) as response:
        transport.cut()
        with pytest.raises(ConnectivityError, match="was cut"):
            await drain(response.stream)

    assert await wired.found(endpoint=wired.sender)
    assert [call.outcome for call in transport.calls] == ["done", "connectivity", "done"]
    assert transport.met_faults == ()


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
