"""The kit on transports that keep the contract, and on ones with one defect each."""

from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar

import attrs
import pytest
import trio

from fsrep_core import (
    ByteStream,
    ConnectivityError,
    EndpointContext,
    FsrepError,
    InterruptedStreamError,
    InvalidRequestError,
    SendRequest,
    Side,
    StorageChoice,
    StorageError,
    hookimpl,
)
from fsrep_core.testing import TRANSPORT_LAWS, LawBroken, ProbeStorage, check_transport
from fsrep_core.testing.probe import Behaviour
from fsrep_core.testing.transport_trial import VERSION
from fsrep_fake import FakeTransport, Fault
from fsrep_local_pipe import LocalPipe, LocalPipeConfig


@asynccontextmanager
async def over_fake(*script):
    transport = FakeTransport(script)
    yield partial(transport.reach, ProbeStorage(vanish=transport.cut))


@asynccontextmanager
async def over_local_pipe():
    choice = StorageChoice(name="probe", options={}, create=ProbeStorage)
    context = EndpointContext(job="kit", side=Side.SENDER, storage=choice)
    yield partial(LocalPipe(LocalPipeConfig()).open_endpoint, context)


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_the_fake_keeps(law, autojump_clock):
    verdict = await check_transport(over_fake, laws=[law])

    assert verdict.kept == (law,)


@pytest.mark.parametrize("law", [law for law, each in TRANSPORT_LAWS.items() if not each.needs])
async def test_local_pipe_keeps(law, autojump_clock):
    verdict = await check_transport(over_local_pipe, laws=[law])

    assert verdict.kept == (law,)


async def test_laws_of_a_far_end_that_vanishes_need_one_that_can():
    laws = [law for law, each in TRANSPORT_LAWS.items() if each.needs]

    verdict = await check_transport(over_local_pipe, laws=laws)

    assert verdict.kept == ()
    reason = "the probe at the far end has no way to vanish"
    assert verdict.not_applicable == dict.fromkeys(laws, reason)
    with pytest.raises(InvalidRequestError, match="no way to vanish"):
        await ProbeStorage().size_estimate(
            SendRequest(job="kit", filesystem=Behaviour(then="vanish").name, to_version=VERSION)
        )


MUTANTS = []
PRECISE_MUTANTS = []


def breaks(*laws):
    """Declare which laws name a defect."""

    def add(mutant):
        MUTANTS.append(pytest.param(mutant, laws, id=mutant.__name__))
        return mutant

    return add


def breaks_only(law):
    """Declare which law names a defect, and that all others are kept."""

    def add(mutant):
        PRECISE_MUTANTS.append(pytest.param(mutant, law, id=mutant.__name__))
        return mutant

    return add


class Direct(ProbeStorage):
    """A way without a defect: the storage itself."""

    @classmethod
    @asynccontextmanager
    async def way(cls):
        """Give what opens an endpoint."""
        yield cls.opened

    @classmethod
    @asynccontextmanager
    async def opened(cls):
        yield cls()


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


# Vanishing


class FarEndGoneError(ConnectivityError):
    pass


class Mortal(Direct):
    """A way without a defect to a far end that can vanish."""

    def __init__(self):
        super().__init__(vanish=self.end)
        self.connections = set()

    def end(self):
        for connection in self.connections:
            connection.cancel()

    @asynccontextmanager
    async def connection(self):
        with trio.CancelScope() as scope:
            self.connections.add(scope)
            try:
                yield
            finally:
                self.connections.discard(scope)
        if scope.cancelled_caught:
            raise self.lost()

    def lost(self):
        return FarEndGoneError("the far end is gone")

    @hookimpl
    async def inventory(self, request):
        async with self.connection():
            return await ProbeStorage.inventory(self, request)

    @hookimpl
    async def size_estimate(self, request):
        async with self.connection():
            return await ProbeStorage.size_estimate(self, request)

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with ProbeStorage.send(self, request) as response:
            yield attrs.evolve(response, stream=self.Stream(response.stream, self))

    @hookimpl
    async def receive(self, request, stream):
        async with self.connection():
            return await ProbeStorage.receive(self, request, stream)

    @attrs.define(eq=False)
    class Stream(Passing):
        way: "Mortal"

        async def receive_some(self, max_bytes):
            async with self.way.connection():
                return await self.inner.receive_some(max_bytes)


@breaks_only("a_call_ends_when_its_far_end_vanishes")
class WaitsForAnAnswerThatNobodyGives(Mortal):
    @hookimpl
    async def size_estimate(self, request):
        try:
            async with self.connection():
                return await ProbeStorage.size_estimate(self, request)
        except FarEndGoneError:
            await trio.sleep_forever()


@breaks_only("a_call_ends_when_its_far_end_vanishes")
class SaysThatTryingAgainIsNoUse(Mortal):
    @hookimpl
    async def size_estimate(self, request):
        try:
            async with self.connection():
                return await ProbeStorage.size_estimate(self, request)
        except FarEndGoneError as error:
            raise ConnectivityError(error.message, temporary=False) from error


@breaks_only("a_sent_stream_is_cut_when_its_far_end_vanishes")
class TakesAVanishedFarEndForTheEnd(Mortal):
    class Stream(Mortal.Stream):
        gone = False

        async def receive_some(self, max_bytes):
            try:
                return await super().receive_some(max_bytes)
            except FarEndGoneError:
                self.gone = True
                return b""

        async def finish(self):
            if not self.gone:
                await self.inner.finish()


@breaks_only("a_receive_ends_when_its_far_end_vanishes")
class BlamesTheFilesystem(Mortal):
    @hookimpl
    async def receive(self, request, stream):
        try:
            async with self.connection():
                return await ProbeStorage.receive(self, request, stream)
        except FarEndGoneError as error:
            raise InterruptedStreamError("the stream was cut") from error


@breaks_only("a_receive_ends_when_its_far_end_vanishes")
class ReadsOnWhenNobodyReceives(Mortal):
    @hookimpl
    async def receive(self, request, stream):
        try:
            async with self.connection():
                return await ProbeStorage.receive(self, request, stream)
        except FarEndGoneError:
            for _ in range(1000):
                await stream.receive_some(1 << 16)
            raise


@breaks_only("a_far_end_that_vanished_is_reached_again")
class KeepsConnectionsThatAreDead(Mortal):
    """One that was idle when the far end vanished is used again, and again."""

    def __init__(self):
        super().__init__()
        self.streams = self.most_streams = 0
        self.dead = False

    def end(self):
        super().end()
        self.dead = self.most_streams > 1

    @asynccontextmanager
    async def connection(self):
        if self.dead:
            raise self.lost()
        async with super().connection():
            yield

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        self.streams += 1
        self.most_streams = max(self.streams, self.most_streams)
        try:
            async with super().send(request) as response:
                yield response
        finally:
            self.streams -= 1


# Closing


@breaks_only("a_stream_that_has_ended_stays_ended")
class WaitsForBytesAfterTheEnd(SendMutant):
    class Stream(Passing):
        ended = False

        async def receive_some(self, max_bytes):
            if self.ended:
                await trio.sleep_forever()
            piece = await self.inner.receive_some(max_bytes)
            self.ended = not piece
            return piece


@breaks_only("a_stream_that_has_ended_stays_ended")
class VouchesOnceItsErrorIsTold(SendMutant):
    class Stream(Passing):
        told = False

        async def receive_some(self, max_bytes):
            try:
                return await self.inner.receive_some(max_bytes)
            except FsrepError:
                self.told = True
                raise

        async def finish(self):
            if not self.told:
                self.told = True
                await self.inner.finish()


@breaks_only("a_send_that_has_failed_is_left_quietly")
class TellsAnErrorTwice(Direct):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        errors = []

        class Stream(Passing):
            async def receive_some(self, max_bytes):
                try:
                    return await self.inner.receive_some(max_bytes)
                except FsrepError as error:
                    errors.append(error)
                    raise

        async with ProbeStorage.send(self, request) as response:
            yield attrs.evolve(response, stream=Stream(response.stream))
        if errors:
            raise errors[0]


@breaks_only("an_error_leaves_an_endpoint_as_it_is")
class WrapsTheErrorsOfItsBody(Direct):
    @classmethod
    @asynccontextmanager
    async def opened(cls):
        async with trio.open_nursery():
            yield cls()


@breaks_only("a_cancelled_endpoint_is_left_soon")
class SaysGoodbyeAtItsLeisure(Direct):
    @classmethod
    @asynccontextmanager
    async def opened(cls):
        try:
            yield cls()
        except trio.Cancelled:
            with trio.move_on_after(100, shield=True):
                await trio.sleep_forever()
            raise


@breaks_only("an_endpoint_outlives_another")
class ClosesTheConnectionsOfOthers(Mortal):
    everyone: ClassVar = []
    closed = False

    @classmethod
    @asynccontextmanager
    async def opened(cls):
        endpoint = cls()
        cls.everyone.append(endpoint)
        try:
            yield endpoint
        finally:
            for each in cls.everyone:
                each.closed = True
            cls.everyone.clear()

    @asynccontextmanager
    async def connection(self):
        if self.closed:
            raise self.lost()
        async with super().connection():
            yield


@pytest.fixture
async def tidy():
    yield
    while LEFT:
        await LEFT.pop().__aexit__(None, None, None)


@pytest.mark.parametrize(("mutant", "laws"), MUTANTS)
async def test_a_defect_breaks_the_laws_that_name_it(mutant, laws, tidy, autojump_clock):
    for law in laws:
        with pytest.raises(LawBroken) as caught:
            await check_transport(mutant.way, laws=[law])
        assert caught.value.law == law


@pytest.mark.parametrize(("mutant", "law"), PRECISE_MUTANTS)
async def test_a_defect_breaks_the_law_that_names_it_and_no_other(mutant, law, autojump_clock):
    broken = []
    for each in TRANSPORT_LAWS:
        try:
            await check_transport(mutant.way, laws=[each])
        except LawBroken as error:
            broken.append(error.law)

    assert broken == [law]


@pytest.mark.parametrize("law", TRANSPORT_LAWS)
async def test_a_way_without_a_defect_breaks_no_law(law, autojump_clock):
    verdict = await check_transport(Mortal.way, laws=[law])

    assert verdict.kept == (law,)


def test_every_law_has_a_defect_that_breaks_it():
    broken = {law for mutant in MUTANTS for law in mutant.values[1]}
    broken |= {mutant.values[1] for mutant in PRECISE_MUTANTS}

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
    with pytest.raises(LawBroken) as caught:
        await check_transport(partial(over_fake, fault), laws=[law])

    assert caught.value.law == law
