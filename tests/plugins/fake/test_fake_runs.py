"""Whole runs over the fake: what its faults do to a driver, and that they can be repeated."""

import random

import pytest
import trio
import trio.testing

from fsrep_core.planning import Initial, Policy, Steps
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.settings import JobSettings
from fsrep_fake import (
    ACTIONS,
    DIRECTIONS,
    FakeTransport,
    MemoryStorage,
    MemoryStore,
    SeededFaults,
    WireFault,
)

FILESYSTEMS, VERSIONS = 8, 5


class Run:
    """A job over two fakes, on stores of its own."""

    def __init__(self, sender_script=(), receiver_script=(), **settings):
        self.source, self.target = MemoryStore("source"), MemoryStore("target")
        for number in range(FILESYSTEMS):
            self.source.add_history(f"fs{number}", VERSIONS, max_bytes=50_000)
        self.sender, self.receiver = FakeTransport(sender_script), FakeTransport(receiver_script)
        self.settings = JobSettings(
            name="job",
            policy=Policy(initial=Initial.ALL, steps=Steps.EACH),
            retry_for_seconds=10**9,
            **settings,
        )

    async def run(self):
        async with (
            self.sender.reach(MemoryStorage(self.source)) as sender,
            self.receiver.reach(MemoryStorage(self.target)) as receiver,
        ):
            driver = Driver(
                self.settings,
                Endpoint(sender, name="sender"),
                Endpoint(receiver, name="receiver"),
                randomness=random.Random(1),
            )
            return await driver.run()

    def assert_replicated(self):
        for name in self.source.filesystems:
            versions = self.source.versions(name)
            assert [each.guid for each in self.target.versions(name)] == [
                each.guid for each in versions
            ]
            assert self.source.read(name, versions[-1]) == self.target.read(name, versions[-1])


def log_of(transport):
    """What happened, apart from what the driver asks at the same time as something else.

    Of two inventories that fail in the same instant, one is cancelled: trio decides which.
    """
    return [
        (call.operation, call.filesystem, call.outcome, call.fault, call.moved_bytes)
        for call in sorted(transport.calls, key=lambda call: call.number)
        if call.operation not in {"inventory", "size_estimate"}
    ]


async def one_run(seed, **settings):
    run = Run(
        SeededFaults(seed, rate=0.2, actions=tuple(ACTIONS), byte_limit=30_000),
        SeededFaults(seed + 1, rate=0.2, actions=tuple(ACTIONS), byte_limit=30_000),
        **settings,
    )
    report = await run.run()
    assert report.status == "completed", (run.sender, run.receiver)
    run.assert_replicated()
    return run


@pytest.mark.parametrize("seed", [10, 20, 30])
async def test_a_storm_of_faults_of_every_kind_ends_with_everything_replicated(
    seed, autojump_clock
):
    run = await one_run(seed, concurrency=3)

    met = {fault.action for fault in run.sender.met_faults + run.receiver.met_faults}
    assert met >= {"cut", "stall", "trickle", "refuse", "fail_after_commit"}


SAID = {
    "to_server": [None, "hello", "request", "data", "end", "done"],
    "to_client": [None, "hello", "answer", "opened", "data", "end"],
}
"""What each side says in every run; ``None`` = any byte."""


def broken_connections(seed):
    """Faults of the first connections: at a byte or at a frame, in either direction."""
    chance = random.Random(seed)
    for connection in sorted([*range(1, 20)] * 2):
        direction = chance.choice(DIRECTIONS)
        frame = chance.choice(SAID[direction])
        yield WireFault(
            chance.choice(["cut", "cut", "stall", "trickle"]),
            direction,
            connection=connection,
            frame=frame,
            occurrence=chance.choice([1, 2, 5]) if frame != "hello" else 1,
            at_byte=chance.choice([0, 1, 9, 50]) if frame else int(10 ** chance.uniform(0, 5)),
            seconds=chance.choice([None, 1, 20]),
            length_bytes=chance.choice([1, 50]),
        )


@pytest.mark.parametrize("seed", range(12))
async def test_a_storm_of_broken_connections_ends_with_everything_replicated(seed, autojump_clock):
    scripts = tuple(broken_connections(seed)), tuple(broken_connections(-1 - seed))
    run = Run(*scripts, concurrency=1 + seed % 3)

    report = await run.run()

    assert report.status == "completed", f"seed {seed}: {report.problem}"
    assert len(run.sender.met_faults + run.receiver.met_faults) > 2
    run.assert_replicated()


@pytest.fixture
def ordered(monkeypatch):
    """Let trio run tasks in an order that repeats itself, as pytest-trio does for Hypothesis."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)

    def begin(work):
        trio._core._run._r.seed(0)
        return trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))

    return begin


def differences(first, second):
    """Where two logs differ. (A comparison of them as a whole would be shown for minutes.)"""
    return [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]


def test_the_same_script_gives_the_same_run(ordered):
    async def log():
        run = await one_run(40)
        return log_of(run.sender), log_of(run.receiver), trio.current_time()

    first, second = ordered(log), ordered(log)

    assert len(first[0]) > FILESYSTEMS * VERSIONS
    assert differences(first[0], second[0]) == []
    assert differences(first[1], second[1]) == []
    assert first[2] == second[2]


def test_the_faults_that_were_met_are_a_script_that_repeats_them(ordered):
    async def storm():
        return await one_run(50), trio.current_time()

    async def repeat():
        again = Run(first.sender.met_faults, first.receiver.met_faults)
        await again.run()
        return again, trio.current_time()

    first, first_seconds = ordered(storm)
    again, again_seconds = ordered(repeat)

    again.assert_replicated()
    assert differences(log_of(again.sender), log_of(first.sender)) == []
    assert differences(log_of(again.receiver), log_of(first.receiver)) == []
    assert again_seconds == first_seconds
