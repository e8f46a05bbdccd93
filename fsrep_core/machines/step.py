"""One step: a stream is sent and received, then the sender's cursor moves.

The two are separate states, because they fail separately: once the receiver has
committed, a cursor that cannot be moved must never send the data again. A failure
keeps the state and records the problem; the next attempt goes on from the same state.

A step whose data is on the receiver already (``mark_only``) starts in the second state.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from fsrep_core.reports import StepReport
from fsrep_core.shown import Shown
from fsrep_core.table import Table, advance, is_terminal
from fsrep_core.values import PlannedStep, Problem

__all__ = [
    "TRANSITIONS",
    "CursorMoved",
    "ReceiverCommitted",
    "Step",
    "StepEvent",
    "StepFailed",
    "StepState",
]


class StepState(enum.Enum):
    """Where a step stands."""

    REPLICATION_READY = "replication-ready"
    MARK_REPLICATED_READY = "mark-replicated-ready"
    COMPLETED = "completed"


@attrs.frozen(repr=False)
class ReceiverCommitted(Shown):
    """The receiver has the step's version, durably."""


@attrs.frozen(repr=False)
class CursorMoved(Shown):
    """The sender's cursor marks the step's version."""


@attrs.frozen(repr=False)
class StepFailed(Shown):
    """What the state asks for was tried and failed."""

    problem: Problem


StepEvent: TypeAlias = ReceiverCommitted | CursorMoved | StepFailed

TRANSITIONS: Table[StepState] = {
    StepState.REPLICATION_READY: {
        ReceiverCommitted: StepState.MARK_REPLICATED_READY,
        StepFailed: StepState.REPLICATION_READY,
    },
    StepState.MARK_REPLICATED_READY: {
        CursorMoved: StepState.COMPLETED,
        StepFailed: StepState.MARK_REPLICATED_READY,
    },
    StepState.COMPLETED: {},
}


def _initial_state(step: Step) -> StepState:
    if step.planned.mark_only:
        return StepState.MARK_REPLICATED_READY
    return StepState.REPLICATION_READY


@attrs.define(eq=False, repr=False)
class Step:
    """A planned step and how far it has come."""

    planned: PlannedStep
    state: StepState = attrs.field(
        init=False, default=attrs.Factory(_initial_state, takes_self=True)
    )
    problem: Problem | None = attrs.field(init=False, default=None)
    expected_bytes: int | None = attrs.field(default=None, kw_only=True)
    transferred_bytes: int = attrs.field(init=False, default=0)
    resumed: bool = attrs.field(init=False, default=False)
    started_at: float | None = attrs.field(init=False, default=None)
    finished_at: float | None = attrs.field(init=False, default=None)

    @property
    def completed(self) -> bool:
        """Nothing is left to do."""
        return is_terminal(TRANSITIONS, self.state)

    def advance(self, event: StepEvent) -> None:
        """Take an event: move, and record or clear the problem.

        :raises IllegalTransitionError: and nothing changed
        """
        self.state = advance(TRANSITIONS, self.state, event)
        self.problem = event.problem if isinstance(event, StepFailed) else None

    def report(self) -> StepReport:
        """What is known of the step now."""
        return StepReport(
            from_version=self.planned.from_version,
            to_version=self.planned.to_version,
            status=self.state.value,
            problem=self.problem,
            transferred_bytes=self.transferred_bytes,
            expected_bytes=self.expected_bytes,
            resumed=self.resumed,
            intermediate_count=len(self.planned.intermediates),
            started_at=self.started_at,
            finished_at=self.finished_at,
            mark_only=self.planned.mark_only,
            origin=self.planned.origin,
        )
