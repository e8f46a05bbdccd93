"""``fsrep demo``: replicate a generated tree with the real commands, and verify it.

Everything is done by the commands that an operator would type, with a configuration
file like any other. What they replicated is compared by a reader that shares no code
with the storage (:mod:`fsrep_core.testing.trees`).
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.commands.run import RunOptions, run
from fsrep_core.ops.commands.snapshot import snapshot
from fsrep_core.ops.demo_tree import DemoTree
from fsrep_core.ops.words import count_of, visible
from fsrep_core.quantities import format_duration, format_size
from fsrep_core.testing.trees import differences, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["demo"]

SEED = 2018
NEEDED_BYTES = 1_000_000_000
DIFFERENCES_SHOWN_LIMIT = 20
NOT_KEPT = {"socket", "character device"}
"""What no version holds; ``fsrep snapshot`` reports it."""

CONFIG = """\
[[job]]
name = "demo"
filesystems = ["home"]

[job.sender]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/sender" }}

[job.receiver]
transport = {{ name = "local-pipe" }}
storage = {{ name = "directory", root = "{root}/receiver" }}
"""


class _Failed(Exception):  # noqa: N818  (it ends the demonstration; it is no error of its own)
    """A command or a comparison failed; the reason is on the screen."""

    def __init__(self, status: int) -> None:
        self.status = status


def demo(into: Path | None, *, keep: bool) -> int:
    """Demonstrate.

    :returns: 0 if every replication was equal to its source, else the failure's status
    :raises ConfigError: there is no room, or the directory exists
    """
    started_at = time.monotonic()
    with _workplace(into, keep=keep) as root:
        try:
            _Demonstration(root).show()
        except _Failed as failure:
            _say("\nThe demonstration failed; what is above says where.")
            return failure.status
        _say("\nEverything is equal.")
        if into is not None or keep:
            _say(f"It is all in {root}; look around.")
            _say(f'"fsrep versions -c {root}/fsrep.toml" shows what each side has.')
        else:
            _say("Everything is removed again; --keep would keep it.")
    _say(f"All this took {format_duration(time.monotonic() - started_at)}.")
    return 0


@contextmanager
def _workplace(into: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give an empty directory; a temporary one disappears at the end unless kept."""
    parent = into.absolute().parent if into is not None else Path(tempfile.gettempdir())
    try:
        free_bytes = shutil.disk_usage(parent).free
        if free_bytes >= NEEDED_BYTES and into is not None:
            into.mkdir()
    except OSError as exc:
        raise ConfigError(
            f"{exc.filename} cannot be used: {exc.strerror}",
            hint="--into takes a directory that does not exist yet",
        ) from exc
    if free_bytes < NEEDED_BYTES:
        raise ConfigError(
            f"the demonstration needs {format_size(NEEDED_BYTES)}, but {parent} has only "
            f"{format_size(free_bytes)} left",
            hint="name a directory elsewhere with --into",
        )
    if into is not None:
        yield into.resolve()
        return
    if keep:
        yield Path(tempfile.mkdtemp(prefix="fsrep-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="fsrep-demo-") as name:
        yield Path(name)


@attrs.define(eq=False)
class _Demonstration:
    """The acts, in order."""

    root: Path
    _config: Path = attrs.field(init=False)
    _tree: DemoTree = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._config = self.root / "fsrep.toml"
        self._tree = DemoTree(self.root / "sender" / "home", random.Random(SEED))  # noqa: S311  (a tree that can be made again)

    def show(self) -> None:
        """Play all acts.

        :raises _Failed: a command failed, or something differs
        """
        self._prepare()
        self._replicate("monday", "The first version goes in full")
        tree = self._tree
        self._replicate("tuesday", "Files are created, changed and touched", tree.change_files)
        self._replicate(
            "wednesday",
            "Files are deleted and renamed, a directory becomes a file",
            tree.remove_and_rename,
        )
        self._replicate("thursday", "That file becomes a directory again", tree.turn_back)
        _say("\nNothing has changed since: a run has nothing to do")
        self._command("run")

    def _prepare(self) -> None:
        _say(f"This demonstration works in {self.root}")
        self._tree.root.mkdir(parents=True)
        (self.root / "receiver").mkdir()
        self._config.write_text(CONFIG.format(root=self.root))
        self._tree.build()
        entries, size_bytes = self._tree.count()
        size = format_size(size_bytes)
        _say(f"\nA tree to replicate: sender/home, {count_of(entries, 'entry')}, {size}")
        _say(
            "  with large and small files, modes, owners, times, symbolic and hard links, a\n"
            "  sparse file, empty directories, extended attributes, an access control list,\n"
            "  names that are not UTF-8 or very long, a named pipe, a socket, and a device"
        )
        for what in self._tree.left_out:
            _say(f"  not here: {what}")

    def _replicate(self, name: str, title: str, change: Callable[[], None] | None = None) -> None:
        _say(f"\n{title}")
        if change is not None:
            change()
        self._command("snapshot", "--name", name)
        self._command("run")
        self._verify(name)

    def _command(self, command: str, *arguments: str) -> None:
        """Do what the command line does."""
        _say(f"  $ fsrep {' '.join((command, *arguments))} -c fsrep.toml")
        if command == "snapshot":
            status = snapshot(self._config, (), name=arguments[1], as_json=False)
        else:
            status = run(self._config, (), RunOptions())
        if status:
            raise _Failed(status)

    def _verify(self, name: str) -> None:
        """Compare the live tree with the version on the receiver, as a stranger would."""
        live = read_tree(self._tree.root)
        arrived = read_tree(self.root / "receiver" / ".fsrep" / "home" / f"@{name}" / "tree")
        source = {path: entry for path, entry in live.items() if entry.type not in NOT_KEPT}
        ignore = () if os.geteuid() == 0 else ("ownership",)
        found = differences(source, arrived, ignore=ignore)
        for difference in found[:DIFFERENCES_SHOWN_LIMIT]:
            _say(f"  DIFFERENT: {visible(difference)}")
        if found:
            _say(f"  {count_of(len(found), 'difference')} between sender/home and @{name}")
            raise _Failed(1)
        left = sorted(entry.type for path, entry in live.items() if path not in source)
        rest = f"; left out, as reported: {', '.join(left)}" if left else ""
        _say(f"  verified: {count_of(len(source), 'entry')} compared, all equal{rest}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (what the demonstration is for)
