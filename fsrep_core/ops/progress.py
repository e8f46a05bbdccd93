"""How a run goes, on standard error: bars on a terminal, plain lines elsewhere.

Bars show the steps in hand and one line for the whole job, so that many filesystems
never overflow the screen. Plain lines tell each step when it ends, and a long one now
and then while it runs. Only bars import rich.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from fsrep_core.events import (
    BytesMoved,
    Event,
    RunStateChanged,
    StepAborted,
    StepFinished,
    StepStarted,
)
from fsrep_core.hookspecs import hookimpl
from fsrep_core.ops.words import format_moved, step_name, visible
from fsrep_core.quantities import format_duration, format_size

if TYPE_CHECKING:
    from fsrep_core.reports import StepReport

__all__ = ["LinesListener", "failure_line", "progress_listener", "waiting_line"]

LINE_INTERVAL_SECONDS = 30.0
"""How often a plain line tells of a step that is still running."""


def progress_listener() -> object:
    """Choose by what standard error is."""
    if sys.stderr.isatty():
        from fsrep_core.ops.bars import BarsListener

        return BarsListener()
    return LinesListener()


def _print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (for the person who watches)


def failure_line(event: StepFinished) -> str | None:
    """Say that a step failed; ``None`` = it did not."""
    if event.step.problem is None:
        return None
    return f"{_subject(event)}: failed: {visible(event.step.problem.message)}"


def waiting_line(event: RunStateChanged) -> str | None:
    """Say that and why a run waits; ``None`` = it does not."""
    if event.problem is None or event.sleep_seconds is None:
        return None
    wait = format_duration(event.sleep_seconds)
    return f"{event.job}: trying again in {wait}: {visible(event.problem.message)}"


@attrs.define(eq=False)
class LinesListener:
    """Tells a run in plain lines."""

    clock: Callable[[], float] = time.monotonic
    _told_at: dict[str, float] = attrs.field(init=False, factory=dict)

    @hookimpl
    def observe(self, event: Event) -> None:
        """Print what is worth a line."""
        match event:
            case StepStarted():
                self._told_at[event.filesystem] = self.clock()
            case BytesMoved():
                if self.clock() - self._told_at[event.filesystem] >= LINE_INTERVAL_SECONDS:
                    self._told_at[event.filesystem] = self.clock()
                    _print_line(f"{_subject(event)}: {_so_far(event.step)}")
            case StepFinished():
                _print_line(failure_line(event) or f"{_subject(event)}: {format_moved(event.step)}")
            case StepAborted():
                _print_line(f"{_subject(event)}: aborted after {_so_far(event.step)}")
            case RunStateChanged():
                line = waiting_line(event)
                if line:
                    _print_line(line)
            case _:
                pass


def _subject(event: BytesMoved | StepFinished | StepAborted) -> str:
    step = event.step
    return f"{event.job}: {step_name(event.filesystem, step)}"


def _so_far(step: StepReport) -> str:
    moved = format_size(step.transferred_bytes)
    if step.expected_bytes:
        return f"{moved} of {format_size(step.expected_bytes)}"
    return moved
