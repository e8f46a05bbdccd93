"""Three hosts: two that keep versions and serve them, and one that is between them.

Each is a network namespace with a real sshd and, where a test wants it, a real
``fsrep serve``. They share this machine's disk, so that the test can look at all of it.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from fsrep_core.ops import certificates
from real_hosts import Network, network_of, why_no_hosts
from real_sshd import FSREP, SSHD, Server, inline, make_key, run, server
from real_sshd import scene as ssh_scene
from real_tls import Daemon, Hosts, all_hosts, daemon, hosts, issue, kit

__all__ = ["all_hosts", "hosts", "keys", "kit", "network", "scene", "server", "ssh_scene"]

NAMES = ("one", "two", "three")
DEADLINE_SECONDS = 120
SETTLE_SECONDS = 10


@pytest.fixture(scope="session")
def network():
    reason = why_no_hosts()
    if reason is not None:
        pytest.skip(reason)
    with network_of(*NAMES) as network:
        network.wait_until_all_answer()
        yield network


@attrs.frozen
class Keys:
    """What hosts prove themselves with: keys for ssh, certificates for TLS."""

    root: Path
    hosts: Hosts

    def ssh_options(self):
        return {
            "identity_file": str(self.root / "key"),
            "options": [
                f"UserKnownHostsFile={self.root}/known_hosts",
                "GlobalKnownHostsFile=/dev/null",
                "IdentityAgent=none",
            ],
            "command": f"{FSREP} endpoint",
        }


@pytest.fixture(scope="session")
def keys(network, tmp_path_factory):
    root = tmp_path_factory.mktemp("keys")
    make_key(root / "key")
    make_key(root / "host_key")
    host_key = " ".join((root / "host_key.pub").read_text().split()[:2])
    addresses = [address for host in network.hosts for address in host.addresses]
    (root / "known_hosts").write_text("".join(f"{each} {host_key}\n" for each in addresses))
    certificates.make_ca(root / "tls", lifetime=timedelta(days=30))
    for host in network.hosts:
        issue(root / "tls", host.name, *host.addresses)
    return Keys(root, Hosts(root / "tls"))


@attrs.frozen
class Disk:
    """A file system in memory, whose size can be changed."""

    root: Path

    def resize(self, size_bytes, *options):
        """Change its size; not below what is in use."""
        words = [shutil.which("mount"), *(options or ("-o", "remount"))]
        run(*words, "-o", f"size={size_bytes}", self.root, check=True)


@pytest.fixture(scope="session")
def disk(network, tmp_path_factory):
    """One for all hosts: what is mounted later is not seen by those who live already."""
    disk = Disk(tmp_path_factory.mktemp("disk"))
    disk.resize(1 << 20, "-t", "tmpfs", "fsrep-test")
    yield disk
    run(shutil.which("umount"), "--lazy", disk.root, check=True)


@pytest.fixture(scope="session")
def listening_sshds(network, keys, disk, tmp_path_factory):
    """An sshd on each host, which lets the key in; gives their process ids."""
    if SSHD is None:
        pytest.skip("sshd is not installed")
    with ExitStack() as stack:
        servers = []
        for host in network.hosts:
            if not host.namespace:
                continue  # this one, which a test has added
            root = tmp_path_factory.mktemp(f"sshd-{host.name}")
            shutil.copy(keys.root / "host_key", root)
            shutil.copy(keys.root / "key.pub", root / "authorized_keys")
            server = Server(root, port=22, addresses=host.addresses, within=host.within())
            server.start()
            stack.callback(server.stop)
            servers.append(server.process.pid)
        yield servers


@attrs.define(eq=False)
class Scene:
    """What a test of hosts has at hand."""

    root: Path
    network: Network
    keys: Keys
    listeners: list[int]
    """The processes that stay."""
    _stack: ExitStack
    daemons: dict[str, Daemon] = attrs.field(factory=dict)
    places: dict[str, Path] = attrs.field(factory=dict)
    """Where hosts have their storage, if not below the root."""

    def host(self, name):
        return next(each for each in self.network.hosts if each.name == name)

    def place(self, name):
        """The root of the storage of a host."""
        return self.places.get(name, self.root / name)

    def tree(self, name, version, filesystem="docs"):
        return self.place(name) / ".fsrep" / filesystem / f"@{version}" / "tree"

    def storage(self, name):
        return {"name": "directory", "root": str(self.place(name)), "create_root": True}

    def serve(self, name):
        """Start ``fsrep serve`` on a host; every other host may send and receive there."""
        host = self.host(name)
        files = "".join(f'{key} = "{file}"\n' for key, file in self.keys.hosts.files(name).items())
        identities = "".join(
            f'[[identity]]\nname = "{each}"\nstorage = {inline(self.storage(name))}\n'
            'permissions = ["send", "receive", "create"]\n'
            for each in NAMES
            if each != name
        )
        config = self.root / f"serve-{name}.toml"
        config.write_text(f'[serve]\n[[serve.listener]]\nname = "tls"\n{files}{identities}')
        server = self._stack.enter_context(daemon(config, host.within()))
        self.listeners.append(server.process.pid)
        self.daemons[name] = server
        return server

    def way(self, transport, source, target, family="ipv4", **options):
        """The transport's table for a job that runs on ``source``."""
        if transport == "local-pipe":
            return {"name": "local-pipe"}
        address = getattr(self.host(target), family)
        if transport == "ssh":
            return {"name": "ssh", "host": address, **self.keys.ssh_options(), **options}
        files = {key: str(file) for key, file in self.keys.hosts.files(source).items()}
        return {"name": "tls", "host": address, **files, **options}

    def write_job(self, sender, receiver, settings='retry_for = "0s"', pace="", name="job"):
        """Write a job; each side is the name of its host and the way to it.

        :param pace: a setting of each side
        """
        lines = ["[[job]]", f'name = "{name}"', 'filesystems = ["docs"]', settings]
        for side, (place, way) in {"sender": sender, "receiver": receiver}.items():
            storage = inline(self.storage(place))
            lines += [f"[job.{side}]", pace, f"transport = {inline(way)}", f"storage = {storage}"]
        config = self.root / f"{name}.toml"
        config.write_text("\n".join(lines))
        return config

    def fsrep(self, name, *words):
        """Run a command of fsrep on a host."""
        argv = self.host(name).within(FSREP, *words)
        return run(*argv, timeout=DEADLINE_SECONDS, cwd=self.root)

    def run_job(self, name, config):
        """Run a job on a host; give its report."""
        ended = self.fsrep(name, "run", "--config", config, "--json")
        assert ended.stdout, ended.stderr
        return self.report_of(ended.stdout)

    def start_job(self, name, config):
        """Begin a run on a host; its report comes on its standard output."""
        argv = self.host(name).within(FSREP, "run", "--config", config, "--json")
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.root
        )

    def make_version(self, name, version, seed, size_bytes=200_000):
        """Change what a host has, and make a version of it there.

        :param size_bytes: of the largest files, of which there is at least one
        """
        chance = random.Random(seed)
        largest = self.place(name) / "docs" / "largest"
        largest.parent.mkdir(parents=True, exist_ok=True)
        largest.write_bytes(chance.randbytes(size_bytes))
        for number in range(12):
            file = self.place(name) / "docs" / f"d{number % 3}" / f"f{chance.randrange(40)}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chance.randbytes(chance.choice([0, 10, 5000, size_bytes])))
            file.chmod(chance.choice([0o600, 0o644, 0o755]))
        local = {"name": "local-pipe"}
        config = self.write_job((name, local), ("nowhere", local), name="snapshot")
        ended = self.fsrep(name, "snapshot", "--config", config, "--name", version)
        assert ended.returncode == 0, ended.stderr

    @staticmethod
    def report_of(printed):
        """The report of the one job of a run."""
        return json.loads(printed)["jobs"][0]

    @staticmethod
    def problem_of(report):
        """What went wrong: of the run, or else of its filesystems; ``None`` = nothing."""
        replications = [*report["active"], *report["completed"], *report["pending"]]
        return next((each["problem"] for each in (report, *replications) if each["problem"]), None)

    def working(self, *names):
        """The processes of some hosts, or of all, that do not merely listen: id to words."""
        found = set(self.network.processes(*map(self.host, names))) - set(self.listeners)
        return {pid: words for pid in sorted(found) if (words := words_of(pid))}

    def left_behind(self, seconds=SETTLE_SECONDS):
        """What still runs after a while; a server may need a moment to see its client leave."""
        deadline = time.monotonic() + seconds
        while (left := self.working()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


def words_of(pid):
    """The command line of a process; ``""`` = it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def scene(network, keys, listening_sshds, tmp_path):
    """Three hosts with empty disks; nothing may run on them in the end."""
    with ExitStack() as stack:
        for name in NAMES:
            (tmp_path / name).mkdir()
        yield Scene(tmp_path, network, keys, list(listening_sshds), stack)
