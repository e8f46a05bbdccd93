"""Every registered transport with every storage that this machine has.

Whatever goes between the two, versions arrive whole, step by step, and after an
interruption; and a storage keeps its laws as if it were here.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest

from fsrep_core import CreateVersionRequest, InventoryRequest, Side
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.registry import load_plugins
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.testing import STORAGE_LAWS, CutStream, check_storage, no_leaks
from harnesses import BtrfsHarness, DirectoryHarness, MemoryHarness
from pretended_pools import PretendedHarness
from ways import WAYS

JOB = "kit"
FILESYSTEM = "docs"
CUT_AT_BYTE = 150_000
"""In the middle of the smallest stream: each change of a harness is larger."""

HARNESSES = {
    "memory": lambda _: MemoryHarness(),
    "directory": lambda fixture: DirectoryHarness(fixture("tmp_path")),
    "btrfs": lambda fixture: BtrfsHarness(*fixture("sites")[:2]),
    "zfs": lambda fixture: PretendedHarness(*fixture("pretended_sites")),
}
"""By the name of the storage; each asks for the fixtures that it needs."""

MARKS = {"btrfs": pytest.mark.btrfs}
"""Of the storages that need more than this process: those of their own tests."""

STORAGES = [pytest.param(name, marks=MARKS.get(name, ())) for name in HARNESSES]
CONNECTED = [name for name in WAYS if name != "local-pipe"]
"""``local-pipe`` puts nothing between; the storages' own tests are those over it."""
ELSEWHERE = [
    *((transport, storage) for transport in CONNECTED for storage in ("memory", "directory")),
    ("ssh", "btrfs"),
    ("tls", "zfs"),
]
"""Where laws are tried: streams of this process and of others by every way. Those of the
storages that take longest differ in nothing that a transport could see."""


@pytest.fixture
def harness(request, storage):
    return HARNESSES[storage](request.getfixturevalue)


@asynccontextmanager
async def apart(harness, reach):
    """Give a harness both of whose sides are elsewhere."""
    async with AsyncExitStack() as stack:
        harness.sender = await stack.enter_async_context(reach(harness.sender))
        harness.receiver = await stack.enter_async_context(reach(harness.receiver))
        yield harness


@attrs.define(eq=False)
class Trial:
    """A job between the two sides of a harness."""

    harness: object
    sender: Endpoint = attrs.field(init=False)
    receiver: Endpoint = attrs.field(init=False)
    seed: int = 0
    names: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self):
        self.sender = Interruptible(self.harness.sender, name="sender")
        self.receiver = Endpoint(self.harness.receiver, name="receiver")

    async def make_version(self):
        self.seed += 1
        await self.harness.change(FILESYSTEM, self.seed)
        self.names.append(f"v{self.seed}")
        request = CreateVersionRequest(job=JOB, filesystems=(FILESYSTEM,), name=self.names[-1])
        (result,) = await self.sender.create_version(request)
        assert result.problem is None, result.problem

    async def run(self):
        """Run the job once; give what came of its filesystem."""
        settings = JobSettings(name=JOB, retry_for_seconds=0)
        report = await Driver(settings, self.sender, self.receiver).run()
        (replication,) = report.replications
        return replication

    async def versions(self, side):
        endpoint = self.sender if side is Side.SENDER else self.receiver
        inventory = await endpoint.inventory(InventoryRequest(job=JOB))
        (found,) = [each for each in inventory.filesystems if each.name == FILESYSTEM]
        return {each.name: each for each in found.versions if each.name in self.names}

    async def check_all_arrived(self):
        there = await self.versions(Side.RECEIVER)
        assert list(there) == self.names
        for name, version in (await self.versions(Side.SENDER)).items():
            assert version.guid == there[name].guid
            sent = await self.harness.read(Side.SENDER, FILESYSTEM, version)
            arrived = await self.harness.read(Side.RECEIVER, FILESYSTEM, there[name])
            assert self.harness.differences(sent, arrived) == []


class Interruptible(Endpoint):
    """A bound endpoint whose next stream can be cut."""

    cut_next = False

    @asynccontextmanager
    async def send(self, request):
        async with super().send(request) as response:
            cut, self.cut_next = self.cut_next, False
            stream = CutStream(response.stream, CUT_AT_BYTE) if cut else response.stream
            yield attrs.evolve(response, stream=stream)


def test_no_transport_and_no_storage_is_forgotten():
    registry = load_plugins()

    assert set(WAYS) == {offer.name for offer in registry.offers("transport")}
    assert set(HARNESSES) == {offer.name for offer in registry.offers("storage")}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("transport", WAYS)
async def test_versions_arrive_whole_by_steps_and_after_an_interruption(harness, reach):
    async with no_leaks(), apart(harness, reach):
        trial = Trial(harness)

        await trial.make_version()
        full = await trial.run()
        await trial.make_version()
        incremental = await trial.run()
        await trial.check_all_arrived()

        await trial.make_version()
        trial.sender.cut_next = True
        interrupted = await trial.run()
        listed = await trial.versions(Side.RECEIVER)
        again = await trial.run()
        await trial.check_all_arrived()
        inventory = await trial.receiver.inventory(InventoryRequest(job=JOB))

    assert [each.problem for each in (full, incremental, again)] == [None] * 3
    assert [len(each.completed) for each in (full, incremental, again)] == [1] * 3
    assert full.completed[0].from_version is None
    assert incremental.completed[0].from_version.name == "v1"
    assert interrupted.problem.kind == "interrupted-stream"
    assert list(listed) == ["v1", "v2"]
    assert again.completed[0].resumed is inventory.capabilities.resumable


@pytest.mark.proof
@pytest.mark.parametrize("law", STORAGE_LAWS)
@pytest.mark.parametrize(
    ("transport", "storage"),
    [pytest.param(*pair, marks=MARKS.get(pair[1], ())) for pair in ELSEWHERE],
)
async def test_a_storage_elsewhere_keeps_the_law(harness, reach, law):
    """What a storage cannot do its capabilities say, also across a transport."""
    await check_storage(lambda: apart(harness, reach), laws=[law])
