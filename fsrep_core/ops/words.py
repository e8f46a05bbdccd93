"""How things are called in what fsrep prints: steps, problems, results.

Names come from other hosts and may hold anything. :func:`visible` is the one door to a
terminal: it lets no control character through.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsrep_core.quantities import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.reports import ReplicationReport, StepReport
    from fsrep_core.values import PlannedStep, Problem

__all__ = [
    "count_of",
    "format_moved",
    "format_size_or_unknown",
    "format_time",
    "problem_lines",
    "rate_of",
    "result_of",
    "step_name",
    "visible",
]

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def visible(text: str) -> str:
    """Show control characters instead of sending them to a terminal."""
    return text.translate(_CONTROL)


def count_of(count: int, thing: str) -> str:
    """Write a number of things: ``1 step``, ``2 steps``, ``2 entries``."""
    if count != 1:
        thing = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{count:,} {thing}"


def step_name(filesystem: str, step: StepReport | PlannedStep) -> str:
    """Name a step: ``docs@monday (full)``, ``(clone)``, or ``docs@monday => @tuesday``."""
    to_name = step.to_version.relative_name
    if step.from_version is None:
        kind = "full" if step.origin is None else "clone"
        return visible(f"{filesystem}{to_name} ({kind})")
    return visible(f"{filesystem}{step.from_version.relative_name} => {to_name}")


def problem_lines(subject: str, problem: Problem) -> list[str]:
    """Tell a problem in full, with what to do next."""
    lines = [f"{visible(subject)}: {visible(problem.message)}"]
    if problem.hint:
        lines.append(f"    {visible(problem.hint)}")
    return lines


def result_of(replication: ReplicationReport, *, interrupted: bool) -> str:
    """Say in two words what became of a filesystem in a run that has ended."""
    if replication.problem is not None:
        return "failed"
    if replication.pending:
        return "interrupted" if interrupted else "not finished"
    return "replicated" if replication.completed else "up to date"


def format_moved(step: StepReport) -> str:
    """Say what a completed step moved, and how fast: ``1.2 GiB in 24s, 51.2 MiB/s``."""
    if step.mark_only:
        return "was there already"
    size = format_size(step.transferred_bytes)
    seconds = _seconds_of([step])
    if not seconds:
        return size
    rate = format_rate(step.transferred_bytes / seconds)
    return f"{size} in {format_duration(seconds)}, {rate}"


def rate_of(steps: Sequence[StepReport]) -> float | None:
    """Bytes per second while these steps ran; ``None`` = nothing was moved."""
    seconds = _seconds_of(steps)
    moved_bytes = sum(step.transferred_bytes for step in steps)
    return moved_bytes / seconds if seconds and moved_bytes else None


def _seconds_of(steps: Sequence[StepReport]) -> float:
    return sum(
        step.finished_at - step.started_at
        for step in steps
        if step.started_at is not None and step.finished_at is not None
    )


def format_size_or_unknown(size_bytes: int | None) -> str:
    """Write a size that may not be known."""
    return "unknown" if size_bytes is None else format_size(size_bytes)


def format_time(seconds_since_epoch: float | None) -> str:
    """Write a moment in local time: ``2026-11-22 08:30``."""
    if seconds_since_epoch is None:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds_since_epoch))
