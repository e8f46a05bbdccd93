"""From a pipe of one process to a pipe of another, over TLS 1.3 on loopback.

Three ways, with the same certificates on both sides, between the same makers and takers
(``dd`` with blocks of 1 MiB). ``fsrep`` is the transport ``tls`` as jobs use it: the wire,
its heartbeats, its count of bytes, and the taker's exit status in the answer.
``ssl_stream`` is the shortest peer that one would write on ``trio.SSLStream``: bytes and
nothing else, in pieces as large as fsrep's. ``socat`` is two of it, with openssl, and the
size of buffer with which it was fastest here.

Each round moves the same amount each way, in turns short enough that the noise of a busy
machine touches all alike; a ratio is the median over the rounds of fsrep's throughput by
the other's. What is timed begins when both processes are connected (socat: started) and
ends when the taker has everything. CPU seconds are those of both peers, with their makers
and takers.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_core.ops.certificates import issue, make_ca

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

ROUNDS = 5
TURNS = 2
SOCAT_BUFFER_BYTES = 1 << 16
MIB = 1 << 20


@attrs.frozen
class Turn:
    """One transfer."""

    seconds: float
    cpu_seconds: float


def run(options: argparse.Namespace) -> dict[str, object]:
    turn_mib = 256 if options.quick else 1024
    ways: dict[str, Callable[[Path, int], Turn]] = {
        "fsrep": through_fsrep,
        "ssl_stream": through_ssl_stream,
        "socat": through_socat,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        make_ca(directory, lifetime=timedelta(days=1))
        issue(directory, ["localhost"], lifetime=timedelta(days=1))
        for _ in range(ROUNDS):
            turns: dict[str, list[Turn]] = {name: [] for name in ways}
            for _ in range(TURNS):
                for name, way in ways.items():
                    turns[name].append(way(directory, turn_mib))
            moved_gib = TURNS * turn_mib / 1024
            for name, each in turns.items():
                rates[name].append(moved_gib / sum(turn.seconds for turn in each))
                costs[name].append(sum(turn.cpu_seconds for turn in each) / moved_gib)
    return {
        "ratio_ssl_stream": median_ratio(rates["fsrep"], rates["ssl_stream"]),
        "ratio_socat": median_ratio(rates["fsrep"], rates["socat"]),
        "round_mib": TURNS * turn_mib,
        "gib_per_second": {name: [round(rate, 2) for rate in rates[name]] for name in ways},
        "cpu_seconds_per_gib": {name: round(statistics.median(costs[name]), 3) for name in ways},
    }


def through_fsrep(directory: Path, size_mib: int) -> Turn:
    return through_peers("fsrep", directory, size_mib)


def through_ssl_stream(directory: Path, size_mib: int) -> Turn:
    return through_peers("ssl-stream", directory, size_mib)


def through_peers(name: str, directory: Path, size_mib: int) -> Turn:
    """Let two processes connect, then time what they move."""
    with peer(name, "serve", str(directory), str(size_mib)) as server:
        port = line_of(server)
        with peer(name, "send", str(directory), str(size_mib), port) as client:
            assert line_of(client) == "connected"
            assert client.stdin is not None
            started = time.perf_counter()
            client.stdin.write("go\n")
            client.stdin.flush()
            cpu_seconds = float(line_of(server))
            seconds = time.perf_counter() - started
            cpu_seconds += float(line_of(client))
    return Turn(seconds, cpu_seconds)


@contextmanager
def peer(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "bench._tls_peer", *arguments]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "a peer has ended without a word"
    return line


def through_socat(directory: Path, size_mib: int) -> Turn:
    port = free_port()
    files = (
        f"cert={directory}/localhost.pem,key={directory}/localhost.key,"
        f"cafile={directory}/ca.pem,verify=1,openssl-min-proto-version=TLS1.3"
    )
    socat = ["socat", "-u", "-b", str(SOCAT_BUFFER_BYTES)]
    listen = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,{files}"
    connect = f"OPENSSL:127.0.0.1:{port},commonname=localhost,{files}"
    cpu_before = children_cpu_seconds()
    with (
        subprocess.Popen([*socat, listen, "STDOUT"], stdout=subprocess.PIPE) as server,
        subprocess.Popen(taker(), stdin=server.stdout) as taking,
    ):
        wait_until_listening(port)
        started = time.perf_counter()
        with (
            subprocess.Popen(maker(size_mib), stdout=subprocess.PIPE) as making,
            subprocess.Popen([*socat, "STDIN", connect], stdin=making.stdout) as client,
        ):
            assert server.stdout is not None
            assert making.stdout is not None
            server.stdout.close()
            making.stdout.close()
            assert taking.wait() == 0
            seconds = time.perf_counter() - started
            assert (making.wait(), client.wait(), server.wait()) == (0, 0, 0)
    return Turn(seconds, children_cpu_seconds() - cpu_before)


def maker(size_mib: int) -> list[str]:
    return ["dd", "if=/dev/zero", "bs=1M", f"count={size_mib}", "status=none"]


def taker() -> list[str]:
    return ["dd", "of=/dev/null", "bs=1M", "status=none"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(port: int) -> None:
    """Look at the kernel's list: a connection to try it would be the only one that socat takes."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text(encoding="ascii"):
        time.sleep(0.01)


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
