"""Certificates of every kind, and a server on loopback that serves whatever a test wants."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from fsrep_core import EndpointContext, PermissionDeniedError, Side, StorageChoice
from fsrep_core.ops import certificates
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy, Permission
from fsrep_core.runtime.remote.reception import Left, Limits, Reception
from fsrep_core.runtime.remote.server import Admission, Service
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.testing import ProbeStorage
from fsrep_tls.config import TlsConfig, TlsListenerConfig
from fsrep_tls.dialing import TlsTransport
from fsrep_tls.listening import TlsListener

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = timedelta(days=1)


@attrs.frozen
class Hosts:
    """A CA, and certificates of hosts."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def files(self, name: str, ca: Path | None = None) -> dict[str, Path]:
        """Give the options that name the files of a host."""
        return {
            "ca": ca or self.ca,
            "certificate": self.directory / f"{name}.pem",
            "key": self.directory / f"{name}.key",
        }


def issue(directory: Path, *names: str, lifetime: timedelta = DAY) -> None:
    certificates.issue(directory, names, lifetime=lifetime)


@pytest.fixture(scope="session")
def all_hosts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hosts")
    certificates.make_ca(directory, lifetime=30 * DAY)
    issue(directory, "localhost", "127.0.0.1", "::1")
    for name in ("laptop", "desktop", "stranger"):
        issue(directory, name)
    issue(directory, "expired", "localhost", lifetime=timedelta(minutes=-30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "CLOCK_SKEW", timedelta(hours=-1))
        issue(directory, "early", "localhost")
    return directory


@pytest.fixture
def hosts(all_hosts, tmp_path):
    """Certificates of a CA; a copy that the test may change."""
    shutil.copytree(all_hosts, tmp_path / "hosts")
    return Hosts(tmp_path / "hosts")


@pytest.fixture
def other_hosts(tmp_path):
    """Another CA, and a host that it believes."""
    directory = tmp_path / "other"
    certificates.make_ca(directory, lifetime=30 * DAY)
    issue(directory, "localhost")
    issue(directory, "laptop")
    return Hosts(directory)


def probe_admission(identity: str, permissions=frozenset(Permission)) -> Admission:
    endpoint = Endpoint(ProbeStorage(), name="storage", call_timeout_seconds=float("inf"))
    return Admission(
        endpoint=endpoint, policy=PeerPolicy(identity=identity, permissions=permissions)
    )


@attrs.define(eq=False)
class Server:
    """A server in this process, and what it has noted."""

    port: int = 0
    visits: list = attrs.field(factory=list)
    operations: list = attrs.field(factory=list)
    stopping: trio.Event = attrs.field(factory=trio.Event)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def note(self, visit) -> None:
        self.visits.append(visit)
        self._changed.set()
        self._changed = trio.Event()

    async def left(self, count: int) -> list[Left]:
        """Wait until so many connections have ended."""
        with trio.fail_after(30):
            while len(gone := [each for each in self.visits if isinstance(each, Left)]) < count:
                await self._changed.wait()
        return gone

    async def first_to_leave(self) -> Left:
        return (await self.left(1))[0]


@asynccontextmanager
async def serving(  # noqa: PLR0913  (each is what some test varies)
    hosts: Hosts,
    admissions: dict[str, Admission] | None = None,
    *,
    name: str = "localhost",
    address: str = "127.0.0.1",
    ca: Path | None = None,
    limits: Limits | None = None,
    timing: Timing | None = None,
):
    """Serve on loopback, in this process, for as long as the context."""
    if admissions is None:
        admissions = {"laptop": probe_admission("laptop")}
    server = Server()

    def admission_of(identity):
        if identity not in admissions:
            raise PermissionDeniedError(f'this server does not know "{identity}"', local=False)
        return admissions[identity]

    listener = TlsListener(TlsListenerConfig(address=address, port=0, **hosts.files(name, ca)))
    async with trio.open_nursery() as nursery:
        reception = Reception(
            nursery,
            admission_of,
            limits=limits or Limits(),
            service=Service(
                timing=timing or Timing(),
                stopping=server.stopping,
                on_served=server.operations.append,
            ),
            tell=server.note,
        )
        addresses = await nursery.start(listener.serve, reception.welcome)
        server.port = int(addresses[0].rpartition(":")[2])
        yield server
        nursery.cancel_scope.cancel()


def transport_to(port: int, files: dict, **options) -> TlsTransport:
    options = {"host": "127.0.0.1", "server_name": "localhost"} | options
    return TlsTransport(TlsConfig(port=port, **files, **options))


def context_of(side: Side = Side.RECEIVER) -> EndpointContext:
    def nowhere():
        raise AssertionError("the storage is on the other host")

    return EndpointContext(
        job="kit", side=side, storage=StorageChoice(name="probe", options={}, create=nowhere)
    )


@asynccontextmanager
async def reaching(port: int, files: dict, **options):
    """Give the typed endpoint behind a port."""
    async with transport_to(port, files, **options).open_endpoint(context_of()) as plugin:
        yield Endpoint(plugin, name="receiver")


@asynccontextmanager
async def served(hosts: Hosts, admissions=None, *, client: str = "laptop"):
    """Give a server, and the endpoint as a client of it has it."""
    async with (
        serving(hosts, admissions) as server,
        reaching(server.port, hosts.files(client)) as endpoint,
    ):
        yield server, endpoint


# --- real processes -----------------------------------------------------------------------


@attrs.frozen
class Site:
    """Two hosts on one: configurations, roots and certificates."""

    root: Path
    hosts: Hosts

    def write_server(self, identities: str, extra: str = "", name: str = "localhost") -> Path:
        path = self.root / "server.toml"
        path.write_text(
            f"[serve]\n{extra}\n[[serve.listener]]\n"
            f'name = "tls"\naddress = "127.0.0.1"\nport = 0\n{self.as_toml(name)}{identities}'
        )
        return path

    def as_toml(self, name: str) -> str:
        return "".join(f'{key} = "{path}"\n' for key, path in self.hosts.files(name).items())

    def identity(self, name: str, root: Path, permissions=("send", "receive")) -> str:
        return (
            f'[[identity]]\nname = "{name}"\n'
            f'storage = {{ name = "directory", root = "{root}", create_root = true }}\n'
            f"permissions = {json.dumps(permissions)}\n"
        )

    def write_job(
        self, port: int, *, push: bool, here: Path, name: str = "laptop", extra: str = ""
    ) -> Path:
        """Write a job between a directory here and whatever the server gives."""
        sides = ["sender", "receiver"] if push else ["receiver", "sender"]
        tls = ", ".join(f'{key} = "{path}"' for key, path in self.hosts.files(name).items())
        path = self.root / f"{name}.toml"
        path.write_text(
            f'[[job]]\nname = "docs"\nfilesystems = ["**"]\n{extra}\n'
            f"[job.{sides[0]}]\n"
            'transport = { name = "local-pipe" }\n'
            f'storage = {{ name = "directory", root = "{here}", create_root = true }}\n'
            f"[job.{sides[1]}]\n"
            f'transport = {{ name = "tls", host = "localhost", port = {port}, {tls} }}\n'
            'storage = { name = "directory", root = "/the/server/decides" }\n'
        )
        return path


@pytest.fixture
def site(tmp_path, hosts):
    return Site(tmp_path, hosts)


FSREP = [sys.executable, "-c", "from fsrep_core.ops.cli import main; main()"]


def run_fsrep(*arguments: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    argv = [*FSREP, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)


@attrs.define(eq=False)
class Daemon:
    """A running ``fsrep serve``."""

    process: subprocess.Popen
    log_path: Path
    port: int = 0

    @property
    def lines(self) -> list[dict]:
        written = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in written if line.startswith("{")]

    def events(self, name: str) -> list[dict]:
        return [line for line in self.lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1, seconds: float = 60) -> list[dict]:
        deadline = time.monotonic() + seconds
        while len(found := self.events(name)) < count:
            assert time.monotonic() < deadline, f"no {name!r}: {self.log_path.read_text()}"
            assert self.process.poll() is None, self.log_path.read_text()
            time.sleep(0.02)
        return found

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def daemon(config: Path, within: Sequence[str] = (), arguments: Sequence[object] = ()):
    """Run ``fsrep serve`` until the context ends, and kill it if it still runs then.

    :param within: what begins a command line on the host where it is to run
    :param arguments: further ones of ``fsrep serve``
    """
    log_path = config.with_suffix(".log")
    with log_path.open("w") as log:
        argv = [*within, *FSREP, "serve", "--config", str(config), "--log-format", "json"]
        process = subprocess.Popen([*argv, *map(str, arguments)], stderr=log)
    server = Daemon(process, log_path)
    try:
        address = server.wait_for("listening")[0]["address"]
        server.port = int(address.rpartition(":")[2])
        yield server
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def closed_port():
    """A port on which nobody listens, for as long as the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def kit():
    """What tests call, in one place: a conftest cannot be imported."""
    return Kit()


class Kit:
    serving = staticmethod(serving)
    reaching = staticmethod(reaching)
    served = staticmethod(served)
    transport_to = staticmethod(transport_to)
    context_of = staticmethod(context_of)
    probe_admission = staticmethod(probe_admission)
    run_fsrep = staticmethod(run_fsrep)
    daemon = staticmethod(daemon)
    issue = staticmethod(issue)
    fsrep_argv = FSREP
