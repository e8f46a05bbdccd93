"""The plan of one filesystem: base, conflict, path, token, mark.

The rules, in the order in which they decide:

1. A version is the same on both sides when its guid is. Names, dates and ``order`` are
   never compared across sides. The receiver's bookmarks hold no content and are ignored.
2. The base is the sender's newest version that the receiver has as a snapshot. Of a
   snapshot and a bookmark of the same guid the snapshot is taken, because its send can
   be estimated. Bookmarks count only where the sender can send from them; a bookmark
   stands before the snapshot of the same ``order``.
3. What cannot be done safely is a :class:`~fsrep_core.planning.plan.Conflict`; nothing
   is ever destroyed unless the policy says so, and then only what stands newer than the
   base.
4. The steps lead from the base over the sender's later *snapshots*.
5. A partial receive whose token fits the first step is completed first. After that
   everything is planned again, for what was committed is the token's target.
6. Where the receiver has everything and only the sender's cursor is behind, the plan is
   one step that moves the cursor. The cursor never moves backwards.

Everything here is linear in the number of versions, apart from sorting them.
"""

from __future__ import annotations

import bisect
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from fsrep_core.planning import conflicts
from fsrep_core.planning.conflicts import list_versions
from fsrep_core.planning.plan import Conflict, FilesystemPlan
from fsrep_core.planning.policy import Base, Diverged, Initial, Policy, StaleToken, Steps
from fsrep_core.values import PlannedStep, Version, VersionKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsrep_core.values import Capabilities, Filesystem, ResumeToken

__all__ = ["plan_filesystem"]

_SNAPSHOT = VersionKind.SNAPSHOT
_by_order = attrgetter("order", "name")
"""Sorts versions of one side. The name only makes the plan independent of the listing."""


def plan_filesystem(
    sender: Filesystem,
    receiver: Filesystem | None,
    *,
    policy: Policy,
    sender_capabilities: Capabilities,
    receiver_capabilities: Capabilities,
) -> FilesystemPlan:
    """Plan one filesystem; ``receiver=None`` = the receiver does not have it."""
    sides = _compare(sender, receiver, from_bookmarks=sender_capabilities.bookmarks)
    conflict = _find_conflict(sides, policy)
    if conflict is not None:
        return sides.conclude(conflict=conflict)
    if not sides.later:
        return _plan_mark(sides)
    token_step, token_reason = _plan_token(sides, policy)
    if sides.token is not None and token_step is None and policy.stale_token is StaleToken.FAIL:
        return sides.conclude(conflict=conflicts.stale_token(token_reason))
    batched = sender_capabilities.batched and receiver_capabilities.batched
    steps = _plan_path(sides, token_step, policy, batched=batched)
    conflict = _find_obstacle(sides, steps, sender_capabilities, receiver_capabilities)
    if conflict is not None:
        return sides.conclude(conflict=conflict)
    return sides.conclude(
        steps,
        reasons=(
            _explain_start(sides, policy),
            *_explain_token(sides, token_step, token_reason),
            *_explain_path(steps, policy, batched=batched),
            *_explain_rollback(sides),
        ),
        replan_after_first=token_step is not None,
    )


@attrs.frozen(kw_only=True)
class _Sides:
    """What comparing the two sides gives. All tuples oldest first."""

    filesystem: str
    cursor: Version | None
    token: ResumeToken | None
    sender_snapshots: Sequence[Version]
    sender_bookmarks: Sequence[Version]
    receiver_snapshots: Sequence[Version]
    receiver_guids: frozenset[str]
    base: Version | None
    later: Sequence[Version]
    """The sender's snapshots after the base."""
    newer: Sequence[Version]
    """The receiver's snapshots after the base."""

    def conclude(
        self,
        steps: Iterable[PlannedStep] = (),
        *,
        conflict: Conflict | None = None,
        reasons: Iterable[str] = (),
        replan_after_first: bool = False,
    ) -> FilesystemPlan:
        """Make the plan."""
        steps = tuple(steps)
        reasons = tuple(reasons)
        receives = any(not step.mark_only for step in steps)
        if self.token is not None and not receives:
            reasons = (*reasons, "a partial receive on the receiver is left alone: nothing is sent")
        return FilesystemPlan(
            filesystem=self.filesystem,
            base=self.base,
            steps=steps,
            conflict=conflict,
            reasons=reasons,
            warnings=_warn(self),
            replan_after_first=replan_after_first,
        )


def _compare(sender: Filesystem, receiver: Filesystem | None, *, from_bookmarks: bool) -> _Sides:
    """Find the base, and what each side has after it."""
    snapshots = [version for version in sender.versions if version.kind is _SNAPSHOT]
    bookmarks = [version for version in sender.versions if version.kind is not _SNAPSHOT]
    received = [
        version
        for version in (receiver.versions if receiver is not None else ())
        if version.kind is _SNAPSHOT
    ]
    snapshots.sort(key=_by_order)
    received.sort(key=_by_order)
    received_guids = frozenset([version.guid for version in received])
    base = next(
        (version for version in reversed(snapshots) if version.guid in received_guids), None
    )
    if from_bookmarks and bookmarks:
        base = _later_bookmark(base, snapshots, bookmarks, received_guids) or base
    if base is None:
        later, newer = snapshots, received
    else:
        at = bisect.bisect_left(snapshots, base.order, key=attrgetter("order"))
        later = (
            snapshots[at:] if base.kind is not _SNAPSHOT else snapshots[_after(snapshots, base) :]
        )
        newer = received[_after(received, base) :]
    return _Sides(
        filesystem=sender.name,
        cursor=sender.cursor,
        token=receiver.resume_token if receiver is not None else None,
        sender_snapshots=snapshots,
        sender_bookmarks=bookmarks,
        receiver_snapshots=received,
        receiver_guids=received_guids,
        base=base,
        later=later,
        newer=newer,
    )


def _later_bookmark(
    base: Version | None,
    snapshots: Sequence[Version],
    bookmarks: Sequence[Version],
    received_guids: frozenset[str],
) -> Version | None:
    """Give the newest common bookmark whose snapshot is gone, if it is newer than ``base``."""
    still_snapshots = {version.guid for version in snapshots}
    usable = [
        version
        for version in bookmarks
        if version.guid in received_guids
        and version.guid not in still_snapshots
        and (base is None or version.order > base.order)
    ]
    return max(usable, key=_by_order, default=None)


def _after(snapshots: Sequence[Version], base: Version) -> int:
    """Give the index after the newest snapshot with the guid of ``base``."""
    index = len(snapshots)
    while snapshots[index - 1].guid != base.guid:
        index -= 1
    return index


def _find_conflict(sides: _Sides, policy: Policy) -> Conflict | None:
    """Tell why nothing may be done, going by what both sides have."""
    if not sides.sender_snapshots:
        return conflicts.nothing_to_send(sides.sender_bookmarks)
    if not sides.receiver_snapshots:
        if policy.initial is Initial.FAIL:
            return conflicts.initial_forbidden(sides.sender_snapshots)
        return None
    if policy.base is Base.CURSOR:
        if sides.cursor is None:
            return conflicts.cursor_missing(sides.receiver_snapshots)
        if sides.cursor.guid not in sides.receiver_guids:
            return conflicts.base_is_not_cursor(sides.cursor, sides.receiver_snapshots)
    if sides.base is None:
        return conflicts.no_common_ancestor(sides.sender_snapshots, sides.receiver_snapshots)
    if sides.newer and policy.diverged is Diverged.FAIL:
        return conflicts.diverged(sides.base, sides.newer)
    return None


def _plan_mark(sides: _Sides) -> FilesystemPlan:
    """Plan for a receiver that has everything: perhaps the cursor is behind."""
    base, cursor = sides.base, sides.cursor
    assert base is not None  # noqa: S101  (a receiver without snapshots has all of them later)
    reasons = [
        f"nothing to send: the receiver has {base.relative_name}, and the sender has no later "
        "snapshot"
    ]
    if sides.newer:
        reasons.append(
            f"{list_versions(sides.newer)} on the receiver would be rolled back only to make "
            "room for a later snapshot"
        )
    if cursor is not None and (cursor.guid == base.guid or cursor.order >= base.order):
        return sides.conclude(reasons=reasons)
    found = "there is no cursor" if cursor is None else f"the cursor marks {cursor.relative_name}"
    reasons.append(f"only the mark is missing: {found} instead of {base.relative_name}")
    return sides.conclude([PlannedStep(to_version=base, mark_only=True)], reasons=reasons)


def _plan_token(sides: _Sides, policy: Policy) -> tuple[PlannedStep | None, str]:
    """Give the step that completes the receiver's partial, or why none can."""
    token = sides.token
    if token is None:
        return None, ""
    if sides.newer:
        return None, "newer snapshots of the receiver are rolled back first"
    if token.from_guid != (sides.base.guid if sides.base is not None else None):
        return None, "it does not start from the newest version that both sides have"
    target = next((version for version in sides.later if version.guid == token.to_guid), None)
    if target is None:
        return None, "the sender no longer has the snapshot that it would become"
    if sides.base is None and policy.initial is Initial.ALL and target is not sides.later[0]:
        return None, f"initial = 'all' begins with {sides.later[0].relative_name}"
    step = PlannedStep(to_version=target, from_version=sides.base, resume_token=token)
    return step, ""


def _plan_path(
    sides: _Sides, token_step: PlannedStep | None, policy: Policy, *, batched: bool
) -> list[PlannedStep]:
    """Lead from the base, or from what the token becomes, to the newest snapshot."""
    if token_step is not None:
        target = token_step.to_version
        later = sides.later[_after(sides.later, target) :]
        return [token_step, *_divide(target, later, policy.steps, batched=batched)]
    later = sides.later
    if sides.base is None and policy.initial is Initial.NEWEST:
        later = later[-1:]
    first, *others = _divide(sides.base, later, policy.steps, batched=batched)
    first = attrs.evolve(
        first,
        clear_resume_token=sides.token is not None,
        rollback=tuple(sides.newer),
    )
    return [first, *others]


def _divide(
    base: Version | None, later: Sequence[Version], mode: Steps, *, batched: bool
) -> list[PlannedStep]:
    """Divide the way from ``base`` over ``later`` into steps.

    A stream that carries several snapshots starts from a snapshot: what starts from
    nothing or from a bookmark carries one (``zfs send -I`` refuses anything else).
    """
    if not later:
        return []
    if base is None:
        return [
            PlannedStep(to_version=later[0]),
            *_divide(later[0], later[1:], mode, batched=batched),
        ]
    if mode is Steps.NEWEST:
        return [PlannedStep(to_version=later[-1], from_version=base)]
    if mode is Steps.EACH or not batched:
        return [
            PlannedStep(to_version=to_version, from_version=from_version)
            for from_version, to_version in zip((base, *later), later, strict=False)
        ]
    if base.kind is not _SNAPSHOT and len(later) > 1:
        first = PlannedStep(to_version=later[0], from_version=base)
        return [first, *_divide(later[0], later[1:], mode, batched=batched)]
    return [PlannedStep(to_version=later[-1], from_version=base, intermediates=tuple(later[:-1]))]


def _find_obstacle(
    sides: _Sides,
    steps: Iterable[PlannedStep],
    sender_capabilities: Capabilities,
    receiver_capabilities: Capabilities,
) -> Conflict | None:
    """Tell why these steps cannot be taken."""
    makes, takes = sender_capabilities.stream_formats, receiver_capabilities.stream_formats
    if makes.isdisjoint(takes):
        return conflicts.incompatible_formats(makes, takes)
    staying = len(sides.receiver_snapshots) - len(sides.newer)
    taken = {version.name: version for version in sides.receiver_snapshots[:staying]}
    carried = [version.name for step in steps for version in (*step.intermediates, step.to_version)]
    clashes = [taken[name] for name in carried if name in taken]
    return conflicts.name_taken(clashes) if clashes else None


def _warn(sides: _Sides) -> tuple[str, ...]:
    """Tell of what the receiver has lost since it confirmed it."""
    cursor = sides.cursor
    if cursor is None or cursor.guid in sides.receiver_guids:
        return ()
    if sides.base is not None and cursor.order <= sides.base.order:
        return ()
    has = sides.base.relative_name if sides.base is not None else "nothing of the sender's"
    return (
        f"the receiver had confirmed what the cursor {cursor.relative_name} marks, but does not "
        f"have it now; the newest that it has is {has}",
    )


def _explain_start(sides: _Sides, policy: Policy) -> str:
    base = sides.base
    if base is None:
        if policy.initial is Initial.ALL:
            return (
                "first replication, since the receiver has no snapshot: initial = 'all' begins "
                f"with the oldest, {sides.later[0].relative_name}"
            )
        left = len(sides.later) - 1
        return (
            "first replication, since the receiver has no snapshot: initial = 'newest' begins "
            f"with {sides.later[-1].relative_name} and leaves {left} older on the sender"
        )
    if base.kind is _SNAPSHOT:
        return f"starts from {base.relative_name}, the newest version that both sides have"
    return (
        f"starts from the bookmark {base.relative_name}, the newest version that both sides "
        "have; the sender's snapshot of it is gone"
    )


def _explain_token(
    sides: _Sides, token_step: PlannedStep | None, token_reason: str
) -> tuple[str, ...]:
    token = sides.token
    if token is None:
        return ()
    if token_step is None:
        return (f"throws a partial receive away, because {token_reason}",)
    has = "" if token.received_bytes is None else f" ({token.received_bytes} bytes are there)"
    return (
        f"completes the partial receive of {token_step.to_version.relative_name}{has}; plans "
        "again after it",
    )


def _explain_path(
    steps: Sequence[PlannedStep], policy: Policy, *, batched: bool
) -> tuple[str, ...]:
    newest = steps[-1].to_version.relative_name
    carried = sum(1 + len(step.intermediates) for step in steps)
    if carried == 1 or policy.steps is Steps.NEWEST:
        return (f"leads to {newest}, the sender's newest snapshot",)
    way = f"leads over {carried} snapshots to {newest}"
    if policy.steps is Steps.EACH:
        return (f"{way}, in one step for each",)
    if not batched:
        return (
            f"{way}, in one step for each, because one of the storages cannot carry several "
            "in one stream",
        )
    return (f"{way}, in {len(steps)} step{'' if len(steps) == 1 else 's'}",)


def _explain_rollback(sides: _Sides) -> tuple[str, ...]:
    if sides.base is None or not sides.newer:
        return ()
    return (
        f"diverged = 'rollback' destroys {list_versions(sides.newer)} on the receiver, newer "
        "than the base",
    )
