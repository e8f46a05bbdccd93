"""The kit on transports that keep the contract, and on ones with one defect each."""

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from fsrep_core import (
    ByteStream,
    ConnectivityError,
    EndpointContext,
    FsrepError,
    InterruptedStreamError,
    Side,
    StorageChoice,
    StorageError,
    hookimpl,
)
from fsrep_core.testing import TRANSPORT_LAWS, LawBroken, ProbeStorage, check_transport
from fsrep_fake import FakeTransport, Fault
from fsrep_local_pipe import LocalPipe, LocalPipeConfig

CONTEXT = EndpointContext(
    job="kit",
    side=Side.SENDER,
    storage=StorageChoice(name="probe", options={}, create=ProbeStorage),
)


def transport_maker(make_transport):
    @asynccontextmanager
    async def maker():
        async with make_transport().open_endpoint(CONTEXT) as endpoint:
            yield endpoint

    return maker


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
@pytest.mark.parametrize(
    "make_transport",
    [
        pytest.param(FakeTransport, id="fake"),
        pytest.param(lambda: LocalPipe(LocalPipeConfig()), id="local-pipe"),
    ],
)
async def test_the_bundled_transport_keeps(make_transport, law, autojump_clock):
    verdict = await check_transport(transport_maker(make_transport), laws=[law])

    assert verdict.kept == (law,)


MUTANTS = []


def breaks(*laws):
    """Declare which laws name a defect."""

    def add(mutant):
        MUTANTS.append(pytest.param(mutant, laws, id=mutant.__name__))
        return mutant

    return add


class Direct(ProbeStorage):
    """A way without a defect: the storage itself."""


@attrs.define(eq=False)
class Passing(ByteStream):
    """A stream without a defect, around another."""

    inner: ByteStream

    async def receive_some(self, max_bytes):
        return await self.inner.receive_some(max_bytes)

    async def finish(self):
        await self.inner.finish()


class SendMutant(Direct):
    """Sends through the stream class that a subclass names."""

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with ProbeStorage.send(self, request) as response:
            yield attrs.evolve(response, stream=self.Stream(response.stream))


class ReceiveMutant(Direct):
    """Receives through the stream class that a subclass names."""

    @hookimpl
    async def receive(self, request, stream):
        return await ProbeStorage.receive(self, request, self.Stream(stream))


# Answers


@breaks("answers_arrive_unchanged")
class LosesHints(Direct):
    @hookimpl
    async def destroy_versions(self, request):
        results = await ProbeStorage.destroy_versions(self, request)
        return tuple(
            attrs.evolve(each, problem=attrs.evolve(each.problem, hint=None)) for each in results
        )


@breaks("a_large_inventory_arrives")
class CutsInventories(Direct):
    @hookimpl
    async def inventory(self, request):
        answer = await ProbeStorage.inventory(self, request)
        return attrs.evolve(
            answer,
            filesystems=tuple(
                attrs.evolve(each, versions=each.versions[:9999]) for each in answer.filesystems
            ),
        )


@breaks("what_is_said_of_a_stream_arrives")
class ForgetsThatItResumes(Direct):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with ProbeStorage.send(self, request) as response:
            yield attrs.evolve(response, resumed=False)


@breaks("what_is_said_of_a_stream_arrives")
class LosesWarnings(Direct):
    @hookimpl
    async def receive(self, request, stream):
        answer = await ProbeStorage.receive(self, request, stream)
        return attrs.evolve(answer, warnings=answer.warnings[:2])


@breaks("a_token_is_a_secret")
class TellsTokens(Direct):
    @hookimpl
    async def inventory(self, request):
        answer = await ProbeStorage.inventory(self, request)
        return attrs.evolve(
            answer,
            filesystems=tuple(
                attrs.evolve(each, attributes={"token": each.resume_token.value})
                if each.resume_token
                else each
                for each in answer.filesystems
            ),
        )


class ErrorMutant(Direct):
    """Changes what the storage raises."""

    @hookimpl
    async def size_estimate(self, request):
        try:
            return await ProbeStorage.size_estimate(self, request)
        except FsrepError as error:
            raise self.changed(error) from error


@breaks("errors_arrive_typed", "every_hook_raises_typed_errors")
class LosesTheClass(ErrorMutant):
    def changed(self, error):
        return StorageError(
            error.message, temporary=error.temporary, local=error.local, hint=error.hint
        )


@breaks("errors_arrive_typed")
class LosesTheFacts(ErrorMutant):
    def changed(self, error):
        return type(error)(error.message, hint=error.hint)


@breaks("every_hook_raises_typed_errors")
class LosesErrorsOfOneHook(Direct):
    @hookimpl
    async def replication_cursor(self, request):
        try:
            return await ProbeStorage.replication_cursor(self, request)
        except FsrepError as error:
            raise ConnectivityError(error.message) from error


@breaks("a_foreign_error_is_an_error_too")
class HangsAtADefect(Direct):
    @hookimpl
    async def size_estimate(self, request):
        try:
            return await ProbeStorage.size_estimate(self, request)
        except ZeroDivisionError:
            await trio.sleep_forever()


@breaks("a_call_can_be_cancelled")
class ShieldsItsCalls(Direct):
    @hookimpl
    async def size_estimate(self, request):
        with trio.move_on_after(100, shield=True):
            return await ProbeStorage.size_estimate(self, request)


# Streams


@breaks("every_byte_of_a_sent_stream_arrives", "streams_run_side_by_side")
class DropsAByteOfLargeSends(SendMutant):
    class Stream(Passing):
        count = 0

        async def receive_some(self, max_bytes):
            piece = await self.inner.receive_some(max_bytes)
            self.count += 1
            return piece[1:] if self.count == 2 else piece


@breaks("every_byte_of_a_sent_stream_arrives", "a_stream_can_be_read_in_any_pieces")
class ChangesABit(SendMutant):
    class Stream(Passing):
        async def receive_some(self, max_bytes):
            piece = bytearray(await self.inner.receive_some(max_bytes))
            if piece:
                piece[-1] ^= 1
            return bytes(piece)


@breaks("every_byte_of_a_received_stream_arrives")
class RepeatsAByteOfReceives(ReceiveMutant):
    class Stream(Passing):
        async def receive_some(self, max_bytes):
            piece = await self.inner.receive_some(max_bytes)
            return piece if len(piece) < 100 else piece[:99] + piece[98:-1]


@breaks("a_stream_can_be_read_in_any_pieces")
class GivesMoreThanWasAskedFor(SendMutant):
    class Stream(Passing):
        async def receive_some(self, max_bytes):
            return await self.inner.receive_some(max(2, max_bytes))


@breaks("a_stream_vouches_as_often_as_asked")
class VouchesOnce(SendMutant):
    class Stream(Passing):
        finished = False

        async def finish(self):
            if self.finished:
                raise InterruptedStreamError("it was asked before")
            self.finished = True
            await self.inner.finish()


@breaks("a_sent_stream_that_is_cut_is_not_whole", "an_error_of_a_sent_stream_arrives_typed")
class TakesTheEndForSuccess(SendMutant):
    class Stream(Passing):
        async def finish(self):
            pass


@breaks("an_error_of_a_sent_stream_arrives_typed")
class TakesErrorsForCuts(SendMutant):
    class Stream(Passing):
        async def receive_some(self, max_bytes):
            try:
                return await self.inner.receive_some(max_bytes)
            except FsrepError as error:
                raise InterruptedStreamError(error.message) from error


@breaks(
    "a_received_stream_that_is_cut_is_not_committed",
    "an_error_of_a_received_stream_reaches_both_ends",
)
class VouchesForWhatItReceives(ReceiveMutant):
    class Stream(Passing):
        async def finish(self):
            pass


@breaks("an_error_of_a_received_stream_reaches_both_ends")
class TellsTheStorageOfACut(Direct):
    """The near end hears the cause, the far end only an echo."""

    @hookimpl
    async def receive(self, request, stream):
        causes = []

        class Stream(Passing):
            async def receive_some(self, max_bytes):
                try:
                    return await self.inner.receive_some(max_bytes)
                except FsrepError as error:
                    causes.append(error)
                    raise InterruptedStreamError("the stream was cut") from error

            async def finish(self):
                try:
                    await self.inner.finish()
                except FsrepError as error:
                    causes.append(error)
                    raise InterruptedStreamError("the stream was cut") from error

        try:
            return await ProbeStorage.receive(self, request, Stream(stream))
        except InterruptedStreamError as echo:
            raise causes[0] from echo


@breaks("streams_run_side_by_side")
class HasOneBufferForAll(SendMutant):
    class Stream(Passing):
        buffer = bytearray(1 << 16)

        async def receive_some(self, max_bytes):
            piece = await self.inner.receive_some(max_bytes)
            type(self).buffer[: len(piece)] = piece
            await trio.lowlevel.checkpoint()
            return memoryview(type(self).buffer)[: len(piece)]


# Stopping


@breaks("a_sender_that_is_not_read_waits")
class ReadsAheadWithoutLimit(Direct):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with (
            ProbeStorage.send(self, request) as response,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self.read_ahead, response.stream)
            yield response
            nursery.cancel_scope.cancel()

    async def read_ahead(self, stream):
        while stream.passed_bytes < 100 << 20 and await stream.receive_some(1 << 20):
            pass


@breaks("a_receiver_that_does_not_read_slows_the_stream", "a_receiver_that_fails_stops_the_stream")
class TakesAllBeforeItSends(Direct):
    @hookimpl
    async def receive(self, request, stream):
        pieces = bytearray()
        while len(pieces) < 40 << 20 and (piece := await stream.receive_some(1 << 20)):
            pieces += piece
        return await ProbeStorage.receive(self, request, Replayed(bytes(pieces), stream))


@attrs.define(eq=False)
class Replayed(ByteStream):
    data: bytes
    inner: ByteStream

    async def receive_some(self, max_bytes):
        piece, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return piece or await self.inner.receive_some(max_bytes)

    async def finish(self):
        await self.inner.finish()


@breaks("a_receiver_that_fails_stops_the_stream")
class DrainsAfterAFailure(Direct):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await ProbeStorage.receive(self, request, stream)
        except FsrepError:
            while await stream.receive_some(1 << 20):  # noqa: ASYNC110  (time has to pass)
                await trio.sleep(0.1)
            raise


@breaks("a_sent_stream_can_be_left_at_any_point")
class ReadsTheRestWhenLeft(Direct):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with ProbeStorage.send(self, request) as response:
            yield response
            while await response.stream.receive_some(1000):  # noqa: ASYNC110  (time has to pass)
                await trio.sleep(1)


class Forgetful(Direct):
    """Keeps the far end's send open for ever, in some cases."""

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        opened = ProbeStorage.send(self, request)
        response = await opened.__aenter__()
        leave = True
        try:
            yield response
        except BaseException as error:
            leave = not self.forgets(error)
            raise
        finally:
            if leave:
                await opened.__aexit__(None, None, None)
            else:
                LEFT.append(opened)


LEFT = []


@breaks("a_cancelled_send_ends_at_both_ends", "a_stalled_send_can_be_cancelled")
class ForgetsTheFarEndWhenCancelled(Forgetful):
    def forgets(self, error):
        return isinstance(error, trio.Cancelled)


@breaks("an_error_of_the_caller_passes_through")
class ForgetsTheFarEndWhenTheCallerFails(Forgetful):
    def forgets(self, error):
        return isinstance(error, Exception)


@breaks("a_cancelled_receive_ends_at_both_ends", "a_receive_that_commits_can_be_cancelled")
class ShieldsReceives(Direct):
    @hookimpl
    async def receive(self, request, stream):
        with trio.move_on_after(100, shield=True):
            return await ProbeStorage.receive(self, request, stream)


@breaks("a_cancelled_receive_ends_at_both_ends")
class CommitsWhenCancelled(Direct):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await ProbeStorage.receive(self, request, stream)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await ProbeStorage.receive(self, request, Replayed(b"", Empty()))
            raise


class Empty(ByteStream):
    async def receive_some(self, _max_bytes):
        return b""

    async def finish(self):
        pass


@breaks("an_error_of_the_caller_passes_through")
class WrapsErrorsInGroups(Direct):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with ProbeStorage.send(self, request) as response, trio.open_nursery():
            yield response


@pytest.fixture
async def tidy():
    yield
    while LEFT:
        await LEFT.pop().__aexit__(None, None, None)


@pytest.mark.parametrize(("mutant", "laws"), MUTANTS)
async def test_a_defect_breaks_the_laws_that_name_it(mutant, laws, tidy, autojump_clock):
    @asynccontextmanager
    async def maker():
        yield mutant()

    for law in laws:
        with pytest.raises(LawBroken) as caught:
            await check_transport(maker, laws=[law])
        assert caught.value.law == law


def test_every_law_has_a_defect_that_breaks_it():
    broken = set().union(*(mutant.values[1] for mutant in MUTANTS))

    assert sorted(TRANSPORT_LAWS.keys() - broken) == []


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (Fault("send", "cut", at_byte=100), "every_byte_of_a_sent_stream_arrives"),
        (Fault("send", "corrupt", at_byte=100), "every_byte_of_a_sent_stream_arrives"),
        (Fault("receive", "corrupt", at_byte=100), "every_byte_of_a_received_stream_arrives"),
        (Fault("receive", "stall", at_byte=100), "every_byte_of_a_received_stream_arrives"),
        (Fault("receive", "fail_after_commit"), "what_is_said_of_a_stream_arrives"),
        (Fault("size_estimate", "refuse"), "answers_arrive_unchanged"),
        (Fault("inventory", "stall"), "a_large_inventory_arrives"),
    ],
)
async def test_the_faults_of_the_fake_are_noticed(fault, law, autojump_clock):
    maker = transport_maker(lambda: FakeTransport((fault,)))

    with pytest.raises(LawBroken) as caught:
        await check_transport(maker, laws=[law])

    assert caught.value.law == law
