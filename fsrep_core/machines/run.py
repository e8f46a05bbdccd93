"""One run: all filesystems of one job, once, in as many attempts as it takes.

Each attempt plans afresh and then works. A run that waits says until when and why. A
run is ``COMPLETED`` only when every filesystem is; a filesystem that failed for good
makes it ``PERMANENT_ERROR``, whose problem names each one. Being interrupted is neither
and moves nothing: the report shows the state in which it happened.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fsrep_core.machines.replication import Replication
from fsrep_core.reports import ReplicationReport, RunReport
from fsrep_core.shown import Shown
from fsrep_core.table import Table, advance, is_terminal
from fsrep_core.values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = [
    "TRANSITIONS",
    "AttemptFailed",
    "PlanMade",
    "PlanningFailed",
    "ReplanNeeded",
    "Run",
    "RunEvent",
    "RunFailed",
    "RunState",
    "WaitOver",
    "WorkDone",
    "summarize_failures",
]


class RunState(enum.Enum):
    """Where a run stands."""

    PLANNING = "planning"
    PLANNING_ERROR = "planning-error"
    WORKING = "working"
    WORKING_WAIT = "working-wait"
    COMPLETED = "completed"
    PERMANENT_ERROR = "permanent-error"


@attrs.frozen(repr=False)
class PlanMade(Shown):
    """Both sides were listed and every filesystem has a replication."""


@attrs.frozen(repr=False)
class PlanningFailed(Shown):
    """A side could not be listed; it is worth another try at ``sleep_until``."""

    problem: Problem
    sleep_until: float
    """Seconds since the epoch."""


@attrs.frozen(repr=False)
class WaitOver(Shown):
    """The time to try again has come."""


@attrs.frozen(repr=False)
class AttemptFailed(Shown):
    """Work cannot go on now; it is worth another attempt at ``sleep_until``."""

    problem: Problem
    sleep_until: float
    """Seconds since the epoch."""


@attrs.frozen(repr=False)
class ReplanNeeded(Shown):
    """The work went well, but what follows must be planned from what is there now."""


@attrs.frozen(repr=False)
class WorkDone(Shown):
    """Every filesystem is completed."""


@attrs.frozen(repr=False)
class RunFailed(Shown):
    """Nothing more will be tried."""

    problem: Problem


RunEvent: TypeAlias = (
    PlanMade | PlanningFailed | WaitOver | AttemptFailed | ReplanNeeded | WorkDone | RunFailed
)

TRANSITIONS: Table[RunState] = {
    RunState.PLANNING: {
        PlanMade: RunState.WORKING,
        PlanningFailed: RunState.PLANNING_ERROR,
        RunFailed: RunState.PERMANENT_ERROR,
    },
    RunState.PLANNING_ERROR: {
        WaitOver: RunState.PLANNING,
    },
    RunState.WORKING: {
        AttemptFailed: RunState.WORKING_WAIT,
        ReplanNeeded: RunState.PLANNING,
        WorkDone: RunState.COMPLETED,
        RunFailed: RunState.PERMANENT_ERROR,
    },
    RunState.WORKING_WAIT: {
        WaitOver: RunState.PLANNING,
    },
    RunState.COMPLETED: {},
    RunState.PERMANENT_ERROR: {},
}


@attrs.define(eq=False, repr=False)
class Run:
    """The filesystems of one job, and where their replication stands."""

    job: str
    state: RunState = attrs.field(init=False, default=RunState.PLANNING)
    problem: Problem | None = attrs.field(init=False, default=None)
    sleep_until: float | None = attrs.field(init=False, default=None)
    attempt: int = attrs.field(init=False, default=1)
    started_at: float | None = attrs.field(init=False, default=None)
    finished_at: float | None = attrs.field(init=False, default=None)
    warnings: list[str] = attrs.field(init=False, factory=list)
    replications: dict[str, Replication] = attrs.field(init=False, factory=dict)
    active: set[str] = attrs.field(init=False, factory=set)
    """The filesystems that a worker has in hand."""

    @property
    def finished(self) -> bool:
        """Nothing more will happen."""
        return is_terminal(TRANSITIONS, self.state)

    def advance(self, event: RunEvent) -> None:
        """Take an event: move, and record or clear what goes with the new state.

        :raises IllegalTransitionError: and nothing changed
        """
        self.state = advance(TRANSITIONS, self.state, event)
        match event:
            case PlanningFailed() | AttemptFailed():
                self.problem, self.sleep_until = event.problem, event.sleep_until
            case RunFailed():
                self.problem, self.sleep_until = event.problem, None
            case _:
                self.problem, self.sleep_until = None, None
        if self.state is RunState.PLANNING:
            self.attempt += 1

    def report(self) -> RunReport:
        """What is known of the run now."""
        active: list[ReplicationReport] = []
        completed: list[ReplicationReport] = []
        pending: list[ReplicationReport] = []
        for name, replication in sorted(self.replications.items()):
            if name in self.active:
                place = active
            else:
                place = completed if replication.completed else pending
            place.append(replication.report())
        return RunReport(
            job=self.job,
            status=self.state.value,
            problem=self.problem,
            sleep_until=self.sleep_until,
            attempt=self.attempt,
            started_at=self.started_at,
            finished_at=self.finished_at,
            active=tuple(active),
            completed=tuple(completed),
            pending=tuple(pending),
            warnings=tuple(self.warnings),
        )


def summarize_failures(replications: Iterable[Replication]) -> Problem | None:
    """Make one problem out of those of many filesystems, naming each.

    Filesystems that failed alike are named together. The answer is temporary only when
    every problem is. ``None`` = none failed.
    """
    alike: dict[Problem, list[str]] = {}
    for replication in replications:
        if replication.problem is not None:
            alike.setdefault(replication.problem, []).append(replication.filesystem)
    if not alike:
        return None
    parts = [f"{', '.join(sorted(names))}: {problem.message}" for problem, names in alike.items()]
    kinds = {problem.kind for problem in alike}
    hints = {problem.hint for problem in alike}
    return Problem(
        message="; ".join(sorted(parts)),
        temporary=all(problem.temporary for problem in alike),
        local=all(problem.local for problem in alike),
        kind=kinds.pop() if len(kinds) == 1 else "several",
        hint=hints.pop() if len(hints) == 1 else None,
    )
