"""Progress bars: one for each step in hand, one for the whole job.

Imported only where standard error is a terminal, and drawn only once a step begins. The
bars disappear when the run ends; the summary stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from fsrep_core.events import (
    BytesMoved,
    Event,
    FilesystemPlanned,
    RunFinished,
    RunStateChanged,
    StepAborted,
    StepFinished,
    StepStarted,
)
from fsrep_core.hookspecs import hookimpl
from fsrep_core.ops.progress import failure_line, waiting_line
from fsrep_core.ops.screen import terminal
from fsrep_core.ops.words import count_of, step_name
from fsrep_core.quantities import format_duration, format_rate, format_size

__all__ = ["BarsListener"]

REFRESHES_PER_SECOND = 4
LINES_KEPT_FREE = 4
"""Of the terminal's height, for the total and for what stood there before."""


class _Amount(ProgressColumn):
    """Bytes of a step, steps of a job."""

    def render(self, task: Task) -> Text:
        if task.fields["is_job"]:
            total = task.total
            return Text(f"{task.completed:.0f}/{count_of(int(total), 'step')}" if total else "")
        moved = format_size(task.completed)
        return Text(f"{moved}/{format_size(task.total)}" if task.total else moved)


class _Rate(ProgressColumn):
    """How fast the bytes move now."""

    def render(self, task: Task) -> Text:
        if task.fields["is_job"] or not task.speed:
            return Text("")
        return Text(format_rate(task.speed))


class _Left(ProgressColumn):
    """How long a step will still take at this rate; of a job, how long it has run."""

    def render(self, task: Task) -> Text:
        if task.fields["is_job"]:
            return Text(format_duration(task.elapsed or 0))
        if task.time_remaining is None:
            return Text("")
        return Text(f"{format_duration(task.time_remaining)} left")


@attrs.define(eq=False)
class BarsListener:
    """Draws a run."""

    console: Console = attrs.field(factory=lambda: terminal(stderr=True))
    clock: Callable[[], float] = time.monotonic
    _progress: Progress | None = attrs.field(init=False, default=None)
    _job_task: TaskID | None = attrs.field(init=False, default=None)
    _tasks: dict[str, TaskID] = attrs.field(init=False, factory=dict)
    _counts: dict[str, tuple[int, int]] = attrs.field(init=False, factory=dict)
    """Completed and all steps of each filesystem."""

    @hookimpl
    def observe(self, event: Event) -> None:
        """Draw what has changed."""
        match event:
            case FilesystemPlanned(replication=replication):
                done = len(replication.completed)
                self._counts[replication.filesystem] = (done, done + len(replication.pending))
            case StepStarted():
                self._begin(event)
            case BytesMoved(step=step):
                self._drawn(event.job).update(
                    self._tasks[event.filesystem],
                    completed=step.transferred_bytes,
                    total=step.expected_bytes,
                )
            case StepFinished():
                self._end(event)
                self._say(failure_line(event))
            case StepAborted():
                self._end(event)
            case RunStateChanged():
                self._say(waiting_line(event))
            case RunFinished():
                self._clear()
            case _:
                pass

    def _drawn(self, job: str) -> Progress:
        """Give the bars; the first call draws them."""
        if self._progress is None:
            name = Column(ratio=2, no_wrap=True, overflow="ellipsis", min_width=8)
            self._progress = Progress(
                TextColumn("{task.description}", table_column=name, markup=False),
                BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
                _Amount(table_column=Column(no_wrap=True, justify="right")),
                _Rate(table_column=Column(no_wrap=True, justify="right")),
                _Left(table_column=Column(no_wrap=True, justify="right")),
                console=self.console,
                transient=True,
                expand=True,
                refresh_per_second=REFRESHES_PER_SECOND,
                get_time=self.clock,
            )
            self._job_task = self._progress.add_task(job, total=None, is_job=True)
            self._progress.start()
        return self._progress

    def _begin(self, event: StepStarted) -> None:
        progress = self._drawn(event.job)
        step = event.step
        self._tasks[event.filesystem] = progress.add_task(
            step_name(event.filesystem, step),
            total=step.expected_bytes,
            is_job=False,
        )
        self._count(progress)

    def _end(self, event: StepFinished | StepAborted) -> None:
        progress = self._drawn(event.job)
        progress.remove_task(self._tasks.pop(event.filesystem))
        if isinstance(event, StepFinished) and event.step.problem is None:
            done, every = self._counts[event.filesystem]
            self._counts[event.filesystem] = (done + 1, every)
        self._count(progress)

    def _count(self, progress: Progress) -> None:
        """Say how far the job is, and let as many steps be seen as fit on the screen."""
        room = max(1, self.console.height - LINES_KEPT_FREE)
        for place, task in enumerate(progress.tasks):
            progress.update(task.id, visible=place <= room)
        if self._job_task is not None:
            done, every = (sum(numbers) for numbers in zip(*self._counts.values(), strict=True))
            progress.update(self._job_task, completed=done, total=every)

    def _say(self, line: str | None) -> None:
        if line is not None:
            self.console.print(Text(line))

    def _clear(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._tasks.clear()
        self._counts.clear()
