"""The words of every choice: one sentence each, for the operator who reads the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core.planning.comparison import Comparison, index_after
from fsrep_core.planning.conflicts import list_versions
from fsrep_core.planning.policy import Policy, Steps
from fsrep_core.values import VersionKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.values import PlannedStep, Version

__all__ = [
    "PARTIAL_LEFT_ALONE",
    "explain_mark",
    "explain_nothing",
    "explain_path",
    "explain_rollback",
    "explain_start",
    "explain_token",
    "warn_of_loss",
]

PARTIAL_LEFT_ALONE = "the receiver's partial receive is left alone, because nothing is received"


def explain_start(sides: Comparison, first: Version, policy: Policy) -> str:
    """Say what the first step starts from, and why."""
    base = sides.base
    if base is None:
        older = index_after(sides.later, first.guid) - 1
        left = f"; {older} older stay on the sender" if older else ""
        return (
            "the receiver has no snapshot: the first replication begins with "
            f"{first.relative_name} (initial = {policy.initial.value!r}){left}"
        )
    if base.kind is VersionKind.SNAPSHOT:
        return f"starts from {base.relative_name}, the newest version that both sides have"
    return (
        f"starts from the bookmark {base.relative_name}, the newest version that both sides "
        "have; the sender's snapshot of it is gone"
    )


def explain_token(sides: Comparison, first: PlannedStep, misfit: str | None) -> tuple[str, ...]:
    """Say whether the receiver's partial is used, and why not."""
    if sides.token is None:
        return ()
    if misfit is not None:
        return (f"throws the receiver's partial receive away: {misfit}",)
    count = sides.token.received_bytes
    there = "" if count is None else f", of which {count} bytes are there"
    skipped = sides.later[: index_after(sides.later, first.to_version.guid) - 1]
    if sides.base is not None and skipped:
        there += f", and leaves out {list_versions(skipped)}"
    return (
        (
            f"completes the partial receive of {first.to_version.relative_name}{there}; what "
            "follows is planned again after it"
        ),
    )


def explain_path(steps: Sequence[PlannedStep], policy: Policy, *, batched: bool) -> str:
    """Say how the way to the newest snapshot is divided."""
    newest = steps[-1].to_version.relative_name
    carried = sum(1 + len(step.intermediates) for step in steps)
    if carried == 1 or policy.steps is Steps.NEWEST:
        return f"leads to {newest}, the sender's newest snapshot"
    way = f"leads over {carried} snapshots to {newest}"
    if policy.steps is Steps.EACH:
        return f"{way}, one step for each (steps = 'each')"
    if not batched:
        return f"{way}, one step for each: not both storages can carry several in one stream"
    return f"{way} in {len(steps)} streams" if len(steps) > 1 else f"{way} in one stream"


def explain_rollback(sides: Comparison) -> tuple[str, ...]:
    """Say what the policy destroys on the receiver."""
    if sides.base is None or not sides.newer:
        return ()
    return (
        (
            f"destroys {list_versions(sides.newer)} on the receiver first, which are newer than "
            "the base (diverged = 'rollback')"
        ),
    )


def explain_nothing(base: Version, newer: Sequence[Version]) -> tuple[str, ...]:
    """Say why nothing is sent."""
    reason = (
        f"nothing to send: the receiver has {base.relative_name}, and the sender has no later "
        "snapshot"
    )
    if not newer:
        return (reason,)
    return (
        reason,
        (
            f"leaves {list_versions(newer)} on the receiver: a rollback only makes room for a "
            "later snapshot"
        ),
    )


def explain_mark(base: Version, cursor: Version | None) -> str:
    """Say why only the cursor moves."""
    found = "is not set" if cursor is None else f"marks {cursor.relative_name}"
    return f"only the mark is missing: the cursor {found} and moves to {base.relative_name}"


def warn_of_loss(sides: Comparison) -> tuple[str, ...]:
    """Warn where the receiver lost what it had confirmed."""
    cursor, base = sides.cursor, sides.base
    if cursor is None or cursor.guid in sides.receiver_guids:
        return ()
    if base is not None and cursor.order <= base.order:
        return ()
    newest = base.relative_name if base is not None else "none"
    return (
        (
            f"the receiver had confirmed {cursor.relative_name}, which the cursor marks, but does "
            f"not have it now; the newest version that both sides have: {newest}"
        ),
    )
