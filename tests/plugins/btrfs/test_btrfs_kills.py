"""``kill -9`` at seeded moments: of fsrep, of ``btrfs send``, of ``btrfs receive``.

After each, nothing partial is listed, the cursor is not ahead, and the next run
converges and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

pytestmark = [pytest.mark.btrfs, pytest.mark.proof]

MOMENTS = 50
STREAM_BYTES = 8 << 20
RATE_LIMIT = "32 MiB/s"
"""Stretches the stream to a quarter of a second, so that most moments are within it."""
RUN_TIMEOUT_SECONDS = 120

FSREP = "from fsrep_core.ops.cli import main; main()"
CONFIG = """
[[job]]
name = "job"
filesystems = ["docs"]
retry_for = "{retry_for}"
{sides}
"""
SIDE = """
[job.{side}]
rate_limit = "{rate_limit}"
transport = {{ name = "local-pipe" }}
storage = {{ name = "btrfs", root = "{root}" }}
"""


@pytest.fixture
def job(sites, tmp_path):
    """Write two configurations of one job: one gives up at once, the other goes on."""
    sides = "".join(
        SIDE.format(side=side, root=site.root, rate_limit=RATE_LIMIT)
        for side, site in zip(("sender", "receiver"), sites, strict=False)
    )
    paths = {}
    for name, retry_for in (("once", "0s"), ("stubborn", "1h")):
        paths[name] = tmp_path / f"{name}.toml"
        paths[name].write_text(CONFIG.format(retry_for=retry_for, sides=sides))
    return paths


def start(config):
    return subprocess.Popen(
        [sys.executable, "-c", FSREP, "run", "--config", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    return process.returncode, output


def engine(process, word):
    """Give the pid of a running ``btrfs send`` or ``btrfs receive`` of a run, or ``None``."""
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            argv = command_line(child)
            if len(argv) > 1 and argv[1] == word.encode():
                return int(child)
    return None


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def wait_for_engine(process, word):
    while process.poll() is None:
        pid = engine(process, word)
        if pid is not None:
            return pid
        time.sleep(0.001)
    return None


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def strike_run(process, moment, duration_seconds):
    """Kill fsrep after a part of the time that a run takes."""
    time.sleep(moment * duration_seconds)
    kill(process.pid)


def strike_engine(word):
    def strike(process, moment, duration_seconds):
        """Kill an engine after a part of the time that it works."""
        pid = wait_for_engine(process, word)
        if pid is not None:
            time.sleep(moment * duration_seconds)
            kill(pid)

    return strike


STRIKES = {
    "fsrep": strike_run,
    "btrfs send": strike_engine("send"),
    "btrfs receive": strike_engine("receive"),
}


@pytest.mark.parametrize("victim", STRIKES)
def test_killed_at_any_moment(sites, job, tools, victim):
    """Each time the next run converges, and until then nothing is wrong."""
    a, b, _ = sites
    strike = STRIKES[victim]
    seed = f"{victim} 1"
    chance = random.Random(seed)
    docs = a.subvolume("docs")
    interrupted = number = 0
    duration_seconds = warm_up(a, job, docs, chance, victim)

    while interrupted < MOMENTS:
        number += 1
        moment = chance.random()
        where = f"seed {seed!r}, trial {number}, moment {moment:.3f} of {duration_seconds:.2f}s"
        assert number <= 3 * MOMENTS, f"only {interrupted} kills hit something; {where}"
        make_version(a, docs, chance, number)
        process = start(job["once"])
        strike(process, moment, duration_seconds)
        status, output = finish(process)
        interrupted += status != 0
        if status == 0:
            duration_seconds *= 0.9  # too late: the machine is faster than when it was measured
        look(a, b, tools, where)

        status, output = finish(start(job["stubborn"]))

        assert status == 0, f"{where}: {output}"
        sent = look(a, b, tools, where)
        assert sent[-1] == f"v{number}", where
        assert b.left_behind() == [], where
        assert len(tools.subvolumes_below(b.root)) == len(sent), where
        thin_out(a, b, number)


def warm_up(a, job, docs, chance, victim):
    """Replicate once; tell how long the victim lives when nobody kills it."""
    make_version(a, docs, chance, "first")
    started_at = time.monotonic()
    process = start(job["once"])
    if victim != "fsrep":
        engine_pid = wait_for_engine(process, victim.removeprefix("btrfs "))
        started_at = time.monotonic()
        while Path(f"/proc/{engine_pid}/exe").is_symlink() and command_line(engine_pid)[1:]:
            time.sleep(0.001)
        lived_seconds = time.monotonic() - started_at
    status, output = finish(process)
    assert status == 0, output
    return time.monotonic() - started_at if victim == "fsrep" else lived_seconds


def make_version(site, docs, chance, number):
    """Change much of the filesystem, so that there is a stream to be cut."""
    for part in range(4):
        (docs / f"part{part}").write_bytes(chance.randbytes(STREAM_BYTES // 4))
    trio.run(site.snapshot, f"v{number}")


def look(a, b, tools, where):
    """Check what the receiver lists; give the names of its versions, oldest first."""
    for site in (a, b):
        site.reopen()
    sent = trio.run(a.versions)
    received = trio.run(b.versions)
    cursor = trio.run(a.cursor)
    assert received.items() <= sent.items(), where
    if received:
        newest = list(received)[-1]
        assert tools.same_content(a.place(newest), b.place(newest)) == [], where
    assert cursor is None or cursor.guid in received.values(), where
    for path in tools.subvolumes_below(b.root / "snapshots" / "docs"):
        assert "ro=true" in tools.btrfs("property", "get", "-ts", path), where
    return list(received)


def thin_out(a, b, number):
    """Keep the newest only: the file systems are small."""
    for site in (a, b):
        filesystem = trio.run(site.filesystem)
        old = [each for each in filesystem.versions if each.name != f"v{number}"]
        for result in trio.run(site.destroy, old):
            assert result.problem is None
