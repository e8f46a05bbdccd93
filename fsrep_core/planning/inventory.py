"""The plan of a job: the filesystems that it means, each planned on its own.

What is wrong with one filesystem is its own conflict and never reaches another. Two ties are
between filesystems: a child waits for its parent, where the receiver nests, and a clone for
its origin (:mod:`fsrep_core.planning.origins`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from fsrep_core.planning.conflicts import no_such_filesystem
from fsrep_core.planning.filesystem import plan_filesystem
from fsrep_core.planning.origins import settle_clones
from fsrep_core.planning.patterns import Selection, select
from fsrep_core.planning.plan import FilesystemPlan, Plan, TokenKey
from fsrep_core.values import Awaited

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fsrep_core.planning.policy import Policy
    from fsrep_core.values import Filesystem, Inventory

__all__ = ["make_plan"]


def make_plan(
    sender: Inventory,
    receiver: Inventory,
    *,
    patterns: Sequence[str],
    policy: Policy,
    refused_tokens: Mapping[TokenKey, str] = {},
) -> Plan:
    """Plan every filesystem of the sender that the patterns select.

    What only holds children on the sender has nothing to replicate and no plan; the
    receiver makes its own where it needs one.

    A disk that is not mounted must not look like one with nothing to do. So it is a
    conflict if the sender has not what the patterns name without wildcards, or if it has
    nothing that they select while the receiver has versions of something.

    :param refused_tokens: what was tried already and cannot be gone on from, and why
    :raises InvalidRequestError: a pattern cannot be used
    """
    senders = {each.name: each for each in sender.filesystems}
    receivers = {each.name: each for each in receiver.filesystems}
    selection = select(patterns, senders)
    names = [
        name for name in selection.names if senders[name].versions or not senders[name].placeholder
    ]
    missing: Collection[str] = ()
    if receiver.capabilities.nests:
        missing = {name for name in names if not _exists(receivers.get(name))}

    def plan_one(name: str, origin: str | None = None) -> FilesystemPlan:
        there = receivers.get(name)
        token = there.resume_token if there is not None else None
        plan = plan_filesystem(
            senders[name],
            there,
            policy=policy,
            token_refusal=refused_tokens.get((name, token.value)) if token is not None else None,
            origin=origin,
            sender_capabilities=sender.capabilities,
            receiver_capabilities=receiver.capabilities,
        )
        return _after_parent(plan, parents.get(name))

    parents = _missing_parents(missing)
    plans = {name: plan_one(name) for name in names}
    if sender.capabilities.clones and receiver.capabilities.clones:
        settle_clones(plans, senders, receivers, parents=parents, replan=plan_one)
    absent = selection.absent if names else _lost(selection, patterns, receivers)
    lost = [FilesystemPlan(filesystem=name, conflict=no_such_filesystem()) for name in absent]
    return Plan(filesystems=(*plans.values(), *lost), warnings=_warnings(selection, len(senders)))


def _lost(
    selection: Selection, patterns: Sequence[str], receivers: Mapping[str, Filesystem]
) -> list[str]:
    """Name what a sender without anything to replicate was expected to have."""
    replicated = {name for name in select(patterns, receivers).names if receivers[name].versions}
    return sorted({*selection.absent, *replicated})


def _exists(filesystem: Filesystem | None) -> bool:
    """Tell whether children can be received below it.

    What a cut first receive left is not yet a filesystem: throwing its token away
    would take everything below it along.
    """
    if filesystem is None:
        return False
    return bool(filesystem.versions) or filesystem.placeholder or filesystem.resume_token is None


def _missing_parents(missing: Collection[str]) -> dict[str, str]:
    """Give the nearest ancestor of each that is missing as well; it has to come first."""
    parents = {}
    for name in missing:
        ancestor, slash, _ = name.rpartition("/")
        while slash and ancestor not in missing:
            ancestor, slash, _ = ancestor.rpartition("/")
        if slash:
            parents[name] = ancestor
    return parents


def _after_parent(plan: FilesystemPlan, parent: str | None) -> FilesystemPlan:
    if not plan.steps or parent is None:
        return plan
    reason = f"waits until {parent} exists on the receiver, because it holds this one"
    return attrs.evolve(plan, waits_for=(Awaited(parent),), reasons=(*plan.reasons, reason))


def _warnings(selection: Selection, sender_count: int) -> tuple[str, ...]:
    warnings = [
        f"the pattern {text!r} "
        + ("takes nothing away" if text.startswith("!") else "matches no filesystem of the sender")
        for text in selection.idle_patterns
        if text not in selection.absent  # those are conflicts
    ]
    if not selection.names and not selection.absent:
        warnings.append(
            f"no filesystem is selected: the patterns leave nothing of the {sender_count} "
            "that the sender has"
            if sender_count
            else "no filesystem is selected: the sender has none"
        )
    return tuple(warnings)
