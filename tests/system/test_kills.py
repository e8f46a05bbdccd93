"""``fsrep run`` and its peers of the pipe, killed without warning at seeded moments.

Real processes, real directories, SIGKILL. After each kill: every version that can be
seen is whole, and the sender's cursor is not ahead of the receiver. Then one more run
must converge, and must not send again what the receiver had already committed.

The moment of a kill is drawn from the seed: a share of the time that an undisturbed run
takes here, or, with every fifth seed, the moment in which a version becomes visible on
the receiver, whose mark is missing then. So a failure is repeated by its seed, if not to
the microsecond. A kill that came too late is none: the seed is tried again, at an earlier
moment, until one has landed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import attrs
import pytest

from forked_runs import ForkedRuns, is_running
from fsrep_core.testing.trees import compare_trees

KILLS = 100
SEEDS_PER_TEST = 10
SEEDS_PER_COMMIT = 5
"""Of so many seeds in a row, one kills when a version becomes visible."""
TRIES = 20
"""So often a seed is tried until its kill has landed."""
FILESYSTEM = "docs"
DEADLINE_SECONDS = 60

VERSIONS = ("v1", "v2", "v3")
COMMANDS = ("send", "receive")
"""Of the peers of the pipe."""

pytestmark = pytest.mark.proof


@attrs.define(eq=False)
class Scene:
    """A sender with three versions, and a receiver of its own for each job."""

    path: Path
    runs: ForkedRuns
    undisturbed_seconds: float = 0.0
    """How long a run takes here that nobody disturbs."""

    @property
    def sender_root(self):
        return self.path / "sender"

    def receiver_root(self, job):
        return self.path / f"receiver-{job}"

    def prepare(self):
        chance = random.Random(1)
        live = self.sender_root / FILESYSTEM
        for number in range(120):
            file = live / f"d{number % 10}" / f"f{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(chance.choice([10, 5000, 100_000])))
        (live / "big").write_bytes(chance.randbytes(6_000_000))
        config = self.write_config("prepare")
        for name in VERSIONS:
            for _ in range(20):
                file = live / f"d{chance.randrange(10)}" / f"new{chance.randrange(100)}"
                file.write_bytes(chance.randbytes(50_000))
            with (live / "big").open("r+b") as big:
                big.seek(chance.randrange(6_000_000))
                big.write(b"changed")
            ended = self.runs.run("snapshot", "--config", config, "--name", name)
            assert ended.status == 0, ended

    def write_config(self, job):
        self.receiver_root(job).mkdir()
        path = self.path / f"{job}.toml"
        path.write_text(
            f"""
            [[job]]
            name = "{job}"
            filesystems = ["{FILESYSTEM}"]
            initial = "all"
            steps = "each"
            [job.sender]
            transport = {{ name = "local-pipe" }}
            storage = {{ name = "directory", root = "{self.sender_root}" }}
            [job.receiver]
            transport = {{ name = "local-pipe" }}
            storage = {{ name = "directory", root = "{self.receiver_root(job)}" }}
            """
        )
        return str(path)

    def start(self, config):
        return self.runs.start("run", "--config", config, "--json")

    def versions(self, root):
        """Guid to tree, of what can be seen below a root, read without the plugin."""
        found = {}
        for version in (root / ".fsrep" / FILESYSTEM).glob("@*"):
            guid = json.loads((version / "version.json").read_text())["guid"]
            found[guid] = version / "tree"
        return found

    def cursor(self, job):
        """The guid that the job's cursor marks; ``None`` = it has none."""
        store = self.sender_root / ".fsrep" / FILESYSTEM
        guids = [
            json.loads((mark / "version.json").read_text())["guid"]
            for mark in store.glob(f"#fsrep-cursor-{job}-*")
        ]
        order = {guid: number for number, guid in enumerate(self.guids_in_order())}
        return max(guids, key=order.__getitem__, default=None)

    def guids_in_order(self):
        return [self.guid_of(name) for name in VERSIONS]

    def guid_of(self, name):
        path = self.sender_root / ".fsrep" / FILESYSTEM / f"@{name}" / "version.json"
        return json.loads(path.read_text())["guid"]

    def awaits_mark(self, job, name):
        """Whether the receiver has this version and the cursor is not there yet."""
        guid = self.guid_of(name)
        return guid in self.versions(self.receiver_root(job)) and self.cursor(job) != guid

    def assert_truthful(self, job):
        """What can be seen is whole, and the cursor is not ahead; give what can be seen."""
        sent = self.versions(self.sender_root)
        received = self.versions(self.receiver_root(job))
        for guid, tree in received.items():
            assert compare_trees(sent[guid], tree) == [], f"{job}: {tree} is not whole"
        cursor = self.cursor(job)
        assert cursor is None or cursor in received, f"{job}: the cursor is ahead"
        return set(received)

    def assert_converged(self, job):
        assert self.assert_truthful(job) == set(self.guids_in_order()), job
        assert self.cursor(job) == self.guids_in_order()[-1], job
        leftovers = [
            path.name
            for path in (self.receiver_root(job) / ".fsrep" / FILESYSTEM).iterdir()
            if not path.name.startswith("@") and not path.name.endswith("lock")
        ]
        assert leftovers == [], f"{job}: left behind"

    def forget(self, job):
        shutil.rmtree(self.receiver_root(job))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("kills")
    with ForkedRuns.opened(path, "fsrep_local_pipe", "fsrep_directory.storage") as runs:
        scene = Scene(path, runs)
        scene.prepare()
        config = scene.write_config("undisturbed")
        started = time.perf_counter()
        ended = scene.start(config).finish()
        scene.undisturbed_seconds = time.perf_counter() - started
        assert ended.status == 0, ended
        scene.assert_converged("undisturbed")
        yield scene


@attrs.frozen
class Moment:
    """When a run is disturbed."""

    job: str
    """A job, and so a receiver, that nothing has happened to yet."""
    share: float
    """Of the time that an undisturbed run takes."""
    commit_of: str | None
    """The version whose commit is waited for instead."""

    def wait(self, scene, run):
        if self.commit_of is None:
            time.sleep(self.share * scene.undisturbed_seconds)
            return
        visible = scene.receiver_root(self.job) / ".fsrep" / FILESYSTEM / f"@{self.commit_of}"
        while run.is_running() and not visible.exists():
            time.sleep(0.0002)

    def landed(self, scene):
        """Whether the kill came before the mark, where it was to come there."""
        return self.commit_of is None or scene.awaits_mark(self.job, self.commit_of)


def moments(kind, seed):
    """The moments of a seed, each earlier than the one before: one is tried after the other."""
    chance = random.Random(seed)
    turn, rest = divmod(seed, SEEDS_PER_COMMIT)
    commit_of = None if rest else VERSIONS[turn % len(VERSIONS)]
    share = 1.0
    for number in range(TRIES):
        share = chance.uniform(0.1, share)
        yield Moment(f"{kind}{seed}-{number}", share, commit_of)


def data_steps(report):
    return [step for step in steps_of(report) if not step["mark_only"]]


def steps_of(report):
    [job] = json.loads(report)["jobs"]
    return [step for replication in job["completed"] for step in replication["completed"]]


def assert_only_marked(moment, report):
    """A newest version that lacked its mark gets that; another's next step moves it further."""
    if moment.commit_of == VERSIONS[-1]:
        last = steps_of(report)[-1]
        assert last["mark_only"], moment
        assert last["to_version"]["name"] == VERSIONS[-1], moment


def wait_for_end(pids):
    """Children of a killed fsrep end by themselves, since their pipes do."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process did not end"
        time.sleep(0.005)


def kill_fsrep(scene, moment, config):
    """Kill a run; tell whether that landed, with the children gone as well."""
    run = scene.start(config)
    moment.wait(scene, run)
    run.kill(signal.SIGSTOP)  # so that no child comes after we have looked
    children = run.children()
    run.kill()
    status = run.finish().status
    scene.assert_truthful(moment.job)
    wait_for_end(children)
    return status == -signal.SIGKILL and moment.landed(scene)


@pytest.mark.parametrize("first_seed", range(1, KILLS + 1, SEEDS_PER_TEST))
def test_fsrep_killed(scene, first_seed):
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        for moment in moments("killed", seed):
            config = scene.write_config(moment.job)
            if kill_fsrep(scene, moment, config):
                break
            scene.forget(moment.job)
        else:
            pytest.fail(f"seed {seed}: no kill came in time")

        before = scene.assert_truthful(moment.job)
        ended = scene.start(config).finish()

        assert ended.status == 0, f"{moment}: {ended}"
        scene.assert_converged(moment.job)
        sent = {step["to_version"]["guid"] for step in data_steps(ended.stdout)}
        assert sent.isdisjoint(before), f"{moment}: data was sent again"
        assert_only_marked(moment, ended.stdout)
        scene.forget(moment.job)


@attrs.frozen
class Peer:
    """What became of a run whose peer of the pipe was killed."""

    killed_at: float
    before: set[str]
    """The versions that the receiver had just after."""
    report: str


def kill_peer(scene, moment, config, command):
    """Kill a peer of the pipe; ``None`` = that came too late to be noticed."""
    run = scene.start(config)
    moment.wait(scene, run)
    killed_at, before, landed = 0.0, set(), False
    while run.is_running():
        peer = run.child(command)
        if peer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(peer, signal.SIGKILL)
            wait_for_end([peer])
            # At once, since the run goes on after a short wait.
            killed_at, landed = time.time(), moment.landed(scene)
            before = set(scene.versions(scene.receiver_root(moment.job)))
            scene.assert_truthful(moment.job)
            break
        if moment.commit_of is not None:
            break
        time.sleep(0.002)
    ended = run.finish()
    assert ended.status == 0, f"{moment}: {ended}"
    scene.assert_converged(moment.job)
    [job] = json.loads(ended.stdout)["jobs"]
    return Peer(killed_at, before, ended.stdout) if landed and job["attempt"] > 1 else None


@pytest.mark.parametrize("first_seed", range(1001, 1001 + KILLS, SEEDS_PER_TEST))
def test_peer_of_the_pipe_killed(scene, first_seed):
    """The run whose peer was killed goes on by itself, and resumes."""
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        for moment in moments("peer", seed):
            config = scene.write_config(moment.job)
            command = "receive" if moment.commit_of else random.Random(seed).choice(COMMANDS)
            killed = kill_peer(scene, moment, config, command)
            scene.forget(moment.job)
            if killed is not None:
                break
        else:
            pytest.fail(f"seed {seed}: no kill came in time")

        sent = {
            step["to_version"]["guid"]
            for step in data_steps(killed.report)
            if step["started_at"] > killed.killed_at
        }
        assert sent.isdisjoint(killed.before), f"{moment}: data was sent again"
        assert_only_marked(moment, killed.report)
