"""What happens in a run, told to every observer as frozen values.

Events come in the order in which things happened, from one task, while the run goes
on. Bytes are told while they move, at most a few times a second for each step.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from fsrep_core.reports import ReplicationReport, RunReport, StepReport
from fsrep_core.shown import Shown
from fsrep_core.transports import Expiry
from fsrep_core.values import Problem

__all__ = [
    "BytesMoved",
    "Event",
    "ExpiriesKnown",
    "FilesystemFinished",
    "FilesystemPlanned",
    "RunFinished",
    "RunStarted",
    "RunStateChanged",
    "StepAborted",
    "StepFinished",
    "StepStarted",
    "StepStateChanged",
    "Warned",
]


@attrs.frozen(kw_only=True, repr=False)
class RunStarted(Shown):
    """A run of a job begins."""

    job: str


@attrs.frozen(kw_only=True, repr=False)
class RunStateChanged(Shown):
    """The run's machine moved."""

    job: str
    from_state: str
    to_state: str
    attempt: int
    problem: Problem | None = None
    sleep_seconds: float | None = None
    """How long the run waits before it goes on, where it waits."""


@attrs.frozen(kw_only=True, repr=False)
class FilesystemPlanned(Shown):
    """A filesystem has a plan, or a conflict. Told again with every new plan."""

    job: str
    replication: ReplicationReport


@attrs.frozen(kw_only=True, repr=False)
class StepStarted(Shown):
    """A step begins, or begins again. ``StepFinished`` or ``StepAborted`` says how it ended."""

    job: str
    filesystem: str
    step: StepReport


@attrs.frozen(kw_only=True, repr=False)
class StepStateChanged(Shown):
    """A step's machine moved."""

    job: str
    filesystem: str
    step: StepReport
    from_state: str


@attrs.frozen(kw_only=True, repr=False)
class BytesMoved(Shown):
    """Bytes of a step moved since the last event of this kind."""

    job: str
    filesystem: str
    step: StepReport
    new_bytes: int


@attrs.frozen(kw_only=True, repr=False)
class StepFinished(Shown):
    """A step is completed, or failed for this attempt (``step.problem``)."""

    job: str
    filesystem: str
    step: StepReport


@attrs.frozen(kw_only=True, repr=False)
class StepAborted(Shown):
    """A step was left before its end, for no fault of its own.

    The run was interrupted, or a problem that concerns more than one filesystem ended the
    attempt. The next plan goes on from what the receiver has by then.
    """

    job: str
    filesystem: str
    step: StepReport


@attrs.frozen(kw_only=True, repr=False)
class FilesystemFinished(Shown):
    """Nothing more is done for this filesystem in this attempt."""

    job: str
    replication: ReplicationReport


@attrs.frozen(kw_only=True, repr=False)
class Warned(Shown):
    """Something the operator should know that stops nothing."""

    job: str
    message: str
    filesystem: str | None = None


@attrs.frozen(kw_only=True, repr=False)
class ExpiriesKnown(Shown):
    """What the transports of a job need and what ends some day. Told before a run begins."""

    job: str
    expiries: tuple[Expiry, ...]


@attrs.frozen(kw_only=True, repr=False)
class RunFinished(Shown):
    """A run of a job ended. Always the last event of a run, also when it is cancelled."""

    job: str
    report: RunReport
    interrupted: bool = False


Event: TypeAlias = (
    RunStarted
    | RunStateChanged
    | FilesystemPlanned
    | StepStarted
    | StepStateChanged
    | BytesMoved
    | StepFinished
    | StepAborted
    | FilesystemFinished
    | Warned
    | ExpiriesKnown
    | RunFinished
)
