"""``fsrep init``: a commented configuration that works as it stands.

The receiver's directory is made, since a root that is missing is an error: it may be a
disk that is not mounted.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from fsrep_core.errors import ConfigError
from fsrep_core.ops.config import JOB_NAME

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["init"]

FILESYSTEMS_LISTED_LIMIT = 20

TEMPLATE = """\
# The configuration of fsrep. "fsrep check" says whether it is right,
# "fsrep plan" what a run would do, "fsrep run" does it.

[[job]]
# Names the job on the command line, and its cursors on the sender: keep it.
name = {name}

# What to replicate, below the sender's root. "photos" is that one filesystem,
# "photos/**" also everything below it, "!photos/cache" leaves one out.
filesystems = {filesystems}

# What a receiver without snapshots gets first: "newest", "all", or "fail".
# initial = "newest"

# A receiver with newer snapshots of its own: "fail" touches nothing,
# "rollback" destroys exactly those snapshots.
# diverged = "fail"

# "batched": as few streams as possible. "each": one for every snapshot.
# "newest": the snapshots between stay on the sender.
# steps = "batched"

# concurrency = 1        # steps at once, of different filesystems
# retry_for = "1h"       # how long to try again after the last progress

[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = {sender} }}
# rate_limit = "50 MiB/s"

[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = {receiver} }}
"""


def init(config_path: Path, sender: Path, receiver: Path | None) -> int:
    """Write the file and make the receiver's directory.

    :raises ConfigError: the file exists, or cannot be written; or the sender is no
        directory, or the two overlap
    """
    sender = sender.resolve()
    if not sender.is_dir():
        raise ConfigError(
            f"the sender's directory {sender} does not exist",
            hint="name the directory that shall be replicated with --sender",
        )
    if receiver is None:
        receiver = sender.with_name(f"{sender.name or 'root'}.replica")
    receiver = receiver.resolve()
    if receiver.is_relative_to(sender) or sender.is_relative_to(receiver):
        raise ConfigError(
            f"the receiver {receiver} and the sender {sender} overlap",
            hint="name a directory outside with --receiver",
        )
    filesystems = _filesystems_in(sender)
    text = TEMPLATE.format(
        name=_quoted(sender.name if JOB_NAME.fullmatch(sender.name) else "main"),
        filesystems="[" + ", ".join(map(_quoted, filesystems)) + "]",
        sender=_quoted(str(sender)),
        receiver=_quoted(str(receiver)),
    )
    if config_path.exists():
        raise ConfigError(
            f"{config_path} exists and is not overwritten",
            hint="name another file with --config, or remove that one first",
        )
    try:
        receiver.mkdir(exist_ok=True)
        with config_path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
    print(f"wrote {config_path}: {sender} to {receiver}")  # noqa: T201  (the result)
    print('look through it, then: "fsrep check", "fsrep snapshot", "fsrep run"')  # noqa: T201  (the answer)
    return 0


def _filesystems_in(sender: Path) -> list[str]:
    """Choose the directories below the sender, where they are few and have plain names."""
    with os.scandir(sender) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
    if 0 < len(names) <= FILESYSTEMS_LISTED_LIMIT and all(map(_is_plain, names)):
        return names
    return ["**"]


def _is_plain(name: str) -> bool:
    return name.isprintable() and not set(name) & set("!*?[]@#")


def _quoted(text: str) -> str:
    """Write a TOML string: the escapes of JSON are among TOML's."""
    return json.dumps(text, ensure_ascii=False)
