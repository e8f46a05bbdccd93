"""Which subvolumes are filesystems, which are their versions, and under what names. Pure.

A **filesystem** is a writable subvolume below the root, or anything that has versions.
A **version** is a read-only subvolume. It belongs to a filesystem by the first of these
that says so:

1. the operator's patterns (``also``);
2. its place, where fsrep makes and receives: ``<snapshots>/<filesystem>/@<name>/snapshot``;
3. the mark that fsrep leaves on the directory around a version that it received. A
   read-only subvolume cannot leave its directory, so the mark follows wherever that goes;
4. what it was taken of: the parent is a filesystem, wherever the snapshot lies. So those
   of snapper and btrbk are found without being configured.

Its **identity** is the received UUID, which names the original on whatever host; or its
own UUID where it has none, because then it is the original. Only a read-only subvolume
has an identity at all. A received UUID that a *writable* subvolume carries, too, proves
nothing (tools before btrfs-progs 5.14 left it on a subvolume made writable, and every
snapshot taken later inherits it): whoever has such a one is told apart by its own UUID
and is refused as the source of a send.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from fsrep_btrfs.listing import Subvolume, relative_to
from fsrep_core import Filesystem, InvalidRequestError, Version, VersionKind

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["Arrangement", "Found", "Places", "arrange", "check_filesystem", "check_version_name"]

SNAPSHOT = "snapshot"
"""What a subvolume is called in the directory that bears the version's name."""
PRIVATE = ".fsrep"
"""The directory for what is not a version: partial receives, cursors."""
CONTAINER = ".snapshots"
"""The subvolume in which snapper keeps snapshots: it is a place, not a filesystem."""

_NAME_LIMIT_BYTES = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_age = attrgetter("created_generation", "id")


@attrs.frozen(kw_only=True)
class Places:
    """Where things are, as paths of the file system from its top level."""

    root: str
    snapshots: str
    """Relative to the root; ``"."`` = the root."""
    subvolumes: Mapping[str, str] = attrs.field(factory=dict)
    """The operator's names for filesystems, with their paths relative to the root."""
    also: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """The operator's patterns for versions, relative to the root, by filesystem."""

    @property
    def area(self) -> str:
        """Where fsrep makes and receives versions."""
        return self.root if self.snapshots == "." else _join(self.root, self.snapshots)

    def wrapper(self, filesystem: str, name: str) -> str:
        """Give the directory of a version that fsrep makes or receives."""
        return _join(self.area, filesystem, f"@{name}")

    def read(self, path: str) -> tuple[str, str] | None:
        """Give filesystem and version name for a path in fsrep's own layout, else ``None``."""
        inside = relative_to(path, self.area)
        parts = inside.split("/") if inside else []
        if len(parts) < 3 or parts[-1] != SNAPSHOT or not parts[-2].startswith("@"):  # noqa: PLR2004  (filesystem, wrapper, snapshot)
            return None
        return "/".join(parts[:-2]), parts[-2][1:]


@attrs.frozen(kw_only=True)
class Found:
    """One version, and the subvolume that it is."""

    filesystem: str
    version: Version
    subvolume: Subvolume
    proven: bool
    """Its guid is an identity; otherwise the subvolume cannot be sent."""


@attrs.define(eq=False)
class Arrangement:
    """All filesystems and versions of a listing, and of what was done since."""

    live: Mapping[str, Subvolume]
    """The writable subvolumes, by the name of the filesystem."""
    versions: dict[str, dict[str, Found]]
    """By the name of the filesystem, then by identity, oldest first."""
    readonly: dict[str, Subvolume]
    """Every read-only subvolume that can be reached, by identity."""
    unready: Mapping[str, str]
    """What has been received and is no version yet, anywhere: paths by received UUID."""

    def find(self, filesystem: str, guid: str) -> Found | None:
        """Find a version of a filesystem by its identity."""
        return self.versions.get(filesystem, {}).get(guid)

    def add(self, found: Found) -> None:
        """Remember a version that was just made."""
        guid = found.version.guid
        self.versions.setdefault(found.filesystem, {})[guid] = found
        self.readonly.setdefault(guid, found.subvolume)

    def filesystems(self) -> tuple[Filesystem, ...]:
        """Give what an inventory tells, without cursors."""
        return tuple(
            Filesystem(
                name=name,
                versions=tuple(found.version for found in self.versions.get(name, {}).values()),
                attributes={"subvolume": self.live[name].path} if name in self.live else {},
            )
            for name in sorted(self.live.keys() | self.versions.keys())
        )


def arrange(
    subvolumes: Iterable[Subvolume],
    places: Places,
    *,
    reachable: Callable[[str], bool],
    marked_filesystem: Callable[[str], str | None],
) -> Arrangement:
    """Sort a listing into filesystems and versions.

    :param reachable: tells whether a path of the file system is below the mount point
    :param marked_filesystem: reads the mark of a directory, given as such a path
    """
    every = tuple(subvolumes)
    unready = {
        each.received_uuid: each.path for each in every if each.received_uuid and is_private(each)
    }
    here = [each for each in every if reachable(each.path) and not is_private(each)]
    live = _live(here, places)
    doubtful = frozenset(
        each.received_uuid for each in here if not each.readonly and each.received_uuid
    )
    owner_of = _Owners(
        places=places,
        also={
            name: tuple(_join(places.root, pattern) for pattern in patterns)
            for name, patterns in places.also.items()
        },
        live={each.uuid: name for name, each in live.items() if each.uuid},
        marked_filesystem=marked_filesystem,
    )
    readonly: dict[str, Subvolume] = {}
    belonging: dict[str, dict[str, tuple[Subvolume, str]]] = defaultdict(dict)
    for each in sorted(here, key=_age):
        guid = _identity(each, doubtful)
        if not each.readonly or guid is None:
            continue
        readonly.setdefault(guid, each)
        owner = owner_of(each)
        if owner is not None:
            filesystem, name = owner
            belonging[filesystem].setdefault(guid, (each, name))
    return Arrangement(
        live=live,
        versions={
            filesystem: _name_versions(filesystem, versions, doubtful)
            for filesystem, versions in belonging.items()
        },
        readonly=readonly,
        unready=unready,
    )


def is_private(subvolume: Subvolume) -> bool:
    """Tell whether it lies in the private directory of some storage, as a partial does."""
    return PRIVATE in subvolume.path.split("/")


def _live(here: Iterable[Subvolume], places: Places) -> dict[str, Subvolume]:
    writable = {each.path: each for each in here if not each.readonly}
    if places.subvolumes:
        paths = {
            name: places.root if path == "." else _join(places.root, path.strip("/"))
            for name, path in places.subvolumes.items()
        }
        return {name: writable[path] for name, path in paths.items() if path in writable}
    found = {}
    for path, subvolume in writable.items():
        inside = relative_to(path, places.root)
        if not inside or path.rpartition("/")[2] == CONTAINER or places.read(path):
            continue
        if places.area != places.root and relative_to(path, places.area) is not None:
            continue
        found[_printable(inside)] = subvolume
    return found


@attrs.frozen(kw_only=True)
class _Owners:
    """Says to which filesystem a read-only subvolume belongs, and its name there."""

    places: Places
    also: Mapping[str, tuple[str, ...]]
    live: Mapping[str, str]
    marked_filesystem: Callable[[str], str | None]

    def __call__(self, subvolume: Subvolume) -> tuple[str, str] | None:
        path = subvolume.path
        for filesystem, patterns in self.also.items():
            if any(_matches(path, pattern) for pattern in patterns):
                return filesystem, _name(path)
        owner = self.places.read(path)
        if owner is not None:
            return _printable(owner[0]), _printable(owner[1])
        directory = path.rpartition("/")[0]
        marked = self.marked_filesystem(directory) if subvolume.received_uuid else None
        if marked is None:
            marked = self.live.get(subvolume.parent_uuid or "")
        return None if marked is None else (marked, _name(path))


def _name_versions(
    filesystem: str,
    versions: Mapping[str, tuple[Subvolume, str]],
    doubtful: frozenset[str],
) -> dict[str, Found]:
    """Give each version a name of its own: a name that several claim is told apart."""
    claims: dict[str, int] = defaultdict(int)
    for _, name in versions.values():
        claims[name] += 1
    return {
        guid: Found(
            filesystem=filesystem,
            version=Version(
                kind=VersionKind.SNAPSHOT,
                name=name if claims[name] == 1 else f"{name}~{(subvolume.uuid or '')[:8]}",
                guid=guid,
                order=subvolume.created_generation,
                created=subvolume.created,
            ),
            subvolume=subvolume,
            proven=subvolume.received_uuid not in doubtful,
        )
        for guid, (subvolume, name) in versions.items()
    }


def _identity(subvolume: Subvolume, doubtful: frozenset[str]) -> str | None:
    if subvolume.received_uuid and subvolume.received_uuid not in doubtful:
        return subvolume.received_uuid
    return subvolume.uuid


def _name(path: str) -> str:
    """Name a version by its path: snapper's ``7/snapshot`` is 7, others are what they are."""
    directory, _, last = path.rpartition("/")
    if last == SNAPSHOT and directory:
        last = directory.rpartition("/")[2].removeprefix("@")
    return _printable(last)


def _matches(path: str, pattern: str) -> bool:
    parts, globs = path.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(map(fnmatch.fnmatchcase, parts, globs))


def _printable(name: str) -> str:
    """Make a name that survives logs, JSON and terminals of one that need not."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def check_filesystem(name: str) -> None:
    """Return if a filesystem of this name can have a place here.

    :raises InvalidRequestError: it cannot
    """
    components = name.split("/")
    defect = None
    if any(each in {"", ".", "..", PRIVATE} for each in components):
        defect = f"a component is empty, '.', '..' or {PRIVATE!r}"
    elif _UNPRINTABLE.search(name):
        defect = "it has unprintable characters"
    elif any(len(each.encode()) > _NAME_LIMIT_BYTES for each in components):
        defect = f"a component is longer than {_NAME_LIMIT_BYTES} bytes"
    if defect is not None:
        raise InvalidRequestError(f"{name!r} cannot name a filesystem here: {defect}")


def check_version_name(name: str) -> None:
    """Return if a version of this name can have a place here.

    :raises InvalidRequestError: it cannot
    """
    defect = None
    if not name or "/" in name:
        defect = "it is empty or has a '/'"
    elif _UNPRINTABLE.search(name):
        defect = "it has unprintable characters"
    elif len(name.encode()) >= _NAME_LIMIT_BYTES:
        defect = f"it is longer than {_NAME_LIMIT_BYTES - 1} bytes"
    if defect is not None:
        raise InvalidRequestError(f"{name!r} cannot name a version here: {defect}")
