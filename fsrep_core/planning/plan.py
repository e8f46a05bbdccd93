"""What planning gives: steps or a conflict for each filesystem, with the reasons.

Frozen values. A plan describes what was there when both sides were listed; it is carried
out at once or made again, never kept.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from fsrep_core.shown import Shown
from fsrep_core.values import Awaited, PlannedStep, Problem, Version

__all__ = ["Conflict", "ConflictKind", "FilesystemPlan", "Plan", "TokenKey"]

TokenKey: TypeAlias = tuple[str, str]
"""Filesystem, and the value of its resume token."""


class ConflictKind(enum.Enum):
    """Why one filesystem cannot be replicated as things stand."""

    NO_SUCH_FILESYSTEM = "no-such-filesystem"
    """The job names a filesystem that the sender does not have."""
    UNREADABLE = "unreadable"
    """A side cannot say what it has of the filesystem."""
    NOTHING_TO_SEND = "nothing-to-send"
    """The sender has no snapshot."""
    INITIAL_FORBIDDEN = "initial-forbidden"
    """The receiver has no snapshot, and the policy forbids a first replication."""
    NO_COMMON_ANCESTOR = "no-common-ancestor"
    """Both sides have versions, but none that could be the base."""
    CURSOR_MISSING = "cursor-missing"
    """The policy starts from the job's cursor, and there is none."""
    DIVERGED = "diverged"
    """The receiver has snapshots newer than the base."""
    NAME_TAKEN = "name-taken"
    """The receiver has another snapshot under the name of one to be sent."""
    STALE_TOKEN = "stale-token"  # noqa: S105  (the word of the configuration, no secret)
    """A partial receive can no longer be completed, and the policy keeps it."""
    INCOMPATIBLE_FORMATS = "incompatible-formats"
    """The two storages share no stream format."""


@attrs.frozen(kw_only=True, repr=False)
class Conflict(Shown):
    """Why a filesystem cannot be replicated, and what the operator can do."""

    kind: ConflictKind
    message: str
    """What is the matter, with the names of the versions meant."""
    hint: str
    """What to do next."""
    versions: tuple[Version, ...] = ()
    """The versions meant, oldest first; which side has them says ``kind``."""

    def problem(self) -> Problem:
        """Give the conflict as the permanent, filesystem-local problem that it is."""
        return Problem(
            message=self.message, temporary=False, local=True, kind="conflict", hint=self.hint
        )


@attrs.frozen(kw_only=True, repr=False)
class FilesystemPlan(Shown):
    """What is to be done for one filesystem, and why."""

    filesystem: str
    base: Version | None = None
    """The newest version that both sides have, as the sender has it; ``None`` = none."""
    steps: tuple[PlannedStep, ...] = ()
    """In order. Empty = nothing to do, or a conflict."""
    conflict: Conflict | None = None
    reasons: tuple[str, ...] = ()
    """One sentence for each choice."""
    waits_for: tuple[Awaited, ...] = ()
    """What other filesystems bring in this run that must be there before the first step."""
    warnings: tuple[str, ...] = ()
    """What the operator should know although it stops nothing."""
    replan_after_first: bool = False
    """The first step completes a token: what follows is to be planned again after it."""


@attrs.frozen(kw_only=True, repr=False)
class Plan(Shown):
    """What is to be done for all filesystems of a job."""

    filesystems: tuple[FilesystemPlan, ...] = ()
    """By name."""
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """There is nothing to do, and nothing that cannot be done."""
        return not any(each.steps or each.conflict for each in self.filesystems)
