"""Lists what fsrep has left on a pool, and releases what nobody needs any more.

Left are cursors, holds on the ends of steps, holds on what was received last, and the
filesystems that only hold others. A job that no longer exists never comes back to remove
its own, so an operator can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core import FsrepError
from fsrep_zfs.catalog import Catalog, full_name
from fsrep_zfs.names import job_word, parse_cursor_name, parse_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsrep_zfs.listing import Dataset
    from fsrep_zfs.tool import ZfsTool

__all__ = ["Abstraction", "find_abstractions", "release_stale"]


@attrs.frozen(kw_only=True)
class Abstraction:
    """One thing that fsrep has made and nobody else knows of."""

    kind: str
    """``cursor``, ``step-hold``, ``last-received-hold`` or ``placeholder``."""
    name: str
    """What it is, or what it is on."""
    job: str | None
    """As it stands on the disk; ``None`` = of no job."""
    stale: bool
    """A newer one of the same kind, job and filesystem exists, or the job does not."""
    tag: str | None = None
    """Of a hold."""


async def find_abstractions(
    tool: ZfsTool, catalog: Catalog, jobs: Iterable[str] | None
) -> list[Abstraction]:
    """List all of them below the root, two processes in all.

    :param jobs: those that exist; what any other has left is stale. ``None`` = not known
    """
    datasets = await catalog.look()
    words = None if jobs is None else {job_word(job) for job in jobs}
    held = {
        full_name(dataset.name, dataset.snapshots[guid]): dataset.snapshots[guid].order
        for dataset in datasets.values()
        for guid in dataset.held
        if guid in dataset.snapshots
    }
    holds = await tool.holds(list(held)) if held else []
    return [
        *(each for dataset in datasets.values() for each in _of_dataset(dataset, words)),
        *_of_holds(holds, held, words),
    ]


async def release_stale(tool: ZfsTool, found: Iterable[Abstraction]) -> list[FsrepError]:
    """Remove those that are stale; give what went wrong."""
    errors: list[FsrepError] = []
    by_tag: dict[str, list[str]] = {}
    for each in found:
        if not each.stale:
            continue
        if each.tag is not None:
            by_tag.setdefault(each.tag, []).append(each.name)
            continue
        try:
            await tool.destroy_bookmark(each.name)
        except FsrepError as error:
            errors.append(error)
    for tag, names in by_tag.items():
        errors += (await tool.release(tag, names)).values()
    return errors


def _of_dataset(dataset: Dataset, words: set[str] | None) -> list[Abstraction]:
    cursors = [
        (each, name)
        for each in dataset.bookmarks.values()
        if (name := parse_cursor_name(each.name)) is not None
    ]
    newest: dict[str, int] = {}
    for each, name in cursors:
        newest[name.job] = max(each.order, newest.get(name.job, 0))
    found = [
        Abstraction(
            kind="cursor",
            name=full_name(dataset.name, each),
            job=name.job,
            stale=each.order < newest[name.job] or _gone(name.job, words),
        )
        for each, name in cursors
    ]
    if dataset.placeholder:
        found.append(Abstraction(kind="placeholder", name=dataset.name, job=None, stale=False))
    return found


def _of_holds(
    holds: Iterable[tuple[str, str]], orders: Mapping[str, int], words: set[str] | None
) -> list[Abstraction]:
    own = [(name, tag, parsed) for name, tag in holds if (parsed := parse_tag(tag)) is not None]
    newest: dict[tuple[str, str], list[int]] = {}
    for name, tag, _ in own:
        newest.setdefault((name.partition("@")[0], tag), []).append(orders[name])
    return [
        Abstraction(
            kind={"step": "step-hold", "last": "last-received-hold"}[kind],
            name=name,
            job=job,
            tag=tag,
            stale=_gone(job, words)
            # The last two are the ends of a step, or what was received and its base.
            or orders[name] < sorted(newest[name.partition("@")[0], tag])[-2:][0],
        )
        for name, tag, (kind, job) in own
    ]


def _gone(job: str, words: set[str] | None) -> bool:
    return words is not None and job not in words
