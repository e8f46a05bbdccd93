"""Makes a version of a live tree: immutable from the moment it can be seen.

The live tree is walked once, in the order of a manifest. A file that is as it was when
the previous version was made is linked from that version's tree; every other is cloned
where the filesystem can (``FICLONE``) and copied where it cannot. Nothing is ever shared
with the live tree, so that writing there cannot change a version.

"As it was" is decided by what the kernel keeps: inode, size, modification and change
time, mode and owner, kept in the version's ``index``. A file that changed within
:data:`_RACY_NS` before the walk is not trusted, since a further change might carry the
same times; it is read and compared by content instead.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from contextlib import ExitStack

from .attributes import read_xattrs
from .extents import copy_content, data_extents, hash_content
from .failures import Failure, from_os_error, quoted
from .manifest import Manifest
from .names import PATH_LIMIT_BYTES, STORE, check_version_name
from .partial import make_staging, sync_filesystem
from .records import (
    ROOT,
    Entry,
    format_extents,
    format_record,
    format_xattrs,
    parse_extents,
    parse_record,
    record_path,
)
from .removal import remove_tree
from .store import SNAPSHOT, Root, StoredVersion, sync_directory, write_private
from .tree import TreeBuilder, open_directory, open_subdirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Self

    from .store import FilesystemStore
    from .tree import Folder

__all__ = ["create"]

_RACY_NS = 2_000_000_000
_ATTEMPTS = 3
_NAMED_LIMIT = 20
_FLUSH_LINES = 4096
_UNTRUSTED = b"-"
_FICLONE = 0x40049409
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EIO})


def create(request: dict[str, Any]) -> dict[str, Any]:
    """Make one version of each filesystem of the request.

    :returns: ``results``, one for each, in their order
    """
    root = Root(request["root"])
    results = []
    for name in request["filesystems"]:
        try:
            results.append(_create_one(root, name, request["name"]))
        except Failure as failure:
            results.append({"failure": failure.facts()})
        except OSError as error:
            attempted = f"making the version @{request['name']} of {name!r}"
            results.append({"failure": from_os_error(error, attempted).facts()})
    return {"results": results}


def _create_one(root: Root, filesystem: str, name: str) -> dict[str, Any]:
    store = root.filesystem(filesystem)
    check_version_name(name)
    with ExitStack() as stack:
        live = _open_live(store)
        stack.callback(os.close, live)
        stack.enter_context(store.locked())
        store.clean()
        versions = store.versions()
        if any(each.kind == SNAPSHOT and each.name == name for each in versions):
            raise Failure(
                "conflict",
                f"{filesystem!r} has a version @{name} already",
                hint="choose another name, or destroy that version",
            )
        staging = f"{store.path}/%new-{os.urandom(8).hex()}"
        make_staging(staging)
        stack.callback(remove_tree, staging)  # after the rename there is nothing to remove
        walk = stack.enter_context(_Walk(store, staging, versions))
        digest, entries, warnings = walk.run(live)
        version = StoredVersion(
            SNAPSHOT,
            name,
            os.urandom(16).hex(),
            store.next_order(),
            walk.started,
            digest,
            entries,
        )
        write_private(f"{staging}/version.json", version.to_json().encode())
        descriptor = open_directory(staging)
        try:
            sync_filesystem(descriptor)
        finally:
            os.close(descriptor)
        os.rename(staging, f"{store.path}/{version.folder}")
        sync_directory(store.path)
        return {"version": version._asdict(), "warnings": warnings}


def _open_live(store: FilesystemStore) -> int:
    """Open a live tree, component by component: a symbolic link could lead anywhere."""
    descriptor = os.open(store.root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for component in store.name.split("/"):
        try:
            below = open_subdirectory(descriptor, os.fsencode(component))
        except FileNotFoundError:
            raise Failure(
                "storage",
                f"there is no directory {store.live!r} to make a version of",
                hint="create it, or take it out of the job",
            ) from None
        except NotADirectoryError:
            raise Failure(
                "storage",
                f"{store.live!r} cannot become a version: {component!r} in it is no directory",
                hint="a symbolic link is not followed; name its target",
            ) from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


class _Walk:
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
        self._clones = True
        self.started = time.time()
        """When the walk began, by the clock of the host: the version's date."""
        # The clock that stamps files is the filesystem's, which may be another host's.
        self._racy_ns = os.stat(staging).st_ctime_ns - _RACY_NS
        base = self._find_base(store, versions)
        base_tree = open_directory(f"{base}/tree") if base else -1
        tree = open_directory(f"{staging}/tree")
        self._builder = self._stack.enter_context(TreeBuilder(tree, base_tree))
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
            kind = stat.S_IFMT(info.st_mode)
            if kind == stat.S_IFREG:
                self._file(parent, directory, name, path, info)
            elif kind == stat.S_IFDIR:
                return self._subdirectory(parent, directory, name, path)
            elif kind == stat.S_IFLNK:
                self._symlink(parent, directory, name, path, info)
            elif kind == stat.S_IFIFO:
                entry = self._plain_entry(path, b"p", directory, name, info)
                self._builder.fifo(self._builder.enter(parent), name, entry)
                self._record(entry)
            else:
                what = "socket" if kind == stat.S_IFSOCK else "device"
                self._left_out.append(f"the {what} {quoted(path)!r} is not in the version")
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

    def _plain_entry(
        self, path: bytes, kind: bytes, directory: int, name: bytes, info: os.stat_result
    ) -> Entry:
        return Entry(
            path,
            kind,
            stat.S_IMODE(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            xattrs=format_xattrs(read_xattrs(b"/proc/self/fd/%d/%b" % (directory, name))),
        )

    def _symlink(
        self, parent: bytes, directory: int, name: bytes, path: bytes, info: os.stat_result
    ) -> None:
        target = os.readlink(name, dir_fd=directory)
        entry = self._plain_entry(path, b"l", directory, name, info)
        entry = entry._replace(target=target)
        self._builder.symlink(self._builder.enter(parent), name, entry)
        self._record(entry)

    def _file(
        self, parent: bytes, directory: int, name: bytes, path: bytes, info: os.stat_result
    ) -> None:
        folder = self._builder.enter(parent)
        group = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        first = self._groups.get(group) if group else None
        if first is not None:
            entry = first._replace(path=path, kind=b"h", target=first.path)
            self._builder.hard_link(folder, name, entry)
            self._record(entry, self._index_key(info))
            return
        key, line = self._known.get(path, (b"", b""))
        if key and key == _key(info):
            entry = parse_record(line)._replace(kind=b"f", target=b"")
            self._builder.link(folder, line)
            self._record(entry, key)
        else:
            entry, key = self._read_file(folder, directory, name, path, line)
            self._record(entry, key)
        if group:
            self._groups[group] = entry

    def _read_file(
        self, folder: Folder, directory: int, name: bytes, path: bytes, known: bytes
    ) -> tuple[Entry, bytes]:
        """Take a file's content into the version, again if it changes meanwhile.

        :returns: its entry, and what its index says: nothing if it cannot be trusted
        """
        for attempt in range(1, _ATTEMPTS + 1):
            descriptor = os.open(name, _READ_FILE, dir_fd=directory)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise FileNotFoundError(errno.ENOENT, "it is no file any more")
                same = self._same_content(descriptor, path, before, known)
                entry = same or self._copy(folder, descriptor, name, path, before)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            stable = _key(before) == _key(after) and entry.size == after.st_size
            if stable or attempt == _ATTEMPTS:
                break
            if not same:
                os.unlink(name, dir_fd=folder.descriptor)
        if same:
            self._builder.link(folder, known)
        if not stable:
            self._changed.append(path)
        return entry, self._index_key(after) if stable else _UNTRUSTED

    def _same_content(
        self, descriptor: int, path: bytes, info: os.stat_result, known: bytes
    ) -> Entry | None:
        """The entry of a file that the base holds, unchanged in all that a version keeps."""
        if not known:
            return None
        entry = self._file_entry(descriptor, path, info)
        old = parse_record(known)
        if entry._replace(digest=old.digest) != old:
            return None  # another name of a file, too: it must not become one with that file
        digest, size = hash_content(descriptor, info.st_size, parse_extents(entry.extents))
        stored = sum(length for _, length in parse_extents(entry.extents)) or entry.size
        return old if (digest, size) == (old.digest, stored) else None

    def _copy(
        self, folder: Folder, source: int, name: bytes, path: bytes, info: os.stat_result
    ) -> Entry:
        target = self._builder.file(folder, name, 0o600)
        try:
            if self._clone(source, target):
                copy = os.fstat(target)
                extents = data_extents(target, copy.st_size, copy.st_blocks)
                size = copy.st_size
                digest, _ = hash_content(target, size, extents)
            else:
                extents = data_extents(source, info.st_size, info.st_blocks)
                size = info.st_size
                digest, copied = copy_content(source, target, size, extents)
                if not extents:
                    size = copied
            entry = self._file_entry(source, path, info)._replace(
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

    def _file_entry(self, descriptor: int, path: bytes, info: os.stat_result) -> Entry:
        extents = data_extents(descriptor, info.st_size, info.st_blocks)
        return Entry(
            path,
            b"f",
            stat.S_IMODE(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            info.st_size,
            extents=format_extents(extents),
            xattrs=format_xattrs(read_xattrs(descriptor)),
        )

    def _index_key(self, info: os.stat_result) -> bytes:
        return _key(info) if info.st_ctime_ns < self._racy_ns else _UNTRUSTED

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


def _key(info: os.stat_result) -> bytes:
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


def _some(paths: list[bytes]) -> str:
    text = ", ".join(repr(quoted(path)) for path in paths[:_NAMED_LIMIT])
    return text + (f" and {len(paths) - _NAMED_LIMIT} more" if len(paths) > _NAMED_LIMIT else "")
