"""Where a receive happens until it is a version: private, locked, left empty.

``btrfs receive`` makes a subvolume that everybody can see and write until the end, and
leaves it behind when it fails. It therefore works in a directory that only fsrep can
enter::

    <snapshots>/.fsrep/staging/<filesystem>/@<name>/<whatever the sender called it>

A read-only subvolume cannot be moved to another directory (the kernel answers EROFS), but
the directory around it can. So the whole ``@<name>`` is renamed into its place, with the
subvolume in it: one atomic step, after which the version is there.

Whoever works in a staging directory holds a lock on it, and so does its ``btrfs receive``:
what lies in a directory that nobody has locked is dead and may be deleted.

Plain blocking functions, each a few system calls; the storage calls in threads what
syncs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_btrfs.files import make_directories, slug, sync_directory, sync_file_system
from fsrep_btrfs.layout import SNAPSHOT
from fsrep_core import BusyError, ConflictError, InterruptedStreamError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Staging",
    "name_received",
    "prepare",
    "publish",
    "read_mark",
    "remove_wrapper",
    "staging_directories",
]

_MARK = "user.fsrep.filesystem"
"""The extended attribute of a version's directory that says whose version it is."""


@attrs.frozen(kw_only=True)
class Staging:
    """One filesystem's staging directory, locked."""

    directory: Path
    lock: int
    """A descriptor that holds the lock, for a child to inherit."""

    @classmethod
    @contextmanager
    def of(cls, parent: Path, filesystem: str) -> Iterator[Staging]:
        """Lock the staging directory of a filesystem; make it first if need be.

        It is removed at the end if it is empty.

        :raises BusyError: another receive works in it
        """
        directory = parent / slug(filesystem)
        with cls.at(directory, make=True) as staging:
            if staging is None:
                raise BusyError(
                    f"receiving {filesystem}: another receive works on it ({directory} is locked)",
                    hint="it is tried again; 'fuser' on that directory names the process",
                )
            yield staging

    @classmethod
    @contextmanager
    def at(cls, directory: Path, *, make: bool = False) -> Iterator[Staging | None]:
        """Lock a staging directory; ``None`` = another has it, or it is gone."""
        lock = _lock(directory, make=make)
        if lock is None:
            yield None
            return
        try:
            yield cls(directory=directory, lock=lock)
        finally:
            # Not empty: its content could not be deleted, and the next one tries again.
            with contextlib.suppress(OSError):
                directory.rmdir()
            os.close(lock)

    def wrappers(self) -> list[Path]:
        """List what is in it: the directories of receives that did not end well."""
        return sorted(self.directory.iterdir())

    def make_wrapper(self, name: str) -> Path:
        """Make the directory of a version to be received."""
        wrapper = self.directory / f"@{name}"
        wrapper.mkdir(mode=0o700)
        return wrapper


def staging_directories(parent: Path) -> list[Path]:
    """List all staging directories."""
    try:
        return sorted(parent.iterdir())
    except FileNotFoundError:
        return []


def name_received(wrapper: Path) -> Path:
    """Give the subvolume that was received its name; the sender had chosen another.

    :raises InterruptedStreamError: nothing, or more than one, was received
    """
    entries = sorted(wrapper.iterdir())
    if len(entries) != 1:
        raise InterruptedStreamError(
            f"the stream made {len(entries)} subvolumes instead of one in {wrapper}"
        )
    return entries[0].rename(wrapper / SNAPSHOT)


def prepare(wrapper: Path, filesystem: str) -> None:
    """Make what was received durable, and mark whose version it is going to be.

    When ``btrfs receive`` has ended, only the subvolume and its flags are durable. Its
    data may not have been written: a crash then leaves a read-only snapshot with the
    right identity, and all its files are empty (seen on Linux 6.18). So everything is
    synced *before* the version gets its place; until then a crash leaves but a partial.
    """
    os.setxattr(wrapper, _MARK, os.fsencode(filesystem))
    wrapper.chmod(0o755)
    sync_file_system(wrapper)


def publish(wrapper: Path, target: Path) -> None:
    """Make what was received a version: durably, in one atomic step.

    Its data must be durable before, see :func:`prepare`.

    :raises ConflictError: the place is taken
    """
    make_directories(target.parent)
    try:
        wrapper.rename(target)
    except OSError as error:
        raise _cannot_publish(error, target) from error
    sync_directory(target.parent)


def read_mark(directory: str) -> str | None:
    """Read whose version a directory holds; ``None`` = it is not marked."""
    try:
        return os.fsdecode(os.getxattr(directory, _MARK))
    except OSError:
        return None


def remove_wrapper(wrapper: Path) -> None:
    """Remove the directory of a version that is gone, unless it is another's or not empty."""
    if wrapper.name.startswith("@") or read_mark(str(wrapper)) is not None:
        with contextlib.suppress(OSError):
            wrapper.rmdir()


def _cannot_publish(error: OSError, target: Path) -> StorageError:
    if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
        return ConflictError(
            f"the received version cannot be put at {target}: something is there",
            hint="move it away, or destroy it if it is a version that nobody needs",
        )
    if error.errno == errno.EXDEV:
        return StorageError(
            f"the received version cannot be put at {target}: a directory above it is a "
            "subvolume of its own, and directories cannot be moved between subvolumes",
            hint="make it a plain directory, or make the storage's whole snapshots directory "
            "the subvolume",
        )
    return StorageError(f"the received version cannot be put at {target}: {error.strerror}")


def _lock(directory: Path, *, make: bool) -> int | None:
    while True:
        if make:
            make_directories(directory.parent)
            directory.mkdir(exist_ok=True)  # a crash may take it back
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if make:
                continue
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        # Another may have removed it between our open and our lock.
        if _is_at(lock, directory):
            return lock
        os.close(lock)


def _is_at(descriptor: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), directory.stat())
    except FileNotFoundError:
        return False
