"""A private sshd, jobs that go through it, and a look at what is left behind.

Everything of it lives in a temporary directory: configuration, host key, user's key,
``authorized_keys``, ``known_hosts``. The ssh that is found first notes that it was
started, reads no configuration of whoever runs the tests, and becomes the real one. All
processes, on both sides, carry a mark in their environment, by which they are found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

FSREP = str(Path(sys.executable).parent / "fsrep")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MARK = "FSREP_TEST_SSH"
DEADLINE_SECONDS = 60

SSHD_CONFIG = """\
Port {port}
{addresses}
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
MaxSessions 100
ClientAliveInterval 5
ClientAliveCountMax 3
SetEnv {mark}={root}
"""

SSH_WRAPPER = """\
#!/bin/sh
echo $$ >> {root}/ssh_started
exec {ssh} -F none "$@"
"""


def run(*words, timeout=DEADLINE_SECONDS, check=False, **options):
    return subprocess.run(
        [str(word) for word in words],
        check=check,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **options,
    )


def make_key(path):
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path, check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@attrs.define(eq=False)
class Server:
    """A running sshd, perhaps of another host."""

    root: Path
    port: int = 0
    addresses: tuple[str, ...] = ("127.0.0.1",)
    within: tuple[str, ...] = ()
    """What begins a command line there."""
    process: subprocess.Popen = attrs.field(init=False, default=None)

    def start(self):
        """Start on the port that it has; or else on a free one, again if that is taken."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it; boot makes it
        for _ in range(1 if self.port else 10):
            port = self.port or free_port()
            addresses = "\n".join(f"ListenAddress {each}" for each in self.addresses)
            (self.root / "sshd_config").write_text(
                SSHD_CONFIG.format(port=port, addresses=addresses, root=self.root, mark=MARK)
            )
            with (self.root / "sshd_log").open("wb") as log:
                self.process = subprocess.Popen(
                    [*self.within, SSHD, "-D", "-e", "-f", str(self.root / "sshd_config")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, MARK: str(self.root)},
                    start_new_session=True,
                )
            if self._listens():
                self.port = port
                return
            self.stop()
        raise AssertionError((self.root / "sshd_log").read_text())

    def _listens(self):
        deadline = time.monotonic() + 10
        wanted = len(self.addresses)
        while time.monotonic() < deadline and self.process.poll() is None:
            if (self.root / "sshd_log").read_text().count("Server listening on") == wanted:
                return True
            time.sleep(0.02)
        return False

    def stop(self):
        self.process.kill()
        self.process.wait()


@attrs.frozen
class Ended:
    """A run of a job that has ended."""

    status: int
    report: dict
    said: str

    @property
    def replications(self):
        return [each for state in ("active", "completed", "pending") for each in self.report[state]]

    @property
    def problem(self):
        """What went wrong: of the run, or else of its filesystems."""
        problems = [self.report, *self.replications]
        return next((each["problem"] for each in problems if each["problem"]), None)


@attrs.define(eq=False)
class Scene:
    """What a test of ssh has at hand."""

    root: Path
    server: Server
    environment: dict[str, str]

    @property
    def here(self):
        return self.root / "here"

    @property
    def there(self):
        return self.root / "there"

    def authorize(self, line=None):
        """Let the test's key in: as it is, or with what the line says."""
        text = line or (self.root / "key.pub").read_text()
        (self.root / "authorized_keys").write_text(text.rstrip("\n") + "\n")

    def know_host(self, key="host_key.pub"):
        words = (self.root / key).read_text().split()[:2]
        name = f"[127.0.0.1]:{self.server.port}"
        (self.root / "known_hosts").write_text(f"{name} {' '.join(words)}\n")

    def options(self, **changes):
        """The options of the transport, as a job would have them."""
        return {
            "host": "127.0.0.1",
            "port": self.server.port,
            "identity_file": str(self.root / "key"),
            "options": [
                f"UserKnownHostsFile={self.root}/known_hosts",
                "GlobalKnownHostsFile=/dev/null",
                "IdentityAgent=none",
            ],
            "command": f"{FSREP} endpoint",
            **changes,
        }

    def write_job(self, *, push=True, settings="", storage=None, name="job", **transport):
        """Write a job between here and there."""
        remote = {"name": "ssh", **self.options(**transport)}
        here = ({"name": "local-pipe"}, {"name": "directory", "root": str(self.here)})
        there = (remote, storage or {"name": "directory", "root": str(self.there)})
        sides = [here, there] if push else [there, here]
        lines = ["[[job]]", f'name = "{name}"', 'filesystems = ["**"]', settings]
        for side, (way, kept) in zip(("sender", "receiver"), sides, strict=True):
            lines += [
                f"[job.{side}]",
                f"transport = {inline(way)}",
                f"storage = {inline(kept)}",
            ]
        path = self.root / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path

    def fsrep(self, *words, timeout=DEADLINE_SECONDS):
        return run(FSREP, *words, timeout=timeout, env=self.environment, cwd=self.root)

    def run_job(self, *words, timeout=DEADLINE_SECONDS, **job):
        """Run a job and give its report."""
        config = self.write_job(**{"settings": 'retry_for = "0s"', **job})
        ended = self.fsrep("run", "--config", config, "--json", *words, timeout=timeout)
        report = json.loads(ended.stdout)["jobs"][0] if ended.stdout else None
        return Ended(ended.returncode, report, ended.stderr)

    def snapshot(self, name, root=None):
        """Make a version of everything below a root."""
        root = root or self.here
        config = self.root / "snapshot.toml"
        names = sorted(each.name for each in root.iterdir() if each.name != ".fsrep")
        store = inline({"name": "directory", "root": str(root)})
        config.write_text(
            f"""
            [[job]]
            name = "snapshot"
            filesystems = {json.dumps(names)}
            [job.sender]
            transport = {{ name = "local-pipe" }}
            storage = {store}
            [job.receiver]
            transport = {{ name = "local-pipe" }}
            storage = {{ name = "directory", root = "/nowhere" }}
            """
        )
        ended = self.fsrep("snapshot", "--config", config, "--name", name)
        assert ended.returncode == 0, ended.stderr

    def tree(self, root, filesystem, version):
        return root / ".fsrep" / filesystem / f"@{version}" / "tree"

    def started(self):
        """How often ssh was started."""
        path = self.root / "ssh_started"
        return len(path.read_text().split()) if path.exists() else 0

    def processes(self):
        """All processes of this scene but the listening sshd: id to command line.

        They carry the mark, or are children of a process that does; sshd overwrites its
        environment with its title.
        """
        wanted = f"{MARK}={self.root}".encode()
        listener = self.server.process.pid
        words, parents, ours = {}, {}, {listener}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            pid = int(entry.name)
            try:
                words[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    ours.add(pid)
            except OSError:  # it has ended meanwhile
                continue
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return {pid: words[pid] for pid in ours if words.get(pid) and pid != listener}

    def left_behind(self, seconds=10):
        """What still runs after a while; ``{}`` = nothing."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found


def inline(table):
    """Write an inline table of TOML."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if SSHD is None:
        pytest.skip("sshd is not installed")
    root = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "other_host_key", "key", "other_key"):
        make_key(root / name)
    server = Server(root)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def scene(server, tmp_path, monkeypatch):
    """A fresh pair of directories, and a way between them."""
    root = server.root
    for name in ("here", "there"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    (root / "ssh_started").unlink(missing_ok=True)
    wrapper = root / "bin" / "ssh"
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(SSH_WRAPPER.format(root=root, ssh=shutil.which("ssh", path=os.defpath)))
    wrapper.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SSH_")},
        "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
        MARK: str(root),
    }
    scene = Scene(root, server, environment)
    scene.authorize()
    scene.know_host()
    for name in ("PATH", MARK):
        monkeypatch.setenv(name, environment[name])
    yield scene
    left = scene.left_behind()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"still running: {left}"
