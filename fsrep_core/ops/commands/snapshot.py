"""``fsrep snapshot``: make a version of each filesystem of a job, on its sender."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from fsrep_core.errors import InvalidRequestError
from fsrep_core.ops.jobs import exit_status, for_each_job, print_problem
from fsrep_core.ops.report import document, print_document
from fsrep_core.ops.session import open_session, open_side
from fsrep_core.ops.words import visible
from fsrep_core.planning.patterns import parse_pattern, select_filesystems
from fsrep_core.values import CreateVersionRequest, InventoryRequest, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.ops.session import Session
    from fsrep_core.values import VersionResult

__all__ = ["snapshot"]


def snapshot(
    config_path: Path | None, job_names: Sequence[str], *, name: str | None, as_json: bool
) -> int:
    """Make the versions. The exit status is 1 if one could not be made."""
    session = open_session(config_path, job_names)
    name = name or time.strftime("fsrep-%Y%m%dT%H%M%SZ", time.gmtime())
    outcomes, interrupted = for_each_job(session.jobs, partial(_snapshot_job, session, name))
    failed = any(
        each.result is None or any(one.problem for one in each.result) for each in outcomes
    )
    status = exit_status(failed, interrupted)
    if as_json:
        jobs: list[dict[str, object]] = [
            {"job": each.job, "problem": each.problem, "results": each.result or []}
            for each in outcomes
        ]
        print_document(document("snapshot", exit_status=status, name=name, jobs=jobs))
        return status
    for each in outcomes:
        for result in each.result or ():
            _print_result(each.job, result)
        if each.problem is not None:
            print_problem(each.job, each.problem)
    return status


async def _snapshot_job(session: Session, name: str, job: JobConfig) -> tuple[VersionResult, ...]:
    async with open_side(session, job, Side.SENDER) as sender:
        request = InventoryRequest(job=job.name, patterns=job.filesystems)
        inventory = await sender.inventory(request)
        chosen = _choose(job.filesystems, (each.name for each in inventory.filesystems))
        if not chosen:
            raise InvalidRequestError(
                "the job's patterns select no filesystem that has versions",
                local=False,
                hint="name a filesystem without wildcards to make its first version",
            )
        return await sender.create_version(
            CreateVersionRequest(job=job.name, filesystems=chosen, name=name)
        )


def _choose(patterns: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Select among what has versions, and what is named literally.

    A literal name that a later pattern leaves out stays left out.
    """
    literal = [parse_pattern(text).literal for text in patterns if not text.startswith("!")]
    return select_filesystems(patterns, [*known, *(name for name in literal if name)])


def _print_result(job: str, result: VersionResult) -> None:
    subject = f"{job}: {result.filesystem}@{result.name}"
    if result.problem is not None:
        print_problem(subject, result.problem)
    else:
        print(visible(f"{subject}: made"))  # noqa: T201  (the result of the command)
    for warning in result.warnings:
        print(visible(f"    warning: {warning}"))  # noqa: T201  (as above)
