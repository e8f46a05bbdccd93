"""A job's pipe path between two processes, beside a bare kernel pipe between the same two.

The path is what ``local-pipe`` uses: the maker's output as a stream, counted, pumped
into the taker's input, with both exit statuses checked. The bare pipe joins the two
directly, once as the kernel makes it and once enlarged to what fsrep asks for. Makers
and takers are ``dd`` with blocks of 1 MiB, which do as little as a process can.

Each round moves the same amount each way, in turns short enough that the noise of a busy
machine touches all alike, and gives one ratio of throughputs. ``ratio`` is the median
against the pipe as it comes, ``ratio_enlarged`` against the enlarged one. CPU seconds
are those of all processes together, ours too.
"""

from __future__ import annotations

import fcntl
import os
import resource
import statistics
import subprocess
import time
from typing import TYPE_CHECKING

import trio

from fsrep_core import StorageError, feed_process, open_process_stream
from fsrep_core.runtime.metering import MeteredStream
from fsrep_core.runtime.processes import largest_pipe_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

ROUNDS = 5
TURNS = 4
GIB = 1 << 30


def run(options: argparse.Namespace) -> dict[str, object]:
    turn_gib = 1 if options.quick else 2
    ways: dict[str, Callable[[int], None]] = {
        "bare": lambda gib: through_bare_pipe(gib, None),
        "enlarged": lambda gib: through_bare_pipe(gib, largest_pipe_bytes()),
        "fsrep": through_fsrep,
    }
    for way in ways.values():  # the first use pays for imports and page faults
        way(1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        seconds, cpu = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for _ in range(TURNS):
            for name, way in ways.items():
                cpu_before, started = cpu_seconds(), time.perf_counter()
                way(turn_gib)
                seconds[name] += time.perf_counter() - started
                cpu[name] += cpu_seconds() - cpu_before
        for name in ways:
            rates[name].append(TURNS * turn_gib / seconds[name])
            costs[name].append(cpu[name] / (TURNS * turn_gib))
    return {
        "ratio": median_ratio(rates["fsrep"], rates["bare"]),
        "ratio_enlarged": median_ratio(rates["fsrep"], rates["enlarged"]),
        "round_gib": TURNS * turn_gib,
        "pipe_size_bytes": {"bare": default_pipe_bytes(), "fsrep": largest_pipe_bytes()},
        "gib_per_second": {name: [round(rate, 2) for rate in rates[name]] for name in ways},
        "cpu_seconds_per_gib": {name: round(statistics.median(costs[name]), 3) for name in ways},
    }


def maker(size_gib: int) -> list[str]:
    return ["dd", "if=/dev/zero", "bs=1M", f"count={size_gib << 10}", "status=none"]


def taker() -> list[str]:
    return ["dd", "of=/dev/null", "bs=1M", "status=none"]


def through_bare_pipe(size_gib: int, pipe_size_bytes: int | None) -> None:
    source, target = os.pipe()
    if pipe_size_bytes is not None:
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, pipe_size_bytes)
    with (
        subprocess.Popen(maker(size_gib), stdout=target) as making,
        subprocess.Popen(taker(), stdin=source) as taking,
    ):
        os.close(source)
        os.close(target)
        assert making.wait() == 0
        assert taking.wait() == 0


def through_fsrep(size_gib: int) -> None:
    async def job() -> int:
        async with open_process_stream(maker(size_gib), explain=explain) as stream:
            metered = MeteredStream(stream, lambda _total_bytes: None)
            await feed_process(taker(), metered, explain=explain)
            return metered.total_bytes

    assert trio.run(job) == size_gib * GIB


def explain(status: int, stderr: str) -> StorageError:
    return StorageError(f"dd ended with {status}: {stderr}")


def default_pipe_bytes() -> int:
    source, target = os.pipe()
    try:
        return fcntl.fcntl(source, fcntl.F_GETPIPE_SZ)
    finally:
        os.close(source)
        os.close(target)


def cpu_seconds() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
