"""Whatever befalls a connection: a typed error in time or success, and then convergence.

Each trial replicates between a storage here and one behind a real ssh or real TLS, by way
of a proxy on another host, and one fault befalls it. The seed says which, in which
direction, and at which of the bytes that an undisturbed run takes. Both storages and, but
for ssh and sshd, both ends of the connection are in this process, where everything that
stays behind can be counted: a trial ends only when both ends have let go of everything.
Their deadlines are short, so that hundreds of trials take minutes.

Ends that are killed as processes of their own are the matter of other storms: those of
``tests/plugins/ssh`` and ``tests/plugins/tls``, and the one of whole hosts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from functools import partial

import attrs
import pytest
import trio

from faulty_network import Detour, Fault
from fsrep_core import CreateVersionRequest, InventoryRequest, Side
from fsrep_core.planning import Initial, Policy, Steps
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.testing import find_leaks, open_resources
from fsrep_fake import Generated
from harnesses import DirectoryHarness, MemoryHarness
from ways import over_ssh, over_tls

pytestmark = [pytest.mark.hosts, pytest.mark.proof]

JOB = "kit"
FILESYSTEM = "docs"
VERSION_BYTES = 400_000
SEEDS = 420
SEEDS_PER_TEST = 30

HURRIED = Timing(
    connect_seconds=6,
    heartbeat_interval_seconds=0.3,
    silence_seconds=2,
    abort_seconds=1,
    drain_seconds=3,
    farewell_seconds=0.5,
)
DEADLINE_SECONDS = 20
"""Of a run that something befalls: every deadline of it one after the other, and some for
the machine."""
SETTLE_SECONDS = 10

SHORT_SECONDS = (0.05, 0.6)
"""What a healthy connection survives."""

ANYWHERE = ("cut", "reset", "flip", "stall", "freeze", "mute")
OF_THE_HOST = ("link down", "link flaps", "sockets destroyed", "disk full")
OF_SSH = ("ssh killed", "session killed", "far side killed", "ssh stopped", "ssh paused")
KINDS = {"tls": ANYWHERE + OF_THE_HOST, "ssh": ANYWHERE + OF_THE_HOST + OF_SSH}

FULL_BYTES = 512 << 10
ROOMY_BYTES = 64 << 20

TYPED = {"connectivity", "interrupted-stream", "timeout", "out-of-space"}
REFUSALS = {"permission-denied", "wire"}
"""What a byte that is changed before anybody has proved anything can look like."""


@pytest.fixture(scope="session")
def neighbour(network):
    """A host whose link can be taken down, seen from this process."""
    network.add_this_host()
    return network.hosts[0]


@pytest.fixture
def small_disk(tmp_path):
    """A receiver's root that is full soon."""
    root = tmp_path / Side.RECEIVER.value
    root.mkdir()
    resize(root, FULL_BYTES, "-t", "tmpfs", "fsrep-test")
    yield tmp_path
    subprocess.run([shutil.which("umount"), "--lazy", root], check=True)


def resize(root, size_bytes, *options):
    options = options or ("-o", "remount")
    argv = [shutil.which("mount"), *options, "-o", f"size={size_bytes}", root]
    subprocess.run(argv, check=True)


@attrs.define(eq=False)
class Trial:
    """Two versions here, none there, and a way between the two."""

    harness: object
    push: bool
    way: object
    """Takes a storage, and gives the endpoint behind which it is."""

    async def prepare(self):
        endpoint = Endpoint(self.harness.sender, name="sender")
        for number in (1, 2):
            await self.change(number)
            request = CreateVersionRequest(job=JOB, filesystems=(FILESYSTEM,), name=f"v{number}")
            (result,) = await endpoint.create_version(request)
            assert result.problem is None, result.problem

    async def change(self, number):
        if isinstance(self.harness, MemoryHarness):
            store = self.harness.stores[Side.SENDER]
            store.change(FILESYSTEM, Generated(number, VERSION_BYTES))
        else:
            await self.harness.change(FILESYSTEM, number)

    async def run(self, detour, timing=None):
        """Run the job once; give its problem, ``None`` = everything is there."""
        policy = Policy(initial=Initial.ALL, steps=Steps.EACH)
        settings = JobSettings(name=JOB, retry_for_seconds=0, policy=policy)
        sides = {"sender": self.harness.sender, "receiver": self.harness.receiver}
        elsewhere = "receiver" if self.push else "sender"
        async with self.way(sides[elsewhere], detour=detour.open, timing=timing) as far:
            sides[elsewhere] = far
            driver = Driver(
                settings, *(Endpoint(plugin, name=name) for name, plugin in sides.items())
            )
            with trio.fail_after(DEADLINE_SECONDS):
                report = await driver.run()
        problems = [report.problem, *(each.problem for each in report.replications)]
        return next((each for each in problems if each is not None), None)

    async def arrived(self):
        """The versions that the receiver shows; each is whole."""
        listed = {}
        for side, storage in zip(Side, (self.harness.sender, self.harness.receiver), strict=True):
            inventory = await Endpoint(storage, name="storage").inventory(InventoryRequest(job=JOB))
            found = [each for each in inventory.filesystems if each.name == FILESYSTEM]
            listed[side] = {each.name: each for own in found for each in own.versions}
        for name, version in listed[Side.RECEIVER].items():
            sent = await self.harness.read(Side.SENDER, FILESYSTEM, listed[Side.SENDER][name])
            here = await self.harness.read(Side.RECEIVER, FILESYSTEM, version)
            assert self.harness.differences(sent, here) == [], name
        return list(listed[Side.RECEIVER])


@attrs.define(eq=False)
class Storm:
    """What the trials of one transport share."""

    transport: str
    way: object
    network: object
    neighbour: object
    scene: object
    """Of ssh, whose processes can be struck; ``None`` = another transport."""
    totals: dict[bool, dict[str, int]] = attrs.field(factory=dict)
    """How many bytes pass each way in an undisturbed run, pushed or pulled."""

    def detour(self, fault=None):
        return Detour(self.neighbour.socket, self.neighbour.ipv4, fault, self.strike)

    async def measure(self):
        for push in (True, False):
            trial = Trial(MemoryHarness(), push, self.way)
            await trial.prepare()
            detour = self.detour()
            assert await trial.run(detour) is None
            self.totals[push] = detour.passed

    async def strike(self, fault):
        match fault.kind:
            case "link down":
                await trio.to_thread.run_sync(self.network.take_down, self.neighbour)
            case "link flaps":
                await trio.to_thread.run_sync(self.network.take_down, self.neighbour)
                await trio.sleep(fault.seconds)
                await trio.to_thread.run_sync(self.network.put_up, self.neighbour)
            case "sockets destroyed":
                argv = [shutil.which("ss"), "-K", "dst", self.neighbour.ipv4]
                await trio.run_process(argv, capture_stdout=True, capture_stderr=True)
            case "ssh killed":
                self.signal(" -F none ", signal.SIGKILL)
            case "session killed":
                self.signal("sshd: ", signal.SIGKILL)
            case "far side killed":
                self.signal("import os, socket", signal.SIGKILL)
            case _:
                self.signal(" -F none ", signal.SIGSTOP)
                await trio.sleep(fault.seconds)
                self.signal(" -F none ", signal.SIGCONT)

    def signal(self, words, number):
        """Strike the processes of ssh by their command line."""
        for pid, line in self.scene.processes().items():
            if words in line and ("-F none" in line) == (words == " -F none "):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def fault_of(self, seed, chance, push):
        kind = KINDS[self.transport][seed % len(KINDS[self.transport])]
        direction = chance.choice(["up", "down"])
        seconds = chance.uniform(*SHORT_SECONDS)
        if kind == "ssh stopped":
            seconds = HURRIED.silence_seconds + 1
        # The bytes of what carries the content are mostly one way; so is what can be hit.
        at_byte = int(chance.random() * 0.98 * self.totals[push][direction])
        return Fault(kind=kind, direction=direction, at_byte=at_byte, seconds=seconds)

    async def trial(self, seed, small_disk):
        """Let one fault happen, and check all that must hold; give what came of it."""
        chance = random.Random(f"{self.transport} {seed}")
        push = chance.random() < 0.5
        fault = self.fault_of(seed, chance, push)
        harness = MemoryHarness()
        if fault.kind == "disk full":
            push = True
            harness = make_full(small_disk)
        trial = Trial(harness, push, self.way)
        await trial.prepare()
        about = f"{self.transport} seed {seed}: {fault}, push={push}"
        before = open_resources()

        full = fault.kind == "disk full"
        detour = self.detour(None if full else fault)
        try:
            problem = await trial.run(detour, None if full else HURRIED)
        except Exception as error:
            raise AssertionError(f"{about}: {error!r}") from error
        finally:
            if fault.kind == "link down":
                self.network.put_up(self.neighbour)
        about = f"{about}, struck={detour.struck}: {problem}"
        kind = problem.kind if problem is not None else None
        assert kind is None or kind in TYPED | (REFUSALS if fault.kind == "flip" else set()), about
        assert await self.settle(before) == [], about
        visible = await trial.arrived()
        assert kind is not None or visible == ["v1", "v2"], about

        if full:
            assert kind == "out-of-space", about
            resize(small_disk / Side.RECEIVER.value, ROOMY_BYTES)
        again = await trial.run(self.detour())
        assert again is None, f"{about}; then {again}"
        assert await trial.arrived() == ["v1", "v2"], about
        assert await self.settle(before) == [], about
        return fault.kind, detour.struck or full, kind

    async def settle(self, before):
        """What is left in this process and of ssh, once it had time to end."""
        with trio.move_on_after(SETTLE_SECONDS):
            while await find_leaks(before):  # noqa: ASYNC110  (no event tells of what is left)
                await trio.sleep(0.02)
        leaks = await find_leaks(before)
        if self.scene is not None:
            leaks += list((await trio.to_thread.run_sync(self.scene.left_behind)).items())
        return leaks


def make_full(path):
    """A harness whose receiver has no room for what comes."""
    shutil.rmtree(path / Side.SENDER.value, ignore_errors=True)
    root = path / Side.RECEIVER.value
    shutil.rmtree(root / ".fsrep", ignore_errors=True)
    resize(root, FULL_BYTES)
    return DirectoryHarness(path)


@pytest.fixture(params=["ssh", "tls"])
def storm(request, network, neighbour):
    ask = request.getfixturevalue
    if request.param == "ssh":
        scene = ask("ssh_scene")
        return Storm("ssh", partial(over_ssh, scene), network, neighbour, scene)
    return Storm("tls", partial(over_tls, ask("kit"), ask("hosts")), network, neighbour, None)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
async def test_whatever_befalls_a_connection_the_next_run_converges(storm, first, small_disk):
    await storm.measure()
    seeds = range(first, first + SEEDS_PER_TEST)
    outcomes = [await storm.trial(seed, small_disk) for seed in seeds]
    struck = [kind for kind, struck, _ in outcomes if struck]
    tally = Counter((kind, came) for kind, _, came in outcomes)
    print(storm.transport, seeds, dict(tally))  # noqa: T201  (what came of which, with -rP)

    assert len(struck) > 0.7 * SEEDS_PER_TEST, outcomes
