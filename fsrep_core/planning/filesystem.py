"""The plan of one filesystem: conflict, token, path, mark, in this order.

1. What cannot be done safely is a :class:`~fsrep_core.planning.plan.Conflict`. Nothing
   is ever destroyed unless the policy says so, and then only what stands newer than the
   base (:mod:`fsrep_core.planning.comparison`).
2. A partial receive whose token fits is completed first, and everything is planned again
   after it: what it commits is the *token's* target, whatever else was intended.
3. The steps lead from the base over the sender's later snapshots. A bookmark can be
   where they start, never where they lead.
4. Where the receiver has everything and only the sender's cursor is behind, the plan is
   one step that moves the cursor. The cursor never moves backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core.planning import conflicts, reasons
from fsrep_core.planning.comparison import Comparison, compare, index_after
from fsrep_core.planning.plan import Conflict, FilesystemPlan
from fsrep_core.planning.policy import Base, Diverged, Initial, Policy, StaleToken, Steps
from fsrep_core.values import PlannedStep, Version, VersionKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsrep_core.values import Capabilities, Filesystem

__all__ = ["plan_filesystem"]


def plan_filesystem(  # noqa: PLR0913  (what the rules need)
    sender: Filesystem,
    receiver: Filesystem | None,
    *,
    policy: Policy,
    token_refusal: str | None = None,
    origin: str | None = None,
    sender_capabilities: Capabilities,
    receiver_capabilities: Capabilities,
) -> FilesystemPlan:
    """Plan one filesystem; ``receiver=None`` = the receiver does not have it.

    ``waits_for`` stays empty: only :func:`~fsrep_core.planning.make_plan` sees the
    other filesystems.

    :param token_refusal: why a side would not go on from the receiver's token
    :param origin: the guid of what a first step shall start from; ``None`` = from nothing
    """
    unreadable = conflicts.find_unreadable(sender, receiver)
    if unreadable is not None:
        return FilesystemPlan(filesystem=sender.name, conflict=unreadable)
    sides = compare(sender, receiver, from_bookmarks=sender_capabilities.bookmarks)
    conflict = next(_find_conflicts(sides, policy), None)
    if conflict is None and sides.later:
        batched = sender_capabilities.batched and receiver_capabilities.batched
        origin = origin if sides.base is None else None
        misfit = _find_token_misfit(sides, token_refusal, origin)
        steps = _choose_steps(sides, policy, misfit, batched=batched)
        if origin is not None:
            steps[0] = attrs.evolve(steps[0], origin=origin)
        formats = (sender_capabilities.stream_formats, receiver_capabilities.stream_formats)
        conflict = next(_find_obstacles(sides, steps, policy, misfit, formats), None)
        if conflict is None:
            first = steps[0]
            return FilesystemPlan(
                filesystem=sides.filesystem,
                base=sides.base,
                steps=tuple(steps),
                reasons=(
                    reasons.explain_start(sides, first.to_version, policy),
                    *reasons.explain_token(sides, first, misfit),
                    reasons.explain_path(steps, policy, batched=batched),
                    *reasons.explain_rollback(sides),
                ),
                warnings=reasons.warn_of_loss(sides),
                replan_after_first=first.resume_token is not None,
            )
    plan = FilesystemPlan(
        filesystem=sides.filesystem,
        base=sides.base,
        conflict=conflict,
        warnings=reasons.warn_of_loss(sides),
    )
    if conflict is None:
        plan = _plan_mark(plan, sides)
    if sides.token is not None:
        plan = attrs.evolve(plan, reasons=(*plan.reasons, reasons.PARTIAL_LEFT_ALONE))
    return plan


def _find_conflicts(sides: Comparison, policy: Policy) -> Iterator[Conflict]:
    """Tell why nothing may be done, going by what both sides have; the first counts."""
    if not sides.sender_snapshots:
        yield conflicts.nothing_to_send(sides.sender_bookmarks)
    if not sides.receiver_snapshots:
        if policy.initial is Initial.FAIL:
            yield conflicts.initial_forbidden(sides.sender_snapshots)
        return
    if policy.base is Base.CURSOR:
        if sides.cursor is None:
            yield conflicts.cursor_missing(sides.receiver_snapshots)
        elif sides.cursor.guid not in sides.receiver_guids:
            yield conflicts.base_is_not_cursor(sides.cursor, sides.receiver_snapshots)
    if sides.base is None:
        yield conflicts.no_common_ancestor(sides.sender_snapshots, sides.receiver_snapshots)
    elif sides.newer and policy.diverged is Diverged.FAIL:
        yield conflicts.diverged(sides.base, sides.newer)


def _find_token_misfit(sides: Comparison, refusal: str | None, origin: str | None) -> str | None:
    """Tell why the receiver's partial cannot be the first step; ``None`` = it can, or is none.

    It can be where its stream leads from the base, or a clone's from its origin, to a later
    snapshot: anything else would leave a gap, or has a base or a target that is gone. What a
    storage has refused in this run is not asked for again.
    """
    token = sides.token
    if token is None:
        return None
    start = sides.base.guid if sides.base is not None else origin
    if token.from_guid != start:
        return (
            "it does not start from the newest version that both sides have"
            if origin is None
            else "it does not start from what the filesystem is a clone of"
        )
    if all(version.guid != token.to_guid for version in sides.later):
        return "the sender no longer has the snapshot that it would become"
    if sides.base is not None and sides.newer:
        return "the receiver's newer snapshots have to go first"
    return None if refusal is None else f"it was refused: {refusal}"


def _choose_steps(
    sides: Comparison, policy: Policy, misfit: str | None, *, batched: bool
) -> list[PlannedStep]:
    """Lead from the base to the sender's newest snapshot, over the token where it fits."""
    later = sides.later
    if sides.token is not None and misfit is None:
        at = index_after(later, sides.token.to_guid)
        target = later[at - 1]
        first = PlannedStep(to_version=target, from_version=sides.base, resume_token=sides.token)
        return [first, *_divide(target, later[at:], policy.steps, batched=batched)]
    if sides.base is None:
        if policy.initial is Initial.NEWEST:
            later = later[-1:]
        return [
            PlannedStep(to_version=later[0], clear_resume_token=sides.token is not None),
            *_divide(later[0], later[1:], policy.steps, batched=batched),
        ]
    first, *others = _divide(sides.base, later, policy.steps, batched=batched)
    if sides.token is not None or sides.newer:
        first = attrs.evolve(
            first, clear_resume_token=sides.token is not None, rollback=tuple(sides.newer)
        )
    return [first, *others]


def _divide(
    base: Version, later: Sequence[Version], mode: Steps, *, batched: bool
) -> list[PlannedStep]:
    """Divide the way from ``base`` over the snapshots ``later`` into steps.

    A stream with several snapshots starts from a snapshot: ``zfs send -I`` refuses a
    bookmark ("multiple snapshots cannot be sent from a bookmark", OpenZFS 2.3).
    """
    if not later:
        return []
    if mode is Steps.NEWEST:
        return [PlannedStep(to_version=later[-1], from_version=base)]
    if mode is Steps.EACH or not batched:
        return [
            PlannedStep(to_version=to_version, from_version=from_version)
            for from_version, to_version in zip((base, *later), later, strict=False)
        ]
    if base.kind is VersionKind.BOOKMARK and len(later) > 1:
        first = PlannedStep(to_version=later[0], from_version=base)
        return [first, *_divide(later[0], later[1:], mode, batched=batched)]
    return [PlannedStep(to_version=later[-1], from_version=base, intermediates=tuple(later[:-1]))]


def _find_obstacles(
    sides: Comparison,
    steps: Sequence[PlannedStep],
    policy: Policy,
    misfit: str | None,
    formats: tuple[frozenset[str], frozenset[str]],
) -> Iterator[Conflict]:
    """Tell why these steps cannot be taken; the first counts."""
    made, taken = formats
    if made.isdisjoint(taken):
        yield conflicts.incompatible_formats(made, taken)
    if misfit is not None and policy.stale_token is StaleToken.FAIL:
        yield conflicts.stale_token(misfit)
    going = {version.guid for version in sides.newer}
    carried = {version.name for step in steps for version in (*step.intermediates, step.to_version)}
    clashes = [
        version
        for version in sides.receiver_snapshots
        if version.name in carried and version.guid not in going
    ]
    if clashes:
        yield conflicts.name_taken(clashes)


def _plan_mark(plan: FilesystemPlan, sides: Comparison) -> FilesystemPlan:
    """Complete the plan for a receiver that has everything: perhaps the cursor is behind."""
    base, cursor = sides.base, sides.cursor
    assert base is not None  # noqa: S101  (without a base, every snapshot is a later one)
    why = reasons.explain_nothing(base, sides.newer)
    if cursor is not None and (cursor.guid == base.guid or cursor.order >= base.order):
        return attrs.evolve(plan, reasons=why)
    return attrs.evolve(
        plan,
        steps=(PlannedStep(to_version=base, mark_only=True),),
        reasons=(*why, reasons.explain_mark(base, cursor)),
    )
