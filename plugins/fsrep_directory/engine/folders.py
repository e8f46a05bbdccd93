"""Directories by descriptor: how everything in a tree is reached, one component at a time."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .records import Entry

__all__ = ["Folder", "create_file", "open_directory", "open_subdirectory"]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A directory of a new tree that is being filled."""

    __slots__ = ("base", "descriptor", "entry", "links", "path", "worker")

    def __init__(
        self, path: bytes, descriptor: int, base: int, entry: Entry | None, worker: int
    ) -> None:
        self.path = path
        """Of the entries below it, without the last slash; empty for the root."""
        self.descriptor = descriptor
        self.base = base
        """The same directory in the base's tree; -1 = it has none."""
        self.entry = entry
        """What it shall be; ``None`` = nobody has said."""
        self.worker = worker
        self.links: list[tuple[bytes, bytes]] = []
        """Names and records of entries that wait to be linked from the base."""

    def close(self) -> None:
        """Let go of both descriptors."""
        os.close(self.descriptor)
        if self.base >= 0:
            os.close(self.base)


def open_directory(path: str) -> int:
    """Open the directory at a path that is our own."""
    return os.open(path, _OPEN_DIRECTORY)


def open_subdirectory(parent: int, name: bytes) -> int:
    """Open a directory by its name below another; a symbolic link is refused."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def create_file(folder: Folder, name: bytes, mode: int) -> int:
    """Make an empty file and give its descriptor.

    :raises FileExistsError: there is something of that name
    """
    return os.open(name, _CREATE_FILE, mode, dir_fd=folder.descriptor)
