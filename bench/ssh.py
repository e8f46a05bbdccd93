"""From a pipe here to a pipe at the far side of an ssh, beside ``ssh host 'cat > /dev/null'``.

An sshd of our own on loopback, with keys and configuration in a temporary directory. The
maker here is ``dd`` with blocks of 1 MiB; what takes the bytes at the far side is ``dd``
for fsrep, as a storage would have it, and ``cat`` for ssh alone. ``fsrep`` is the transport
as jobs use it: the wire, its heartbeats, its count of bytes, the taker's exit status in the
answer.

``ratio`` compares with ssh alone under the cipher that the transport chooses, and
``ratio_default`` with ssh as it comes. Each round moves the same amount each way, in turns
short enough that the noise of a busy machine touches all alike; a ratio is the median over
the rounds. What is timed begins when the connection is there, and ends when the far side
has everything. CPU seconds are those of both sides, sshd included.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from fsrep_core import (
    EndpointContext,
    InventoryRequest,
    ReceiveRequest,
    Side,
    StorageChoice,
    StorageError,
    Version,
    VersionKind,
    open_process_stream,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.metering import MeteredStream
from fsrep_ssh import Ssh, SshConfig
from fsrep_ssh.ciphers import AES_GCM_FIRST
from fsrep_ssh.config import LEFT_TO_SSH, command_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

ROUNDS = 5
TURNS = 2
MIB = 1 << 20
SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
AuthorizedKeysFile {root}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"""


def run(options: argparse.Namespace) -> dict[str, object]:
    turn_mib = 256 if options.quick else 1024
    with tempfile.TemporaryDirectory() as directory, sshd(Path(directory)) as (server, config):
        ways: dict[str, Callable[[int], float]] = {
            "fsrep": lambda mib: through_fsrep(config(AES_GCM_FIRST), mib),
            "ssh": lambda mib: through_ssh(config(AES_GCM_FIRST), mib),
            "ssh_default": lambda mib: through_ssh(config(LEFT_TO_SSH), mib),
        }
        for way in ways.values():  # the first use pays for imports and page faults
            way(16)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            seconds, cpu = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
            for _ in range(TURNS):
                for name, way in ways.items():
                    cpu_before = cpu_seconds(server)
                    seconds[name] += way(turn_mib)
                    cpu[name] += cpu_seconds(server) - cpu_before
            for name in ways:
                rates[name].append(TURNS * turn_mib / seconds[name])
                costs[name].append(cpu[name] / (TURNS * turn_mib / 1024))
    return {
        "ratio": median_ratio(rates["fsrep"], rates["ssh"]),
        "ratio_default": median_ratio(rates["fsrep"], rates["ssh_default"]),
        "cipher": AES_GCM_FIRST.removeprefix("^").partition(",")[0],
        "round_mib": TURNS * turn_mib,
        "mib_per_second": {name: [round(rate) for rate in rates[name]] for name in ways},
        "cpu_seconds_per_gib": {name: round(statistics.median(costs[name]), 3) for name in ways},
    }


@contextmanager
def sshd(root: Path) -> Iterator[tuple[int, Callable[[str], SshConfig]]]:
    """Run an sshd; give its process, and what makes the transport's options for a cipher."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program, "install openssh-server"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (root / "sshd_config").write_text(SSHD.format(port=port, root=root))
    words = (root / "host_key.pub").read_text().split()[:2]
    (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(words)}\n")
    far_side = shlex.join([sys.executable, "-m", "bench._ssh_far"])

    def config(ciphers: str) -> SshConfig:
        return SshConfig(
            host="127.0.0.1",
            port=port,
            identity_file=root / "key",
            ciphers=ciphers,
            options=(f"UserKnownHostsFile={root}/known_hosts", "IdentityAgent=none"),
            command=f"cd {shlex.quote(str(Path(__file__).parents[1]))} && exec {far_side}",
        )

    with subprocess.Popen(
        [program, "-D", "-f", str(root / "sshd_config")], stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(port)
            yield server.pid, config
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("sshd does not start")


def maker(size_mib: int) -> list[str]:
    return ["dd", "if=/dev/zero", "bs=1M", f"count={size_mib}", "status=none"]


def through_ssh(config: SshConfig, size_mib: int) -> float:
    ciphers = None if config.ciphers == LEFT_TO_SSH else config.ciphers
    *words, _ = command_line(config, ciphers)
    with subprocess.Popen(
        [*words, "echo; cat > /dev/null"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ssh:
        assert ssh.stdin is not None
        assert ssh.stdout is not None
        assert ssh.stdout.readline() == b"\n"
        started = time.perf_counter()
        with subprocess.Popen(maker(size_mib), stdout=ssh.stdin) as making:
            ssh.stdin.close()
            assert making.wait() == 0
        assert ssh.wait() == 0
        return time.perf_counter() - started


def through_fsrep(config: SshConfig, size_mib: int) -> float:
    def create_storage() -> object:
        raise AssertionError("the storage is at the far side")

    async def job() -> float:
        choice = StorageChoice(name="sink", options={}, create=create_storage)
        context = EndpointContext(job="bench", side=Side.RECEIVER, storage=choice)
        async with Ssh(config).open_endpoint(context) as plugin:
            endpoint = Endpoint(plugin, name="receiver")
            await endpoint.inventory(InventoryRequest(job="bench"))
            started = time.perf_counter()
            async with open_process_stream(maker(size_mib), explain=explain) as stream:
                metered = MeteredStream(stream, lambda _total_bytes: None)
                version = Version(VersionKind.SNAPSHOT, "v", "guid", 1, 0.0)
                request = ReceiveRequest(job="bench", filesystem="fs", to_version=version)
                await endpoint.receive(request, metered)
                assert metered.total_bytes == size_mib * MIB
            return time.perf_counter() - started

    return trio.run(job)


def explain(status: int, stderr: str) -> StorageError:
    return StorageError(f"dd ended with {status}: {stderr}")


def cpu_seconds(server: int) -> float:
    """CPU seconds of this process, of its children, and of an sshd whose sessions have ended."""
    children = Path(f"/proc/{server}/task/{server}/children")
    while children.read_text():
        time.sleep(0.01)
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    of_sshd = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return sum(os.times()[:4]) + of_sshd


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
