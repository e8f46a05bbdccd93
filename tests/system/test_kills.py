"""``fsrep run`` and its peers of the pipe, killed without warning at seeded moments.

Real processes, real directories, SIGKILL. After each kill: every version that can be
seen is whole, and the sender's cursor is not ahead of the receiver. Then one more run
must converge, and must not send again what the receiver had already committed.

The moment of a kill is drawn from the seed as a share of the time that an undisturbed
run takes here, so a failure is repeated by its seed, if not to the microsecond.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from fsrep_core.testing.trees import compare_trees

FSREP = str(Path(sys.executable).parent / "fsrep")
KILLS = 100
SEEDS_PER_TEST = 10
FILESYSTEM = "docs"
DEADLINE_SECONDS = 60

pytestmark = pytest.mark.proof


@attrs.define(eq=False)
class Scene:
    """A sender with three versions, and a receiver of its own for each kill."""

    path: Path
    undisturbed_seconds: float = 0.0

    @property
    def sender_root(self):
        return self.path / "sender"

    def receiver_root(self, seed):
        return self.path / f"receiver-{seed}"

    def prepare(self):
        chance = random.Random(1)
        live = self.sender_root / FILESYSTEM
        for number in range(300):
            file = live / f"d{number % 10}" / f"f{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(chance.choice([10, 5000, 100_000])))
        (live / "big").write_bytes(chance.randbytes(20_000_000))
        config = self.write_config("prepare", 0)
        for name in ("v1", "v2", "v3"):
            for _ in range(20):
                file = live / f"d{chance.randrange(10)}" / f"new{chance.randrange(100)}"
                file.write_bytes(chance.randbytes(50_000))
            with (live / "big").open("r+b") as big:
                big.seek(chance.randrange(10_000_000))
                big.write(b"changed")
            self.fsrep("snapshot", "--config", config, "--name", name, check=True)

    def write_config(self, job, seed):
        self.receiver_root(seed).mkdir(exist_ok=True)
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
            storage = {{ name = "directory", root = "{self.receiver_root(seed)}" }}
            """
        )
        return str(path)

    def fsrep(self, *arguments, check=False):
        return subprocess.run(
            [FSREP, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=check,
        )

    def start(self, config):
        return subprocess.Popen(
            [FSREP, "run", "--config", config, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

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
        store = self.sender_root / ".fsrep" / FILESYSTEM
        return [
            json.loads((store / f"@{name}" / "version.json").read_text())["guid"]
            for name in ("v1", "v2", "v3")
        ]

    def assert_truthful(self, job, seed):
        """What can be seen is whole, and the cursor is not ahead; give what can be seen."""
        sent = self.versions(self.sender_root)
        received = self.versions(self.receiver_root(seed))
        for guid, tree in received.items():
            assert compare_trees(sent[guid], tree) == [], f"seed {seed}: {tree} is not whole"
        cursor = self.cursor(job)
        assert cursor is None or cursor in received, f"seed {seed}: the cursor is ahead"
        return set(received)

    def assert_converges(self, job, config, seed, before):
        done = self.fsrep("run", "--config", config, "--json")
        assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
        self.assert_converged(job, seed)
        [report] = json.loads(done.stdout)["jobs"]
        sent_again = [
            step["to_version"]["name"]
            for replication in report["completed"]
            for step in replication["completed"]
            if not step["mark_only"] and step["to_version"]["guid"] in before
        ]
        assert sent_again == [], f"seed {seed}: data was sent again"

    def assert_converged(self, job, seed):
        assert self.assert_truthful(job, seed) == set(self.guids_in_order()), f"seed {seed}"
        assert self.cursor(job) == self.guids_in_order()[-1], f"seed {seed}"
        leftovers = [
            path.name
            for path in (self.receiver_root(seed) / ".fsrep" / FILESYSTEM).iterdir()
            if not path.name.startswith("@") and not path.name.endswith("lock")
        ]
        assert leftovers == [], f"seed {seed}: left behind"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("kills"))
    scene.prepare()
    config = scene.write_config("undisturbed", 0)
    started = time.perf_counter()
    done = scene.fsrep("run", "--config", config)
    scene.undisturbed_seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    scene.assert_converged("undisturbed", 0)
    return scene


def children_of(pid):
    """The children of all threads: trio starts processes in a thread of its own."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(each) for each in file.read_text().split()]
    return found


def wait_for_orphans(pids):
    """The children of a killed fsrep end by themselves: their pipes do."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a child outlived its killed parent"
        time.sleep(0.005)


@pytest.mark.parametrize("first_seed", range(1, KILLS + 1, SEEDS_PER_TEST))
def test_fsrep_killed(scene, first_seed):
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        chance = random.Random(seed)
        job = f"killed{seed}"
        config = scene.write_config(job, seed)
        process = scene.start(config)
        time.sleep(chance.uniform(0.1, 1.0) * scene.undisturbed_seconds)
        children = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE_SECONDS)
        scene.assert_truthful(job, seed)
        wait_for_orphans(children)

        before = scene.assert_truthful(job, seed)
        scene.assert_converges(job, config, seed, before)


@pytest.mark.parametrize("first_seed", range(1001, 1001 + KILLS, SEEDS_PER_TEST))
def test_peer_of_the_pipe_killed(scene, first_seed):
    """The run whose peer was killed goes on by itself, and resumes."""
    killed = 0
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        chance = random.Random(seed)
        job = f"peer{seed}"
        config = scene.write_config(job, seed)
        process = scene.start(config)
        time.sleep(chance.uniform(0.2, 0.9) * scene.undisturbed_seconds)
        while process.poll() is None:
            children = children_of(process.pid)
            if children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(children), signal.SIGKILL)
                    killed += 1
                break
            time.sleep(0.002)
        scene.assert_truthful(job, seed)
        stdout, stderr = process.communicate(timeout=DEADLINE_SECONDS)

        assert process.returncode == 0, f"seed {seed}: {stdout}{stderr}"
        scene.assert_converged(job, seed)
    assert killed > SEEDS_PER_TEST / 2
