"""Clones: which filesystem begins as the difference from its origin.

A clone stays one where the receiver has its origin first: it has it now, or another filesystem
of the same plan brings it and does not itself wait for the clone. Where that other one is a
conflict, the clone waits all the same, and fails with it: a copy in full would stay one when
the conflict is long solved. Without such an origin a clone is replicated in full, as any
filesystem, and the plan says so.

What the receiver has of it already is gone on with as it began, also if that is a part only.
The choice depends on nothing but what both sides have and the job means.

Linear in the number of versions, and free where nothing is a clone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from fsrep_core.planning.plan import FilesystemPlan
from fsrep_core.values import Awaited, Filesystem, Origin, VersionKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsrep_core.values import Version

__all__ = ["settle_clones"]


def settle_clones(
    plans: dict[str, FilesystemPlan],
    senders: Mapping[str, Filesystem],
    receivers: Mapping[str, Filesystem],
    *,
    parents: Mapping[str, str],
    replan: Callable[[str, str], FilesystemPlan],
) -> None:
    """Replace the plans of clones that are replicated for the first time.

    :param plans: of every filesystem that the job means, as if none were a clone
    :param parents: which filesystem each would have to wait for, were it to have steps
    :param replan: plan a filesystem so that it begins from the snapshot with this guid
    """
    clones: dict[str, Origin] = {}
    for name, plan in plans.items():
        origin = senders[name].origin
        if origin is not None and _begins(plan, receivers.get(name)):
            clones[name] = origin
    if not clones:
        return
    settling = _Settling(plans, senders, clones, {name: {each} for name, each in parents.items()})
    settling.awaited.update(parents.values())
    wanted = {origin.guid for origin in clones.values()}
    settling.there.update(
        version.guid
        for filesystem in receivers.values()
        for version in _snapshots(filesystem.versions)
        if version.guid in wanted
    )
    for name in _origins_first(clones):
        settling.settle(name, replan)


def _begins(plan: FilesystemPlan, receiver: Filesystem | None) -> bool:
    """Tell whether nothing was received yet, and no part of it that can be completed in full."""
    if receiver is None:
        return True
    if receiver.versions or receiver.placeholder or receiver.resume_token is None:
        return False
    return not any(step.resume_token for step in plan.steps[:1])


def _origins_first(clones: Mapping[str, Origin]) -> Iterator[str]:
    """Order clones so that a clone of a clone comes after it."""
    done: set[str] = set()
    for name in sorted(clones):
        chain: dict[str, None] = {}
        while name in clones and name not in done and name not in chain:
            chain[name] = None
            name = clones[name].filesystem  # noqa: PLW2901  (from each to its origin)
        done.update(chain)
        yield from reversed(chain)


@attrs.define(eq=False)
class _Settling:
    """What is known while one clone after the other is planned."""

    plans: dict[str, FilesystemPlan]
    senders: Mapping[str, Filesystem]
    clones: Mapping[str, Origin]
    waits: dict[str, set[str]]
    """Which filesystems each may have to wait for."""
    awaited: set[str] = attrs.field(init=False, factory=set)
    """The filesystems that any may have to wait for."""
    there: set[str] = attrs.field(init=False, factory=set)
    """The guids that the receiver has now, of those that are origins."""
    _brought: dict[str, frozenset[str]] = attrs.field(init=False, factory=dict)
    _names: dict[str, dict[str, str]] = attrs.field(init=False, factory=dict)

    def settle(self, name: str, replan: Callable[[str, str], FilesystemPlan]) -> None:
        """Plan one clone anew, or say why it is sent in full."""
        origin = self.clones[name]
        label = f"{origin.filesystem}{self._name(origin)}"
        waits_for: tuple[Awaited, ...] = ()
        if origin.guid in self.there:
            reason = f"starts from {label}, which it is a clone of"
        elif not self._is_brought(origin):
            self._explain(name, f"is a clone of {label}, which the receiver will not have")
            return
        elif self._waits(origin.filesystem, name):
            self._explain(name, f"is a clone of {label}, which cannot be received before it")
            return
        else:
            reason = f"starts from {label}, which it is a clone of, and waits for that"
            waits_for = (Awaited(origin.filesystem, origin.guid),)
            self.waits.setdefault(name, set()).add(origin.filesystem)
            self.awaited.add(origin.filesystem)
        plan = replan(name, origin.guid)
        if plan.steps:
            plan = attrs.evolve(
                plan, waits_for=(*plan.waits_for, *waits_for), reasons=(*plan.reasons, reason)
            )
        self.plans[name] = plan

    def _explain(self, name: str, why: str) -> None:
        plan = self.plans[name]
        if plan.steps:
            reasons = (*plan.reasons, f"{why}: it is sent in full")
            self.plans[name] = attrs.evolve(plan, reasons=reasons)

    def _name(self, origin: Origin) -> str:
        """Give the relative name of an origin, or its guid where the sender does not show it."""
        names = self._names.get(origin.filesystem)
        if names is None:
            shown = self.senders.get(origin.filesystem)
            versions = _snapshots(shown.versions if shown is not None else ())
            names = {version.guid: version.relative_name for version in versions}
            self._names[origin.filesystem] = names
        return names.get(origin.guid, f" (guid {origin.guid})")

    def _is_brought(self, origin: Origin) -> bool:
        """Tell whether the plan brings an origin, or would if it could."""
        plan = self.plans.get(origin.filesystem)
        if plan is None:
            return False
        if plan.conflict is not None:
            return True
        brought = self._brought.get(origin.filesystem)
        if brought is None:
            brought = frozenset(
                version.guid
                for step in plan.steps
                for version in (*step.intermediates, step.to_version)
            )
            self._brought[origin.filesystem] = brought
        return origin.guid in brought

    def _waits(self, name: str, other: str) -> bool:
        """Tell whether one filesystem may have to wait for another."""
        if other not in self.awaited:
            return False
        seen: set[str] = set()
        open_names = [name]
        while open_names:
            each = open_names.pop()
            if each == other:
                return True
            if each not in seen:
                seen.add(each)
                open_names.extend(self.waits.get(each, ()))
        return False


def _snapshots(versions: Iterable[Version]) -> Iterator[Version]:
    return (version for version in versions if version.kind is VersionKind.SNAPSHOT)
