"""How many ``zfs`` processes a job costs, and its wall time, beside syncoid and zfs-autobackup.

Five works in a row, from one pool of files in memory to another on the same machine: one
filesystem in full; 10 more snapshots of it; 8 new children with a snapshot each; one more
snapshot on all 9; nothing to do on 9. For fsrep also: nothing to do on 900
(``nothing_900``). Each tool does them twice on fresh pools, in turn with the others: once
with a wrapper that counts what runs as ``zfs`` and ``zpool``, and once timed, without it.

``ratio_syncoid`` and ``ratio_zfs_autobackup`` are the worst of the five works: the wall
time of fsrep over that of the other, each less the time in which its interpreter starts
and imports the tool (``..._start_seconds``). Everything is on one machine, so no
connection is in any figure.

Needs OpenZFS; where the kernel has none, it runs itself in the guest of ``tests/zfs_guest``.
Needs syncoid (Debian: sanoid), and zfs-autobackup beside the Python that runs it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

GUEST = Path(__file__).parents[1] / "tests" / "zfs_guest" / "run"
GUEST_SECONDS = 3 * 3600
MEMORY = "/dev/shm"  # noqa: S108  (pools in memory; the directory made there is private)
POOL_BYTES = 2 << 30
FULL_BYTES = 16 << 20
CHANGE_BYTES = 64 << 10
MORE_SNAPSHOTS = 10
CHILDREN = 8
MANY = 900

WORKS = ("full", "snapshots_10", "children_8", "one_more_9", "nothing_9")
COUNTED = """\
#!/bin/sh
printf '%s\\n' "$*" >>"{log}"
exec {program} "$@"
"""
FSREP = "import sys; from fsrep_core.ops.cli import main; main()"
USED = (
    "fsrep_core.ops.commands.run",
    "fsrep_core.ops.checks",
    "fsrep_core.ops.progress",
    "fsrep_local_pipe",
    "fsrep_zfs.storage",
)
"""What a job imports as it goes on, and others when they start."""
JOB = """\
[[job]]
name = "bench"
filesystems = ["**"]
concurrency = 10
initial = "all"
[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{source}", protect_initial = "{protection}", \
protect_incremental = "{protection}" }}
[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{target}" }}
"""


def sh(*argv: str | Path, check: bool = True) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{argv}: status {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


@attrs.define(eq=False)
class Pools:
    """A source and a target, fresh."""

    directory: Path
    source: str
    target: str

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Pools]:
        """Make both; destroy them in every path out."""
        with tempfile.TemporaryDirectory(prefix="fsrep-bench-", dir=MEMORY) as path:
            names = [f"fsrepbench{os.getpid()}{side}" for side in ("source", "target")]
            made = []
            try:
                for name in names:
                    image = Path(path, name)
                    with image.open("wb") as file:
                        file.truncate(POOL_BYTES)
                    mounts = f"mountpoint={path}/mounts/{name}"
                    sh("zpool", "create", "-o", "cachefile=none", "-O", mounts, name, image)
                    made.append(name)
                yield cls(Path(path), *names)
            finally:
                for name in made:
                    sh("zpool", "destroy", "-f", name)

    def write(self, filesystem: str, size_bytes: int, seed: int) -> None:
        """Write what does not compress."""
        path = self.directory / "mounts" / self.source / filesystem / f"file{seed}"
        path.write_bytes(random.Random(seed).randbytes(size_bytes))

    def prepare(self, work: str) -> None:
        """Make what one of the works has to replicate."""
        top = f"{self.source}/data"
        children = [f"data/child{number}" for number in range(CHILDREN)]
        if work == "full":
            sh("zfs", "create", "-o", "autobackup:bench=true", top)
            self.write("data", FULL_BYTES, 0)
            self._snapshot(top, 0)
        elif work == "snapshots_10":
            for number in range(1, MORE_SNAPSHOTS + 1):
                self.write("data", CHANGE_BYTES, number)
                self._snapshot(top, number)
        elif work == "children_8":
            for number, child in enumerate(children):
                sh("zfs", "create", f"{self.source}/{child}")
                self.write(child, CHANGE_BYTES, number)
            names = [f"{self.source}/{child}@bench-20260101003000" for child in children]
            sh("zfs", "snapshot", *names)
        elif work == "one_more_9":
            for number, each in enumerate(["data", *children], 100):
                self.write(each, CHANGE_BYTES, number)
            sh("zfs", "snapshot", "-r", f"{top}@bench-20260101004000")

    @staticmethod
    def _snapshot(dataset: str, number: int) -> None:
        """Name it so that zfs-autobackup knows it as its own."""
        sh("zfs", "snapshot", f"{dataset}@bench-2026010100{number:02}00")

    def check(self, tool: Tool) -> None:
        """Compare what both sides have; a tool that replicated less was not faster."""
        guids = [
            sorted(sh("zfs", "list", "-Hr", "-t", "snapshot", "-o", "guid", root).split())
            for root in (f"{self.source}/data", self.target)
        ]
        assert guids[0] == guids[1], f"{tool.name} did not replicate everything"


@attrs.define(eq=False)
class Tool:
    """Something that replicates ``SOURCE/data`` to ``TARGET/data`` with all below it."""

    start_status: ClassVar = 0
    """With what the command that does nothing ends."""

    @property
    def name(self) -> str:
        """Its name in the figures."""
        raise NotImplementedError

    def command(self, pools: Pools) -> list[str]:
        """Give the command that does whatever is to be done."""
        raise NotImplementedError

    def start_command(self) -> list[str]:
        """Give a command that starts the tool and does nothing."""
        raise NotImplementedError


@attrs.define(eq=False)
class Fsrep(Tool):
    """A job over ``local-pipe``."""

    protection: str = "resumable"

    @property
    def name(self) -> str:
        """Names the protection where it is not the default."""
        return "fsrep" if self.protection == "resumable" else f"fsrep_{self.protection}"

    def command(self, pools: Pools) -> list[str]:
        """See the base."""
        config = pools.directory / "fsrep.toml"
        config.write_text(
            JOB.format(source=pools.source, target=pools.target, protection=self.protection)
        )
        return [sys.executable, "-c", FSREP, "run", "--config", str(config)]

    def start_command(self) -> list[str]:
        """See the base."""
        return [sys.executable, "-c", f"import {', '.join(USED)}; {FSREP}", "--version"]


@attrs.define(eq=False)
class Syncoid(Tool):
    """As its manual has it, for snapshots that are there already."""

    name = "syncoid"

    def command(self, pools: Pools) -> list[str]:
        """See the base."""
        return [
            "syncoid", "--quiet", "--recursive", "--no-sync-snap", "--recvoptions=u",
            f"{pools.source}/data", f"{pools.target}/data",
        ]  # fmt: skip

    def start_command(self) -> list[str]:
        """See the base."""
        return ["syncoid", "--version"]


@attrs.define(eq=False)
class ZfsAutobackup(Tool):
    """As its manual has it, for snapshots that are there already, and none destroyed."""

    name = "zfs_autobackup"
    start_status = 255

    def command(self, pools: Pools) -> list[str]:
        """See the base."""
        return [
            *self._program(), "--no-snapshot", "--no-thinning", "--clear-mountpoint",
            "--strip-path=1", "bench", pools.target,
        ]  # fmt: skip

    def start_command(self) -> list[str]:
        """See the base."""
        return [*self._program(), "--version"]

    @staticmethod
    def _program() -> list[str]:
        return [sys.executable, str(Path(sys.executable).with_name("zfs-autobackup"))]


TOOLS: tuple[Tool, ...] = (Fsrep(), Syncoid(), ZfsAutobackup())


@contextmanager
def counting(directory: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give a log and an environment in which each ``zfs`` and ``zpool`` leaves a line there."""
    log = directory / "calls"
    wrappers = directory / "wrappers"
    wrappers.mkdir()
    for name in ("zfs", "zpool"):
        wrapper = wrappers / name
        wrapper.write_text(COUNTED.format(log=log, program=shutil.which(name)))
        wrapper.chmod(0o755)
    yield log, {**os.environ, "PATH": f"{wrappers}:{os.environ['PATH']}"}


def run_tool(
    command: list[str], environment: dict[str, str] | None = None, *, status: int = 0
) -> float:
    """Run a command; give how long it took."""
    started_at = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - started_at
    if done.returncode != status:
        raise RuntimeError(f"{command}: status {done.returncode}: {done.stderr}{done.stdout}")
    return seconds


def count_calls(tool: Tool) -> dict[str, int]:
    """Give the number of processes for each work."""
    calls = {}
    with Pools.made() as pools, counting(pools.directory) as (log, environment):
        for work in WORKS:
            pools.prepare(work)
            command = tool.command(pools)
            log.write_text("")
            run_tool(command, environment)
            calls[work] = len(log.read_text().splitlines())
            pools.check(tool)
    return calls


def time_works(tool: Tool) -> dict[str, float]:
    """Give the seconds for each work."""
    seconds = {}
    with Pools.made() as pools:
        for work in WORKS:
            pools.prepare(work)
            seconds[work] = run_tool(tool.command(pools))
            pools.check(tool)
    return seconds


def count_nothing(many: int) -> int:
    """Give the number of processes for nothing to do on many filesystems."""
    with Pools.made() as pools, counting(pools.directory) as (log, environment):
        zfs_create = ["zfs", "create", "-u"]
        sh(*zfs_create, f"{pools.source}/data")
        for number in range(many - 1):
            sh(*zfs_create, f"{pools.source}/data/child{number}")
        sh("zfs", "snapshot", "-r", f"{pools.source}/data@bench-20260101000000")
        command = Fsrep().command(pools)
        run_tool(command)
        log.write_text("")
        run_tool(command, environment)
        return len(log.read_text().splitlines())


def run(options: argparse.Namespace) -> dict[str, float]:
    """Measure. See the module's description."""
    if not Path("/dev/zfs").exists():
        return run_in_guest(options)
    if shutil.which("syncoid") is None:
        sys.exit("this benchmark needs syncoid")
    many = 20 if options.quick else MANY
    counted = [*TOOLS] if options.quick else [*TOOLS, Fsrep("incremental"), Fsrep("none")]
    return count_all(counted, many) | time_all()


def count_all(tools: list[Tool], many: int) -> dict[str, float]:
    """Count the processes of all works."""
    figures: dict[str, float] = {}
    for tool in tools:
        for work, calls in count_calls(tool).items():
            figures[f"{work}_{tool.name}_calls"] = calls
        tell(figures)
    figures["nothing_900_fsrep_calls"] = count_nothing(many)
    return figures


def time_all() -> dict[str, float]:
    """Time all works, and compare."""
    figures: dict[str, float] = {}
    net: dict[str, dict[str, float]] = {}
    for tool in TOOLS:
        start_seconds = min(
            run_tool(tool.start_command(), status=tool.start_status) for _ in range(3)
        )
        figures[f"{tool.name}_start_seconds"] = round(start_seconds, 2)
        seconds = time_works(tool)
        for work in WORKS:
            figures[f"{work}_{tool.name}_seconds"] = round(seconds[work], 2)
        tell(figures)
        net[tool.name] = {work: seconds[work] - start_seconds for work in WORKS}
    for other in ("syncoid", "zfs_autobackup"):
        ratios = {work: net["fsrep"][work] / net[other][work] for work in WORKS}
        for work, ratio in ratios.items():
            figures[f"ratio_{other}_{work}"] = round(ratio, 3)
        figures[f"ratio_{other}"] = round(max(ratios.values()), 3)
    return figures


def tell(figures: dict[str, float]) -> None:
    """Show what is known so far: in a guest the whole takes most of an hour."""
    sys.stderr.write(f"so far: {json.dumps(figures)}\n")


def run_in_guest(options: argparse.Namespace) -> dict[str, float]:
    """Run this benchmark where OpenZFS is."""
    command = [str(GUEST), "--seconds", str(GUEST_SECONDS)]
    command += [sys.executable, "-m", "bench", "zfs-calls", "--json"]
    command += ["--quick"] if options.quick else []
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("this benchmark failed in the guest")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
