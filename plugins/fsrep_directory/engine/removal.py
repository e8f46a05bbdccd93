"""Removes a folder of the store, whatever its depth and the modes of its directories."""

from __future__ import annotations

import os
from contextlib import suppress

from .failures import from_os_error
from .folders import open_directory, open_subdirectory

__all__ = ["remove_tree"]


class _Level:
    __slots__ = ("below", "descriptor", "name")

    def __init__(self, name: bytes, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.below: list[bytes] = []


def remove_tree(path: str) -> None:
    """Remove a folder and all in it. What somebody else removes meanwhile is fine.

    :raises Failure: something in it cannot be removed
    """
    levels: list[_Level] = []
    try:
        try:
            levels.append(_empty(b"", open_directory(path)))
        except FileNotFoundError:
            return
        while levels:
            level = levels[-1]
            with suppress(FileNotFoundError):
                if level.below:
                    name = level.below.pop()
                    levels.append(_empty(name, open_subdirectory(level.descriptor, name)))
                    continue
                levels.pop()
                os.close(level.descriptor)
                if levels:
                    os.rmdir(level.name, dir_fd=levels[-1].descriptor)
        with suppress(FileNotFoundError):
            os.rmdir(path)
    except OSError as error:
        raise from_os_error(error, f"removing {path!r}") from error
    finally:
        for level in levels:
            os.close(level.descriptor)


def _empty(name: bytes, descriptor: int) -> _Level:
    """Remove all but the directories from an open directory."""
    level = _Level(name, descriptor)
    if os.geteuid() != 0:
        os.chmod(descriptor, 0o700)
    with os.scandir(descriptor) as entries:
        for entry in entries:
            # Scanning a descriptor gives text; the bytes are what the kernel knows.
            each = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                level.below.append(each)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(each, dir_fd=descriptor)
    return level
