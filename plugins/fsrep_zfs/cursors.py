"""The cursor of a job on a filesystem: a bookmark with the guid in its name.

A bookmark outlives its snapshot, holds no space, and is a base for the next step. It is
made before the one before it is destroyed, so there is a valid cursor at every moment; of
two that a crash has left, the newer counts, and the next move destroys the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from fsrep_core import FsrepError, Version, VersionKind
from fsrep_zfs.catalog import full_name
from fsrep_zfs.listing import Dataset
from fsrep_zfs.names import CursorName, cursor_name, job_word, parse_cursor_name
from fsrep_zfs.tool import ZfsTool

__all__ = ["Cursors"]

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Cursors:
    """Reads and moves cursors."""

    tool: ZfsTool
    in_use: Callable[[Dataset, str], bool]
    """Tells whether a stream is being made of a dataset's version with this guid."""

    def current(self, job: str, dataset: Dataset) -> Version | None:
        """Give the cursor of a job; ``None`` = there is none."""
        found = self._all(job, dataset)
        return max((each for each, _ in found), key=lambda each: each.order, default=None)

    def sent_raw(self, job: str, dataset: Dataset, base: Version | None) -> bool | None:
        """Tell whether a base was sent raw by this job; ``None`` = it was not, or who knows."""
        if base is None:
            return None
        found = (name.raw for _, name in self._all(job, dataset) if name.guid == base.guid)
        return next(found, None)

    async def move(self, job: str, dataset: Dataset, target: Version, *, raw: bool) -> Version:
        """Make ``target`` the cursor, unless the cursor is newer; give the cursor then.

        :param target: a snapshot or bookmark of the dataset
        """
        present = self.current(job, dataset)
        if present is not None and present.order > target.order:
            return present
        cursor = await self._make(job, dataset, target, raw=raw)
        for old, _ in self._all(job, dataset):
            if old.guid != cursor.guid and not self.in_use(dataset, old.guid):
                await self._destroy(dataset, old)
        return cursor

    async def keep(self, job: str, dataset: Dataset, base: Version, *, raw: bool) -> None:
        """See that a base, which the receiver has, outlives its snapshot."""
        present = self.current(job, dataset)
        if present is None or present.order < base.order:
            await self._make(job, dataset, base, raw=raw)

    async def _make(self, job: str, dataset: Dataset, target: Version, *, raw: bool) -> Version:
        for present, _ in self._all(job, dataset):
            if present.guid == target.guid:
                return present
        name = cursor_name(job, target.guid, raw=raw and dataset.encrypted)
        await self.tool.bookmark(full_name(dataset.name, target), f"{dataset.name}#{name}")
        cursor = attrs.evolve(target, kind=VersionKind.BOOKMARK, name=name)
        dataset.bookmarks[name] = cursor
        return cursor

    async def _destroy(self, dataset: Dataset, cursor: Version) -> None:
        """Destroy an old cursor. That it stays harms nobody, so that is no error."""
        try:
            await self.tool.destroy_bookmark(full_name(dataset.name, cursor))
        except FsrepError as error:
            logger.warning("the old cursor %s stays: %s", full_name(dataset.name, cursor), error)
        dataset.bookmarks.pop(cursor.name, None)

    def _all(self, job: str, dataset: Dataset) -> list[tuple[Version, CursorName]]:
        word = job_word(job)
        found = ((each, parse_cursor_name(each.name)) for each in dataset.bookmarks.values())
        return [
            (each, name)
            for each, name in found
            if name is not None and name.job == word and name.guid == each.guid
        ]
