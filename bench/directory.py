"""A whole replication of 100,000 files beside the tools that a user would pick instead.

The tree has 1,000 directories of 100 files of 0.1 to 10 kB. Every contender copies the
same tree to the same filesystem, in turns, each after a ``sync``, with warm caches.

* ``full``: ``fsrep run`` of a first version, beside ``tar | tar``. ``ratio_tar`` is the
  time of the one over the other; at most 3 is the aim.
* ``incremental``: ``fsrep run`` after one file in a hundred was written anew, beside
  ``rsync -a`` over its copy of the last round. ``ratio_rsync``; at most 2 is the aim.

A replication here is all that the job does: start, both inventories, estimate, sending
and receiving, the digests of all content, making it durable, the cursor. tar and rsync
do not wait for the disk, so ``*_durable`` adds a ``sync`` to each of them: that is what
the replication's time has to be held against where durability matters. Making the
version on the sender is told apart (``create_*``), as it is no part of a replication.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from fsrep_core import CreateVersionRequest
from fsrep_directory.storage import DirectoryConfig, DirectoryStorage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

FILES_PER_DIRECTORY = 100
CONFIG = """
[[job]]
name = "bench"
filesystems = ["docs"]
[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{sender}" }}
[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{receiver}" }}
"""


def run(options: argparse.Namespace) -> dict[str, object]:
    """Measure, and give seconds (medians) and ratios."""
    directories, rounds = (20, 1) if options.quick else (1000, 3)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fsrep-bench-") as name:
        bench = Bench(Path(name), directories)
        for number in range(rounds):
            bench.round(number)
        return bench.figures()


class Bench:
    """One tree, and a copy of it by each contender."""

    def __init__(self, path: Path, directories: int) -> None:
        self.path = path
        self.directories = directories
        self.live = path / "sender" / "docs"
        self.chosen = random.Random(1)
        self.times: dict[str, list[float]] = {}
        self.versions = 0
        for directory in range(directories):
            folder = self.live / f"directory-{directory:04}"
            folder.mkdir(parents=True)
            for file in range(FILES_PER_DIRECTORY):
                self.write(folder / f"file-{file:03}")
        self.receiver = self.extracted = path
        self.config = path / "fsrep.toml"
        self.create("create_first_seconds")

    def round(self, number: int) -> None:
        """Everything once: full copies into nothing, then one percent changed."""
        # Removing a copy takes as long as making it; that waits until the end.
        self.receiver = self.path / f"receiver-{number}"
        self.receiver.mkdir()
        self.extracted = self.path / f"tar-{number}"
        self.extracted.mkdir()
        self.config.write_text(
            CONFIG.format(sender=self.live.parent, receiver=self.receiver), encoding="utf-8"
        )
        # Who goes first changes from round to round.
        full = [("fsrep_full", self.fsrep), ("tar", self.tar)]
        for name, contender in full if number % 2 else full[::-1]:
            self.measure(name, contender)
        self.rsync()
        self.change()
        self.create("create_incremental_seconds")
        incremental = [("fsrep_incremental", self.fsrep), ("rsync", self.rsync)]
        for name, contender in incremental if number % 2 else incremental[::-1]:
            self.measure(name, contender)

    def figures(self) -> dict[str, object]:
        """The medians, and the ratios of what was measured in the same round."""
        found: dict[str, object] = {"files": self.directories * FILES_PER_DIRECTORY}
        for name, times in sorted(self.times.items()):
            found[name] = round(statistics.median(times), 3)
        for name, ours, theirs in (
            ("ratio_tar", "fsrep_full", "tar"),
            ("ratio_tar_durable", "fsrep_full", "tar_durable"),
            ("ratio_rsync", "fsrep_incremental", "rsync"),
            ("ratio_rsync_durable", "fsrep_incremental", "rsync_durable"),
        ):
            pairs = zip(self.times[f"{ours}_seconds"], self.times[f"{theirs}_seconds"], strict=True)
            found[name] = round(statistics.median(one / other for one, other in pairs), 2)
        return found

    def measure(self, name: str, contender: Callable[[], None]) -> None:
        """Time a contender; also until the disk has it, where it does not wait itself."""
        os.sync()
        start = time.perf_counter()
        contender()
        self.add(f"{name}_seconds", start)
        if not name.startswith("fsrep"):
            os.sync()
            self.add(f"{name}_durable_seconds", start)

    def add(self, name: str, start: float) -> None:
        """Keep the time since then."""
        self.times.setdefault(name, []).append(time.perf_counter() - start)

    def fsrep(self) -> None:
        """Replicate, as an operator does."""
        fsrep = Path(sys.executable).with_name("fsrep")
        command: list[str | Path] = [fsrep, "run", "--config", self.config]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def tar(self) -> None:
        """Copy by tar | tar."""
        with subprocess.Popen(
            ["tar", "-C", self.live, "-cf", "-", "."], stdout=subprocess.PIPE
        ) as maker:
            subprocess.run(
                ["tar", "-C", self.extracted, "-xf", "-"], stdin=maker.stdout, check=True
            )
        assert maker.returncode == 0

    def rsync(self) -> None:
        """Copy, or bring up to date, by rsync."""
        subprocess.run(["rsync", "-a", f"{self.live}/", self.path / "rsync"], check=True)

    def change(self) -> None:
        """Write one file in a hundred anew."""
        for directory in sorted(self.live.iterdir()):
            self.write(directory / f"file-{self.chosen.randrange(FILES_PER_DIRECTORY):03}")

    def write(self, path: Path) -> None:
        """Write a small file of random content."""
        path.write_bytes(self.chosen.randbytes(self.chosen.randint(100, 10_000)))

    def create(self, name: str) -> None:
        """Make a version on the sender."""
        config = DirectoryConfig(root=str(self.live.parent))  # type: ignore[arg-type]
        storage = DirectoryStorage(config)
        self.versions += 1
        request = CreateVersionRequest(job="bench", filesystems=("docs",), name=f"v{self.versions}")
        with self.timed(name):
            (result,) = trio.run(storage.create_version, request)
        assert result.problem is None, result.problem

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a block, from a quiet disk on."""
        os.sync()
        start = time.perf_counter()
        yield
        self.add(name, start)
