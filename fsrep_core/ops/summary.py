"""The end of ``fsrep run`` for people: what was done, in a table, and every problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core.ops.screen import print_table
from fsrep_core.ops.words import (
    count_of,
    problem_lines,
    rate_of,
    result_of,
    visible,
)
from fsrep_core.quantities import format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsrep_core.reports import ReplicationReport, RunReport

__all__ = ["print_summary"]


def print_summary(report: RunReport, *, interrupted: bool) -> None:
    """Print how one run ended. Filesystems with nothing to do are counted, not listed."""
    print(headline(report, interrupted=interrupted))  # noqa: T201  (the result of a command)
    rows = [
        _row(each, interrupted=interrupted)
        for each in report.replications
        if each.completed or each.pending or each.problem
    ]
    if rows:
        print_table(
            ["filesystem", "steps", "bytes", "rate", "result"],
            rows,
            right=["steps", "bytes", "rate"],
        )
    for line in _notes(report):
        print(line)  # noqa: T201  (as above)


def headline(report: RunReport, *, interrupted: bool) -> str:
    """Say in one line what became of a run."""
    every = report.replications
    if report.started_at is None:
        return f"{report.job}: not started"
    finished = report.status in {"completed", "permanent-error"}
    if interrupted and not finished:
        verdict = "interrupted"
    elif report.status != "completed":
        verdict = "failed"
    elif not every:
        return f"{report.job}: no filesystem to replicate"
    elif not any(each.completed for each in every):
        return f"{report.job}: nothing to do; {count_of(len(every), 'filesystem')} up to date"
    else:
        verdict = "replicated"
    parts = [f"{report.job}: {verdict}"]
    if every:
        good = sum(1 for each in every if not each.problem and not each.pending)
        parts.append(f"{good:,} of {count_of(len(every), 'filesystem')} up to date")
    moved = format_size(report.transferred_bytes)
    if report.finished_at is not None:
        moved += f" in {format_duration(report.finished_at - report.started_at)}"
    return ", ".join([*parts, moved])


def _row(each: ReplicationReport, *, interrupted: bool) -> tuple[str, ...]:
    steps = (*each.completed, *each.pending)
    count = f"{len(each.completed)}" + (f"/{len(steps)}" if each.pending else "")
    rate = rate_of(each.completed)
    return (
        each.filesystem,
        count,
        format_size(each.transferred_bytes),
        "-" if rate is None else format_rate(rate),
        result_of(each, interrupted=interrupted),
    )


def _notes(report: RunReport) -> Iterator[str]:
    """Give warnings and problems in full; one that several share is told once."""
    for warning in report.warnings:
        yield f"warning: {visible(warning)}"
    for each in report.replications:
        for warning in each.warnings:
            yield f"warning: {visible(each.filesystem)}: {visible(warning)}"
    failed = report.failed
    told_already = report.problem is None or any(each.problem == report.problem for each in failed)
    if report.problem is not None and not told_already and not (failed and report.problem.local):
        yield from problem_lines(report.job, report.problem)
    for each in failed:
        if each.problem is not None:
            yield from problem_lines(each.filesystem, each.problem)
