"""Takes one file of a live tree into a version: by clone or copy, never by hard link.

What the previous version holds in the same place, unchanged in all that a version keeps,
is linked from there. That is decided by content here; the walk has decided by times what
it could.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import NamedTuple

from .attributes import read_xattrs
from .extents import copy_content, data_extents, hash_content
from .records import Entry, format_extents, format_xattrs, parse_extents, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .folders import Folder
    from .tree import TreeBuilder

__all__ = ["FileTaker", "Place", "index_key"]

_ATTEMPTS = 3
_FICLONE = 0x40049409
"""``linux/fs.h``: share the blocks of one file with another."""
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Place(NamedTuple):
    """Where an entry is, and where it goes."""

    directory: int
    """Descriptor of the live directory."""
    folder: Folder
    """The same directory of the version."""
    name: bytes
    path: bytes


def index_key(info: os.stat_result) -> bytes:
    """What changes whenever a file does."""
    return b"%d %d %d %d %o %d %d" % (
        info.st_ino,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_mode,
        info.st_uid,
        info.st_gid,
    )


class FileTaker:
    """Takes files into one tree."""

    def __init__(self, builder: TreeBuilder) -> None:
        self._builder = builder
        self._clones = True

    def take(self, place: Place, known: bytes) -> tuple[Entry, os.stat_result | None]:
        """Take a file, again if it changes meanwhile.

        :param known: the record that the base has of this path, if any
        :returns: its entry, and what it looked like before and after; ``None`` = it
            changed in every attempt, and its content may be half old and half new
        """
        for attempt in range(1, _ATTEMPTS + 1):
            descriptor = os.open(place.name, _READ_FILE, dir_fd=place.directory)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise FileNotFoundError(errno.ENOENT, "it is no file any more")
                same = _same_content(descriptor, place.path, before, known)
                entry = same or self._copy(descriptor, place, before)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            stable = index_key(before) == index_key(after) and entry.size == after.st_size
            if stable or attempt == _ATTEMPTS:
                break
            if not same:
                os.unlink(place.name, dir_fd=place.folder.descriptor)
        if same:
            self._builder.link(place.folder, place.name, known)
        return entry, after if stable else None

    def _copy(self, source: int, place: Place, info: os.stat_result) -> Entry:
        target = self._builder.file(place.folder, place.name, 0o600)
        try:
            if self._clone(source, target):
                copy = os.fstat(target)
                size = copy.st_size
                extents = data_extents(target, size, copy.st_blocks)
                digest, _ = hash_content(target, size, extents)
            else:
                size = info.st_size
                extents = data_extents(source, size, info.st_blocks)
                digest, copied = copy_content(source, target, size, extents)
                size = size if extents else copied
            entry = _entry(source, place.path, info)._replace(
                size=size, digest=digest, extents=format_extents(extents)
            )
            self._builder.restorer.restore(target, entry)
        finally:
            os.close(target)
        return entry

    def _clone(self, source: int, target: int) -> bool:
        """Share the blocks of a file, where the filesystem can."""
        if self._clones:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError:
                self._clones = False
        return self._clones


def _same_content(descriptor: int, path: bytes, info: os.stat_result, known: bytes) -> Entry | None:
    """The entry of a file that the base holds, unchanged in all that a version keeps."""
    if not known:
        return None
    extents = data_extents(descriptor, info.st_size, info.st_blocks)
    entry = _entry(descriptor, path, info)._replace(extents=format_extents(extents))
    old = parse_record(known)
    if entry._replace(digest=old.digest) != old:
        return None  # another name of a file, too: it must not become one with that file
    digest, size = hash_content(descriptor, info.st_size, parse_extents(entry.extents))
    stored = sum(length for _, length in extents) if extents else entry.size
    return old if (digest, size) == (old.digest, stored) else None


def _entry(descriptor: int, path: bytes, info: os.stat_result) -> Entry:
    return Entry(
        path,
        b"f",
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        info.st_size,
        xattrs=format_xattrs(read_xattrs(descriptor)),
    )
