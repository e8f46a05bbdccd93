"""How fast the command line answers, beside the interpreter that it runs in.

``version_ratio`` and ``idle_run_ratio``: the median wall time of ``fsrep --version`` and
of ``fsrep run`` with nothing to do (a job of two directories on this host), each over
the median of ``python -c pass`` plus 0.1 seconds. The three take turns, so that a
machine that is busy is busy for all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

ROUNDS = 15
QUICK_ROUNDS = 3
ALLOWANCE_SECONDS = 0.1

CONFIG = """\
[[job]]
name = "idle"
filesystems = ["data"]

[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/sender" }}

[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/receiver" }}
"""


def run(options: argparse.Namespace) -> dict[str, object]:
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    fsrep = str(Path(sys.executable).with_name("fsrep"))
    with tempfile.TemporaryDirectory(prefix="fsrep-bench-") as name:
        root = Path(name)
        (root / "sender" / "data").mkdir(parents=True)
        (root / "sender" / "data" / "file").write_text("content")
        (root / "receiver").mkdir()
        config = root / "fsrep.toml"
        config.write_text(CONFIG.format(root=root))
        _run([fsrep, "snapshot", "-c", str(config)])
        _run([fsrep, "run", "-c", str(config)])
        commands = {
            "pass": [sys.executable, "-c", "pass"],
            "version": [fsrep, "--version"],
            "idle_run": [fsrep, "run", "-c", str(config)],
        }
        seconds = _take_turns(commands, rounds)
    base = seconds["pass"] + ALLOWANCE_SECONDS
    return {
        "rounds": rounds,
        "pass_seconds": round(seconds["pass"], 4),
        "version_seconds": round(seconds["version"], 4),
        "idle_run_seconds": round(seconds["idle_run"], 4),
        "version_ratio": round(seconds["version"] / base, 3),
        "idle_run_ratio": round(seconds["idle_run"] / base, 3),
    }


def _take_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(_run(command))
    return {name: statistics.median(times) for name, times in taken.items()}


def _run(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started
