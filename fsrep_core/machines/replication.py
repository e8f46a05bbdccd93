"""One filesystem's replication: completed steps, and pending ones that run in order.

Built once by :class:`ReplicationBuilder`; no step at build time means completed. A
planning conflict is a replication that is completed from the start and holds a
permanent, filesystem-local problem that says why.

A failed step keeps its place: nothing after it can run before it, and no retry skips it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from fsrep_core.machines.step import Step, StepEvent, StepFailed, StepState
from fsrep_core.reports import ReplicationReport, StepReport
from fsrep_core.shown import Shown
from fsrep_core.table import IllegalTransitionError, Table, advance, is_terminal
from fsrep_core.values import Awaited, Problem, Version

if TYPE_CHECKING:
    from fsrep_core.values import PlannedStep

__all__ = [
    "TRANSITIONS",
    "LastStepCompleted",
    "Replication",
    "ReplicationBuilder",
    "ReplicationState",
    "StepCompleted",
]


class ReplicationState(enum.Enum):
    """Where one filesystem's replication stands."""

    READY = "ready"
    COMPLETED = "completed"


@attrs.frozen(repr=False)
class StepCompleted(Shown):
    """The first pending step is completed, and others follow it."""


@attrs.frozen(repr=False)
class LastStepCompleted(Shown):
    """The only pending step is completed."""


TRANSITIONS: Table[ReplicationState] = {
    ReplicationState.READY: {
        StepCompleted: ReplicationState.READY,
        StepFailed: ReplicationState.READY,
        LastStepCompleted: ReplicationState.COMPLETED,
    },
    ReplicationState.COMPLETED: {},
}


@attrs.define(eq=False, repr=False)
class Replication:
    """The steps of one filesystem. Made by :class:`ReplicationBuilder`."""

    filesystem: str
    state: ReplicationState
    problem: Problem | None
    """The conflict, or the problem of the first pending step's last attempt."""
    reasons: tuple[str, ...]
    waits_for: tuple[Awaited, ...]
    """What others bring to the receiver before the first step can run."""
    warnings: list[str]
    _completed: list[Step]
    _pending: deque[Step]
    _earlier: tuple[StepReport, ...]
    _base: Version | None

    @property
    def current_step(self) -> Step | None:
        """The first pending step; ``None`` = none."""
        return self._pending[0] if self._pending else None

    @property
    def pending_steps(self) -> tuple[Step, ...]:
        """All pending steps, in order."""
        return tuple(self._pending)

    @property
    def completed(self) -> bool:
        """Nothing is left to do, or nothing can be done (a conflict)."""
        return is_terminal(TRANSITIONS, self.state)

    @property
    def completed_count(self) -> int:
        """How many steps of this plan are completed."""
        return len(self._completed)

    @property
    def newest_common(self) -> Version | None:
        """The newest version that both sides are known to have; ``None`` = none."""
        step = self.current_step
        if step is not None and step.state is StepState.MARK_REPLICATED_READY:
            return step.planned.to_version
        return self._completed[-1].planned.to_version if self._completed else self._base

    @property
    def brought(self) -> tuple[str, ...]:
        """The guids of the versions that the last completed step left on the receiver."""
        if not self._completed:
            return ()
        planned = self._completed[-1].planned
        return tuple(version.guid for version in (*planned.intermediates, planned.to_version))

    @property
    def can_retry(self) -> bool:
        """Whether trying again can help: not when completed, else unless it is permanent."""
        if self.completed:
            return False
        return self.problem is None or self.problem.temporary

    @property
    def next_step_date(self) -> float | None:
        """When the version of the first pending step was made; ``None`` = no step, or unknown."""
        step = self.current_step
        return step.planned.to_version.created if step is not None else None

    def advance(self, event: StepEvent) -> None:
        """Tell the first pending step of an event, and move with it.

        :raises IllegalTransitionError: and nothing changed
        """
        step = self.current_step
        if step is None:
            raise IllegalTransitionError(
                f"{self.filesystem}: no step is pending that could take {type(event).__name__}"
            )
        step.advance(event)
        self.problem = step.problem
        if isinstance(event, StepFailed):
            self.state = advance(TRANSITIONS, self.state, event)
        elif step.completed:
            self._completed.append(self._pending.popleft())
            follow_up = StepCompleted() if self._pending else LastStepCompleted()
            self.state = advance(TRANSITIONS, self.state, follow_up)

    def fail(self, problem: Problem) -> None:
        """Record a problem that stands outside the steps, such as a parent that failed.

        :raises IllegalTransitionError: the replication is completed; nothing changed
        """
        self.state = advance(TRANSITIONS, self.state, StepFailed(problem))
        self.problem = problem

    def step_reports(self) -> tuple[StepReport, ...]:
        """The completed steps of this plan and of the plans before it, oldest first."""
        return (*self._earlier, *(step.report() for step in self._completed))

    def report(self) -> ReplicationReport:
        """What is known of the filesystem now."""
        return ReplicationReport(
            filesystem=self.filesystem,
            status=self.state.value,
            problem=self.problem,
            newest_common=self.newest_common,
            completed=self.step_reports(),
            pending=tuple(step.report() for step in self._pending),
            reasons=self.reasons,
            warnings=tuple(self.warnings),
        )


@attrs.define(eq=False, repr=False)
class ReplicationBuilder:
    """Collects the steps of one filesystem, then makes its replication.

    ``base`` is the newest version that both sides have before the first step.
    ``earlier`` are the completed steps of former plans of the same run, for the report.
    """

    filesystem: str
    reasons: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    base: Version | None = attrs.field(default=None, kw_only=True)
    waits_for: tuple[Awaited, ...] = attrs.field(default=(), kw_only=True)
    warnings: Iterable[str] = attrs.field(default=(), kw_only=True)
    earlier: tuple[StepReport, ...] = attrs.field(default=(), kw_only=True)
    _steps: list[Step] = attrs.field(init=False, factory=list)

    def add_step(self, planned: PlannedStep, *, expected_bytes: int | None = None) -> Step:
        """Append a step; it runs after all that were added before it."""
        step = Step(planned, expected_bytes=expected_bytes)
        self._steps.append(step)
        return step

    def done(self) -> Replication:
        """Make the replication: ready, or completed where no step was added."""
        state = ReplicationState.READY if self._steps else ReplicationState.COMPLETED
        return self._make(state, None)

    def conflict(self, problem: Problem) -> Replication:
        """Make a replication that is completed and says why nothing can be done.

        :raises ValueError: the problem is temporary or concerns more than this filesystem
        """
        if problem.temporary or not problem.local:
            raise ValueError(f"a conflict is permanent and local, not {problem!r}")
        self._steps.clear()
        return self._make(ReplicationState.COMPLETED, problem)

    def _make(self, state: ReplicationState, problem: Problem | None) -> Replication:
        return Replication(
            filesystem=self.filesystem,
            state=state,
            problem=problem,
            reasons=self.reasons,
            waits_for=self.waits_for,
            warnings=list(self.warnings),
            completed=[],
            pending=deque(self._steps),
            earlier=self.earlier,
            base=self.base,
        )
