"""What the tools print, as values. Pure.

The text is that of ``btrfs subvolume list`` and ``show`` in the C locale and in UTC, and
of ``/proc/self/mountinfo``. Text, although btrfs-progs can print JSON: the JSON of
``subvolume list`` is built only into experimental builds (btrfs-progs 6.5 to 6.14,
``cmds/subvolume-list.c``), and it needs as many calls.

Any user may give a subvolume any name, also one with line breaks that imitates other
lines of a listing. Every identifier, UUID and path of a real listing is unique, so a
listing in which one repeats is refused as a whole; a line that begins no row belongs to
the name before it.

Paths are those of the file system, from its top level, without a leading ``/``. Where a
file system is mounted only in part, :class:`Mount` says which of them can be reached.
"""

from __future__ import annotations

import os
import re
import struct
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from fsrep_core import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "INFORMATION_BYTES",
    "Mount",
    "Subvolume",
    "find_mount",
    "merge_listings",
    "parse_information",
    "parse_list",
    "parse_show",
    "parse_version",
]

_TREE_PREFIX = "<FS_TREE>/"

_ROW = re.compile(
    r"ID (?P<id>\d+) gen \d+ cgen (?P<cgen>\d+) top level \d+"
    r"(?: otime (?P<otime>-|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d))?"
    r" parent_uuid (?P<parent>\S+) +received_uuid (?P<received>\S+) +uuid (?P<uuid>\S+) +"
    r"path (?P<path>.*)",
    re.DOTALL,
)
_ROW_BEGINS = re.compile(r"ID \d+ gen \d+ cgen \d+ top level ")

_FIELD = re.compile(r"\t([A-Z][^:\n]*):[ \t]*([^\n]*)")

_INFORMATION = struct.Struct("=Q256sQQQQ16s16s16sQQQQQIxxxxQ")
"""Id, name, parent, directory, generation, flags, three UUIDs, transactions of the last
change, creation, sending and receiving, times of the last change and of creation."""
INFORMATION_BYTES = 504
_READ_ONLY = 1 << 0
"""The flag of the root item, which is another than that for setting it."""

_MOUNT = re.compile(
    r"\S+ \S+ \S+ (?P<root>\S+) (?P<point>\S+) \S+(?: \S+)*? - (?P<type>\S+) (?P<source>\S+)"
)


@attrs.frozen(kw_only=True)
class Subvolume:
    """One subvolume or snapshot of a btrfs file system."""

    id: int
    path: str
    """From the top level of the file system."""
    uuid: str | None
    """``None`` on file systems whose root items are older than UUIDs."""
    parent_uuid: str | None = None
    """The subvolume that it was taken of, on this file system; that may be gone."""
    received_uuid: str | None = None
    """The original that was sent, on whatever host; kept over further hops."""
    created_generation: int
    """Sorts the subvolumes of this file system by age."""
    readonly: bool
    created: float | None = None
    """When it was made on this file system; the list tells it of snapshots only."""


@attrs.frozen(kw_only=True)
class Mount:
    """Where (a part of) a file system is mounted."""

    point: str
    """Absolute path."""
    root: str
    """What of the file system is mounted there, from its top level; ``""`` = all."""
    type: str
    source: str

    def path_of(self, tree_path: str) -> str | None:
        """Give the absolute path of a path of the file system; ``None`` = not reachable."""
        inside = relative_to(tree_path, self.root)
        if inside is None:
            return None
        return os.path.join(self.point, inside) if inside else self.point  # noqa: PTH118  (names may be any bytes, and there are many)

    def tree_path_of(self, path: str) -> str:
        """Give the path of the file system for an absolute path below the mount point."""
        inside = relative_to(path.strip("/"), self.point.strip("/"))
        assert inside is not None  # noqa: S101  (find_mount found this mount for the path)
        return "/".join(part for part in (self.root, inside) if part)


def relative_to(path: str, directory: str) -> str | None:
    """Give ``path`` below ``directory``, by components; ``None`` = it is not below it."""
    if not directory:
        return path
    if path == directory:
        return ""
    return path[len(directory) + 1 :] if path.startswith(f"{directory}/") else None


def find_mount(mountinfo: str, path: str) -> Mount:
    """Find the mount that an absolute path without links is on (``proc(5)``).

    :raises StorageError: there is none, which ``/proc`` never says of a path that exists
    """
    found: Mount | None = None
    for match in map(_MOUNT.match, mountinfo.splitlines()):
        if match is None:
            continue
        point = _unescape(match["point"])
        inside = relative_to(path.strip("/"), point.strip("/"))
        # Of two mounts on one point, the later one hides the earlier.
        if inside is not None and (found is None or len(point) >= len(found.point)):
            found = Mount(
                point=point,
                root=_unescape(match["root"]).strip("/"),
                type=match["type"],
                source=_unescape(match["source"]),
            )
    if found is None:
        raise StorageError(f"{path} is on no mount that /proc/self/mountinfo lists", local=False)
    return found


def parse_list(text: str, *, readonly: bool) -> tuple[Subvolume, ...]:
    """Parse ``btrfs subvolume list -a -c -u -q -R``, with or without ``-s``.

    :param readonly: the listing was limited to read-only subvolumes (``-r``)
    :raises StorageError: this is no such listing, or two rows contradict each other
    """
    rows = tuple(_subvolume(row, readonly=readonly) for row in _rows(text))
    for key in ("id", "path", "uuid"):
        _check_unique(rows, key)
    return rows


def merge_listings(
    every: Iterable[Subvolume],
    readonly: Iterable[Subvolume],
    snapshots: Iterable[Subvolume] = (),
) -> tuple[Subvolume, ...]:
    """Make one listing of those of all, of the read-only ones, and of those with dates.

    They were taken one after the other. What the read-only one says holds: it tells a
    subvolume's flag and its UUIDs from one and the same item of the file system.

    :raises StorageError: two rows contradict each other
    """
    created = {each.id: each.created for each in snapshots}
    merged = {each.id: each for each in every}
    merged.update({each.id: each for each in readonly})
    rows = tuple(
        attrs.evolve(each, created=created.get(each.id)) for _, each in sorted(merged.items())
    )
    for key in ("path", "uuid"):
        _check_unique(rows, key)
    return rows


def parse_show(text: str) -> Subvolume:
    """Parse ``btrfs subvolume show`` of one subvolume.

    The first line is the path; the names of its snapshots follow at the end. A field is
    believed where it stands first, which is before any name but its own.

    :raises StorageError: this is no such text
    """
    path, _, rest = text.partition("\n\tName:")
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(rest):
        fields.setdefault(name, value.strip())
    try:
        return Subvolume(
            id=int(fields["Subvolume ID"]),
            path=path.removeprefix(_TREE_PREFIX),
            uuid=_uuid(fields["UUID"]),
            parent_uuid=_uuid(fields["Parent UUID"]),
            received_uuid=_uuid(fields["Received UUID"]),
            created_generation=int(fields["Gen at creation"]),
            readonly="readonly" in fields["Flags"].split(),
            created=datetime.fromisoformat(fields["Creation time"]).timestamp(),
        )
    except (KeyError, ValueError) as error:
        raise StorageError(
            f"'btrfs subvolume show' answered what fsrep cannot read ({error!r}): {text[:2000]}"
        ) from error


def parse_information(data: bytes, path: str) -> Subvolume:
    """Parse the answer of ``BTRFS_IOC_GET_SUBVOL_INFO`` (``linux/btrfs.h``)."""
    number, _, _, _, _, flags, *rest = _INFORMATION.unpack_from(data)
    own, parent, received = (str(UUID(bytes=each)) if any(each) else None for each in rest[:3])
    created_generation, seconds = rest[4], rest[-1]
    return Subvolume(
        id=number,
        path=path,
        uuid=own,
        parent_uuid=parent,
        received_uuid=received,
        created_generation=created_generation,
        readonly=bool(flags & _READ_ONLY),
        created=float(seconds),
    )


def parse_version(text: str) -> tuple[int, int]:
    """Parse ``btrfs --version``: the first two numbers.

    :raises StorageError: this is no such text
    """
    match = re.match(r"btrfs-progs v(\d+)\.(\d+)", text)
    if match is None:
        raise StorageError(f"'btrfs --version' answered what fsrep cannot read: {text[:200]}")
    return int(match[1]), int(match[2])


def _rows(text: str) -> Iterator[str]:
    row: list[str] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        if _ROW_BEGINS.match(line) and row:
            yield "\n".join(row)
            row = []
        row.append(line)
    if row:
        yield "\n".join(row)


def _subvolume(row: str, *, readonly: bool) -> Subvolume:
    match = _ROW.fullmatch(row)
    if match is None:
        raise StorageError(
            f"'btrfs subvolume list' answered what fsrep cannot read: {row[:200]!r}",
            local=False,
        )
    return Subvolume(
        id=int(match["id"]),
        path=match["path"].removeprefix(_TREE_PREFIX),
        uuid=_uuid(match["uuid"]),
        parent_uuid=_uuid(match["parent"]),
        received_uuid=_uuid(match["received"]),
        created_generation=int(match["cgen"]),
        readonly=readonly,
        created=_time(match["otime"]),
    )


def _uuid(text: str) -> str | None:
    return None if text == "-" else text


def _time(text: str | None) -> float | None:
    if text is None or text == "-":
        return None
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def _check_unique(rows: Iterable[Subvolume], key: str) -> None:
    seen: dict[object, Subvolume] = {}
    for row in rows:
        value = getattr(row, key)
        if value is None:
            continue
        other = seen.setdefault(value, row)
        if other is not row:
            raise StorageError(
                f"'btrfs subvolume list' names two subvolumes with the {key} {value!r}: "
                f"{other.path!r} and {row.path!r}",
                local=False,
                hint="look for a subvolume whose name has a line break and imitates another, "
                "and rename it",
            )


def _unescape(text: str) -> str:
    """Undo the octal escapes of ``/proc/self/mountinfo``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
