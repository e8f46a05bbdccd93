"""The hooks: the engine as a child process, its failures as typed errors."""

import json
import os
import random
import signal
import subprocess

import pytest
import trio

from fsrep_core import (
    BusyError,
    ByteStream,
    ConfigError,
    ConflictError,
    ConnectivityError,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InterruptedStreamError,
    InvalidRequestError,
    InventoryRequest,
    OutOfSpaceError,
    ReceiveRequest,
    Registry,
    SendRequest,
    StaleTokenError,
    StorageError,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.testing.leaks import no_leaks
from fsrep_directory import plugin
from fsrep_directory.launch import engine_command, error_of, explain
from fsrep_directory.storage import DirectoryConfig, DirectoryStorage

SEED = 7


class Scene:
    """Two storages, and the short ways to ask them."""

    def __init__(self, laboratory):
        self.laboratory = laboratory
        self.sender = DirectoryStorage(DirectoryConfig(root=laboratory.root("sender")))
        self.receiver = DirectoryStorage(DirectoryConfig(root=laboratory.root("receiver")))

    async def snapshot(self, name):
        request = CreateVersionRequest(job="job", filesystems=("docs",), name=name)
        (result,) = await self.sender.create_version(request)
        assert result.problem is None
        return result.version

    async def look(self, storage):
        (found,) = (await storage.inventory(InventoryRequest(job="job"))).filesystems
        return found

    async def replicate(  # noqa: PLR0913  (the fields of the two requests)
        self, version, base=None, *, token=None, clear=False, wrap=lambda each: each, rollback=()
    ):
        request = SendRequest(
            job="job",
            filesystem="docs",
            to_version=version,
            from_version=base,
            resume_token=token,
        )
        async with self.sender.send(request) as response:
            return await self.receiver.receive(
                ReceiveRequest(
                    job="job",
                    filesystem="docs",
                    to_version=version,
                    from_version=base,
                    resume_token=token if response.resumed else None,
                    clear_resume_token=clear,
                    rollback=rollback,
                ),
                wrap(response.stream),
            )


class Cut(ByteStream):
    """A stream that breaks after some bytes, or that is whole and not vouched for."""

    def __init__(self, inner, limit=None):
        self.inner = inner
        self.limit = limit

    async def receive_some(self, max_bytes):
        if self.limit is None:
            return await self.inner.receive_some(max_bytes)
        if not self.limit:
            raise ConnectivityError("the link is cut")
        data = await self.inner.receive_some(min(max_bytes, self.limit))
        self.limit -= len(data)
        return data

    async def finish(self):
        raise InterruptedStreamError("nobody vouches for these bytes")


@pytest.fixture
def scene(laboratory):
    laboratory.write("file", b"content")
    laboratory.write("sub/large", os.urandom(1 << 20))
    return Scene(laboratory)


def test_the_plugin_offers_the_storage():
    registry = Registry()
    plugin.register(registry)
    (offer,) = registry.offers("storage")

    assert offer.name == "directory"
    assert isinstance(offer.create(DirectoryConfig(root="/x")), DirectoryStorage)


def test_the_root_must_be_absolute():
    with pytest.raises(ConfigError, match="not an absolute path"):
        DirectoryConfig(root="relative")


async def test_a_first_and_a_second_replication_with_estimates_and_cursor(scene):
    async with no_leaks():
        first = await scene.snapshot("v1")
        scene.laboratory.write("new", b"2")
        second = await scene.snapshot("v2")
        request = SendRequest(job="job", filesystem="docs", to_version=first)
        estimate = await scene.sender.size_estimate(request)
        answers = [await scene.replicate(first), await scene.replicate(second, first)]
        cursor = await scene.sender.replication_cursor(
            CursorRequest(job="job", filesystem="docs", move_to=second)
        )
        found = await scene.look(scene.sender)
        received = await scene.look(scene.receiver)

    assert estimate.size_bytes > 1 << 20
    assert [each.version.guid for each in answers] == [first.guid, second.guid]
    assert cursor.kind is VersionKind.BOOKMARK
    assert found.cursor == cursor
    assert cursor in found.versions
    assert [each.guid for each in received.versions] == [first.guid, second.guid]
    assert received.cursor is None


async def test_a_whole_stream_that_nobody_vouches_for_is_no_version(scene):
    version = await scene.snapshot("v1")
    with pytest.raises(InterruptedStreamError, match="nobody vouches"):
        await scene.replicate(version, wrap=Cut)
    found = await scene.look(scene.receiver)

    assert found.versions == ()
    assert found.resume_token.received_bytes >= 1 << 20


async def test_a_cut_stream_resumes(scene):
    version = await scene.snapshot("v1")
    with pytest.raises(ConnectivityError):
        await scene.replicate(version, wrap=lambda each: Cut(each, 700_000))
    token = (await scene.look(scene.receiver)).resume_token

    assert token.to_guid == version.guid
    assert 0 < token.received_bytes <= 700_000
    assert token.value not in repr(token)
    await scene.replicate(version, token=token)
    found = await scene.look(scene.receiver)
    assert found.resume_token is None
    assert [each.guid for each in found.versions] == [version.guid]


async def test_a_token_for_another_version_is_stale_for_the_sender(scene):
    first = await scene.snapshot("v1")
    second = await scene.snapshot("v2")
    with pytest.raises(ConnectivityError):
        await scene.replicate(first, wrap=lambda each: Cut(each, 700_000))
    token = (await scene.look(scene.receiver)).resume_token
    with pytest.raises(StaleTokenError):
        await scene.replicate(second, token=token)

    await scene.replicate(second, clear=True)
    assert (await scene.look(scene.receiver)).resume_token is None


async def test_a_receive_of_what_is_there_does_not_touch_the_stream(scene):
    version = await scene.snapshot("v1")
    await scene.replicate(version)
    answer = await scene.replicate(version, wrap=lambda each: Cut(each, 0))

    assert answer.version.guid == version.guid


async def test_cancelling_a_receive_leaves_only_a_partial(scene, nursery):
    version = await scene.snapshot("v1")
    reached = trio.Event()

    class Stall(Cut):
        async def receive_some(self, max_bytes):
            if not self.limit:
                reached.set()
                await trio.sleep_forever()
            return await super().receive_some(max_bytes)

    async with no_leaks():
        with trio.CancelScope() as scope:

            async def cancel():
                await reached.wait()
                scope.cancel()

            nursery.start_soon(cancel)
            await scene.replicate(version, wrap=lambda each: Stall(each, 500_000))
    listed = (await scene.receiver.inventory(InventoryRequest(job="job"))).filesystems
    token = listed[0].resume_token if listed else None

    assert not any(each.versions for each in listed)
    await scene.replicate(version, token=token)
    assert (await scene.look(scene.receiver)).versions


async def test_errors_are_typed(scene):
    first = await scene.snapshot("v1")
    scene.laboratory.write("more", b"x")
    second = await scene.snapshot("v2")
    with pytest.raises(VersionMissingError):
        await scene.replicate(second, first)
    await scene.replicate(first)
    await scene.replicate(second, first)
    third = await scene.snapshot("v3")
    with pytest.raises(ConflictError, match="@v2"):
        await scene.replicate(third, first)
    await scene.replicate(third, first, rollback=(second,))
    with pytest.raises(InvalidRequestError, match=r"\.\./docs"):
        await scene.sender.replication_cursor(CursorRequest(job="job", filesystem="../docs"))
    fourth = await scene.snapshot("v4")
    with scene.laboratory.store("receiver").locked(), pytest.raises(BusyError):
        await scene.replicate(fourth, third)


async def test_results_of_making_and_destroying_stand_one_by_one(scene):
    request = CreateVersionRequest(job="job", filesystems=("missing", "docs", "../x"), name="v1")
    results = await scene.sender.create_version(request)
    version = results[1].version
    gone = await scene.sender.destroy_versions(
        DestroyVersionsRequest(job="job", filesystem="docs", versions=(version, version))
    )

    assert [each.filesystem for each in results] == ["missing", "docs", "../x"]
    assert [each.problem and each.problem.kind for each in results] == [
        "storage",
        None,
        "invalid-request",
    ]
    assert [each.version for each in gone] == [version, version]


async def test_a_missing_root_is_an_error_unless_it_may_be_made(scene, tmp_path):
    version = await scene.snapshot("v1")
    missing = str(tmp_path / "missing" / "root")
    scene.receiver = DirectoryStorage(DirectoryConfig(root=missing))
    with pytest.raises(StorageError, match="is no directory") as caught:
        await scene.receiver.inventory(InventoryRequest(job="job"))
    assert not caught.value.local
    with pytest.raises(StorageError, match="is no directory"):
        await scene.replicate(version)
    scene.receiver = DirectoryStorage(DirectoryConfig(root=missing, create_root=True))

    assert (await scene.receiver.inventory(InventoryRequest(job="job"))).filesystems == ()
    await scene.replicate(version)
    assert (await scene.look(scene.receiver)).versions


def test_an_engine_that_dies_is_explained():
    killed = explain(-9, "")
    crashed = explain(1, "Traceback\nValueError: x")

    assert killed.temporary
    assert "signal 9" in killed.message
    assert not crashed.temporary
    assert "ValueError: x" in crashed.message


def test_every_kind_of_the_engine_is_an_error_of_the_contract():
    error = error_of(
        {"kind": "out-of-space", "message": "m", "hint": "h", "temporary": None, "local": None}
    )

    assert isinstance(error, OutOfSpaceError)
    assert error.temporary
    assert error.hint == "h"


def test_the_engine_starts_without_what_it_does_not_need():
    """Every step starts it: what it imports is what a step costs."""
    code = engine_command("send")[4].replace(
        "sys.exit(main(sys.argv[1:]))", "import engine.receive, engine.send; print(*sys.modules)"
    )
    argv = [*engine_command("send")[:4], code, *engine_command("send")[5:]]
    done = subprocess.run(argv, capture_output=True, check=True)
    modules = set(done.stdout.decode().split())

    assert not modules & {"trio", "attrs", "attr", "fsrep_core", "pluggy", "pathlib", "asyncio"}
    assert not modules & {"subprocess", "tempfile", "ctypes", "shutil", "urllib.parse", "logging"}


def feed(request, data, kill_after=None):
    """Run the engine's receive on bytes; kill it at some moment."""
    read_end, write_end = os.pipe()
    os.write(write_end, json.dumps(request).encode())
    os.close(write_end)
    voucher, vouch = os.pipe()
    os.write(vouch, b"+")
    os.close(vouch)
    with subprocess.Popen(
        engine_command("receive", str(read_end), str(voucher)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(read_end, voucher),
    ) as child:
        os.close(read_end)
        os.close(voucher)
        if kill_after is None:
            child.communicate(data)
        else:
            try:
                child.stdin.write(data[:kill_after])
                child.stdin.flush()
            except BrokenPipeError:
                pass
            child.send_signal(signal.SIGKILL)
            child.communicate()
    return child.returncode


def storm(laboratory, rounds):
    chosen = random.Random(SEED)
    for number in range(30):
        laboratory.write(f"dir{number % 3}/file{number}", chosen.randbytes(3000))
    laboratory.write("large", chosen.randbytes(400_000))
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    laboratory.write("large", chosen.randbytes(300_000))
    laboratory.write("dir1/new", b"n" * 5000)
    os.unlink(f"{laboratory.live}/dir0/file0")
    second, _ = laboratory.create("v2")
    whole = laboratory.stream(second, first)
    resumed = 0
    for _ in range(rounds):
        while True:
            token = laboratory.token()
            data = laboratory.stream(second, first, token=token)
            resumed += token is not None
            request = {
                **laboratory.ask(second, first, token),
                "root": laboratory.root("receiver"),
                "name": "v2",
                "clear": False,
                "rollback": [],
            }
            cut = chosen.randrange(len(whole) * 2)
            status = feed(request, data, cut if cut < len(data) else None)
            if status == 0:
                break
            assert laboratory.names("receiver") == ["@v1"], f"seed {SEED}"
        laboratory.check(second)
        laboratory.destroy("receiver", laboratory.store("receiver").find(second.guid))
    return resumed


def test_a_killed_engine_leaves_nothing_but_a_partial(laboratory):
    assert storm(laboratory, 3) >= 1


@pytest.mark.proof
def test_an_engine_killed_at_many_moments_always_converges(laboratory):
    assert storm(laboratory, 100) > 10


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small filesystem")
async def test_no_room_keeps_the_partial_and_goes_on_when_there_is(scene):
    point = scene.laboratory.root("receiver")
    scene.laboratory.write("sub/second", os.urandom(1 << 20))
    version = await scene.snapshot("v1")
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", point])
    try:
        with pytest.raises(OutOfSpaceError) as caught:
            await scene.replicate(version)
        found = await scene.look(scene.receiver)
        await trio.run_process(["mount", "-o", "remount,size=10m", point])
        await scene.replicate(version, token=found.resume_token)
        done = await scene.look(scene.receiver)
    finally:
        await trio.run_process(["umount", point])

    assert caught.value.temporary
    assert found.versions == ()
    assert found.resume_token.received_bytes > 0
    assert [each.guid for each in done.versions] == [version.guid]
