"""One connection for several ssh: how many logins that takes, and what is left of it."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from pathlib import Path

import pytest
import trio

from fsrep_core import ConfigError, EndpointContext, Side, StorageChoice
from fsrep_core.runtime.options import OptionsError, structure_options
from fsrep_core.testing import compare_trees, no_leaks
from fsrep_ssh import Ssh, SshConfig
from fsrep_ssh.sharing import (
    DIRECTORY_LIMIT_BYTES,
    make_private,
    sharing_options,
    socket_directory,
)
from real_sshd import run

STAYS = "5m"


def config(**options):
    return structure_options(SshConfig, {"host": "nas", **options}, "")


# --- the options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"share_connection": "0s"},
        {"share_connection": "500ms"},
        {"share_connection": "1m", "options": ["ControlPath=/tmp/x"]},
        {"share_connection": "1m", "options": ["Compression=yes", "controlmaster no"]},
        {"share_connection": "1m", "options": ["ControlPersist = 5"]},
    ],
)
def test_what_contradicts_itself_is_refused(options):
    with pytest.raises(OptionsError) as raised:
        config(**options)

    assert [mistake.key for mistake in raised.value.mistakes] == ["share_connection"]


def test_without_it_sharing_is_left_to_the_configuration_of_ssh():
    words = Ssh(config(options=["ControlPath=/tmp/x"]))._argv

    assert [word for word in words if word.startswith(("Control", "ServerAlive"))] == [
        "ControlPath=/tmp/x"
    ]


def test_ssh_understands_the_options_and_lets_the_user_say_how_to_watch(runtime):
    words = Ssh(config(share_connection="90s", options=["ServerAliveInterval=60"]))._argv
    ended = run("ssh", "-F", "none", "-G", *words[1:], check=True)

    found = dict(line.partition(" ")[::2] for line in ended.stdout.splitlines())
    assert (found["controlmaster"], found["controlpersist"]) == ("auto", "90")
    assert found["controlpath"].startswith(f"{runtime}/fsrep-ssh/")
    assert (found["serveraliveinterval"], found["serveralivecountmax"]) == ("60", "3")


@pytest.mark.parametrize(
    "change",
    [
        {"host": "nas-as-somebody-else"},
        {"identity_file": "/other"},
        {"options": ["IdentityAgent=none"]},
        {"ciphers": "aes256-ctr"},
    ],
)
def test_a_connection_is_shared_only_by_those_who_would_open_the_same(change):
    ours, theirs = config(identity_file="/key"), config(**{"identity_file": "/key", **change})

    paths = {
        sharing_options(each, each.ciphers, Path("/run"), 60)["ControlPath"]
        for each in (ours, theirs)
    }

    assert len(paths) == 2


def test_another_command_goes_through_the_same_connection():
    ours, theirs = config(), config(command="/opt/fsrep endpoint")

    assert sharing_options(ours, None, Path("/run"), 60) == sharing_options(
        theirs, None, Path("/run"), 60
    )


# --- the directory ------------------------------------------------------------------------


@pytest.fixture
def runtime(monkeypatch):
    """A runtime directory of this user; its name is short, since that of a socket has to be."""
    with tempfile.TemporaryDirectory(prefix="fs", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def test_the_directory_is_for_this_user_alone(runtime):
    directory = socket_directory(os.environ)
    make_private(directory)
    make_private(directory)

    assert directory == runtime / "fsrep-ssh"
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o600])
def test_a_directory_that_others_can_enter_is_refused(runtime, mode):
    directory = runtime / "fsrep-ssh"
    directory.mkdir()
    directory.chmod(mode)

    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        make_private(directory)


def test_a_directory_of_somebody_else_is_refused(runtime):
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of somebody else")
    directory = runtime / "fsrep-ssh"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)

    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        make_private(directory)


def test_a_link_to_a_directory_is_refused(runtime):
    (runtime / "real").mkdir(mode=0o700)
    (runtime / "fsrep-ssh").symlink_to("real")

    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        make_private(runtime / "fsrep-ssh")


def test_a_directory_that_cannot_be_made_is_refused(runtime):
    (runtime / "fsrep-ssh").write_text("")

    for directory in (runtime / "fsrep-ssh", runtime / "none" / "fsrep-ssh"):
        with pytest.raises(ConfigError, match="cannot make"):
            make_private(directory)


def test_a_runtime_directory_that_others_can_enter_does_not_count(runtime, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # noqa: S108  (nothing is made there)
    runtime.chmod(0o755)

    ours = Path(f"/tmp/fsrep-ssh-{os.geteuid()}")  # noqa: S108  (nothing is made there)
    assert socket_directory(os.environ) == ours
    assert socket_directory({}) == ours


@pytest.mark.parametrize("name", ["x" * DIRECTORY_LIMIT_BYTES, "a b", "%h", "${HOME}", "~"])
def test_a_name_that_ssh_cannot_use_is_refused(monkeypatch, name):
    monkeypatch.setattr(tempfile, "tempdir", f"/{name}")

    with pytest.raises(ConfigError, match="the socket of a shared connection cannot be in"):
        socket_directory({})


# --- over a real sshd ---------------------------------------------------------------------


@pytest.fixture
def sharing(scene, runtime):
    """A scene whose runs share; what is left of their connections is ended."""
    scene.environment["XDG_RUNTIME_DIR"] = str(runtime)
    yield Sharing(scene, runtime)
    for socket in sockets_in(runtime):
        master(socket, "exit")


class Sharing:
    """Runs whose connections are shared."""

    def __init__(self, scene, runtime):
        self.scene = scene
        self.runtime = runtime
        self.logins_before = self._logins()

    def run_job(self, *, share_connection=STAYS, **job):
        ended = self.scene.run_job(share_connection=share_connection, **job)
        assert ended.status == 0, ended.said
        return ended

    def _logins(self):
        return (self.scene.server.root / "sshd_log").read_text().count("Accepted publickey")

    @property
    def logins(self):
        return self._logins() - self.logins_before

    @property
    def sockets(self):
        return sockets_in(self.runtime)


def sockets_in(directory):
    return [path for path in directory.rglob("*") if path.is_socket()]


def master(socket, command):
    """Ask the process that holds a connection; give what it says."""
    return run("ssh", "-F", "none", "-O", command, "-o", f"ControlPath={socket}", "nas").stderr


def grow(scene, chance, name):
    (scene.here / "docs").mkdir(exist_ok=True)
    (scene.here / "docs" / name).write_bytes(chance.randbytes(300_000))
    scene.snapshot(name)


def assert_arrived(scene, *versions):
    for version in versions:
        assert not compare_trees(
            scene.tree(scene.here, "docs", version), scene.tree(scene.there, "docs", version)
        )


def test_a_second_run_goes_through_the_connection_of_the_first(sharing):
    scene, chance = sharing.scene, random.Random(1)
    grow(scene, chance, "one")
    sharing.run_job()
    (socket,) = sharing.sockets
    first = master(socket, "check")
    grow(scene, chance, "two")
    sharing.run_job()

    assert first.startswith("Master running (pid=")
    assert master(socket, "check") == first
    assert sharing.sockets == [socket]
    assert sharing.logins == 1
    assert scene.started() >= 2
    assert_arrived(scene, "one", "two")
    assert "Exit request sent" in master(socket, "exit")
    assert scene.left_behind() == {}


def test_a_connection_that_nobody_uses_ends(sharing):
    grow(sharing.scene, random.Random(2), "one")
    sharing.run_job(share_connection="1s")

    assert sharing.scene.left_behind(seconds=30) == {}
    assert sharing.sockets == []
    assert_arrived(sharing.scene, "one")


def test_another_key_does_not_go_through_a_connection_that_it_did_not_open(sharing):
    scene = sharing.scene
    grow(scene, random.Random(3), "one")
    sharing.run_job()
    ended = scene.run_job(share_connection=STAYS, identity_file=str(scene.root / "other_key"))

    assert ended.status == 1
    assert ended.problem["kind"] == "permission-denied"


def test_several_steps_at_once_share_as_well(sharing):
    """Those that are opened at the same moment may each log in; none of them is lost."""
    scene, chance = sharing.scene, random.Random(4)
    grow(scene, chance, "one")
    sharing.run_job()
    for number in range(8):
        (scene.here / f"fs{number}").mkdir()
        (scene.here / f"fs{number}" / "file").write_bytes(chance.randbytes(100_000))
    scene.snapshot("two")
    sharing.run_job(settings='retry_for = "0s"\nconcurrency = 4')

    assert sharing.logins == 1
    assert_arrived(scene, "one", "two")
    for number in range(8):
        there = scene.tree(scene.there, f"fs{number}", "two")
        assert not compare_trees(scene.tree(scene.here, f"fs{number}", "two"), there)


def test_a_run_after_the_connection_was_cut_logs_in_anew(sharing):
    scene, chance = sharing.scene, random.Random(5)
    grow(scene, chance, "one")
    sharing.run_job()
    (socket,) = sharing.sockets
    pid = int(master(socket, "check").partition("pid=")[2].partition(")")[0])
    os.kill(pid, signal.SIGKILL)
    grow(scene, chance, "two")
    sharing.run_job()

    assert sharing.logins == 2
    assert_arrived(scene, "one", "two")


async def test_the_end_of_one_user_does_not_end_the_others(sharing, monkeypatch):
    """Also where it is killed, and where it is the one that had logged in."""
    options = sharing.scene.options(share_connection=STAYS, command="cat")
    transport = Ssh(structure_options(SshConfig, options, ""))
    context = EndpointContext(
        job="job",
        side=Side.RECEIVER,
        storage=StorageChoice(name="none", options={}, create=lambda: None),
    )

    async def open_one():
        stream = await transport.connect(context)
        await echo(stream)
        return stream

    async def echo(stream):
        with trio.fail_after(30):
            await stream.send_all(b"here")
            assert await stream.receive_some() == b"here"

    async with no_leaks():
        first, second, third = [await open_one() for _ in range(3)]
        first.close()
        with trio.fail_after(30):
            await first.process.wait()
            await first._heard_out.wait()  # what stays does not hold our pipe
        await first.aclose()
        await echo(second)
        os.killpg(second.process.pid, signal.SIGKILL)
        await second.aclose()
        await echo(third)
        await third.aclose()

    assert sharing.logins == 1
    assert [each.process.returncode for each in (first, second, third)] == [0, -9, 0]
    assert not [each for each in sharing.scene.processes().values() if each.startswith("cat")]


def test_a_socket_fits_into_the_longest_directory_that_is_accepted(sharing, runtime):
    longest = DIRECTORY_LIMIT_BYTES - len("/fsrep-ssh")
    directory = runtime / ("x" * (longest - len(f"{runtime}/")))
    directory.mkdir(mode=0o700)
    sharing.scene.environment["XDG_RUNTIME_DIR"] = str(directory)
    grow(sharing.scene, random.Random(6), "one")
    sharing.run_job()

    (socket,) = sharing.sockets
    assert len(str(socket.parent)) == DIRECTORY_LIMIT_BYTES
    assert sharing.logins == 1
