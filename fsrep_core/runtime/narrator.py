"""Tells the observers of a run what happens, with the time of day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import events
from fsrep_core.machines.run import Run
from fsrep_core.runtime.observers import Observers

if TYPE_CHECKING:
    from fsrep_core.machines.replication import Replication
    from fsrep_core.machines.step import Step

__all__ = ["Narrator"]


@attrs.define(eq=False, repr=False)
class Narrator:
    """Makes events out of the machines of one run.

    The time of day is taken once; from then on trio's clock counts, so that a run
    under a mock clock has consistent dates.
    """

    machine: Run
    observers: Observers
    _epoch_offset_seconds: float = attrs.field(
        init=False, factory=lambda: time.time() - trio.current_time()
    )

    def now(self) -> float:
        """The time of day, seconds since the epoch."""
        return trio.current_time() + self._epoch_offset_seconds

    def clock_time(self, epoch_seconds: float) -> float:
        """The time on trio's clock at which :meth:`now` will be ``epoch_seconds``."""
        return epoch_seconds - self._epoch_offset_seconds

    def warn(self, message: str, *, filesystem: str | None = None) -> None:
        """Tell of something that stops nothing, once, and keep it for the report."""
        replication = self.machine.replications.get(filesystem) if filesystem else None
        heard = self.machine.warnings if replication is None else replication.warnings
        if message not in heard:
            heard.append(message)
            self.observers.tell(
                events.Warned(job=self.machine.job, message=message, filesystem=filesystem)
            )

    def step(
        self,
        event: type[events.StepStarted | events.StepFinished | events.StepAborted],
        replication: Replication,
        step: Step,
    ) -> None:
        """Tell that a step begins or ends."""
        self.observers.tell(
            event(job=self.machine.job, filesystem=replication.filesystem, step=step.report())
        )

    def step_state(self, replication: Replication, step: Step, from_state: str) -> None:
        """Tell that a step's machine moved."""
        self.observers.tell(
            events.StepStateChanged(
                job=self.machine.job,
                filesystem=replication.filesystem,
                step=step.report(),
                from_state=from_state,
            )
        )

    def bytes_moved(self, replication: Replication, step: Step, new_bytes: int) -> None:
        """Tell that bytes moved."""
        self.observers.tell(
            events.BytesMoved(
                job=self.machine.job,
                filesystem=replication.filesystem,
                step=step.report(),
                new_bytes=new_bytes,
            )
        )

    def filesystem(
        self,
        event: type[events.FilesystemPlanned | events.FilesystemFinished],
        replication: Replication,
    ) -> None:
        """Tell that a filesystem has a plan, or is done with for this attempt."""
        self.observers.tell(event(job=self.machine.job, replication=replication.report()))
