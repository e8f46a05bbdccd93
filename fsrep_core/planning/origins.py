"""Clones: which filesystem can begin as the difference from its origin.

A clone stays one where the receiver has its origin before it: it has it now, or the same plan
brings it and nothing in between waits for the clone. What the receiver has under the clone's
name already is only gone on with. Otherwise a clone is replicated in full, as any filesystem,
and the plan says so. The choice depends on nothing but what both sides have and the job means.

Linear in the number of versions, and free where nothing is a clone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core.shown import Shown
from fsrep_core.values import Awaited, VersionKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fsrep_core.planning.plan import FilesystemPlan
    from fsrep_core.values import Filesystem

__all__ = ["Origin", "find_origins"]


@attrs.frozen(repr=False)
class Origin(Shown):
    """What one filesystem is a clone of, and whether it can stay one."""

    guid: str | None
    """``None`` = the receiver will not have it in time."""
    awaited: Awaited | None
    """What the same plan has to bring first; ``None`` = nothing."""
    reason: str


def find_origins(
    plans: Mapping[str, FilesystemPlan],
    senders: Mapping[str, Filesystem],
    receivers: Mapping[str, Filesystem],
) -> dict[str, Origin]:
    """Give the origin of each clone that is replicated for the first time.

    :param plans: of every filesystem that the job means, as if none were a clone
    """
    clones: dict[str, str] = {}
    for name in sorted(plans):
        guid = senders[name].origin
        if guid is not None and _begins(receivers.get(name)):
            clones[name] = guid
    if not clones:
        return {}
    wanted = frozenset(clones.values())
    there = {guid for guid, _ in _snapshots(receivers.values(), wanted)}
    names = dict(_snapshots(senders.values(), wanted))
    coming = dict(_carried(plans.values(), wanted))
    waits = {name: {each.filesystem for each in plan.waits_for} for name, plan in plans.items()}
    found = {}
    for name, guid in clones.items():
        label = names.get(guid, f"a snapshot that the sender does not show (guid {guid})")
        if guid in there:
            found[name] = Origin(guid, None, f"starts from {label}, which it is a clone of")
        elif guid in coming and not _waits(coming[guid], name, waits):
            waits[name].add(coming[guid])
            found[name] = Origin(
                guid,
                Awaited(coming[guid], guid),
                f"starts from {label}, which it is a clone of, and waits for that",
            )
        else:
            found[name] = Origin(
                None, None, f"is a clone of {label}, but in full: the receiver will not have that"
            )
    return found


def _begins(receiver: Filesystem | None) -> bool:
    """Tell whether nothing was received yet, or only a part of the first stream."""
    if receiver is None:
        return True
    return not (receiver.versions or receiver.placeholder or receiver.resume_token is None)


def _snapshots(
    filesystems: Iterable[Filesystem], wanted: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Find snapshots by their guids; give each with its full name."""
    for filesystem in filesystems:
        for version in filesystem.versions:
            if version.guid in wanted and version.kind is VersionKind.SNAPSHOT:
                yield version.guid, filesystem.name + version.relative_name


def _carried(plans: Iterable[FilesystemPlan], wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Find what the plans bring to the receiver; give each with its filesystem."""
    for plan in plans:
        for step in plan.steps:
            for version in (*step.intermediates, step.to_version):
                if version.guid in wanted:
                    yield version.guid, plan.filesystem


def _waits(name: str, other: str, waits: Mapping[str, Collection[str]]) -> bool:
    """Tell whether one filesystem is, or has to wait for, another."""
    seen, open_names = set(), [name]
    while open_names:
        each = open_names.pop()
        if each == other:
            return True
        if each not in seen:
            seen.add(each)
            open_names.extend(waits.get(each, ()))
    return False
