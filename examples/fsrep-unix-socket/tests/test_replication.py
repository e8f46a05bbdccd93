"""The command line replicates trees through a socket file, both ways."""

import json
import os
import pwd
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsrep_core.testing import compare_trees

FSREP = sysconfig.get_path("scripts") + "/fsrep"
ME = pwd.getpwuid(os.geteuid()).pw_name

SERVER = """
[serve]

[[serve.listener]]
name = "unix-socket"
path = "{folder}/socket"

[[identity]]
name = "{client}"
storage = {{ name = "directory", root = "{folder}/server" }}
permissions = ["send", "receive"]
"""

CLIENT = """
[[job]]
name = "push"
filesystems = ["docs"]
retry_for = "0s"

[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{folder}/client" }}

[job.receiver]
transport = {{ name = "unix-socket", path = "{folder}/socket" }}
storage = {{ name = "directory", root = "{folder}/server" }}

[[job]]
name = "pull"
filesystems = ["docs"]

[job.sender]
transport = {{ name = "unix-socket", path = "{folder}/socket" }}
storage = {{ name = "directory", root = "{folder}/server" }}

[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{folder}/copy" }}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two empty roots, and one with a tree that has a bit of everything."""
    for name in ("client/docs/deep/er", "server", "copy"):
        (tmp_path / name).mkdir(parents=True)
    docs = tmp_path / "client" / "docs"
    (docs / "deep" / "er" / "large").write_bytes(os.urandom(3_000_000))
    (docs / "deep" / "name with ü").write_text("Call me Ishmael.\n")
    (docs / "link").symlink_to("deep/er")
    (docs / "empty").touch(mode=0o640)
    (tmp_path / "client.toml").write_text(CLIENT.format(folder=tmp_path))
    return tmp_path


def fsrep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [FSREP, *arguments, "--config", f"{folder}/client.toml"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def serving(folder: Path, client: str = ME) -> Iterator[subprocess.Popen[str]]:
    """Run ``fsrep serve`` until the body ends."""
    config = folder / "server.toml"
    config.write_text(SERVER.format(folder=folder, client=client))
    command = [FSREP, "serve", "--log-format", "json", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            first = json.loads(server.stderr.readline())
            assert (first["event"], first["address"]) == ("listening", f"{folder}/socket")
            yield server
        finally:
            server.kill()


def test_a_tree_is_pushed_and_pulled(folder: Path) -> None:
    assert fsrep(folder, "snapshot", "push", "--name", "one").returncode == 0
    with serving(folder) as server:
        for job in ("push", "pull"):
            done = fsrep(folder, "run", job)
            assert done.returncode == 0, done.stderr
        server.terminate()
        assert server.wait(timeout=30) == 0

    for root in ("server", "copy"):
        tree = folder / root / ".fsrep" / "docs" / "@one" / "tree"
        assert compare_trees(folder / "client" / "docs", tree) == []


def test_another_account_is_refused(folder: Path) -> None:
    fsrep(folder, "snapshot", "push", "--name", "one")
    with serving(folder, client="somebody-else"):
        done = fsrep(folder, "run", "push")

    assert done.returncode == 1
    assert f'this server does not know "{ME}"' in done.stdout + done.stderr
    assert list((folder / "server").iterdir()) == []


def test_a_server_takes_over_from_one_that_was_killed(folder: Path) -> None:
    with serving(folder) as server:
        server.send_signal(signal.SIGKILL)
        server.wait()
    with serving(folder):
        assert fsrep(folder, "check", "push").returncode == 0


def test_a_server_does_not_take_over_from_one_that_lives(folder: Path) -> None:
    with serving(folder):
        second = [FSREP, "serve", "--config", f"{folder}/server.toml"]
        done = subprocess.run(second, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "cannot listen at" in done.stderr
        assert fsrep(folder, "check", "push").returncode == 0


def test_a_missing_server_is_named(folder: Path) -> None:
    fsrep(folder, "snapshot", "push", "--name", "one")
    done = fsrep(folder, "run", "push")

    assert done.returncode == 1
    assert f"receiver at {folder}/socket" in done.stdout + done.stderr
