"""``fsrep check``: whether the configuration is right and both sides of each job answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.expiries import expiries_of, expiry_warnings
from fsrep_core.ops.jobs import exit_status, for_each_job, print_problem
from fsrep_core.ops.report import document, print_document
from fsrep_core.ops.serve_config import make_listeners
from fsrep_core.ops.session import job_settings, open_session, open_sides
from fsrep_core.ops.words import count_of, visible
from fsrep_core.planning.patterns import parse_pattern, select
from fsrep_core.runtime.survey import survey
from fsrep_core.values import Problem, VersionKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.ops.session import Session
    from fsrep_core.values import Inventory

__all__ = ["check"]


@attrs.frozen(kw_only=True)
class Finding:
    """What a job's sides answered."""

    sender: str
    receiver: str
    selected: tuple[str, ...]
    notes: tuple[str, ...]
    """What is no mistake, but perhaps not meant."""
    problem: Problem | None = None


def check(config_path: Path | None, job_names: Sequence[str], *, as_json: bool) -> int:
    """Check, and say what is fine as well as what is not."""
    session = open_session(config_path, job_names, jobs_needed=False)
    outcomes, interrupted = for_each_job(session.jobs, partial(_check_job, session))
    problems = [
        each.result.problem if each.result is not None else each.problem for each in outcomes
    ]
    status = exit_status(any(problems), interrupted)
    if as_json:
        findings = [
            {"job": each.job, "problem": problem, "finding": each.result}
            for each, problem in zip(outcomes, problems, strict=True)
        ]
        path = str(session.config_path)
        print_document(document("check", exit_status=status, config=path, jobs=findings))
        return status
    counts = [count_of(len(session.jobs), "job")]
    if session.identities:
        counts.append(count_of(len(session.identities), "identity"))
    if session.serve is not None:
        counts.append(count_of(len(session.serve.listeners), "listener"))
    _say(f"{session.config_path}: {', '.join(counts)}, no mistakes")
    for warning in _serving_warnings(session):
        _say(f"serve: {warning}")
    for each, problem in zip(outcomes, problems, strict=True):
        if each.result is not None:
            _print_finding(each.job, each.result)
        if problem:
            print_problem(each.job, problem)
    return status


def _serving_warnings(session: Session) -> list[str]:
    """Say what of the serving side ends soon, or cannot be read."""
    warnings: list[str] = []
    for listener in make_listeners(session.serve, session.registry) if session.serve else ():
        try:
            warnings += expiry_warnings(listener.expiries())
        except ConfigError as error:
            warnings.append(error.message)
    return warnings


async def _check_job(session: Session, job: JobConfig) -> Finding:
    async with open_sides(session, job) as (sender, receiver):
        sender_inventory, receiver_inventory = await survey(job_settings(job), sender, receiver)
    snapshots_of = {
        each.name: any(version.kind is VersionKind.SNAPSHOT for version in each.versions)
        for each in sender_inventory.filesystems
    }
    selection = select(job.filesystems, snapshots_of)
    notes = [_idle_note(text) for text in selection.idle_patterns]
    notes += [_empty_note(job.name, name) for name in selection.names if not snapshots_of[name]]
    notes += expiry_warnings(expiries_of(job, session.registry))
    return Finding(
        sender=f"{sender.name}: {_counted(sender_inventory)}",
        receiver=f"{receiver.name}: {_counted(receiver_inventory)}",
        selected=selection.names,
        notes=tuple(notes),
        problem=_format_problem(sender_inventory, receiver_inventory),
    )


def _counted(inventory: Inventory) -> str:
    versions = sum(len(each.versions) for each in inventory.filesystems)
    filesystems = count_of(len(inventory.filesystems), "filesystem")
    return f"{filesystems} with {count_of(versions, 'version')}"


def _idle_note(text: str) -> str:
    pattern = parse_pattern(text)
    if pattern.excludes:
        return f'the pattern "{text}" takes nothing away'
    if pattern.literal is None:
        return f'the pattern "{text}" matches no filesystem of the sender'
    return f'the sender has no filesystem "{text}"'


def _empty_note(job: str, name: str) -> str:
    return f'"{name}" has no version yet; "fsrep snapshot {job}" makes the first'


def _format_problem(sender: Inventory, receiver: Inventory) -> Problem | None:
    sends, receives = sender.capabilities.stream_formats, receiver.capabilities.stream_formats
    if sends & receives:
        return None
    return Problem(
        message=(
            f"the sender's storage sends {', '.join(sorted(sends))}, but the receiver's "
            f"takes {', '.join(sorted(receives))}"
        ),
        temporary=False,
        local=False,
        kind="config",
        hint="both sides need storages that share a stream format",
    )


def _print_finding(job: str, finding: Finding) -> None:
    _say(f"{job}: {finding.sender}")
    _say(f"{job}: {finding.receiver}")
    _say(f"{job}: {count_of(len(finding.selected), 'filesystem')} selected")
    for note in finding.notes:
        _say(f"{job}: {note}")


def _say(text: str) -> None:
    print(visible(text))  # noqa: T201  (the result of the command)
