"""Walks a live tree once and takes every entry into a version.

The walk goes in the order of a manifest. What cannot be taken is never lost silently: an
entry that cannot be read makes the walk fail with its name; sockets, devices and what is
mounted below are warnings; so is everything that changed while it was looked at.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from contextlib import ExitStack

from .attributes import read_xattrs
from .failures import Failure, quoted
from .folders import open_directory, open_subdirectory
from .manifest import Manifest
from .names import PATH_LIMIT_BYTES, STORE
from .records import ROOT, Entry, format_record, format_xattrs, parse_record, record_path
from .store import SNAPSHOT
from .taking import FileTaker, Place, index_key
from .tree import TreeBuilder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Self

    from .store import FilesystemStore, StoredVersion

__all__ = ["Walk"]

_RACY_NS = 2_000_000_000
_NAMED_LIMIT = 20
_FLUSH_LINES = 4096
_UNTRUSTED = b"-"
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EIO})
_KINDS = {stat.S_IFREG: b"f", stat.S_IFLNK: b"l", stat.S_IFIFO: b"p"}


class Walk:
    """One walk over a live tree. A context manager."""

    def __init__(self, store: FilesystemStore, staging: str, versions: list[StoredVersion]) -> None:
        self._nested = store.nested()
        self._staging = staging
        self._stack = ExitStack()
        self._unreadable: list[bytes] = []
        self._changed: list[bytes] = []
        self._left_out: list[str] = []
        self._groups: dict[tuple[int, int], Entry] = {}
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        self._known_directories: set[bytes] = set()
        self.started = time.time()
        """When the walk began, by the clock of the host: the version's date."""
        # The clock that stamps files is the filesystem's, which may be another host's.
        self._racy_ns = os.stat(staging).st_ctime_ns - _RACY_NS
        base = self._find_base(store, versions)
        base_tree = open_directory(f"{base}/tree") if base else -1
        tree = open_directory(f"{staging}/tree")
        self._builder = self._stack.enter_context(TreeBuilder(tree, base_tree))
        self._taker = FileTaker(self._builder)
        self._hasher = hashlib.sha256()
        self._entries = 0
        self._lines: list[bytes] = []
        self._index: list[bytes] = []
        self._manifest_file = self._stack.enter_context(_new_file(f"{staging}/manifest"))
        self._index_file = self._stack.enter_context(_new_file(f"{staging}/index"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, live: int) -> tuple[str, int, list[str]]:
        """Walk the whole tree.

        :returns: the manifest's digest, the number of entries, and warnings
        :raises Failure: something cannot be read, so that the version would lie
        """
        info = os.fstat(live)
        self._device = info.st_dev
        root = self._directory_entry(ROOT, live, info)
        self._builder.root(root)
        self._record(root)
        self._directory(b"", os.dup(live))
        if self._unreadable:
            raise Failure(
                "permission-denied",
                f"{len(self._unreadable)} entries cannot be read: {_some(self._unreadable)}",
                hint="run as their owner or as root, or move them out of the tree",
            )
        self._builder.finish()
        self._flush()
        warnings = self._builder.restorer.warnings() + self._left_out[:_NAMED_LIMIT]
        if len(self._left_out) > _NAMED_LIMIT:
            warnings.append(f"{len(self._left_out) - _NAMED_LIMIT} more entries were left out")
        if self._changed:
            warnings.append(
                "these changed while the version was made, and may be in it half old and "
                f"half new: {_some(self._changed)}"
            )
        return self._hasher.hexdigest(), self._entries, warnings

    def _find_base(self, store: FilesystemStore, versions: list[StoredVersion]) -> str:
        """The folder of the newest version made here, with what is known of its files."""
        for version in reversed(versions):
            folder = f"{store.path}/{version.folder}"
            if version.kind == SNAPSHOT and os.path.exists(f"{folder}/index"):
                self._stack.enter_context(store.in_use(version))
                with Manifest(f"{folder}/manifest") as manifest:
                    lines = bytes(manifest.data).split(b"\n")
                with open(f"{folder}/index", "rb") as file:
                    keys = file.read().split(b"\n")
                for key, line in zip(keys, lines, strict=True):
                    if key:
                        self._known[record_path(line)] = (key, line)
                    elif line.partition(b"\t")[2].startswith(b"d"):
                        self._known_directories.add(record_path(line))
                return folder
        return ""

    def _directory(self, path: bytes, descriptor: int) -> None:
        """Walk a directory and all below it, without recursion: trees may be deep."""
        levels = [self._level(path, descriptor)]
        try:
            while levels:
                path, descriptor, names, before = levels[-1]
                if not names:
                    levels.pop()
                    self._check_unchanged(path, descriptor, before)
                    os.close(descriptor)
                    continue
                below = self._entry(path, descriptor, names.pop())
                if below is not None:
                    levels.append(self._level(*below))
        finally:
            for level in levels:
                os.close(level[1])

    def _level(self, path: bytes, descriptor: int) -> tuple[bytes, int, list[bytes], int]:
        before = os.fstat(descriptor).st_mtime_ns
        names = sorted((os.fsencode(name) for name in os.listdir(descriptor)), reverse=True)
        return path, descriptor, names, before

    def _check_unchanged(self, path: bytes, descriptor: int, before: int) -> None:
        if os.fstat(descriptor).st_mtime_ns != before:
            self._changed.append(path or ROOT)

    def _entry(self, parent: bytes, directory: int, name: bytes) -> tuple[bytes, int] | None:
        """Take one entry into the version.

        :returns: the path and descriptor of a directory to walk next
        """
        path = parent + b"/" + name if parent else name
        if len(path) > PATH_LIMIT_BYTES:
            raise Failure(
                "storage", f"a path has more than {PATH_LIMIT_BYTES} bytes: {path!r:.200}"
            )
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                return self._subdirectory(parent, directory, name, path)
            kind = _KINDS.get(stat.S_IFMT(info.st_mode))
            if kind is None:
                what = "socket" if stat.S_ISSOCK(info.st_mode) else "device"
                self._left_out.append(f"the {what} {quoted(path)!r} is not in the version")
                return None
            group = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
            first = self._groups.get(group) if group else None
            if first is not None:
                self._further_name(parent, name, first, path, info)
                return None
            place = Place(directory, self._builder.enter(parent), name, path)
            entry = self._file(place, info) if kind == b"f" else self._special(place, kind, info)
            if group:
                self._groups[group] = entry
        except FileNotFoundError:
            self._changed.append(path)  # it went while we looked
        except OSError as error:
            if error.errno not in _DENIED:
                raise
            self._unreadable.append(path)
        return None

    def _subdirectory(
        self, parent: bytes, directory: int, name: bytes, path: bytes
    ) -> tuple[bytes, int] | None:
        if name == os.fsencode(STORE):
            self._left_out.append(f"the store {quoted(path)!r} is not in the version")
            return None
        descriptor = open_subdirectory(directory, name)
        try:
            info = os.fstat(descriptor)
            entry = self._directory_entry(path, descriptor, info)
            self._builder.directory(
                self._builder.enter(parent), name, entry, in_base=path in self._known_directories
            )
            self._record(entry)
            if path in self._nested:
                return None
            if info.st_dev != self._device:
                self._left_out.append(f"what is mounted at {quoted(path)!r} is not in the version")
                return None
            walked = os.dup(descriptor)
        finally:
            os.close(descriptor)
        return path, walked

    def _directory_entry(self, path: bytes, descriptor: int, info: os.stat_result) -> Entry:
        return Entry(
            path,
            b"d",
            stat.S_IMODE(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            xattrs=format_xattrs(read_xattrs(descriptor)),
        )

    def _further_name(
        self, parent: bytes, name: bytes, first: Entry, path: bytes, info: os.stat_result
    ) -> None:
        # What has no content of its own is told by the digest of what it is.
        digest = first.digest or hashlib.sha256(first.target).hexdigest().encode()
        entry = first._replace(path=path, kind=b"h", digest=digest, target=first.path)
        self._builder.hard_link(self._builder.enter(parent), name, entry)
        self._record(entry, self._index_key(info))

    def _special(self, place: Place, kind: bytes, info: os.stat_result) -> Entry:
        """Take a symbolic link or a fifo."""
        entry = Entry(
            place.path,
            kind,
            stat.S_IMODE(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            xattrs=format_xattrs(
                read_xattrs(b"/proc/self/fd/%d/%b" % (place.directory, place.name))
            ),
        )
        if kind == b"l":
            entry = entry._replace(target=os.readlink(place.name, dir_fd=place.directory))
            self._builder.symlink(place.folder, place.name, entry)
        else:
            self._builder.fifo(place.folder, place.name, entry)
        self._record(entry)
        return entry

    def _file(self, place: Place, info: os.stat_result) -> Entry:
        key, line = self._known.get(place.path, (b"", b""))
        if key and key == index_key(info):
            entry = parse_record(line)._replace(kind=b"f", target=b"")
            self._builder.link(place.folder, place.name, line)
            self._record(entry, key)
            return entry
        entry, found = self._taker.take(place, line)
        if found is None:
            self._changed.append(place.path)
        self._record(entry, self._index_key(found) if found else _UNTRUSTED)
        return entry

    def _index_key(self, info: os.stat_result) -> bytes:
        return index_key(info) if info.st_ctime_ns < self._racy_ns else _UNTRUSTED

    def _record(self, entry: Entry, key: bytes = b"") -> None:
        self._lines.append(format_record(entry))
        self._index.append(key)
        if len(self._lines) >= _FLUSH_LINES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(line + b"\n" for line in self._lines)
        self._hasher.update(data)
        self._entries += len(self._lines)
        self._manifest_file.write(data)
        self._index_file.write(b"".join(key + b"\n" for key in self._index))
        self._lines.clear()
        self._index.clear()


def _new_file(path: str) -> BinaryIO:
    """A file that only the store's owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _some(paths: list[bytes]) -> str:
    text = ", ".join(repr(quoted(path)) for path in paths[:_NAMED_LIMIT])
    return text + (f" and {len(paths) - _NAMED_LIMIT} more" if len(paths) > _NAMED_LIMIT else "")
