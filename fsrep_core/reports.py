"""What the outside sees of a run: frozen values, safe to take at any moment.

The machines build these afresh on request; a report never changes after it was taken
and holds nothing secret. Their JSON form is made by :mod:`fsrep_core.ops.report` and is
documented and versioned there.
"""

from __future__ import annotations

import attrs

from fsrep_core.shown import Shown
from fsrep_core.values import Problem, Version

__all__ = ["ReplicationReport", "RunReport", "StepReport"]


@attrs.frozen(kw_only=True, repr=False)
class StepReport(Shown):
    """One send/receive of one filesystem."""

    from_version: Version | None
    to_version: Version
    status: str
    """The value of the step's :class:`~fsrep_core.machines.StepState`."""
    problem: Problem | None = None
    transferred_bytes: int = 0
    expected_bytes: int | None = None
    """``None`` = the storage could not say."""
    resumed: bool = False
    intermediate_count: int = 0
    """Snapshots that the same stream carries between the two."""
    started_at: float | None = None
    """Seconds since the epoch."""
    finished_at: float | None = None
    mark_only: bool = False
    """The data was there already; only the cursor had to move."""
    origin: str | None = None
    """The guid of the other filesystem's snapshot that the stream starts from; ``None`` = it
    is no clone's first."""


@attrs.frozen(kw_only=True, repr=False)
class ReplicationReport(Shown):
    """One filesystem's completed and pending steps."""

    filesystem: str
    status: str
    """The value of the replication's :class:`~fsrep_core.machines.ReplicationState`."""
    problem: Problem | None = None
    newest_common: Version | None = None
    """The newest version that both sides are known to have; ``None`` = none."""
    completed: tuple[StepReport, ...] = ()
    pending: tuple[StepReport, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why the planner chose these steps, a sentence each."""
    warnings: tuple[str, ...] = ()

    @property
    def transferred_bytes(self) -> int:
        """Bytes moved by all steps so far."""
        return sum(step.transferred_bytes for step in (*self.completed, *self.pending))

    @property
    def expected_bytes(self) -> int | None:
        """Estimated bytes of all steps; ``None`` when that of any step is unknown."""
        sizes = [step.expected_bytes for step in (*self.completed, *self.pending)]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@attrs.frozen(kw_only=True, repr=False)
class RunReport(Shown):
    """All filesystems of one job, once."""

    job: str
    status: str
    """The value of the run's :class:`~fsrep_core.machines.RunState`."""
    problem: Problem | None = None
    """Why the run waits or ended, where that is not one filesystem's matter."""
    sleep_until: float | None = None
    """Seconds since the epoch, where the run waits."""
    attempt: int = 0
    """Counts plans, from 1."""
    started_at: float | None = None
    finished_at: float | None = None
    active: tuple[ReplicationReport, ...] = ()
    completed: tuple[ReplicationReport, ...] = ()
    pending: tuple[ReplicationReport, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def replications(self) -> tuple[ReplicationReport, ...]:
        """All filesystems, by name."""
        every = (*self.active, *self.completed, *self.pending)
        return tuple(sorted(every, key=lambda report: report.filesystem))

    @property
    def failed(self) -> tuple[ReplicationReport, ...]:
        """The filesystems that hold a problem now, by name."""
        return tuple(report for report in self.replications if report.problem is not None)

    @property
    def transferred_bytes(self) -> int:
        """Bytes moved by all filesystems so far."""
        return sum(report.transferred_bytes for report in self.replications)
