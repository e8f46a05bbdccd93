"""The log of a run, on standard error: for people, or one JSON object a line.

Each line carries job, filesystem and step. Lines that plugins write with the standard
``logging`` are taken in, with what the task that wrote them works on. structlog is
imported with the first line, so that a run with nothing to say does not pay for it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.events import (
    Event,
    ExpiriesKnown,
    FilesystemPlanned,
    RunFinished,
    RunStarted,
    RunStateChanged,
    StepAborted,
    StepFinished,
    StepStarted,
    Warned,
)
from fsrep_core.hookspecs import hookimpl
from fsrep_core.ops.expiries import expiry_warnings
from fsrep_core.ops.words import step_name, visible
from fsrep_core.runtime.context import bound

if TYPE_CHECKING:
    from fsrep_core.values import Problem

__all__ = ["LEVELS", "Line", "LogListener", "line_of", "problem_fields"]

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@attrs.frozen
class Line:
    """One line of the log, before it is rendered."""

    level: str
    message: str
    fields: Mapping[str, Any] = attrs.field(factory=dict)


def line_of(event: Event) -> Line | None:
    """Say what an event is worth in the log; ``None`` = nothing."""
    write = _LINES.get(type(event))
    return write(event) if write is not None else None


def _planned(event: FilesystemPlanned) -> Line:
    replication = event.replication
    facts: dict[str, Any] = {
        "filesystem": replication.filesystem,
        "steps": len(replication.pending),
        "reasons": list(replication.reasons),
    }
    if replication.problem is None:
        return Line("debug", "filesystem planned", facts)
    return Line("error", "conflict", facts | problem_fields(replication.problem))


def _state_changed(event: RunStateChanged) -> Line:
    facts: dict[str, Any] = {"state": event.to_state, "attempt": event.attempt}
    if event.problem is None or event.sleep_seconds is None:
        return Line("debug", "run state changed", facts)
    facts["sleep_seconds"] = round(event.sleep_seconds, 1)
    return Line("warning", "run waits", facts | problem_fields(event.problem))


def _step_fields(event: StepStarted | StepFinished | StepAborted) -> dict[str, Any]:
    step = event.step
    return {
        "filesystem": event.filesystem,
        "step": step_name(event.filesystem, step),
        "expected_bytes": step.expected_bytes,
    }


def problem_fields(problem: Problem) -> dict[str, Any]:
    """Give what a line says of a problem."""
    return {
        "problem": problem.message,
        "kind": problem.kind,
        "temporary": problem.temporary,
        "hint": problem.hint,
    }


def _moved_fields(event: StepFinished | StepAborted) -> dict[str, Any]:
    step = event.step
    return _step_fields(event) | {"bytes": step.transferred_bytes, "resumed": step.resumed}


def _step_finished(event: StepFinished) -> Line:
    step, fields = event.step, _moved_fields(event)
    if step.problem is not None:
        return Line("warning", "step failed", fields | problem_fields(step.problem))
    if step.started_at is not None and step.finished_at is not None:
        fields["seconds"] = round(step.finished_at - step.started_at, 3)
    return Line("info", "step finished", fields)


def _run_finished(event: RunFinished) -> Line:
    report = event.report
    fields: dict[str, Any] = {
        "state": report.status,
        "bytes": report.transferred_bytes,
        "filesystems": len(report.replications),
        "failed": [each.filesystem for each in report.failed],
    }
    if event.interrupted:
        return Line("warning", "run interrupted", fields)
    if report.problem is not None:
        return Line("error", "run failed", fields | problem_fields(report.problem))
    return Line("info", "run finished", fields)


def _expiring(event: ExpiriesKnown) -> Line | None:
    warnings = expiry_warnings(event.expiries)
    return Line("warning", "something ends soon", {"warnings": warnings}) if warnings else None


_LINES: Mapping[type, Callable[[Any], Line | None]] = {
    RunStarted: lambda _: Line("info", "run started"),
    FilesystemPlanned: _planned,
    StepStarted: lambda event: Line("info", "step started", _step_fields(event)),
    StepFinished: _step_finished,
    StepAborted: lambda event: Line("info", "step aborted", _moved_fields(event)),
    RunStateChanged: _state_changed,
    Warned: lambda event: Line("warning", event.message, {"filesystem": event.filesystem}),
    ExpiriesKnown: _expiring,
    RunFinished: _run_finished,
}
"""What each event is worth; the others are worth nothing."""


@attrs.define(eq=False)
class LogListener:
    """Logs a run from ``level`` on, as ``console`` or ``json``."""

    format: str
    level: str
    _logger: Any = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        logging.getLogger().addHandler(_PluginLines(self))

    @hookimpl
    def observe(self, event: Event) -> None:
        """Log what an event tells."""
        line = line_of(event)
        if line is not None:
            self.write(attrs.evolve(line, fields={"job": event.job, **line.fields}))

    def write(self, line: Line) -> None:
        """Write a line, if its level is high enough."""
        if LEVELS[line.level] < LEVELS[self.level]:
            return
        if self._logger is None:
            self._logger = _make_logger(self.format)
        fields = {name: value for name, value in line.fields.items() if value is not None}
        getattr(self._logger, line.level)(line.message, **fields)


class _PluginLines(logging.Handler):
    """Takes in what plugins log, with the job, filesystem and step of their task."""

    def __init__(self, listener: LogListener) -> None:
        super().__init__(LEVELS[listener.level])
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        known = record.levelname.lower()
        level = known if known in LEVELS else "error"
        fields = {**bound(), "logger": record.name}
        self._listener.write(Line(level, record.getMessage(), fields))


class _StandardErrorNow:
    """Writes to what ``sys.stderr`` is now: progress bars put themselves in between."""

    def msg(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (this is the log)

    debug = info = warning = error = msg


def _make_logger(form: str) -> Any:  # noqa: ANN401  (structlog's loggers are made to measure)
    import structlog

    renderers: list[Any] = [structlog.processors.JSONRenderer()]
    if form == "console":
        colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        renderers = [_make_visible, structlog.dev.ConsoleRenderer(colors=colors)]
    return structlog.wrap_logger(
        _StandardErrorNow(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.BoundLogger,
    )


def _make_visible(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Let no control character through to a terminal."""
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = visible(value)
    return fields
