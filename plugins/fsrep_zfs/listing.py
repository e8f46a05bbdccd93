"""What ``zfs list`` prints, as values. Pure.

One command lists a whole tree with all that fsrep asks about: datasets, snapshots and
bookmarks, whatever their number. Columns are divided by tabs, which no name of ZFS can
hold; spaces it can. Only the last column is a user's to write, so a row that is not
complete, or a name that comes twice, makes the whole listing unbelievable.

A user property is inherited by children, and ``zfs list`` does not say from where a value
comes. :data:`~fsrep_zfs.names.MADE_PROPERTY` therefore has another value on each dataset,
and counts only where it differs from the parent's, which has to be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core import StorageError, Version, VersionKind
from fsrep_zfs.names import COPY_PREFIX, MADE_PROPERTY, PLACEHOLDER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLUMNS", "Dataset", "parse_listing"]

COLUMNS = (
    "name",
    "type",
    "guid",
    "createtxg",
    "creation",
    "userrefs",
    "receive_resume_token",
    "encryption",
    "keystatus",
    "origin",
    "canmount",
    "mountpoint",
    MADE_PROPERTY,
)
_SNAPSHOT, _BOOKMARK = VersionKind.SNAPSHOT, VersionKind.BOOKMARK
_NOTHING = frozenset({"-", ""})
_UNMOUNTABLE = frozenset({"none", "legacy", "-"})


@attrs.define(eq=False, kw_only=True)
class Dataset:
    """One filesystem or volume with its versions; what is done to it is noted here too."""

    name: str
    type: str
    """``filesystem`` or ``volume``."""
    guid: str
    token: str | None = attrs.field(default=None, repr=False)
    encrypted: bool = False
    key_loaded: bool = True
    origin: str | None = None
    """The snapshot, ``DATASET@NAME``, that it is a clone of."""
    mounts_at: str | None = None
    """Where it would be mounted at the next import; ``None`` = nowhere by itself."""
    container: bool = False
    """Never mounted (``canmount=off``)."""
    mark: str = "-"
    """:data:`~fsrep_zfs.names.MADE_PROPERTY`, its own or inherited."""
    made: str | None = None
    """The same, where it is its own."""
    snapshots: dict[str, Version] = attrs.field(factory=dict)
    """By guid."""
    bookmarks: dict[str, Version] = attrs.field(factory=dict)
    """By name: several may mark one guid."""
    held: set[str] = attrs.field(factory=set)
    """Guids of the snapshots with holds, whoever made them."""

    @property
    def placeholder(self) -> bool:
        """Fsrep made it only to hold others."""
        return not self.snapshots and (self.made or "").startswith(PLACEHOLDER_PREFIX)

    @property
    def replaceable(self) -> bool:
        """Fsrep made it, and it has no snapshot: a full stream may take its place.

        A placeholder that can be mounted has become somebody's, who may keep files in it.
        """
        copy = not self.snapshots and (self.made or "").startswith(COPY_PREFIX)
        return copy or (self.placeholder and self.container)

    def versions(self) -> tuple[Version, ...]:
        """All snapshots and bookmarks."""
        return (*self.snapshots.values(), *self.bookmarks.values())


def parse_listing(text: str, known: Mapping[str, Dataset] | None = None) -> dict[str, Dataset]:
    """Parse ``zfs list -Hp -o COLUMNS`` of datasets, snapshots and bookmarks, by name.

    The datasets are in the order of the listing, a parent before its children.

    :param known: what was listed before, with the parents of what is listed now
    :raises StorageError: this is no such listing
    """
    datasets: dict[str, Dataset] = {}
    parts: list[list[str]] = []
    count = len(COLUMNS)
    for line in text.split("\n") if text else ():
        if not line:
            continue
        row = line.split("\t")
        if len(row) != count:
            raise _unreadable(line)
        if row[1] == "snapshot" or row[1] == "bookmark":
            parts.append(row)
        elif row[0] in datasets:
            raise _unreadable(line, "it names a dataset twice")
        else:
            parent = row[0].rpartition("/")[0]
            above = datasets.get(parent) or (known or {}).get(parent)
            datasets[row[0]] = _dataset(row, above)
    try:
        for row in parts:
            _add_version(datasets, row)
    except (KeyError, ValueError) as error:
        raise _unreadable("\t".join(row)) from error
    return datasets


def _dataset(row: list[str], parent: Dataset | None) -> Dataset:
    name, kind, guid, _, _, _, token, encryption, key, origin, canmount, mountpoint, mark = row
    own = mark not in _NOTHING and parent is not None and parent.mark != mark
    mounts = kind == "filesystem" and canmount == "on" and mountpoint not in _UNMOUNTABLE
    return Dataset(
        name=name,
        type=kind,
        guid=guid,
        token=None if token in _NOTHING else token,
        encrypted=encryption not in {"off", *_NOTHING},
        key_loaded=key != "unavailable",
        origin=None if origin in _NOTHING else origin,
        mounts_at=mountpoint if mounts else None,
        container=canmount == "off",
        mark=mark,
        made=mark if own else None,
    )


def _add_version(datasets: Mapping[str, Dataset], row: list[str]) -> None:
    full_name, kind, guid, createtxg, creation, userrefs = row[:6]
    if kind == "snapshot":
        dataset_name, _, name = full_name.partition("@")
        dataset = datasets[dataset_name]
        if guid in dataset.snapshots:
            raise ValueError(guid)
        dataset.snapshots[guid] = Version(_SNAPSHOT, name, guid, int(createtxg), float(creation))
        if userrefs not in _NOTHING and userrefs != "0":
            dataset.held.add(guid)
    else:
        dataset_name, _, name = full_name.partition("#")
        bookmark = Version(_BOOKMARK, name, guid, int(createtxg), float(creation))
        datasets[dataset_name].bookmarks[name] = bookmark


def _unreadable(line: str, why: str = "it is no row of a listing") -> StorageError:
    return StorageError(
        f"'zfs list' answered what fsrep cannot read, {why}: {line[:300]!r}",
        local=False,
        hint=f"look for a strange value: zfs get -r {MADE_PROPERTY}",
    )
