"""What an endpoint that ssh starts writes down of its client."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio

from fsrep_core import (
    DescriptorStream,
    DestroyVersionsRequest,
    EndpointContext,
    InventoryRequest,
    PermissionDeniedError,
    Problem,
    Side,
    StorageChoice,
    StreamTransport,
    Version,
    VersionKind,
)
from fsrep_core.errors import ConfigError
from fsrep_core.ops import audit
from fsrep_core.ops.audit import client_address, open_audit_log, served_line, visit_line
from fsrep_core.runtime.remote.reception import Admitted, Left
from fsrep_core.runtime.remote.server import Served

PROBLEM = Problem(message="no room\nat all", temporary=True, local=True, kind="out-of-space")
SOMEBODY = Admitted(identity="laptop", address=None)
CONFIG = """
[[identity]]
name = "laptop"
storage = {{ name = "directory", root = "{root}" }}
permissions = ["receive"]
"""
CONTEXT = EndpointContext(
    job="job",
    side=Side.RECEIVER,
    storage=StorageChoice(name="directory", options={}, create=NotImplemented),
)
FSREP = [sys.executable, "-c", "from fsrep_core.ops.cli import main; main()"]


@pytest.fixture(autouse=True)
def _own_logger(monkeypatch):
    """Each test opens the log as a process does, once."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    logger = logging.getLogger("fsrep.endpoint")
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):  # one disk is full
            handler.close()


@attrs.define(eq=False)
class OverPipes(StreamTransport):
    """Reaches an endpoint that is a child process."""

    arguments: list
    children: list = attrs.field(factory=list)

    def start(self):
        return subprocess.Popen(
            [*FSREP, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SSH_CONNECTION": "192.0.2.7 40312 192.0.2.1 22"},
        )

    async def connect(self, _context):
        child = self.start()
        self.children.append(child)
        receiving, sending = os.dup(child.stdout.fileno()), os.dup(child.stdin.fileno())
        child.stdin.close()
        child.stdout.close()
        return DescriptorStream(receiving, sending)

    async def reap(self):
        for child in self.children:
            await trio.to_thread.run_sync(child.wait, 30)


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "root").mkdir()
    config = tmp_path / "fsrep.toml"
    config.write_text(CONFIG.format(root=tmp_path / "root"))
    return ["endpoint", "--identity", "laptop", "--config", str(config)]


async def test_a_client_leaves_a_line_for_each_connection_and_operation(tmp_path, arguments):
    log = tmp_path / "audit.log"
    transport = OverPipes([*arguments, "--log", str(log)])
    version = Version(VersionKind.SNAPSHOT, "one", "guid", 1)
    request = DestroyVersionsRequest(job="job", filesystem="docs", versions=(version,))

    async with transport.open_endpoint(CONTEXT) as endpoint:
        await endpoint.inventory(InventoryRequest(job="job"))
        with pytest.raises(PermissionDeniedError):
            await endpoint.destroy_versions(request)
    await transport.reap()

    told = [
        re.sub(r"^[-0-9T:.]+Z fsrep\[\d+\]: ", "", line) for line in log.read_text().splitlines()
    ]
    who = "identity=laptop address=192.0.2.7:40312"
    assert told[0] == f"connection opened level=info {who}"
    assert re.fullmatch(
        "operation done level=info identity=laptop operation=inventory seconds=[0-9.]+", told[1]
    )
    assert told[2].startswith(
        "operation failed level=warning identity=laptop operation=destroy_versions filesystem=docs "
    )
    assert 'problem="laptop may not ask for destroy_versions" kind=permission-denied' in told[2]
    assert told[3].startswith(f"connection closed level=info {who} seconds=")
    assert len(told) == 4


async def test_an_identity_that_nobody_knows_is_written_down(tmp_path, arguments):
    log = tmp_path / "audit.log"
    arguments[2] = "stranger"
    transport = OverPipes([*arguments, "--log", str(log)])

    async with transport.open_endpoint(CONTEXT) as endpoint:
        with pytest.raises(ConfigError):
            await endpoint.inventory(InventoryRequest(job="job"))
    await transport.reap()

    (line,) = log.read_text().splitlines()
    assert "connection failed level=warning identity=stranger address=192.0.2.7:40312" in line


def run_endpoint(*arguments):
    return subprocess.run(
        [*FSREP, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_nobody_is_served_whose_log_cannot_be_written(tmp_path, arguments):
    ended = run_endpoint(*arguments, "--log", f"{tmp_path}/missing/audit.log")

    assert ended.returncode == 2
    assert "the endpoint's log cannot be written" in ended.stderr
    assert "No such file or directory" in ended.stderr


def test_without_an_identity_there_is_no_log():
    ended = run_endpoint("endpoint", "--log", "syslog")

    assert ended.returncode == 2
    assert "without an identity, an endpoint keeps no log" in ended.stderr


def test_lines_go_to_the_systems_log_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_SYSLOG_SOCKET", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "log"))
        open_audit_log(None).write(visit_line(SOMEBODY))
        heard = system.recv(10_000)

    priority = 4 * 8 + 6  # auth.info
    text = f"<{priority}>fsrep[{os.getpid()}]: connection opened level=info identity=laptop"
    assert heard == text.encode()


def test_a_host_without_a_system_log_serves_nevertheless(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_SYSLOG_SOCKET", str(tmp_path / "none"))

    open_audit_log(None).write(visit_line(SOMEBODY))

    with pytest.raises(ConfigError, match="syslog"):
        open_audit_log(Path("syslog"))


def test_a_file_may_be_rotated(tmp_path):
    log = open_audit_log(tmp_path / "log")
    log.write(visit_line(SOMEBODY))
    shutil.move(tmp_path / "log", tmp_path / "log.1")
    log.write(visit_line(Admitted(identity="b", address=None)))

    assert "identity=laptop" in (tmp_path / "log.1").read_text()
    assert "identity=b" in (tmp_path / "log").read_text()


def test_a_full_disk_stops_nothing(capfd):
    log = open_audit_log(Path("/dev/full"))
    log.write(visit_line(SOMEBODY))

    assert capfd.readouterr().err == ""


def test_what_a_peer_says_stays_one_line_of_words(tmp_path):
    log = open_audit_log(tmp_path / "log")
    served = Served(
        identity="x", operation="receive", filesystem="a b=\x1b", seconds=0.1, problem=PROBLEM
    )
    log.write(served_line(served))

    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(
        "operation failed level=warning identity=x operation=receive "
        'filesystem="a b=\\u001b" seconds=0.1 bytes=0 problem="no room\\nat all" '
        "kind=out-of-space temporary=true"
    )


def test_a_connection_that_failed_says_why():
    line = visit_line(Left(identity="x", address=None, seconds=1.23456, problem=PROBLEM))

    assert (line.level, line.message) == ("warning", "connection failed")
    assert (line.fields["seconds"], line.fields["problem"]) == (1.235, PROBLEM.message)


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("192.0.2.7 40312 192.0.2.1 22", "192.0.2.7:40312"),
        ("2001:db8::7 40312 2001:db8::1 22", "[2001:db8::7]:40312"),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_address_is_what_sshd_tells(told, address):
    assert client_address({"SSH_CONNECTION": told}) == address


def test_no_address_without_sshd():
    assert client_address({}) is None
