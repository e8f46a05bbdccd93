"""What is on the pool below the root, as it was listed last and changed since.

A tree is listed once, for an inventory; a step then needs no listing of its own. That is
safe because nothing is believed that is not checked where it counts: ``zfs`` itself refuses
what is gone or in the way, and what is not remembered is looked for once more before it
counts as missing. Whoever changes a dataset, or tries to, notes it here or has it forgotten.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from fsrep_core import (
    InvalidRequestError,
    Origin,
    StorageError,
    Version,
    VersionKind,
    VersionMissingError,
)
from fsrep_zfs.batching import Batch
from fsrep_zfs.listing import Dataset
from fsrep_zfs.tool import ZfsTool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Catalog", "full_name", "gone"]

NAME_LIMIT = 255
"""``ZFS_MAX_DATASET_NAME_LEN`` without the zero at the end."""


_COMPONENT = re.compile(r"(?!\.\.?\Z|[-%])[^@#/\x00-\x1f\x7f]+")


@attrs.define(eq=False)
class Catalog:
    """The datasets below a root."""

    root: str
    tool: ZfsTool
    _datasets: dict[str, Dataset] = attrs.field(init=False, factory=dict)
    _listed: bool = attrs.field(init=False, default=False)
    _forgotten: set[str] = attrs.field(init=False, factory=set)
    _looks: Batch[str, Dataset | None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._looks = Batch(self._look_at_all)

    def dataset_name(self, filesystem: str) -> str:
        """Give the name of the dataset of a filesystem.

        :raises InvalidRequestError: it cannot be one
        """
        name = f"{self.root}/{filesystem}"
        if not all(map(_COMPONENT.fullmatch, filesystem.split("/"))):
            raise InvalidRequestError(f"{filesystem!r} cannot be the name of a filesystem")
        if len(name) > NAME_LIMIT:
            raise InvalidRequestError(
                f"{name!r} is longer than the {NAME_LIMIT} characters of a dataset's name"
            )
        return name

    async def look(self) -> Mapping[str, Dataset]:
        """List the whole tree now, and remember it."""
        try:
            self._datasets = await self.tool.list_tree(self.root)
        except VersionMissingError as error:
            raise StorageError(
                f"listing {self.root}: the dataset does not exist",
                local=False,
                hint=f"is its pool imported? If it is to be new: zfs create -o canmount=off "
                f"-o mountpoint=none {self.root}",
            ) from error
        self._listed = True
        self._forgotten.clear()
        return self._datasets

    async def known(self, name: str) -> Dataset | None:
        """Give what is remembered of a dataset; look if nothing is. ``None`` = it is not there."""
        if not self._listed:
            await self.look()
        if name in self._forgotten:
            return await self.look_at(name)
        return self._datasets.get(name)

    async def look_at(self, name: str) -> Dataset | None:
        """List one dataset now, together with those that other tasks want to be listed."""
        if not self._listed:
            await self.look()
            return self._datasets.get(name)
        return await self._looks.submit(name)

    async def _look_at_all(self, names: Sequence[str]) -> dict[str, Dataset | None]:
        found = await self.tool.list_datasets(list(dict.fromkeys(names)), self._datasets)
        for name in names:
            self.remember(name, found.get(name))
        return {name: found.get(name) for name in names}

    def remember(self, name: str, dataset: Dataset | None) -> None:
        """Remember how a dataset was just listed."""
        self._forgotten.discard(name)
        if dataset is None:
            self._datasets.pop(name, None)
        else:
            self._datasets[name] = dataset

    def forget(self, name: str) -> None:
        """Look at a dataset again before it is next spoken of."""
        self._forgotten.add(name)

    @property
    def remembered(self) -> Mapping[str, Dataset]:
        """All that is remembered."""
        return self._datasets

    def origins(self, *clones: Dataset) -> Mapping[str | None, Origin]:
        """Give what datasets are clones of, by the full name of the snapshot.

        What is not of a filesystem below the root is not among them.
        """
        wanted: dict[str, set[str]] = {}
        for dataset in clones:
            if dataset.origin is not None:
                name, _, snapshot = dataset.origin.partition("@")
                wanted.setdefault(name, set()).add(snapshot)
        found: dict[str | None, Origin] = {}
        for name, snapshots in wanted.items():
            filesystem = name.removeprefix(f"{self.root}/")
            if filesystem == name or name not in self._datasets:
                continue
            for each in self._datasets[name].snapshots.values():
                if each.name in snapshots:
                    found[f"{name}@{each.name}"] = Origin(filesystem, each.guid)
        return found

    async def find(
        self, name: str, version: Version, *, bookmarks: bool = True
    ) -> tuple[Dataset, Version] | None:
        """Find a version of a dataset by its identity, as a snapshot where there is one."""
        dataset = await self.known(name)
        for fresh in (False, True):
            if fresh:
                dataset = await self.look_at(name)
            if dataset is None:
                continue
            found = dataset.snapshots.get(version.guid)
            if found is None and bookmarks:
                found = _bookmark(dataset, version)
            if found is not None:
                return dataset, found
        return None


def _bookmark(dataset: Dataset, version: Version) -> Version | None:
    """Find a bookmark of this identity: the one that is meant, or any other."""
    meant = dataset.bookmarks.get(version.name)
    if meant is not None and meant.guid == version.guid and version.kind is VersionKind.BOOKMARK:
        return meant
    marks = (each for each in dataset.bookmarks.values() if each.guid == version.guid)
    return next(marks, None)


def full_name(dataset: str, version: Version) -> str:
    """Give the name of a version as ``zfs`` takes it."""
    return f"{dataset}{version.relative_name}"


def gone(attempt: str, version: Version) -> VersionMissingError:
    """Make the error of a version that is not there."""
    return VersionMissingError(
        f"{attempt}: {version.relative_name} (guid {version.guid}) does not exist",
        hint="plan again: it was destroyed meanwhile",
    )
