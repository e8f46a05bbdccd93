"""Names and durability of the files and directories that fsrep makes. Blocking functions."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from fsrep_btrfs.layout import PRIVATE
from fsrep_core import OutOfSpaceError, PermissionDeniedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["make_directories", "slug", "sync_directory", "sync_file_system", "translated"]

_SYNC = 0x9408
"""``BTRFS_IOC_SYNC`` (``linux/btrfs.h``), what ``btrfs filesystem sync`` calls."""


@contextmanager
def translated(attempt: str) -> Iterator[None]:
    """Turn an ``OSError`` of the file system into an error that says what was tried."""
    try:
        yield
    except OSError as error:
        message = f"{attempt}: {error}"
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise PermissionDeniedError(
                message,
                local=False,
                hint="the user that runs fsrep needs to write the storage's snapshots directory",
            ) from error
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise OutOfSpaceError(message, hint="free space, or raise the quota") from error
        raise StorageError(message) from error


def slug(text: str) -> str:
    """Make a file name of any text: readable, bounded, and different for different texts."""
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{quote(text, safe=' ', errors='surrogateescape')[:80]}.{digest}"


def make_directories(directory: Path) -> None:
    """Make a directory and its parents, each of them durably.

    All can be read by everybody, except the private one and what is in it.
    """
    if directory.is_dir():
        return
    make_directories(directory.parent)
    directory.mkdir(mode=0o700 if directory.name == PRIVATE else 0o755, exist_ok=True)
    sync_directory(directory.parent)


def sync_file_system(directory: Path) -> None:
    """Make everything on the btrfs of a directory durable, the data of all files first."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _SYNC)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
