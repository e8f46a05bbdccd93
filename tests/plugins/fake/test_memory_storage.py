"""What is particular to the memory storage; that it keeps the contract, the kit proves."""

import attrs
import pytest
import trio

from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    ConflictError,
    ConnectivityError,
    CreateVersionRequest,
    DestroyVersionsRequest,
    InterruptedStreamError,
    InvalidRequestError,
    InventoryRequest,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    StaleTokenError,
    StorageError,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.runtime.options import structure_options
from fsrep_core.runtime.registry import load_plugins
from fsrep_fake import Fault, Generated, MemoryStorage, named_store, reset_stores

# What a store holds


def test_stores_of_one_name_are_one():
    named_store("shared").change("a", b"content")

    assert named_store("shared").filesystems.keys() == {"a"}
    reset_stores()
    assert named_store("shared").filesystems == {}


def test_two_stores_have_no_guid_in_common_and_other_orders(pair):
    ours, theirs = pair.source.add_history("a", 50), pair.target.add_history("a", 50)

    assert not {each.guid for each in ours} & {each.guid for each in theirs}
    assert not {each.order for each in ours} & {each.order for each in theirs}


def test_the_same_history_is_made_again_from_the_same_seed(pair):
    again = type(pair)()

    assert pair.source.add_history("a", 5, seed=7) == again.source.add_history("a", 5, seed=7)
    version = pair.source.versions("a")[-1]
    assert pair.source.read("a", version) == again.source.read("a", version)


def test_a_snapshot_keeps_what_the_filesystem_held(pair):
    pair.source.change("a", b"one ")
    first = pair.source.snapshot("a", "first")
    pair.source.change("a", b"two")
    second = pair.source.snapshot("a", "second", created=5.0)

    assert pair.source.read("a", first) == b"one "
    assert pair.source.read("a", second) == b"one two"
    assert pair.source.digest("a", first) != pair.source.digest("a", second)
    assert second.created == 5.0
    with pytest.raises(ValueError, match="a@first exists"):
        pair.source.snapshot("a", "first")
    with pytest.raises(KeyError, match="a@third"):
        pair.source.read("a", attrs.evolve(first, guid="other", name="third"))


def test_a_rollback_loses_what_is_later(pair):
    first, second = pair.source.add_history("a", 2)
    pair.source.bookmark("a", second)

    pair.source.rollback("a", first)
    third = pair.source.snapshot("a")

    assert pair.source.versions("a") == (first, third)
    assert pair.source.digest("a", first) == pair.source.digest("a", third)


def test_generated_content_reads_the_same_in_any_pieces():
    content = Generated(3, 200_000)
    whole = content.read(0, 1 << 20)

    assert len(whole) == 200_000
    assert b"".join(content.read(at, 777) for at in range(0, 200_000, 777)) == whole
    assert content.read(65_533, 9) == whole[65_533:65_542]
    assert len({whole[at : at + 65_536] for at in (0, 65_536, 131_072)}) == 3
    assert Generated(4, 200_000).read(0, 100) != whole[:100]
    for size_bytes in (0, 1, 7, 4096, 65_535, 65_536, 65_537):
        assert Generated(3, size_bytes).read(0, 1 << 20) == whole[:size_bytes]


def test_a_long_history_needs_no_deep_stack(pair):
    versions = pair.source.add_history("a", 5000, max_bytes=3)

    assert len(pair.source.digest("a", versions[-1])) == 64
    assert len(pair.source.read("a", versions[-1])) < 15_000


# Options


async def test_options_become_capabilities():
    offer = load_plugins().find("storage", "memory")
    options = structure_options(
        offer.config_class, {"store": "options", "resumable": False, "nests": True}, "storage"
    )
    storage = offer.create(options)

    inventory = await storage.inventory(InventoryRequest(job="j"))

    assert storage.store is named_store("options")
    assert inventory.filesystems == ()
    assert (inventory.capabilities.resumable, inventory.capabilities.nests) == (False, True)
    reset_stores()


# Refusals


async def test_what_is_gone_is_missing(pair):
    first, second = pair.source.add_history("a", 2)
    pair.source.destroy("a", first)

    for request in (
        SendRequest(job="j", filesystem="a", to_version=first),
        SendRequest(job="j", filesystem="a", to_version=second, from_version=first),
        SendRequest(job="j", filesystem="b", to_version=first),
    ):
        with pytest.raises(VersionMissingError) as caught:
            await pair.sender.size_estimate(request)
        assert (caught.value.temporary, caught.value.local) == (True, True)
        with pytest.raises(VersionMissingError):
            async with pair.sender.send(request):
                pytest.fail("opened")


async def test_versions_that_do_not_follow_are_refused(pair):
    first, third = pair.source.add_history("a", 2)

    with pytest.raises(InvalidRequestError, match="does not follow from @s2"):
        await pair.sender.size_estimate(
            SendRequest(job="j", filesystem="a", to_version=first, from_version=third)
        )


async def test_a_storage_that_is_not_batched_sends_one_at_a_time(pair):
    first, second, third = pair.source.add_history("a", 3)
    pair.sender.batched = False

    with pytest.raises(InvalidRequestError, match="one version at a time"):
        await pair.replicate(third, from_version=first, intermediates=(second,))


@pytest.mark.parametrize("name", ["", "a//b", "../a", "a/./b", "-a", "a@b", "a#b", "a\0"])
async def test_names_with_another_meaning_are_refused(pair, name):
    version = pair.source.add_history("a", 1)[0]

    with pytest.raises(InvalidRequestError):
        await pair.receiver.receive(
            ReceiveRequest(job="j", filesystem=name, to_version=version), None
        )
    assert pair.target.filesystems == {}


async def test_another_version_of_the_same_name_is_a_conflict(pair):
    first, second = pair.source.add_history("a", 2)
    await pair.replicate(first)
    pair.target.snapshot("a", second.name)
    newer = pair.target.versions("a")[1:]

    with pytest.raises(ConflictError, match="@s2 would be lost"):
        await pair.replicate(second, from_version=first)
    await pair.replicate(second, from_version=first, rollback=newer)

    assert [each.guid for each in pair.target.versions("a")] == [first.guid, second.guid]


async def test_a_name_taken_by_an_older_version_is_a_conflict(pair):
    pair.target.snapshot("a", "s1")
    base = pair.source.snapshot("a", "base")
    pair.target.snapshot("a", "base", guid=base.guid)
    version = pair.source.snapshot("a", "s1")

    with pytest.raises(ConflictError, match="@s1 is taken"):
        await pair.replicate(version, from_version=base)


async def test_a_base_that_is_not_here_is_missing(pair):
    first, second = pair.source.add_history("a", 2)

    with pytest.raises(VersionMissingError, match="@s1 does not exist here"):
        await pair.replicate(second, from_version=first)


async def test_a_version_made_while_the_stream_came_is_a_conflict(pair):
    first, second = pair.source.add_history("a", 2)
    await pair.replicate(first)

    class Slow:
        def __init__(self, stream):
            self.stream = stream

        async def receive_some(self, max_bytes):
            return await self.stream.receive_some(max_bytes)

        async def finish(self):
            pair.target.snapshot("a", "sudden")

    request = SendRequest(job="j", filesystem="a", to_version=second, from_version=first)
    async with pair.sender.send(request) as response:
        with pytest.raises(ConflictError, match="@sudden would be lost"):
            await pair.receiver.receive(
                ReceiveRequest(job="j", filesystem="a", to_version=second, from_version=first),
                Slow(response.stream),
            )


async def test_a_partial_in_the_way_is_told_and_can_be_cleared(wired):
    wired.source.change("a", b"x" * 1000)
    version = wired.source.snapshot("a")
    await wired.fake_sender(Fault("send", "cut", occurrence=1, at_byte=900))
    with pytest.raises(ConnectivityError):
        await wired.replicate(version)

    with pytest.raises(ConflictError, match="partial receive is in the way") as caught:
        await wired.replicate(version)
    assert caught.value.temporary
    await wired.replicate(version, clear_resume_token=True)

    assert wired.same(version)
    assert await wired.token() is None


@pytest.mark.parametrize(
    "change",
    [
        {"value": "nonsense"},
        {"value": "fsrep-memory-1:5:0123456789abcdef"},
        {"to_guid": "another"},
        {"from_guid": "another"},
    ],
)
async def test_a_token_that_means_something_else_is_stale(wired, change):
    wired.source.change("a", b"x" * 1000)
    version = wired.source.snapshot("a")
    await wired.fake_sender(Fault("send", "cut", occurrence=1, at_byte=900))
    with pytest.raises(ConnectivityError):
        await wired.replicate(version)
    forged = attrs.evolve(await wired.token(), **change)

    with pytest.raises(StaleTokenError):
        await wired.replicate(version, token=forged)
    async with MemoryStorage(wired.source).send(
        SendRequest(job="j", filesystem="a", to_version=version)
    ) as response:
        with pytest.raises(StaleTokenError):
            await wired.receiver.receive(
                ReceiveRequest(job="j", filesystem="a", to_version=version, resume_token=forged),
                response.stream,
            )


async def test_a_stream_that_does_not_go_on_at_the_partial_is_refused(wired):
    wired.source.change("a", b"x" * 1000)
    version = wired.source.snapshot("a")
    await wired.fake_sender(Fault("send", "cut", occurrence=1, at_byte=900))
    with pytest.raises(ConnectivityError):
        await wired.replicate(version)
    token = await wired.token()

    async with wired.sender.send(
        SendRequest(job="j", filesystem="a", to_version=version)
    ) as response:
        with pytest.raises(StaleTokenError, match="does not go on where"):
            await wired.receiver.receive(
                ReceiveRequest(job="j", filesystem="a", to_version=version, resume_token=token),
                response.stream,
            )
    assert await wired.token() == token


async def test_a_sender_that_cannot_resume_says_so(pair):
    version = pair.source.add_history("a", 1)[0]
    pair.sender.resumable = False
    token = ResumeToken("any", to_guid=version.guid)

    async with pair.sender.send(
        SendRequest(job="j", filesystem="a", to_version=version, resume_token=token)
    ) as response:
        assert not response.resumed


async def test_a_cut_batch_keeps_what_was_whole_and_resumes_the_next(wired):
    versions = wired.source.add_history("a", 4, max_bytes=10_000)
    await wired.replicate(versions[0])
    middle = versions[1:3]
    sizes = [
        (
            await wired.sender.size_estimate(
                SendRequest(job="j", filesystem="a", to_version=to, from_version=base)
            )
        ).size_bytes
        for base, to in zip(versions, middle, strict=False)
    ]
    await wired.fake_sender(Fault("send", "cut", occurrence=1, at_byte=sizes[0] + sizes[1] - 10))

    with pytest.raises(ConnectivityError):
        await wired.replicate(versions[3], from_version=versions[0], intermediates=middle)

    assert [each.guid for each in wired.target.versions("a")] == [
        each.guid for each in versions[:2]
    ]
    token = await wired.token()
    assert (token.from_guid, token.to_guid) == (versions[1].guid, versions[2].guid)
    await wired.replicate(versions[2], from_version=versions[1], token=token)
    assert wired.same(versions[2])


async def test_a_stream_of_other_versions_is_a_broken_endpoint(pair):
    first, second = pair.source.add_history("a", 2)

    async with pair.sender.send(SendRequest(job="j", filesystem="a", to_version=first)) as response:
        with pytest.raises(BrokenEndpointError, match="was promised"):
            await pair.receiver.receive(
                ReceiveRequest(job="j", filesystem="a", to_version=second), response.stream
            )


class Bytes:
    def __init__(self, data):
        self.data = data

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        part, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return part

    async def finish(self):
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"garbage\n", "no header of fsrep-memory-1"),
        (b'{"format": "fsrep-memory-1"}\n', "no header of fsrep-memory-1"),
        (b"[]\n", "no header of fsrep-memory-1"),
        (b'{"format": "other"}\n', "the stream is 'other'"),
    ],
)
async def test_what_is_no_stream_of_ours_is_refused(pair, data, message):
    version = pair.source.add_history("a", 1)[0]

    with pytest.raises(StorageError, match=message):
        await pair.receiver.receive(
            ReceiveRequest(job="j", filesystem="a", to_version=version), Bytes(data)
        )
    assert await pair.found() is None


async def test_bytes_behind_the_last_version_are_refused(pair):
    pair.source.change("a", b"content")
    version = pair.source.snapshot("a")
    data = b""
    async with pair.sender.send(
        SendRequest(job="j", filesystem="a", to_version=version)
    ) as response:
        while part := await response.stream.receive_some(1000):
            data += part

    with pytest.raises(StorageError, match="goes on behind"):
        await pair.receiver.receive(
            ReceiveRequest(job="j", filesystem="a", to_version=version), Bytes(data + b"more")
        )
    assert pair.target.versions("a") == ()


async def test_a_stream_of_a_left_context_is_closed(pair):
    version = pair.source.add_history("a", 1)[0]
    async with pair.sender.send(
        SendRequest(job="j", filesystem="a", to_version=version)
    ) as response:
        with pytest.raises(InterruptedStreamError, match="were not read"):
            await response.stream.finish()

    with pytest.raises(trio.ClosedResourceError):
        await response.stream.receive_some(1)


# At the same time


async def test_a_second_receive_into_a_filesystem_is_busy(wired, autojump_clock):
    version = wired.source.add_history("a", 1)[0]
    await wired.fake_sender(Fault("send", "stall", at_byte=5, seconds=60, occurrence=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wired.replicate, version)
        await trio.sleep(30)
        assert await wired.found() is None
        with pytest.raises(BusyError) as caught:
            await wired.replicate(version)

    assert caught.value.temporary
    assert wired.same(version)


async def test_a_version_that_is_being_sent_is_kept(pair):
    version = pair.source.add_history("a", 1)[0]
    request = DestroyVersionsRequest(job="j", filesystem="a", versions=(version,))

    async with pair.sender.send(SendRequest(job="j", filesystem="a", to_version=version)):
        (kept,) = await pair.sender.destroy_versions(request)
    (destroyed,) = await pair.sender.destroy_versions(request)

    assert kept.problem.kind == "busy"
    assert kept.problem.temporary
    assert destroyed.problem is None
    assert pair.source.versions("a") == ()


# Cursors and bookmarks


async def test_a_cursor_is_a_bookmark_where_there_are_bookmarks(pair):
    version = pair.source.add_history("a", 1)[0]
    cursor = await pair.cursor(move_to=version)
    pair.source.destroy("a", version)

    assert cursor.kind is VersionKind.BOOKMARK
    assert (await pair.found(endpoint=pair.sender)).versions == (cursor,)
    pair.sender.bookmarks = False
    found = await pair.found(endpoint=pair.sender)
    assert (found.versions, found.cursor) == ((), cursor)


async def test_a_cursor_can_be_destroyed_as_the_bookmark_that_it_is(pair):
    version = pair.source.add_history("a", 1)[0]
    cursor = await pair.cursor(move_to=version)
    other = await pair.cursor(move_to=version, job="other")

    await pair.sender.destroy_versions(
        DestroyVersionsRequest(job="j", filesystem="a", versions=(cursor,))
    )

    assert await pair.cursor() is None
    assert await pair.cursor(job="other") == other


# Making versions


async def test_what_cannot_be_made_stands_in_its_result(pair):
    pair.source.change("a", b"a")
    pair.source.snapshot("b", "taken")

    results = await pair.sender.create_version(
        CreateVersionRequest(job="j", filesystems=("b", "missing", "a"), name="taken")
    )
    (bad,) = await pair.sender.create_version(
        CreateVersionRequest(job="j", filesystems=("a",), name="no@name")
    )

    assert [each.problem and each.problem.kind for each in results] == ["conflict", "storage", None]
    assert results[2].version.name == "taken"
    assert bad.problem.kind == "invalid-request"


# Nesting


async def test_a_child_needs_its_parent_where_filesystems_nest(pair):
    pair.receiver.nests = True
    parent = pair.source.add_history("a", 1)[0]
    child = pair.source.add_history("a/b", 1)[0]
    like_a_child = pair.source.add_history("aa", 1)[0]

    with pytest.raises(ConflictError, match="its parent a does not exist"):
        await pair.replicate(child, "a/b")
    await pair.replicate(like_a_child, "aa")
    await pair.replicate(parent, "a")
    await pair.replicate(child, "a/b")

    assert sorted(pair.target.filesystems) == ["a", "a/b", "aa"]


async def test_a_placeholder_is_told_until_something_is_received(pair):
    pair.target.create("a", placeholder=True)
    version = pair.source.add_history("a", 1)[0]

    before = await pair.found()
    await pair.replicate(version)

    assert before.placeholder
    assert not (await pair.found()).placeholder
