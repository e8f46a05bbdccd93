"""Reads a directory tree and says how two trees differ, without trusting any storage.

This is the second pair of eyes of every check: it shares no code with the storages, so
that a defect of theirs cannot hide itself. It reads what a user could see: type, mode,
ownership, modification time, content, link targets, hard links, extended attributes
(access control lists are among them), device numbers, and holes.

Left out on purpose: access and change times, inode numbers, the size and order of
directories, and labels that belong to the host (:data:`HOST_LABELS`). Hard links count
within the tree only: a storage may link equal files of several versions.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["ASPECTS", "HOST_LABELS", "Entry", "compare_trees", "differences", "read_tree"]

HOST_LABELS: Final = frozenset({"security.selinux", "security.ima", "security.evm"})
"""Extended attributes that the host's policy sets, whatever was replicated."""

ASPECTS: Final = (
    "type",
    "mode",
    "ownership",
    "mtime",
    "content",
    "target",
    "links",
    "xattrs",
    "device",
    "holes",
)
"""What is compared, in this order."""

_BLOCK_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(_BLOCK_BYTES)
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@attrs.frozen(kw_only=True)
class Entry:
    """What one name of a tree shows. Its fields are the :data:`ASPECTS`."""

    type: str
    mode: int | None
    """Permission bits; ``None`` of a symlink, which has none of its own."""
    ownership: tuple[int, int]
    """User and group, as numbers."""
    mtime: int
    """Of the last modification, nanoseconds since the epoch."""
    content: str | None = None
    """Size and digest of a file; equal whether zeros are written or holes."""
    target: bytes | None = None
    """Of a symlink."""
    links: tuple[bytes, ...] = ()
    """All names of the same file in this tree, where it has more than one."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] | None = None
    """Major and minor number of a device."""
    holes: tuple[tuple[int, int], ...] = ()
    """The blocks of 64 KiB that are holes throughout: runs of first and behind the last."""


def compare_trees(
    path_a: str | os.PathLike[str],
    path_b: str | os.PathLike[str],
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """Say how two trees differ, one sentence for each difference; ``[]`` = they are equal.

    The roots themselves are compared too, as ``.``. Blocks: read both trees whole.

    :param ignore: names of :data:`ASPECTS` to leave out, such as ``ownership`` when the
        receiver was not root
    :raises OSError: a tree cannot be read
    :raises ValueError: ``ignore`` names no aspect
    """
    return differences(read_tree(path_a), read_tree(path_b), ignore=ignore)


def differences(
    tree_a: Mapping[bytes, Entry],
    tree_b: Mapping[bytes, Entry],
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """Say how two trees differ that :func:`read_tree` read, perhaps at different times.

    :param ignore: as with :func:`compare_trees`
    :raises ValueError: ``ignore`` names no aspect
    """
    unknown = sorted(set(ignore) - set(ASPECTS))
    if unknown:
        raise ValueError(f"no such aspect: {', '.join(unknown)}; there are {', '.join(ASPECTS)}")
    aspects = [aspect for aspect in ASPECTS if aspect not in ignore]
    found = []
    for name in sorted(tree_a.keys() | tree_b.keys()):
        shown = os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
        a, b = tree_a.get(name), tree_b.get(name)
        if a is None or b is None:
            found.append(f"{shown}: only in the {'second' if a is None else 'first'} tree")
            continue
        for aspect in aspects:
            value_a, value_b = getattr(a, aspect), getattr(b, aspect)
            if value_a != value_b:
                found.append(
                    f"{shown}: {aspect} differs: {_show(aspect, value_a)} and "
                    f"{_show(aspect, value_b)}"
                )
                if aspect == "type":
                    break  # the rest would differ for that reason alone
    return found


def read_tree(path: str | os.PathLike[str]) -> dict[bytes, Entry]:
    """Read a tree as a mapping of relative names to entries; ``b"."`` is the root.

    Symlinks are not followed, and other filesystems mounted inside are read as well.

    :raises OSError: something cannot be read
    """
    root = os.fsencode(path)
    status_of = {name: os.lstat(_join(root, name)) for name in _names(root)}
    names_of: dict[tuple[int, int], list[bytes]] = {}
    for name, status in sorted(status_of.items()):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            names_of.setdefault((status.st_dev, status.st_ino), []).append(name)
    tree: dict[bytes, Entry] = {}
    for name, status in status_of.items():
        links = tuple(names_of.get((status.st_dev, status.st_ino), ()))
        first = tree.get(links[0]) if links else None
        tree[name] = first or _read_entry(
            _join(root, name), status, links if len(links) > 1 else ()
        )
    return tree


def _show(aspect: str, value: object) -> str:
    text = f"{value:04o}" if aspect == "mode" and value is not None else str(value)
    limit = 160
    return text if len(text) <= limit else f"{text[:limit]}…"


def _join(root: bytes, name: bytes) -> bytes:
    return root if name == b"." else os.path.join(root, name)  # noqa: PTH118  (names are bytes)


def _names(root: bytes) -> Iterator[bytes]:
    yield b"."
    pending = [b""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(root, parent)) as entries:  # noqa: PTH118  (as above)
            for entry in entries:
                name = os.path.join(parent, entry.name)  # noqa: PTH118  (as above)
                yield name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)


def _read_entry(path: bytes, status: os.stat_result, links: tuple[bytes, ...]) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    content, holes = _read_content(path, status.st_size) if kind == stat.S_IFREG else (None, ())
    is_device = kind in {stat.S_IFCHR, stat.S_IFBLK}
    return Entry(
        type=_TYPES[kind],
        mode=None if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode),
        ownership=(status.st_uid, status.st_gid),
        mtime=status.st_mtime_ns,
        content=content,
        target=os.readlink(path) if kind == stat.S_IFLNK else None,  # noqa: PTH115  (bytes)
        links=links,
        xattrs=tuple(_xattrs(path)),
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        holes=holes,
    )


def _xattrs(path: bytes) -> Iterator[tuple[str, bytes]]:
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if name not in HOST_LABELS:
            yield name, os.getxattr(path, name, follow_symlinks=False)


def _read_content(path: bytes, size_bytes: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Give size and digest, and the runs of blocks that are holes.

    Only blocks with data in them are read, and only those that are not all zeros count
    for the digest, each with its place: a hole and written zeros are equal content.
    """
    digest = hashlib.sha256()
    holes = []
    end = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for first, behind in _runs_with_data(descriptor, size_bytes):
            if first > end:
                holes.append((end, first))
            end = behind
            for number in range(first, behind):
                block = os.pread(descriptor, _BLOCK_BYTES, number * _BLOCK_BYTES)
                if block != _ZEROS[: len(block)]:
                    digest.update(b"%d:%d:" % (number, len(block)))
                    digest.update(block)
    finally:
        os.close(descriptor)
    count = -(-size_bytes // _BLOCK_BYTES)
    if count > end:
        holes.append((end, count))
    return f"{size_bytes} bytes, sha256 {digest.hexdigest()}", tuple(holes)


def _runs_with_data(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Give runs of blocks with data, in order, as first block and the one behind the last."""
    done = end = 0
    while end < size_bytes:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole to the end
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        first, behind = max(done, start // _BLOCK_BYTES), -(-end // _BLOCK_BYTES)
        if behind > first:
            yield first, behind
            done = behind
