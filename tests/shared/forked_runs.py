"""Runs of fsrep that are to be disturbed: real processes, forked from one that has imported all.

Starting Python takes longer than a small step does, and where the processor is only emulated
very much longer. Forked, most of a run's time is work, and so most moments fall into work.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

__all__ = ["Ended", "ForkedRun", "ForkedRuns", "is_running"]

DEADLINE_SECONDS = 120
SERVER = """\
import gc, importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import fsrep_core.ops.commands.run, fsrep_core.ops.report, fsrep_core.runtime.driver
import fsrep_core.runtime.processes
from fsrep_core.ops.cli import main
gc.collect()
gc.freeze()  # a fork's collector would touch, and so copy, every page
print("ready", flush=True)
for line in sys.stdin:
    argv, *files = json.loads(line)
    pid = os.fork()
    if pid == 0:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, descriptor in enumerate(
            [os.open(os.devnull, os.O_RDONLY), *(os.open(file, flags) for file in files)]
        ):
            os.dup2(descriptor, number)
        sys.argv = ["fsrep", *argv]
        main()
    print(pid, flush=True)
    sys.stdin.readline()  # until the end is asked for, nobody else can get this number
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@attrs.frozen
class Ended:
    """How a run ended."""

    status: int
    """Below zero: the signal that killed it."""
    stdout: str
    stderr: str


@attrs.define(eq=False)
class ForkedRun:
    """One run. It has to be finished before the next one is started."""

    pid: int
    _runs: ForkedRuns

    def is_running(self):
        return is_running(self.pid)

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def children(self):
        """The children of all threads: trio starts processes in a thread of its own."""
        found = []
        for file in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(each) for each in file.read_text().split()]
        return found

    def child(self, word):
        """Give the pid of a child that was started with this argument, or ``None``."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:]:
                    return pid
        return None

    def wait_for_victim(self, word, poll_seconds):
        """Wait for a child that was started with this argument, and give its pid.

        :param word: ``None`` = no child: the run itself
        :returns: ``None`` = the run ended before
        """
        while word is not None and self.is_running():
            found = self.child(word)
            if found is not None:
                return found
            time.sleep(poll_seconds)
        return self.pid if word is None else None

    def strike(self, word, after_seconds, poll_seconds):
        """Kill a victim after a part of its life."""
        victim = self.wait_for_victim(word, poll_seconds)
        if victim is not None:
            time.sleep(after_seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def measure(self, word, poll_seconds):
        """Wait for the end, which has to be a good one; tell how long the victim lived."""
        started_at = time.monotonic()
        victim = self.wait_for_victim(word, poll_seconds)
        if word is not None:
            started_at = time.monotonic()
        while is_running(victim):
            time.sleep(poll_seconds)
        lived_seconds = time.monotonic() - started_at
        ended = self.finish()
        assert ended.status == 0, ended
        return lived_seconds

    def finish(self):
        """Wait for the end."""
        self._runs.say("finish")
        status = int(self._runs.heard())
        return Ended(status, *(file.read_text() for file in self._runs.files))


@attrs.define(eq=False)
class ForkedRuns:
    """A process that has imported fsrep and some plugins, and forks a run when it is told."""

    server: subprocess.Popen
    files: tuple[Path, Path]

    @classmethod
    @contextlib.contextmanager
    def opened(cls, directory, *modules):
        """Start the process; end it in every path out.

        :param directory: for what the runs say
        :param modules: what is imported beside the core, such as a storage
        """
        command = [sys.executable, "-c", SERVER, *modules]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as server:
            runs = cls(server, (directory / "stdout", directory / "stderr"))
            try:
                assert runs.heard() == "ready"
                yield runs
            finally:
                server.kill()

    def start(self, *arguments):
        self.say(json.dumps([arguments, *map(str, self.files)]))
        return ForkedRun(int(self.heard()), self)

    def run(self, *arguments):
        return self.start(*arguments).finish()

    def say(self, line):
        self.server.stdin.write(line.encode() + b"\n")

    def heard(self):
        """Give the next line that the process says."""
        readable, _, _ = select.select([self.server.stdout], [], [], DEADLINE_SECONDS)
        assert readable, "a run did not end"
        return self.server.stdout.readline().decode().strip()


def is_running(pid):
    """Tell whether a process is there and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
