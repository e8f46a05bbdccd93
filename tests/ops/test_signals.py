"""SIGINT and SIGTERM end a run cleanly, tell so, and leave what the next run needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import trio
import trio.testing

from fsrep_core.ops.signals import interruptible
from fsrep_core.testing.trees import compare_trees


def wait_for(lines, event: str) -> None:
    """Read a log in JSON until an event has happened."""
    for line in lines:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"the run ended without {event!r}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly(fsrep, job, number, status):
    (job.sender / "docs" / "large").write_bytes(os.urandom(4_000_000))
    text = job.config.read_text()
    slow = text.replace("[job.receiver]", '[job.receiver]\nrate_limit = "200 kB/s"')
    job.config.write_text(slow + text.replace('"documents"', '"other"'))
    fsrep("snapshot", "documents", "--name", "one")
    command = [sys.executable, "-c", "from fsrep_core.ops.cli import main; main()", "run"]
    with subprocess.Popen(
        [*command, "--log-format", "json"],
        cwd=job.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(process.stderr, "step started")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert process.returncode == status
    assert out.startswith("documents: interrupted, 0 of 2 filesystems up to date")
    assert "other: not started" in out
    assert f"{number.name}: ending cleanly; once more to end at once" in err
    assert "Traceback" not in err
    assert not job.received("docs", "one").exists()

    job.config.write_text(text)
    assert fsrep("run").status == 0
    assert compare_trees(job.sender / "docs", job.received("docs", "one")) == []


def test_an_interrupted_run_says_so_in_its_document(fsrep, job):
    (job.sender / "docs" / "large").write_bytes(os.urandom(4_000_000))
    slow = job.config.read_text().replace(
        "[job.receiver]", '[job.receiver]\nrate_limit = "200 kB/s"'
    )
    job.config.write_text(slow)
    fsrep("snapshot", "--name", "one")
    command = [sys.executable, "-c", "from fsrep_core.ops.cli import main; main()", "run", "--json"]
    with subprocess.Popen(
        [*command, "--log-format", "json"],
        cwd=job.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(process.stderr, "step started")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    document = json.loads(out)
    assert document["interrupted"] is True
    assert document["exit_status"] == process.returncode == 143
    (run,) = document["jobs"]
    assert run["status"] == "working"
    logged = [json.loads(line)["event"] for line in err.splitlines() if line.startswith("{")]
    assert logged[-2:] == ["step aborted", "run interrupted"]


async def test_the_first_signal_asks_and_the_second_cancels():
    asked = []
    async with interruptible() as interruption:
        interruption.end_cleanly = lambda: asked.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()
        while not asked:
            await trio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    assert asked == [True]
    assert interruption.exit_status == 143


async def test_a_signal_cancels_where_nobody_can_be_asked():
    async with interruptible() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    assert interruption.exit_status == 130


async def test_no_signal_no_status():
    before = signal.getsignal(signal.SIGTERM)
    async with interruptible() as interruption:
        pass

    assert interruption.exit_status is None
    assert signal.getsignal(signal.SIGTERM) is before
