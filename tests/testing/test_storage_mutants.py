"""Storages with one defect each: the laws that name the defect break, and no others."""

import os
import subprocess
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from fsrep_core import (
    BusyError,
    ByteStream,
    ConflictError,
    Filesystem,
    FsrepError,
    InterruptedStreamError,
    Problem,
    SizeEstimate,
    StaleTokenError,
    StorageError,
    VersionKind,
    VersionMissingError,
    VersionResult,
    hookimpl,
)
from fsrep_core.testing import STORAGE_LAWS, HookedStream, LawBroken, check_storage
from fsrep_fake import MemoryStorage

MUTANTS = []
SHARP_MUTANTS = []


def breaks(*laws, wide=False):
    """Declare which laws name a defect; ``wide`` = others suffer from it as well."""

    def add(mutant):
        MUTANTS.append(pytest.param(mutant, set(laws), id=mutant.__name__))
        if not wide:
            SHARP_MUTANTS.append(MUTANTS[-1])
        return mutant

    return add


class Mutant(MemoryStorage):
    def chain(self, request):
        return self.store.filesystems.get(request.filesystem)

    async def run(self, hook, *args):
        return await getattr(MemoryStorage, hook)(self, *args)


@breaks("an_empty_storage_is_an_empty_inventory")
class ListsWhatIsNot(Mutant):
    @hookimpl
    async def inventory(self, request):
        self.store.create("ghost", placeholder=True)
        return await self.run("inventory", request)


@breaks("a_version_that_was_made_is_listed")
class AnswersWithAnotherDate(Mutant):
    @hookimpl
    async def create_version(self, request):
        results = await self.run("create_version", request)
        return tuple(
            attrs.evolve(each, version=each.version and attrs.evolve(each.version, created=1.0))
            for each in results
        )


@breaks(
    "guids_differ_and_orders_grow",
    "an_order_is_not_used_again",
    "an_incremental_stream_makes_an_equal_version",
)
class CountsBackwards(Mutant):
    @hookimpl
    async def inventory(self, request):
        answer = await self.run("inventory", request)
        return attrs.evolve(
            answer,
            filesystems=tuple(
                attrs.evolve(each, versions=tuple(backwards(version) for version in each.versions))
                for each in answer.filesystems
            ),
        )

    @hookimpl
    async def create_version(self, request):
        results = await self.run("create_version", request)
        return tuple(
            attrs.evolve(each, version=each.version and backwards(each.version)) for each in results
        )

    @hookimpl
    async def receive(self, request, stream):
        answer = await self.run("receive", request, stream)
        return attrs.evolve(answer, version=backwards(answer.version))


def backwards(version):
    return attrs.evolve(version, order=-version.order)


@breaks("an_order_is_not_used_again")
class CountsWhatIsLeft(Mutant):
    """The next order is one above the greatest that exists."""

    @hookimpl
    async def destroy_versions(self, request):
        results = await self.run("destroy_versions", request)
        chain = self.chain(request)
        if chain and chain.snapshots:
            self.store._order = chain.snapshots[-1].version.order
        return results


@breaks("a_version_keeps_its_content", wide=True)
class SharesTheLiveContent(Mutant):
    @hookimpl
    async def create_version(self, request):
        for name in request.filesystems:
            chain = self.store.filesystems.get(name)
            for mark in chain.snapshots if chain else ():
                chain.add(attrs.evolve(mark, change=chain.live))
        return await self.run("create_version", request)


@breaks("what_cannot_be_made_stops_no_other")
class StopsAtTheFirstFailure(Mutant):
    @hookimpl
    async def create_version(self, request):
        if not set(request.filesystems) <= self.store.filesystems.keys():
            raise StorageError("there is no such filesystem")
        return await self.run("create_version", request)


@breaks("a_name_that_is_taken_is_refused")
class OverwritesNames(Mutant):
    @hookimpl
    async def create_version(self, request):
        for name in request.filesystems:
            chain = self.store.filesystems.get(name)
            taken = chain.marks.get(f"@{request.name}") if chain else None
            if taken:
                chain.remove(taken)
        return await self.run("create_version", request)


@breaks("looking_changes_nothing")
class CountsItsReaders(Mutant):
    @hookimpl
    async def size_estimate(self, request):
        self.store.create("estimated")
        return await self.run("size_estimate", request)


@breaks("an_estimate_is_unknown_or_near")
class EstimatesNothing(Mutant):
    @hookimpl
    async def size_estimate(self, request):
        await self.run("size_estimate", request)
        return SizeEstimate(size_bytes=0)


@breaks("an_estimate_is_unknown_or_near")
class CannotEstimateThoughItSaysSo(Mutant):
    @hookimpl
    async def size_estimate(self, request):
        await self.run("size_estimate", request)
        return SizeEstimate(size_bytes=None)


@breaks("a_version_that_is_gone_cannot_be_sent")
class EstimatesWhatIsGone(Mutant):
    @hookimpl
    async def size_estimate(self, request):
        try:
            return await self.run("size_estimate", request)
        except VersionMissingError:
            return SizeEstimate(size_bytes=None)


# Replicating


@breaks("a_full_stream_makes_an_equal_version")
class AnswersWithTheSendersVersion(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        answer = await self.run("receive", request, stream)
        return attrs.evolve(answer, version=request.to_version)


@breaks("a_full_stream_makes_an_equal_version")
class ForgetsNames(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        renamed = attrs.evolve(request.to_version, name=f"received-{request.to_version.name}")
        return await self.run("receive", attrs.evolve(request, to_version=renamed), stream)


@breaks("an_incremental_stream_makes_an_equal_version", wide=True)
class ReceivesIncrementsAsTheWhole(Mutant):
    """The base is left out of what is committed."""

    @hookimpl
    async def receive(self, request, stream):
        answer = await self.run("receive", request, stream)
        if request.from_version and not request.resume_token:
            chain = self.chain(request)
            mark = chain.snapshot(request.to_version.guid)
            alone = attrs.evolve(mark.change, before=None)
            chain.add(attrs.evolve(mark, change=alone))
        return answer


@breaks("an_increment_can_skip_versions", wide=True)
class NeedsTheVersionRightBefore(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        names = [
            version.name if version else "kit-0"
            for version in (request.from_version, request.to_version)
        ]
        first, second = (int(name.rpartition("-")[2]) for name in names)
        if second != first + 1:
            raise ConflictError("only one version at a time")
        return await self.run("receive", request, stream)


@breaks("an_increment_is_smaller_than_the_whole", wide=True)
class PadsIncrements(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, request) as response:
            padding = 3_000_000 if request.from_version else 0
            yield attrs.evolve(response, stream=Padded(response.stream, padding))


@attrs.define(eq=False)
class Padded(ByteStream):
    inner: object
    padding_bytes: int

    async def receive_some(self, max_bytes):
        if piece := await self.inner.receive_some(max_bytes):
            return piece
        count = min(max_bytes, self.padding_bytes)
        self.padding_bytes -= count
        return bytes(count)

    async def finish(self):
        await self.inner.finish()


@breaks("a_step_without_change_is_replicated", wide=True)
class RefusesEmptySteps(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, request) as response:
            if response.size_bytes < 1000:
                raise StorageError("nothing to send")
            yield response


@breaks("a_batch_makes_every_version")
class LosesIntermediates(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        answer = await self.run("receive", request, stream)
        for version in request.intermediates:
            self.store.destroy(request.filesystem, version)
        return answer


@breaks("pieces_of_any_size_are_received", "a_receive_that_fails_early_does_not_drain")
class KeepsTheBuffer(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        pieces = []
        while piece := await stream.receive_some(1 << 20):
            pieces.append(piece)
        return await self.run("receive", request, Replay(b"".join(pieces), stream))


@attrs.define(eq=False)
class Replay:
    data: bytes
    inner: object

    async def receive_some(self, max_bytes):
        piece, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return piece

    async def finish(self):
        await self.inner.finish()


@breaks("a_version_that_is_there_is_left_alone")
class RefusesWhatIsThere(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        chain = self.chain(request)
        if chain and chain.snapshot(request.to_version.guid):
            raise ConflictError("it exists")
        return await self.run("receive", request, stream)


@breaks("a_missing_base_is_refused")
class TakesAMissingBaseForAGlobalFailure(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except VersionMissingError as error:
            raise VersionMissingError(error.message, local=False) from error


@breaks("nothing_newer_is_lost_unasked", "a_rollback_destroys_only_what_is_named")
class RollsBackUnasked(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        chain = self.chain(request)
        base = request.from_version and chain and chain.snapshot(request.from_version.guid)
        newer = [
            mark.version
            for mark in (chain.snapshots if chain else ())
            if base and mark.version.order > base.version.order
        ]
        if chain and chain.snapshot(request.to_version.guid):
            newer = []
        return await self.run("receive", attrs.evolve(request, rollback=tuple(newer)), stream)


@breaks("a_rollback_destroys_only_what_is_named")
class NeverRollsBack(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        return await self.run("receive", attrs.evolve(request, rollback=()), stream)


@breaks("a_child_needs_its_parent")
class ForgetsThatItNests(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        self.nests = False
        try:
            return await self.run("receive", request, stream)
        finally:
            self.nests = True


@breaks("filesystems_replicate_side_by_side")
class ReceivesOneFilesystemAtATime(Mutant):
    busy = False

    @hookimpl
    async def receive(self, request, stream):
        if self.busy:
            raise StorageError("another filesystem is being received")
        self.busy = True
        try:
            return await self.run("receive", request, stream)
        finally:
            self.busy = False


# Sending


@breaks("a_stream_can_be_left_at_any_point", "a_cancelled_stream_leaves_nothing", wide=True)
class LeavesItsDescriptor(Mutant):
    """What the stream is made of is closed only when the stream came to its end."""

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        ends = os.pipe()
        OPEN.extend(ends)
        async with MemoryStorage.send(self, request) as response:
            size_bytes = response.stream.size_bytes
            yield response
        if not response.stream.size_bytes and size_bytes:
            close_all()


@breaks("a_cancelled_stream_leaves_nothing", wide=True)
class LeavesItsChildWhenCancelled(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, request) as response:
            child = subprocess.Popen(["/bin/sleep", "60"])  # noqa: ASYNC220  (starts at once)
            CHILDREN.append(child)
            try:
                yield response
            except Exception:
                end(child)
                raise
        end(child)


@breaks("a_stream_can_be_left_at_any_point", wide=True)
class ReadsOnWhenItIsLeft(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, request) as response:
            yield response
            await trio.sleep(response.stream.size_bytes)


@breaks("a_cancelled_stream_leaves_nothing", wide=True)
class CannotBeCancelled(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, request) as response:
            try:
                yield response
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3600)
                raise


@breaks("opening_a_stream_can_be_cancelled")
class LeavesWhatItOpenedFirst(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        ends = os.pipe()
        OPEN.extend(ends)
        await trio.lowlevel.checkpoint()
        close_all()
        async with MemoryStorage.send(self, request) as response:
            yield response


@breaks("a_stream_vouches_as_often_as_asked")
class VouchesOnce(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        asked = []

        async def once():
            if asked:
                raise InterruptedStreamError("it was asked before")
            asked.append(True)

        async with MemoryStorage.send(self, request) as response:
            yield attrs.evolve(response, stream=HookedStream(response.stream, None, once))


@breaks("a_version_can_be_sent_again", "nothing_is_listed_before_it_is_vouched_for")
class SendsOnce(Mutant):
    """What was received and destroyed is remembered, and refused."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.gone = set()

    @hookimpl
    async def destroy_versions(self, request):
        self.gone.update(version.guid for version in request.versions)
        return await self.run("destroy_versions", request)

    @hookimpl
    async def receive(self, request, stream):
        if request.to_version.guid in self.gone:
            raise ConflictError("it was destroyed here")
        return await self.run("receive", request, stream)


# Receiving


@breaks("a_first_receive_that_fails_shows_no_version", wide=True)
class ShowsItsFirstPartial(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except InterruptedStreamError:
            chain = self.store.create(request.filesystem)
            if not chain.snapshots:
                self.store.snapshot(request.filesystem, guid=request.to_version.guid)
            raise


@breaks(
    "the_end_of_bytes_is_not_success",
    "an_error_of_the_stream_is_the_error_of_the_receive",
    wide=True,
)
class TrustsTheEndOfBytes(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        return await self.run("receive", request, Trusting(stream))


@attrs.define(eq=False)
class Trusting:
    inner: object

    async def receive_some(self, max_bytes):
        return await self.inner.receive_some(max_bytes)

    async def finish(self):
        pass


@breaks("the_end_of_bytes_is_not_success", wide=True)
class CommitsBeforeItIsVouchedFor(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        answer = await self.run("receive", request, Trusting(stream))
        await stream.finish()
        return answer


@breaks("a_stream_that_is_cut_never_becomes_a_version")
class SaysThatCutsArePermanent(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except InterruptedStreamError as error:
            raise InterruptedStreamError(error.message, temporary=False) from error


@breaks("an_error_of_the_stream_is_the_error_of_the_receive")
class WrapsTheCause(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except FsrepError as error:
            raise type(error)(f"receive failed: {error.message}") from error


@breaks("a_cancelled_receive_leaves_no_version")
class CommitsWhenCancelled(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except trio.Cancelled:
            chain = self.store.create(request.filesystem)
            if chain.snapshots:
                self.store.snapshot(request.filesystem, guid=request.to_version.guid)
            raise


@breaks("nothing_is_listed_before_it_is_vouched_for")
class ListsWhatIsBeingReceived(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        self.coming = request.to_version
        try:
            return await self.run("receive", request, stream)
        finally:
            self.coming = None

    coming: object = None

    @hookimpl
    async def inventory(self, request):
        answer = await self.run("inventory", request)
        if self.coming is None:
            return answer
        early = Filesystem(name="alpha", versions=(self.coming,))
        return attrs.evolve(answer, filesystems=(*answer.filesystems, early))


@breaks("a_receive_that_fails_early_does_not_drain")
class DrainsBeforeItChecks(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except VersionMissingError:
            while await stream.receive_some(1 << 20):  # noqa: ASYNC110  (time has to pass)
                await trio.sleep(1)
            raise


@breaks("two_receives_of_one_version_make_one")
class TakesBeingBusyForAGlobalFailure(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        except BusyError as error:
            raise BusyError(error.message, local=False) from error


# Resuming


@breaks(
    "a_cut_receive_goes_on_where_it_was",
    "a_receive_can_be_cut_again_and_again",
    "a_sender_says_that_it_resumes",
    "a_partial_can_be_thrown_away",
    "a_token_outlives_looking",
    "a_token_of_another_step_is_refused",
    "a_token_is_a_secret",
    wide=True,
)
class KeepsNoPartial(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        try:
            return await self.run("receive", request, stream)
        finally:
            chain = self.chain(request)
            if chain:
                chain.partial = None
                if chain.provisional:
                    del self.store.filesystems[request.filesystem]


@breaks("a_cut_receive_goes_on_where_it_was", "a_sender_says_that_it_resumes")
class NeverGoesOn(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with MemoryStorage.send(self, attrs.evolve(request, resume_token=None)) as response:
            yield response


@breaks("a_partial_can_be_thrown_away", wide=True)
class NeverThrowsAway(Mutant):
    @hookimpl
    async def receive(self, request, stream):
        chain = self.chain(request)
        if request.clear_resume_token and chain and chain.partial:
            raise ConflictError("a partial receive is in the way")
        return await self.run("receive", request, stream)


@breaks("a_token_outlives_looking")
class RenewsTokens(Mutant):
    @hookimpl
    async def inventory(self, request):
        answer = await self.run("inventory", request)
        LOOKS.append(1)
        return attrs.evolve(
            answer,
            filesystems=tuple(
                attrs.evolve(
                    each,
                    resume_token=each.resume_token
                    and attrs.evolve(each.resume_token, received_bytes=len(LOOKS)),
                )
                for each in answer.filesystems
            ),
        )

    @hookimpl
    async def receive(self, request, stream):
        chain = self.chain(request)
        if request.resume_token and chain and chain.partial:
            token = attrs.evolve(request.resume_token, received_bytes=chain.partial.offset)
            request = attrs.evolve(request, resume_token=token)
        return await self.run("receive", request, stream)


@breaks("a_token_of_another_step_is_refused")
class BelievesEveryToken(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        try:
            async with MemoryStorage.send(self, request) as response:
                yield response
        except StaleTokenError:
            async with MemoryStorage.send(
                self, attrs.evolve(request, resume_token=None)
            ) as response:
                yield attrs.evolve(response, resumed=True)


@breaks("a_token_is_a_secret")
class TellsItsTokens(Mutant):
    @hookimpl
    async def inventory(self, request):
        answer = await self.run("inventory", request)
        return attrs.evolve(
            answer,
            filesystems=tuple(
                attrs.evolve(
                    each, attributes={"token": each.resume_token.value if each.resume_token else ""}
                )
                for each in answer.filesystems
            ),
        )


# Cursors


@breaks("a_missing_cursor_is_an_answer", "a_cursor_belongs_to_its_job", "looking_changes_nothing")
class MissesCursorsLoudly(Mutant):
    @hookimpl
    async def replication_cursor(self, request):
        cursor = await self.run("replication_cursor", request)
        if cursor is None:
            raise VersionMissingError("there is no cursor")
        return cursor


@breaks("a_cursor_moves_forward", "a_cursor_belongs_to_its_job", "a_cursor_outlives_its_version")
class ListsNoCursor(Mutant):
    @hookimpl
    async def inventory(self, request):
        answer = await self.run("inventory", request)
        bare = tuple(attrs.evolve(each, cursor=None) for each in answer.filesystems)
        return attrs.evolve(answer, filesystems=bare)


@breaks("a_cursor_never_moves_back")
class MovesBack(Mutant):
    @hookimpl
    async def replication_cursor(self, request):
        chain = self.chain(request)
        cursor = chain.cursors.get(request.job)
        if request.move_to and cursor and request.move_to.order < cursor.version.order:
            del chain.cursors[request.job]
        return await self.run("replication_cursor", request)


@breaks("a_cursor_belongs_to_its_job")
class SharesCursorsAmongJobs(Mutant):
    @hookimpl
    async def replication_cursor(self, request):
        return await self.run("replication_cursor", attrs.evolve(request, job="all"))

    @hookimpl
    async def inventory(self, request):
        return await self.run("inventory", attrs.evolve(request, job="all"))


@breaks("a_cursor_outlives_its_version", "a_bookmark_is_a_base")
class LosesCursorsWithTheirVersion(Mutant):
    @hookimpl
    async def destroy_versions(self, request):
        chain = self.chain(request)
        if chain:
            gone = {version.guid for version in request.versions}
            for job, cursor in tuple(chain.cursors.items()):
                if cursor.version.guid in gone:
                    del chain.cursors[job]
        return await self.run("destroy_versions", request)


@breaks("a_cursor_marks_only_what_exists")
class MarksWhatIsGone(Mutant):
    @hookimpl
    async def replication_cursor(self, request):
        try:
            return await self.run("replication_cursor", request)
        except VersionMissingError:
            return request.move_to


@breaks("a_bookmark_is_a_base")
class CannotSendFromBookmarks(Mutant):
    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        base = request.from_version
        if base is not None and base.kind is VersionKind.BOOKMARK:
            raise StorageError("a bookmark is no base here")
        async with MemoryStorage.send(self, request) as response:
            yield response


# Destroying


@breaks("destroying_takes_exactly_what_is_named")
class DestroysWhatIsOlderToo(Mutant):
    @hookimpl
    async def destroy_versions(self, request):
        chain = self.chain(request)
        if chain and len(chain.snapshots) > 2:
            oldest = chain.snapshots[0].version
            request_all = attrs.evolve(request, versions=(*request.versions, oldest))
            results = await self.run("destroy_versions", request_all)
            return results[:-1]
        return await self.run("destroy_versions", request)


@breaks("what_is_gone_counts_as_destroyed")
class MissesWhatIsGone(Mutant):
    @hookimpl
    async def destroy_versions(self, request):
        chain = self.chain(request)
        results = []
        for version in request.versions:
            if chain and chain.find(version):
                alone = attrs.evolve(request, versions=(version,))
                results += await self.run("destroy_versions", alone)
            else:
                problem = Problem(message="it is gone", temporary=False, local=True)
                results.append(
                    VersionResult(filesystem=request.filesystem, name="?", problem=problem)
                )
        return tuple(results)


@breaks("versions_are_destroyed_by_guid")
class DestroysByName(Mutant):
    @hookimpl
    async def destroy_versions(self, request):
        chain = self.chain(request)
        by_name = tuple(
            attrs.evolve(version, guid=chain.marks[version.relative_name].version.guid)
            if chain and version.relative_name in chain.marks
            else version
            for version in request.versions
        )
        return await self.run("destroy_versions", attrs.evolve(request, versions=by_name))


@breaks("a_version_in_use_is_kept")
class DestroysWhatIsInUse(Mutant):
    @hookimpl
    async def destroy_versions(self, request):
        chain = self.chain(request)
        if chain:
            chain.used.clear()
        return await self.run("destroy_versions", request)


OPEN = []
CHILDREN = []
LOOKS = []


def close_all():
    while OPEN:
        os.close(OPEN.pop())


def end(child):
    CHILDREN.remove(child)
    child.kill()
    child.wait()


@pytest.fixture(autouse=True)
def _tidy():
    LOOKS.clear()
    yield
    close_all()
    while CHILDREN:
        end(CHILDREN[0])


@pytest.mark.parametrize(("mutant", "laws"), MUTANTS)
async def test_a_defect_breaks_the_law_that_names_it(mutant, laws, make_memory, autojump_clock):
    for law in laws:
        with pytest.raises(LawBroken) as caught:
            await check_storage(make_memory(mutant, nests=True), laws=[law])
        assert caught.value.law == law


def test_every_law_has_a_defect_that_breaks_it():
    broken = set().union(*(mutant.values[1] for mutant in MUTANTS))

    assert sorted(STORAGE_LAWS.keys() - broken) == []


@pytest.mark.proof
@pytest.mark.parametrize(("mutant", "laws"), SHARP_MUTANTS)
async def test_a_sharp_defect_breaks_no_other_law(
    mutant, laws, make_memory, broken_laws, autojump_clock
):
    assert set(await broken_laws(make_memory(mutant, nests=True))) == laws
