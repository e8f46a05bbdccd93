"""``fsrep run``: replicate the jobs one after the other and tell how it went."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.events import ExpiriesKnown, RunFinished, RunStarted
from fsrep_core.ops.expiries import expiries_of, expiry_warnings
from fsrep_core.ops.garbage import look_for_garbage
from fsrep_core.ops.report import print_document, run_document
from fsrep_core.ops.session import job_settings, open_session, open_sides
from fsrep_core.ops.signals import Interruption, interruptible
from fsrep_core.ops.summary import print_summary
from fsrep_core.ops.words import visible
from fsrep_core.reports import RunReport
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.observers import Observers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.ops.session import Session

__all__ = ["RunOptions", "run"]

COMPLETED = "completed"
PERMANENT_ERROR = "permanent-error"


@attrs.frozen(kw_only=True)
class RunOptions:
    """What the command line says of a run, apart from the jobs."""

    as_json: bool = False
    metrics_file: Path | None = None
    log_format: str | None = None
    """``None`` = no log; progress is shown instead, except beside a JSON document."""
    log_level: str = "info"


def run(config_path: Path | None, job_names: Sequence[str], options: RunOptions) -> int:
    """Replicate, report, and give the exit status."""
    session = open_session(config_path, job_names)
    listeners = _listeners(options)
    reports: list[RunReport] = []
    if options.log_format is None:
        _print_expiries(session)
    look_for_garbage()
    interruption = trio.run(_run_jobs, session, listeners, reports)
    status = _exit_status(reports, interruption)
    interrupted = interruption.number is not None
    if options.as_json:
        print_document(run_document(reports, exit_status=status, interrupted=interrupted))
    else:
        for report in reports:
            print_summary(report, interrupted=interrupted)
    return status


def _print_expiries(session: Session) -> None:
    expiries = {each for job in session.jobs for each in expiries_of(job, session.registry)}
    for warning in expiry_warnings(sorted(expiries, key=lambda each: each.what)):
        print(f"fsrep: {visible(warning)}", file=sys.stderr)  # noqa: T201  (for the person who watches)


def _exit_status(reports: Sequence[RunReport], interruption: Interruption) -> int:
    if interruption.exit_status is not None:
        return interruption.exit_status
    return 0 if all(report.status == COMPLETED for report in reports) else 1


def _listeners(options: RunOptions) -> list[object]:
    """Choose who listens; what is not chosen is not imported."""
    listeners: list[object] = []
    if options.log_format is not None:
        from fsrep_core.ops.logs import LogListener

        listeners.append(LogListener(options.log_format, options.log_level))
    elif not options.as_json:
        from fsrep_core.ops.progress import progress_listener

        listeners.append(progress_listener())
    if options.metrics_file is not None:
        from fsrep_core.ops.metrics import MetricsListener

        listeners.append(MetricsListener(options.metrics_file))
    return listeners


async def _run_jobs(
    session: Session, listeners: Sequence[object], reports: list[RunReport]
) -> Interruption:
    observers = Observers(listeners)
    async with interruptible() as interruption:
        for job in session.jobs:
            if interruption.number is None:
                await _run_job(session, job, observers, interruption, reports)
    reports += [_not_started(job) for job in session.jobs[len(reports) :]]
    return interruption


async def _run_job(
    session: Session,
    job: JobConfig,
    observers: Observers,
    interruption: Interruption,
    reports: list[RunReport],
) -> None:
    """Run one job and add its report, in every case, also when it is cancelled."""
    report = attrs.evolve(_not_started(job), started_at=time.time())
    driver: Driver | None = None
    scope = trio.CancelScope()
    interruption.end_cleanly = scope.cancel
    observers.tell(ExpiriesKnown(job=job.name, expiries=expiries_of(job, session.registry)))
    try:
        with scope:
            async with open_sides(session, job) as (sender, receiver):
                driver = Driver(job_settings(job), sender, receiver, observers)
                interruption.end_cleanly = driver.interrupt
                await driver.run()
    except Exception as exc:  # noqa: BLE001  (one job must not stop the others)
        report = attrs.evolve(report, status=PERMANENT_ERROR, problem=classify(exc))
    finally:
        if driver is not None:
            ending = report
            report = driver.report()
            if ending.problem is not None:  # the sides could not be closed
                report = attrs.evolve(report, status=ending.status, problem=ending.problem)
        else:
            report = attrs.evolve(report, finished_at=time.time())
            observers.tell(RunStarted(job=job.name))
            interrupted = report.problem is None
            observers.tell(RunFinished(job=job.name, report=report, interrupted=interrupted))
        reports.append(report)


def _not_started(job: JobConfig) -> RunReport:
    return RunReport(job=job.name, status="planning")
