"""Destroys exactly the versions named, in batches, and tells the fate of each.

Holds keep versions from everybody else; whoever asks fsrep itself to destroy a version of
a job means it, so the holds of that job are released first. Another job's stay, and so
does the version. What a stream is being made of now is kept in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from fsrep_core import BusyError, FsrepError, Version, VersionKind
from fsrep_zfs.catalog import Catalog, full_name
from fsrep_zfs.listing import Dataset
from fsrep_zfs.names import last_tag, step_tag
from fsrep_zfs.tool import ZfsTool

__all__ = ["Destroyer"]


@attrs.define(eq=False)
class Destroyer:
    """Destroys versions below one root."""

    tool: ZfsTool
    catalog: Catalog
    in_use: Callable[[Dataset, str], bool]

    async def destroy(
        self, job: str, name: str, versions: Sequence[Version]
    ) -> Mapping[str, FsrepError | None]:
        """Destroy versions of one dataset; give the problem of each, by guid."""
        problems: dict[str, FsrepError | None] = {version.guid: None for version in versions}
        dataset = await self.catalog.look_at(name)
        if dataset is None:
            return problems
        doomed = self._choose(dataset, versions, problems)
        if not doomed:
            return problems
        try:
            await self._release(job, dataset, doomed)
            await self._destroy_snapshots(dataset, doomed, problems)
            for version in doomed:
                if version.kind is VersionKind.BOOKMARK:
                    await self._alone(dataset, version, problems)
        finally:
            self.catalog.forget(name)
        return problems

    def _choose(
        self,
        dataset: Dataset,
        versions: Sequence[Version],
        problems: dict[str, FsrepError | None],
    ) -> list[Version]:
        """Give those that are there, by their identity, and not in use."""
        doomed = []
        for version in versions:
            if version.kind is VersionKind.SNAPSHOT:
                here = dataset.snapshots.get(version.guid)
            else:
                here = dataset.bookmarks.get(version.name)
            if here is None or here.guid != version.guid:
                continue
            if self.in_use(dataset, version.guid):
                problems[version.guid] = BusyError(
                    f"destroying {full_name(dataset.name, here)}: it is being sent",
                    hint="it can be destroyed when that is done",
                )
                continue
            doomed.append(here)
        return doomed

    async def _release(self, job: str, dataset: Dataset, doomed: Sequence[Version]) -> None:
        held = [
            full_name(dataset.name, each)
            for each in doomed
            if each.kind is VersionKind.SNAPSHOT and each.guid in dataset.held
        ]
        for tag in (step_tag(job), last_tag(job)) if held else ():
            await self.tool.release(tag, held)

    async def _destroy_snapshots(
        self,
        dataset: Dataset,
        doomed: Sequence[Version],
        problems: dict[str, FsrepError | None],
    ) -> None:
        """Destroy all at once. A refusal is one of all: then try again without those it names."""
        snapshots = [each for each in doomed if each.kind is VersionKind.SNAPSHOT]
        while snapshots:
            try:
                await self.tool.destroy_snapshots(dataset.name, [each.name for each in snapshots])
            except FsrepError as error:
                named = [
                    each
                    for each in snapshots
                    if _is_refused(full_name(dataset.name, each), error.message)
                ]
                for each in named or snapshots:
                    await self._alone(dataset, each, problems)
                snapshots = [each for each in snapshots if each not in named] if named else []
            else:
                return

    async def _alone(
        self, dataset: Dataset, version: Version, problems: dict[str, FsrepError | None]
    ) -> None:
        try:
            if version.kind is VersionKind.BOOKMARK:
                await self.tool.destroy_bookmark(full_name(dataset.name, version))
            else:
                await self.tool.destroy_snapshots(dataset.name, [version.name])
        except FsrepError as error:
            here = await self.catalog.look_at(dataset.name)
            versions = (*here.versions(),) if here is not None else ()
            if any(each.guid == version.guid and each.kind is version.kind for each in versions):
                problems[version.guid] = error


def _is_refused(name: str, said: str) -> bool:
    """Tell whether a message names a snapshot that keeps itself from being destroyed."""
    return f"snapshot {name}:" in said or f"destroy '{name}'" in said
