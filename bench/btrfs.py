"""A btrfs job beside ``btrfs send | btrfs receive`` in a shell and beside btrbk.

Two filesystems on one loop device go to a fresh one, for each tool in turn: one in full,
and one in 50 incremental steps from a base that is already there. Every figure is wall
time until the data is on the disk: fsrep syncs before it calls a version received, so
the others are followed by one ``btrfs filesystem sync``. The figures of the shell without
that are reported, too (``..._unsynced``): what a crash would have left of it is less.

``ratio_*`` is the time of fsrep over that of the other, median of the rounds. Needs root,
btrfs-progs, btrbk, two loop devices and 8 GiB of disk.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

ROUNDS = 3
FULL_BYTES = 2 << 30
BASE_BYTES = 512 << 20
CHANGE_BYTES = 20 << 20
"""One percent of the full size changes between two snapshots."""
STEPS = 50
POOL_BYTES = 6 << 30
FILE_BYTES = 16 << 20

FSREP = "from fsrep_core.ops.cli import main; main()"
JOB = """\
[[job]]
name = "bench"
filesystems = ["{filesystem}"]
[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "btrfs", root = "{source}" }}
[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "btrfs", root = "{target}" }}
"""
BTRBK = """\
snapshot_preserve_min all
target_preserve_min all
volume {source}
  snapshot_dir btrbk_snapshots
  target {target}
  subvolume {filesystem}
"""


def sh(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class Bench:
    """The two file systems, and the ways to go from one to the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.target = directory / "target"

    @contextmanager
    def mounted(self, name: str) -> Iterator[None]:
        """Make a fresh btrfs and mount it."""
        image, point = self.directory / f"{name}.img", self.directory / name
        with image.open("wb") as file:
            file.truncate(POOL_BYTES)
        point.mkdir(exist_ok=True)
        sh("mkfs.btrfs", "-q", image)
        sh("mount", "-o", "loop", image, point)
        try:
            yield
        finally:
            sh("umount", point)
            image.unlink()

    def fill(self, full_bytes: int, steps: int) -> None:
        """Make the snapshots, under names that btrbk knows as its own."""
        chance = random.Random(1)
        (self.source / "btrbk_snapshots").mkdir()
        for filesystem, size_bytes in (("full", full_bytes), ("steps", BASE_BYTES)):
            path = self.source / filesystem
            sh("btrfs", "subvolume", "create", path)
            for number in range(size_bytes // FILE_BYTES):
                (path / f"file{number}").write_bytes(chance.randbytes(FILE_BYTES))
        self._snapshot("full", 0)
        self._snapshot("steps", 0)
        for number in range(1, steps + 1):
            for _ in range(CHANGE_BYTES >> 20):
                path = self.source / "steps" / f"file{chance.randrange(BASE_BYTES // FILE_BYTES)}"
                with path.open("r+b") as file:
                    file.seek(chance.randrange(FILE_BYTES >> 20) << 20)
                    file.write(chance.randbytes(1 << 20))
            self._snapshot("steps", number)
        sh("btrfs", "filesystem", "sync", self.source)
        self.snapshots = [self.snapshot("steps", number) for number in range(steps + 1)]

    def snapshot(self, filesystem: str, number: int) -> Path:
        """Give the path of a snapshot."""
        name = f"{filesystem}.20260101T{number // 60:02}{number % 60:02}"
        return self.source / "btrbk_snapshots" / name

    def _snapshot(self, filesystem: str, number: int) -> None:
        source, target = self.source / filesystem, self.snapshot(filesystem, number)
        sh("btrfs", "subvolume", "snapshot", "-r", source, target)

    def seed(self, directory: Path) -> Path:
        """Put the base of the incremental steps into a directory, as the tool wants it."""
        directory.mkdir(parents=True, exist_ok=True)
        base = self.snapshot("steps", 0)
        sh("bash", "-c", f"btrfs send -q {base} | btrfs receive -q {directory}")
        sh("btrfs", "filesystem", "sync", self.target)
        return directory / base.name

    def timed(self, argv: list[str], *, sync: bool = True) -> float:
        """Time a command, until its data is on the disk."""
        started_at = time.perf_counter()
        sh(*argv)
        if sync:
            sh("btrfs", "filesystem", "sync", self.target)
        return time.perf_counter() - started_at

    # --- the ways ---

    def shell(self, *, sync: bool = True) -> tuple[float, float]:
        """Pipe one command into the other."""
        script = self.directory / "loop.sh"
        snapshots = " ".join(map(str, self.snapshots[1:]))
        script.write_text(
            f"set -e -o pipefail\nparent={self.snapshots[0]}\nfor each in {snapshots}; do\n"
            f"btrfs send -q -p $parent $each | btrfs receive -q {self.target}/in\n"
            "parent=$each\ndone\n"
        )
        self.seed(self.target / "in")
        pipe = f"btrfs send -q {self.snapshot('full', 0)} | btrfs receive -q {self.target}/in"
        full = self.timed(["bash", "-o", "pipefail", "-c", pipe], sync=sync)
        sh("btrfs", "filesystem", "sync", self.target)
        return full, self.timed(["bash", str(script)], sync=sync)

    def shell_unsynced(self) -> tuple[float, float]:
        """Do the same, and do not wait for the disk."""
        return self.shell(sync=False)

    def btrbk(self) -> tuple[float, float]:
        """Let btrbk send what is missing."""
        self.seed(self.target)
        return self._both(BTRBK, lambda config: ["btrbk", "-q", "-c", config, "resume"])

    def fsrep(self) -> tuple[float, float]:
        """Let fsrep run two jobs."""
        version = self.snapshot("steps", 0).name
        self.seed(self.target / f"snapshots/steps/@{version}").rename(
            self.target / f"snapshots/steps/@{version}/snapshot"
        )
        return self._both(
            JOB, lambda config: [sys.executable, "-c", FSREP, "run", "--config", config]
        )

    def _both(self, text: str, command: Callable[[str], list[str]]) -> tuple[float, float]:
        seconds = []
        for filesystem in ("full", "steps"):
            config = self.directory / f"{filesystem}.conf"
            config.write_text(
                text.format(filesystem=filesystem, source=self.source, target=self.target)
            )
            seconds.append(self.timed(command(str(config))))
        return seconds[0], seconds[1]

    def measure(self, way: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """Go one way to a fresh file system, and check that all has arrived."""
        with self.mounted("target"):
            seconds = way()
            listing = subprocess.run(
                ["btrfs", "subvolume", "list", "-r", "-R", self.target],
                check=True,
                capture_output=True,
                text=True,
            )
            received = [
                line for line in listing.stdout.splitlines() if "received_uuid -" not in line
            ]
            assert len(received) == len(self.snapshots) + 1, (way, listing.stdout)
        return seconds


def run(options: argparse.Namespace) -> dict[str, float]:
    """Measure. See the module's description."""
    for program in ("btrfs", "mkfs.btrfs", "btrbk"):
        if os.geteuid() != 0 or shutil.which(program) is None:
            sys.exit(f"this benchmark needs root and {program}")
    rounds, full_bytes, steps = (1, 128 << 20, 5) if options.quick else (ROUNDS, FULL_BYTES, STEPS)
    with tempfile.TemporaryDirectory(prefix="fsrep-bench-", dir="/var/tmp") as directory:
        bench = Bench(Path(directory))
        ways = [bench.shell, bench.fsrep, bench.btrbk, bench.shell_unsynced]
        seconds: dict[str, list[tuple[float, float]]] = {way.__name__: [] for way in ways}
        with bench.mounted("source"):
            bench.fill(full_bytes, steps)
            for number in range(rounds):
                # Each way has each place in the order once, more or less.
                for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                    seconds[way.__name__].append(bench.measure(way))
    figures: dict[str, float] = {}
    for place, name in enumerate(("full", "incrementals")):
        median = {
            way: statistics.median(each[place] for each in taken) for way, taken in seconds.items()
        }
        for chosen, value in median.items():
            figures[f"{name}_{chosen}_seconds"] = round(value, 3)
        for other in ("shell", "btrbk", "shell_unsynced"):
            figures[f"ratio_{other}_{name}"] = round(median["fsrep"] / median[other], 3)
    figures["ratio_shell"] = figures["ratio_shell_full"]
    figures["ratio_btrbk"] = max(figures["ratio_btrbk_full"], figures["ratio_btrbk_incrementals"])
    return figures
