"""A command line that runs in this process, and a job of two directories."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import attrs
import pytest

from fsrep_core.ops import cli, garbage

CONFIG = """\
[[job]]
name = "documents"
filesystems = ["docs", "photos"]

[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/sender" }}

[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/receiver" }}
"""


@attrs.frozen
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)


@pytest.fixture
def fsrep(monkeypatch, capsys):
    """Call the command line as the entry point does, in a process that goes on."""
    monkeypatch.setattr(garbage, "gc", Mock())

    def call(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["fsrep", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Finished(int(ended.value.code or 0), captured.out, captured.err)

    return call


@attrs.frozen
class Job:
    """A configured job whose sides are directories."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "fsrep.toml"

    @property
    def sender(self) -> Path:
        return self.root / "sender"

    @property
    def receiver(self) -> Path:
        return self.root / "receiver"

    def write(self, text: str = CONFIG) -> None:
        self.config.write_text(text.format(root=self.root))

    def received(self, filesystem: str, version: str) -> Path:
        return self.receiver / ".fsrep" / filesystem / f"@{version}" / "tree"


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    """Give a job with two filesystems that have no versions yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSREP_CONFIG", raising=False)
    made = Job(tmp_path)
    for name in ("docs", "photos"):
        (made.sender / name).mkdir(parents=True)
        (made.sender / name / "file").write_text(f"content of {name}\n")
    made.receiver.mkdir()
    made.write()
    return made
