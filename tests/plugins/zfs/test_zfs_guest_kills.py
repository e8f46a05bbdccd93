"""``kill -9`` at seeded moments: of fsrep, of ``zfs send``, of ``zfs receive``.

After each, nothing partial is listed and the cursor is not ahead; the next run converges and
sends no byte again that the receiver had kept. What a kill has left held, the next step of the
filesystem releases.

Where these tests usually run, starting Python takes longer than a step does. So one
process imports everything, and each run is a fork of it.
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
import trio

from real_zfs import JOB, zfs

pytestmark = [pytest.mark.zfs, pytest.mark.proof]

MOMENTS = 30
CHANGE_BYTES = 3 << 20
RATE_LIMIT = "2 MiB/s"
"""Stretches a stream, so that most moments are within it."""
REPEATED_BYTES = 512 << 10
"""What may be sent again beyond what the receiver had kept: records on their way, headers."""
POLL_SECONDS = 0.02
"""To look more often would slow down what is looked at, where there is one processor."""
KEPT = 5
"""After how many trials old versions are destroyed."""

FORKS = """\
import gc, os, sys
import fsrep_local_pipe, fsrep_zfs.storage, fsrep_core.runtime.driver
import fsrep_core.ops.commands.run, fsrep_core.ops.report
from fsrep_core.ops.cli import main
gc.collect()
gc.freeze()  # a fork's collector would touch, and so copy, every page
print("ready", flush=True)
for line in sys.stdin:
    config, output = line.split()
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = ["fsrep", "run", "--config", config, "--json"]
        main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
CONFIG = """
[[job]]
name = "job"
filesystems = ["docs"]
retry_for = "{retry_for}"
{sides}
"""
SIDE = """
[job.{side}]
{rate_limit}
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{root}" }}
"""


@attrs.define(eq=False)
class Runs:
    """Runs of one job: some that are to be disturbed, and some that are not."""

    parent: subprocess.Popen
    directory: Path

    def start(self, name):
        self.parent.stdin.write(f"{self.directory / name}.toml {self.directory / name}.out\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def finish(self, name):
        """Wait for the run; give its status and what it printed."""
        status = int(self.parent.stdout.readline())
        return status, self.directory.joinpath(f"{name}.out").read_text()


@pytest.fixture
def runs(zfs_sites, tmp_path):
    for name, retry_for, rate_limit in (("once", "0s", RATE_LIMIT), ("stubborn", "1h", None)):
        limit = f'rate_limit = "{rate_limit}"' if rate_limit else ""
        sides = "".join(
            SIDE.format(side=side, root=site.root, rate_limit=limit if side == "sender" else "")
            for side, site in zip(("sender", "receiver"), zfs_sites, strict=True)
        )
        config = CONFIG.format(retry_for=retry_for, sides=sides)
        tmp_path.joinpath(f"{name}.toml").write_text(config)
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline() == "ready\n"
        yield Runs(parent, tmp_path)
        parent.stdin.close()


def children_of(pid):
    """The children of all threads: trio starts processes in a thread of its own."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += file.read_text().split()
    return found


def engine(pid, word):
    """Give the pid of a running ``zfs send`` or ``zfs receive`` of a run, or ``None``."""
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            argv = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if len(argv) > 1 and argv[1] == word.encode():
                return int(child)
    return None


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for_engine(pid, word):
    while alive(pid):
        found = engine(pid, word)
        if found is not None:
            return found
        time.sleep(POLL_SECONDS)
    return None


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def strike(pid, victim, moment, duration_seconds):
    """Kill a run or an engine after a part of the time that it works."""
    if victim != "fsrep":
        pid = wait_for_engine(pid, victim.removeprefix("zfs "))
    if pid is not None:
        time.sleep(moment * duration_seconds)
        kill(pid)


@pytest.mark.parametrize("victim", ["fsrep", "zfs send", "zfs receive"])
def test_killed_at_any_moment(zfs_sites, runs, victim):
    a, b = zfs_sites
    seed = f"{victim} 1"
    chance = random.Random(seed)
    a.filesystem("docs")
    interrupted = number = resumed = 0
    duration_seconds = warm_up(a, runs, victim)

    while interrupted < MOMENTS:
        number += 1
        moment = chance.random()
        where = f"seed {seed!r}, trial {number}, moment {moment:.3f} of {duration_seconds:.2f}s"
        assert number <= 3 * MOMENTS, f"only {interrupted} kills hit something; {where}"
        make_version(a, number)
        strike(runs.start("once"), victim, moment, duration_seconds)
        status, output = runs.finish("once")
        interrupted += status != 0
        if status == 0:
            duration_seconds *= 0.9  # too late: the machine is faster than when it was measured
        token, _ = look(a, b, where)

        runs.start("stubborn")
        status, output = runs.finish("stubborn")

        assert status == 0, f"{where}: {output}"
        token_left, received = look(a, b, where)
        assert token_left is None, where
        if token is not None and token.received_bytes:
            step = only_step(output, where)
            assert step["resumed"], where
            repeated = step["transferred_bytes"] + token.received_bytes - CHANGE_BYTES
            assert repeated < REPEATED_BYTES, where
            resumed += 1
        assert f"v{number}" in received, where
        if holds(a):
            make_version(a, f"{number}b")
            runs.start("stubborn")
            status, output = runs.finish("stubborn")
            assert status == 0, f"{where}: {output}"
        assert holds(a) == [], where
        if number % KEPT == 0:
            thin_out(a, b)
    assert resumed > MOMENTS / 5 or victim == "fsrep"


def only_step(output, where):
    [report] = json.loads(output)["jobs"]
    steps = [
        step
        for replication in report["completed"]
        for step in replication["completed"]
        if not step["mark_only"]
    ]
    assert len(steps) == 1, where
    return steps[0]


def warm_up(a, runs, victim):
    """Replicate twice; tell how long the victim lives when nobody kills it."""
    for name in ("first", "second"):
        make_version(a, name)
        started_at = time.monotonic()
        pid = runs.start("once")
        found = pid
        if victim != "fsrep":
            found = wait_for_engine(pid, victim.removeprefix("zfs "))
            started_at = time.monotonic()
        while alive(found):
            time.sleep(POLL_SECONDS)
        lived_seconds = time.monotonic() - started_at
        status, output = runs.finish("once")
        assert status == 0, output
    return lived_seconds


def make_version(a, number):
    """Change much of the filesystem, so that there is a stream to be cut."""
    a.write("changed", size_bytes=CHANGE_BYTES)
    zfs("snapshot", a.dataset(f"docs@v{number}"))


def listed(site):
    """List the filesystem, as another process would; ``None`` = it is not there."""
    site.reopen()
    return trio.run(site.listed)


def snapshots(found):
    return [each for each in found.versions if each.relative_name[0] == "@"] if found else []


def holds(site):
    return site.holds(*(f"docs@{each.name}" for each in snapshots(listed(site))))


def look(a, b, where):
    """Check what both sides list; give the receiver's token, and the names of its snapshots."""
    sender, receiver = listed(a), listed(b)
    sent = {each.guid: each.name for each in snapshots(sender)}
    received = {each.guid: each.name for each in snapshots(receiver)}
    assert received.items() <= sent.items(), where
    assert sender.cursor is None or sender.cursor.guid in received, where
    if received:
        newest = list(received.values())[-1]
        assert a.content("docs", newest) == b.content("docs", newest), where
    return receiver.resume_token if receiver else None, list(received.values())


def thin_out(a, b):
    """Keep the newest: the pools are small, and the cursor outlives its snapshot."""
    for site in (a, b):
        old = snapshots(listed(site))[:-1]
        for result in trio.run(site.destroy, old):
            assert result.problem is None, (JOB, result)
