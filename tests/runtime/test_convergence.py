"""Whatever goes wrong on the way: the run converges, and nothing untrue is ever visible.

Two storms with seeded faults, and a stateful test that drives planner and driver over
random pairs of histories against a slow, obvious model. Each failure prints the seed or
the script that repeats it.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fsrep_core import Timing, VersionKind, hookimpl
from fsrep_core.planning import Diverged, Initial, Policy, Steps
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.settings import JobSettings
from fsrep_fake import FakeTransport, MemoryStorage, MemoryStore, SeededFaults
from fsrep_fake.faults import ACTIONS

DAY_SECONDS = 24 * 3600.0
RUN_OPERATIONS = {"inventory", "size_estimate", "send", "receive", "replication_cursor"}
"""Those of a run. It makes no versions, and destroys none by a call of its own."""
TIMING = Timing(heartbeat_interval_seconds=60, silence_seconds=300)
"""Stalls last for hours of virtual time here, and heartbeats would be most of the work."""


@attrs.define(eq=False)
class Witness:
    """A receiver that looks at each request: is any of it untrue or done twice?

    ``sender_store`` and ``receiver_store`` are looked into directly, behind all faults.
    """

    storage: MemoryStorage
    sender_store: MemoryStore
    receiver_store: MemoryStore
    digests: dict = attrs.field(factory=dict)
    repeated: list = attrs.field(factory=list)
    calls: list = attrs.field(factory=list)
    """Of the last run, what each side was asked and what befell it."""

    def look(self):
        """Every visible version is whole, and no cursor is ahead of the receiver."""
        for name in self.receiver_store.filesystems:
            self.look_at(name)

    def look_at(self, name):
        versions = self.receiver_store.versions(name)
        for version in versions[-2:]:
            if (name, version.guid) in self.digests:
                digest = self.receiver_store.digest(name, version)
                assert digest == self.digests[name, version.guid], version
        guids = {version.guid for version in versions}
        mine = self.sender_store.filesystems.get(name)
        for cursor in mine.cursors.values() if mine else ():
            assert cursor.version.guid in guids, f"cursor of {name} is ahead"

    def remember(self):
        """Note what each version of the sender holds."""
        for name in self.sender_store.filesystems:
            for version in self.sender_store.versions(name):
                self.digests.setdefault(
                    (name, version.guid), self.sender_store.digest(name, version)
                )

    @hookimpl
    async def receive(self, request, stream):
        self.look_at(request.filesystem)
        present = {version.guid for version in self.receiver_store.versions(request.filesystem)}
        if request.to_version.guid in present:
            self.repeated.append((request.filesystem, request.to_version.name))
        return await self.storage.receive(request, stream)

    @hookimpl
    async def inventory(self, request):
        return await self.storage.inventory(request)

    @hookimpl
    async def size_estimate(self, request):
        return await self.storage.size_estimate(request)

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        async with self.storage.send(request) as response:
            yield response

    @hookimpl
    async def replication_cursor(self, request):
        return await self.storage.replication_cursor(request)

    @hookimpl
    async def create_version(self, request):
        return await self.storage.create_version(request)

    @hookimpl
    async def destroy_versions(self, request):
        return await self.storage.destroy_versions(request)


async def run_job(witness, job_settings, *, sender_faults=(), receiver_faults=(), seed=0):
    """Run once, with the wire and its faults on both sides."""
    fakes = [FakeTransport(faults, timing=TIMING) for faults in (sender_faults, receiver_faults)]
    async with (
        fakes[0].reach(MemoryStorage(witness.sender_store)) as sender,
        fakes[1].reach(witness) as receiver,
    ):
        driver = Driver(
            job_settings,
            Endpoint(sender, name="sender"),
            Endpoint(receiver, name="receiver"),
            randomness=random.Random(seed),
        )
        report = await driver.run()
    witness.calls = [call for fake in fakes for call in fake.calls]
    return report


def befell(call):
    """Whether the fault that the script had for a call was felt, and did not lie behind its end."""
    lasted = call.ended_at > call.started_at  # virtual time goes on only while all stand still
    match call.fault.action:
        case "stall":
            return lasted and call.moved_bytes >= (call.fault.at_byte or 0)
        case "trickle":
            return lasted and call.moved_bytes > call.fault.at_byte
        case "corrupt":
            return call.moved_bytes > call.fault.at_byte
        case _:
            return call.problem is not None and "as the script has it" in call.problem.message


def faults_met(witness):
    return {
        (call.operation, call.fault.action)
        for call in witness.calls
        if call.fault is not None and befell(call)
    }


def make_witness():
    receiver_store = MemoryStore("receiver")
    return Witness(MemoryStorage(receiver_store), MemoryStore("sender"), receiver_store)


async def storm(seed, *, filesystems, steps, concurrency, rate):
    """See a run come through faults of every kind; give its report and which it met."""
    witness = make_witness()
    for number in range(filesystems):
        witness.sender_store.add_history(f"fs{number:03}", steps, seed=seed, max_bytes=3000)
    witness.remember()
    report = await run_job(
        witness,
        JobSettings(
            name="job",
            policy=Policy(initial=Initial.ALL, steps=Steps.EACH),
            concurrency=concurrency,
            retry_for_seconds=DAY_SECONDS,
        ),
        sender_faults=SeededFaults(seed, rate=rate, byte_limit=3000, actions=tuple(ACTIONS)),
        receiver_faults=SeededFaults(seed + 1, rate=rate, byte_limit=3000, actions=tuple(ACTIONS)),
        seed=seed,
    )

    assert report.status == "completed", f"seed {seed}: {report.problem}"
    assert report.attempt > 1
    assert witness.repeated == [], f"seed {seed}: data was sent again"
    witness.look()
    for number in range(filesystems):
        name = f"fs{number:03}"
        sent = [version.guid for version in witness.sender_store.versions(name)]
        received = [version.guid for version in witness.receiver_store.versions(name)]
        assert received == sent, f"seed {seed}: {name}"
        cursor = witness.sender_store.filesystems[name].cursors["job"].version
        assert cursor.guid == sent[-1], f"seed {seed}: {name}"
    return report, faults_met(witness)


@pytest.mark.parametrize("seed", range(20))
async def test_small_storms_converge(autojump_clock, seed):
    _, met = await storm(seed, filesystems=8, steps=6, concurrency=1 + seed % 4, rate=0.1)

    assert len({action for _, action in met}) >= 3


async def test_storms_of_every_fault_at_every_operation_converge(autojump_clock):
    missing = {
        (operation, action)
        for action, operations in ACTIONS.items()
        for operation in operations & RUN_OPERATIONS
    }
    for seed in range(100, 110):
        _, met = await storm(seed, filesystems=16, steps=6, concurrency=3, rate=0.2)
        missing -= met
        if not missing:
            break

    assert missing == set(), "no storm met these"


@pytest.mark.proof
async def test_a_storm_over_200_filesystems_of_50_steps_converges(autojump_clock):
    report, met = await storm(2026, filesystems=200, steps=50, concurrency=8, rate=0.01)

    assert {action for _, action in met} == set(ACTIONS)
    for replication in report.replications:
        told = {step.to_version.guid for step in replication.completed}
        assert len(told) == 50, replication.filesystem


# Planner and driver on random histories


NAMES = st.sampled_from(["a", "b", "a/c"])


class Histories(RuleBasedStateMachine):
    """Both sides live their lives; now and then a job runs between them.

    The model says what a run must leave on the receiver, from what was on both sides
    before it: by trying every version, in the words of the rules.
    """

    def __init__(self):
        super().__init__()
        self.witness = make_witness()
        self.sender = self.witness.sender_store
        self.receiver = self.witness.receiver_store
        self.count = 0

    @initialize(
        initial=st.sampled_from(Initial),
        diverged=st.sampled_from(Diverged),
        steps=st.sampled_from(Steps),
    )
    def choose(self, initial, diverged, steps):
        self.policy = Policy(initial=initial, diverged=diverged, steps=steps)

    @rule(name=NAMES, size=st.integers(0, 3000))
    def sender_makes_a_snapshot(self, name, size):
        self.count += 1
        self.sender.change(name, bytes([self.count % 256]) * size)
        self.sender.snapshot(name, f"v{self.count}")
        self.witness.remember()

    @rule(name=NAMES, pick=st.integers(0, 1000))
    def sender_destroys_a_version(self, name, pick):
        versions = self.sender.versions(name)
        if versions:
            self.sender.destroy(name, versions[pick % len(versions)])

    @rule(name=NAMES, pick=st.integers(0, 1000))
    def sender_makes_a_bookmark(self, name, pick):
        snapshots = snapshots_of(self.sender, name)
        if snapshots:
            chosen = snapshots[pick % len(snapshots)]
            if all(each.name != f"b{chosen.name}" for each in self.sender.versions(name)):
                self.sender.bookmark(name, chosen, f"b{chosen.name}")

    @rule(name=NAMES, same_name=st.booleans())
    def receiver_makes_a_snapshot(self, name, same_name):
        self.count += 1
        wanted = f"v{self.count + 1}" if same_name else f"local{self.count}"
        if name in self.receiver.filesystems:
            self.receiver.change(name, b"local")
            if all(each.name != wanted for each in self.receiver.versions(name)):
                self.receiver.snapshot(name, wanted)

    @precondition(lambda self: self.receiver.filesystems)
    @rule(name=NAMES, pick=st.integers(0, 1000))
    def receiver_destroys_a_snapshot(self, name, pick):
        snapshots = snapshots_of(self.receiver, name)
        cursors = self.sender.filesystems[name].cursors if name in self.sender.filesystems else {}
        marked = {each.version.guid for each in cursors.values()}
        free = [each for each in snapshots if each.guid not in marked]
        if free:
            self.receiver.destroy(name, free[pick % len(free)])

    @rule(seed=st.integers(0, 10_000), rate=st.sampled_from([0.0, 0.1, 0.4]))
    def a_job_runs(self, seed, rate):
        expected = {name: self.expect(name) for name in sorted(self.sender.filesystems)}
        had_partial = {
            name for name, chain in self.receiver.filesystems.items() if chain.partial is not None
        }
        note(f"expected: {expected}")
        report = trio.run(
            self.run_job, seed, rate, clock=trio.testing.MockClock(autojump_threshold=0)
        )

        by_name = {each.filesystem: each for each in report.replications}
        for name, (guids, fails) in expected.items():
            received = [each.guid for each in snapshots_of(self.receiver, name)]
            if name not in had_partial or fails:
                assert received == guids, name
            assert bool(by_name[name].problem) == fails, by_name[name].problem
            if not fails:
                newest = snapshots_of(self.sender, name)[-1]
                cursor = self.sender.filesystems[name].cursors["job"].version
                # Or the sender has destroyed the newest, which its cursor still marks.
                destroyed = cursor.order > newest.order and received[-1] == cursor.guid
                ahead = destroyed or self.receiver_is_ahead(name)
                assert received[-1] == newest.guid or ahead
                assert cursor.guid in received
        assert (report.status == "completed") == (not any(fails for _, fails in expected.values()))
        assert self.witness.repeated == []

    def receiver_is_ahead(self, name):
        return self.policy.diverged is Diverged.ROLLBACK and bool(snapshots_of(self.receiver, name))

    async def run_job(self, seed, rate):
        return await run_job(
            self.witness,
            JobSettings(name="job", policy=self.policy, retry_for_seconds=DAY_SECONDS),
            sender_faults=SeededFaults(seed, rate=rate, byte_limit=3000, call_limit=30),
            receiver_faults=SeededFaults(seed + 1, rate=rate, byte_limit=3000, call_limit=30),
            seed=seed,
        )

    def expect(self, name):  # noqa: PLR0911  (the rules, one after the other)
        """The receiver's snapshots after a run, oldest first, and whether it is a conflict."""
        has = snapshots_of(self.receiver, name)
        sends = snapshots_of(self.sender, name)
        unchanged = [each.guid for each in has]
        if not sends:
            return unchanged, True
        if not has:
            if self.policy.initial is Initial.FAIL:
                return unchanged, True
            path = sends[-1:] if self.policy.initial is Initial.NEWEST else sends
            return self.through(path, first_is_full=True), False
        bases = [
            version
            for version in self.sender.versions(name) + self.cursors(name)
            if version.guid in unchanged
        ]
        if not bases:
            return unchanged, True
        base = max(bases, key=lambda version: version.order)
        at = unchanged.index(base.guid)
        newer = has[at + 1 :]
        if newer and self.policy.diverged is Diverged.FAIL:
            return unchanged, True
        later = [version for version in sends if version.order > base.order]
        if not later:
            return unchanged, False
        path = self.through(later, first_is_full=False)
        arriving = {version.name for version in later if version.guid in path}
        if any(version.name in arriving for version in has[: at + 1]):
            return unchanged, True
        return unchanged[: at + 1] + path, False

    def cursors(self, name):
        return tuple(mark.version for mark in self.sender.filesystems[name].cursors.values())

    def through(self, path, *, first_is_full):
        """The guids that arrive, by the policy on steps."""
        if self.policy.steps is Steps.NEWEST:
            ends = [path[0], path[-1]] if first_is_full and len(path) > 1 else [path[-1]]
            return [version.guid for version in ends]
        return [version.guid for version in path]

    @invariant()
    def nothing_untrue_is_visible(self):
        self.witness.look()


def snapshots_of(store, name):
    return [each for each in store.versions(name) if each.kind is VersionKind.SNAPSHOT]


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
