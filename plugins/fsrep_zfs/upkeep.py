"""Lists what fsrep has left on a pool, and releases what nobody needs any more.

Left are cursors, holds on the ends of steps, holds on what was received last, and the
filesystems that only hold others. Stale is what its own job would remove the next time:

* a cursor, where the job has a newer one on the same filesystem;
* a hold on the end of a step before the cursor: that step is confirmed;
* a hold on what was received last, where two newer snapshots are held so.

A job that is gone never comes back to remove its own. That it is gone only an operator
knows: its configuration may be on another host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core import FsrepError
from fsrep_zfs.catalog import Catalog, full_name
from fsrep_zfs.names import job_word, parse_cursor_name, parse_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fsrep_core import Version
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
    """Nobody needs it any more."""
    tag: str | None = None
    """Of a hold."""


async def find_abstractions(
    tool: ZfsTool, catalog: Catalog, gone_jobs: Iterable[str] = ()
) -> list[Abstraction]:
    """List all of them below the root: two processes, whatever there is.

    :param gone_jobs: all that these have left is stale
    """
    datasets = await catalog.look()
    gone = frozenset(map(job_word, gone_jobs))
    snapshots = {
        full_name(dataset.name, dataset.snapshots[guid]): dataset.snapshots[guid]
        for dataset in datasets.values()
        for guid in dataset.held
        if guid in dataset.snapshots
    }
    found: list[Abstraction] = []
    newest: dict[tuple[str, str], int] = {}
    for dataset in datasets.values():
        cursors = _cursors(dataset)
        for each, job in cursors:
            key = (dataset.name, job)
            newest[key] = max(each.order, newest.get(key, 0))
        found += [
            Abstraction(
                kind="cursor",
                name=full_name(dataset.name, each),
                job=job,
                stale=job in gone or each.order < newest[dataset.name, job],
            )
            for each, job in cursors
        ]
        if dataset.placeholder:
            found.append(Abstraction(kind="placeholder", name=dataset.name, job=None, stale=False))
    holds = await tool.holds(list(snapshots)) if snapshots else []
    found += _holds(holds, snapshots, newest, gone)
    return sorted(found, key=lambda each: (each.name, each.kind))


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


def _cursors(dataset: Dataset) -> list[tuple[Version, str]]:
    """Give the cursors on a dataset, each with its job."""
    return [
        (each, name.job)
        for each in dataset.bookmarks.values()
        if (name := parse_cursor_name(each.name)) is not None and name.guid == each.guid
    ]


def _holds(
    holds: Iterable[tuple[str, str]],
    snapshots: Mapping[str, Version],
    cursors: Mapping[tuple[str, str], int],
    gone: frozenset[str],
) -> list[Abstraction]:
    """Give fsrep's own holds; those of others are nobody's business here."""
    own = [(name, tag, parsed) for name, tag in holds if (parsed := parse_tag(tag)) is not None]
    orders: dict[tuple[str, str], list[int]] = {}
    for name, tag, _ in own:
        orders.setdefault((name.partition("@")[0], tag), []).append(snapshots[name].order)
    found = []
    for name, tag, (kind, job) in own:
        dataset = name.partition("@")[0]
        order = snapshots[name].order
        if kind == "step":
            cursor = cursors.get((dataset, job), 0)
            last = order == max(orders[dataset, tag])  # no step has begun from there
            confirmed = order < cursor or (order == cursor and last)
        else:
            confirmed = order < sorted(orders[dataset, tag])[-2:][0]
        found.append(
            Abstraction(
                kind={"step": "step-hold", "last": "last-received-hold"}[kind],
                name=name,
                job=job,
                stale=confirmed or job in gone,
                tag=tag,
            )
        )
    return found
