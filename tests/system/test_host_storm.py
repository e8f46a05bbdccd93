"""Whole hosts and whole processes: ``fsrep run`` on one, ``fsrep serve`` or sshd on another.

Killed, stopped, cut off for a while, with their sockets destroyed, with a disk that is full:
a run that is left ends with a typed error or with success, nothing of it stays on any host,
and the next run converges. A host that vanishes for good is noticed by both ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time

import attrs
import pytest

from fsrep_core.testing import compare_trees

pytestmark = [pytest.mark.hosts, pytest.mark.proof]

TRANSPORTS = ("ssh", "tls")
SEEDS = 50
SEEDS_PER_TEST = 10
VERSIONS = ("first", "second")
PACE = 'rate_limit = "8 MiB/s"'
"""Stretches the streams, so that most moments are within one."""
LARGE_BYTES = 1_500_000
DEADLINE_SECONDS = 90

SHORT_SECONDS = (0.1, 2.0)
"""For how long something is stopped, or cut off; less than the deadline of silence."""
FULL_BYTES = 1 << 20
ROOMY_BYTES = 64 << 20

KINDS = (
    "run killed",
    "far side killed",
    "far side stopped",
    "run stopped",
    "link flaps",
    "sockets destroyed",
    "disk full",
)
TYPED = {"connectivity", "interrupted-stream", "timeout", "out-of-space", "storage"}
"""A storage whose engine was killed says so."""

SSHD_SECONDS = 60
"""In which sshd lets go of a client whose host has vanished (``ClientAliveInterval``)."""

SILENCE_SECONDS = 30
"""The deadline of :class:`fsrep_core.Timing`, as no option of a transport changes it."""


@attrs.define(eq=False)
class Storm:
    """A sender with two versions, and a receiver that is emptied for each trial."""

    scene: object
    transport: str
    push: bool
    disk: object
    """Where the receiver is, which makes it full."""
    undisturbed_seconds: float = 0.0

    @property
    def here(self):
        return "one"

    @property
    def source(self):
        return "one" if self.push else "two"

    @property
    def target(self):
        return "two" if self.push else "one"

    def prepare(self):
        self.scene.places[self.target] = self.disk.root
        self.empty_target()
        for number, version in enumerate(VERSIONS):
            self.scene.make_version(self.source, version, number, size_bytes=LARGE_BYTES)
        self.serve()
        started_at = time.monotonic()
        assert self.scene.problem_of(self.scene.run_job(self.here, self.config())) is None
        self.undisturbed_seconds = time.monotonic() - started_at

    def serve(self):
        if self.transport == "tls":
            self.scene.serve("two")

    def config(self):
        way = self.scene.way(self.transport, "one", "two")
        sides = [("one", {"name": "local-pipe"}), ("two", way)]
        settings = 'initial = "all"\nsteps = "each"\nretry_for = "0s"'
        return self.scene.write_job(*(sides if self.push else sides[::-1]), settings, PACE)

    def empty_target(self):
        self.disk.resize(ROOMY_BYTES)
        for name in self.disk.root.iterdir():
            shutil.rmtree(name)

    def far_side(self):
        """What works for the run on the other host."""
        far = list(self.scene.working("two"))
        if self.transport == "tls":
            far.append(self.scene.daemons["two"].process.pid)
        return far

    def strike(self, kind, chance, run):
        """Let something happen; what is temporary ends again before this returns."""
        pause_seconds = chance.uniform(*SHORT_SECONDS)
        two = self.scene.host("two")
        match kind:
            case "run killed":
                run.kill()
            case "far side killed":
                victim = chance.choice(self.far_side() or [run.pid])
                send(signal.SIGKILL, [victim])
                server = self.scene.daemons.get("two")
                if server is not None and victim == server.process.pid:
                    server.process.wait()
            case "far side stopped" | "run stopped":
                stopped = self.far_side() if kind == "far side stopped" else [run.pid]
                send(signal.SIGSTOP, stopped)
                time.sleep(pause_seconds)
                send(signal.SIGCONT, stopped)
            case "link flaps":
                self.scene.network.take_down(two)
                time.sleep(pause_seconds)
                self.scene.network.put_up(two)
            case "sockets destroyed":
                words = self.scene.host("one").within("ss", "-K", "dst", two.ipv4)
                subprocess.run(words, check=True, capture_output=True)

    def trial(self, seed):
        chance = random.Random(f"{self.transport} {seed}")
        kind = KINDS[seed % len(KINDS)]
        moment_seconds = chance.uniform(0.1, 1) * self.undisturbed_seconds
        about = f"{self.transport} seed {seed}: {kind} after {moment_seconds:.2f}s, {self.push=}"
        self.empty_target()
        if kind == "disk full":
            self.disk.resize(FULL_BYTES)

        run = self.scene.start_job(self.here, self.config())
        if kind != "disk full":
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(moment_seconds)
            self.strike(kind, chance, run)
        printed, _ = run.communicate(timeout=DEADLINE_SECONDS)
        killed = run.returncode == -signal.SIGKILL  # also where the far side had not begun
        problem = None if killed else self.judge(printed, about)
        if self.transport == "tls" and self.scene.daemons["two"].process.poll() is not None:
            self.serve()
        assert self.scene.left_behind() == {}, f"{about}: {problem}"
        self.check_visible(about)
        if kind == "disk full":
            assert problem is not None, about
            assert problem["kind"] == "out-of-space", f"{about}: {problem}"
            self.disk.resize(ROOMY_BYTES)

        again = self.scene.problem_of(self.scene.run_job(self.here, self.config()))
        assert again is None, f"{about}: {problem}; then {again}"
        assert self.check_visible(about) == set(VERSIONS), about
        assert self.scene.left_behind() == {}, about

    def judge(self, printed, about):
        assert printed, f"{about}: no report"
        problem = self.scene.problem_of(self.scene.report_of(printed))
        assert problem is None or problem["kind"] in TYPED, f"{about}: {problem}"
        return problem

    def check_visible(self, about):
        """What the receiver shows is whole; give the names."""
        found = set()
        for version in VERSIONS:
            arrived = self.scene.tree(self.target, version)
            if arrived.exists():
                found.add(version)
                sent = self.scene.tree(self.source, version)
                assert compare_trees(sent, arrived) == [], f"{about}: {version}"
        return found


def send(number, pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_whatever_befalls_a_host_the_next_run_converges(scene, disk, transport, first):
    storm = Storm(scene, transport, (first // SEEDS_PER_TEST) % 2 == 0, disk)
    storm.prepare()
    for seed in range(first, first + SEEDS_PER_TEST):
        storm.trial(seed)


@pytest.mark.parametrize("push", [True, False], ids=["push", "pull"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_host_that_vanishes_while_bytes_flow_is_noticed_by_both_ends(
    scene, disk, transport, push
):
    """Whichever end writes has only writes pending; both give up in the time that is set."""
    storm = Storm(scene, transport, push, disk)
    for number, version in enumerate(VERSIONS):
        scene.make_version(storm.source, version, number, size_bytes=10_000_000)
    storm.serve()
    run = scene.start_job("one", storm.config())
    wait_for_bytes(scene.place(storm.target), 1 << 20, run)

    scene.network.take_down(scene.host("two"))
    vanished_at = time.monotonic()
    try:
        printed, _ = run.communicate(timeout=DEADLINE_SECONDS)
        run_seconds = time.monotonic() - vanished_at
        while (left := far_work(scene, transport)) and time.monotonic() < vanished_at + 60:
            time.sleep(0.1)
        far_seconds = time.monotonic() - vanished_at
    finally:
        scene.network.put_up(scene.host("two"))
    problem = scene.problem_of(scene.report_of(printed))

    assert problem["kind"] in {"connectivity", "timeout"}
    assert problem["temporary"]
    assert left == {}
    assert max(run_seconds, far_seconds) < SILENCE_SECONDS + 15
    assert scene.left_behind(SSHD_SECONDS) == {}
    assert scene.problem_of(scene.run_job("one", storm.config())) is None
    assert storm.check_visible("the second run") == set(VERSIONS)


def far_work(scene, transport):
    """What the other host still does for a run; sshd looks after its clients by itself."""
    working = scene.working("two")
    working = {pid: words for pid, words in working.items() if not words.startswith("sshd")}
    if transport == "tls":
        opened, ended = "connection opened", ("connection failed", "connection closed")
        server = scene.daemons["two"]
        held = len(server.events(opened)) - sum(len(server.events(each)) for each in ended)
        return working or ({"connections": held} if held else {})
    return working


def wait_for_bytes(root, least_bytes, run):
    """Wait until so much has arrived below a root, wherever it is kept."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while size_below(root) < least_bytes:
        assert run.poll() is None, "it has ended already"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def size_below(root):
    total_bytes = 0
    for directory, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it changes while one looks
                total_bytes += os.stat(os.path.join(directory, name)).st_size  # noqa: PTH116, PTH118  (many files, often)
    return total_bytes
