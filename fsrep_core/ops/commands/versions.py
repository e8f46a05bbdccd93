"""``fsrep versions``: what each side of a job has, what is common, and what lags.

Versions are matched by guid: two of one name with different guids are different.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from fsrep_core.ops.jobs import exit_status, for_each_job, print_problem
from fsrep_core.ops.report import document, print_document
from fsrep_core.ops.screen import print_table
from fsrep_core.ops.session import job_settings, open_session, open_sides
from fsrep_core.ops.words import count_of, format_time, visible
from fsrep_core.planning.conflicts import find_unreadable
from fsrep_core.planning.patterns import select_filesystems
from fsrep_core.quantities import format_duration
from fsrep_core.runtime.survey import survey
from fsrep_core.values import Filesystem, Inventory, Problem, Version, VersionKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.ops.session import Session

__all__ = ["Comparison", "compare", "versions"]


@attrs.frozen(kw_only=True)
class Comparison:
    """One filesystem on both sides."""

    filesystem: str
    newest_common: Version | None
    """As the sender has it."""
    lag_versions: int
    """The sender's snapshots that are newer than that."""
    lag_seconds: float | None
    """From the newest common version to the sender's newest; ``None`` = not known."""
    cursor: Version | None
    sender: tuple[Version, ...]
    """Oldest first."""
    receiver: tuple[Version, ...]
    partial: bool
    """The receiver holds a cut receive that can go on."""
    problem: Problem | None = None
    """Why a side cannot say what it has; the rest is then not all of it."""


def versions(config_path: Path | None, job_names: Sequence[str], *, as_json: bool) -> int:
    """List and compare both sides of each job."""
    session = open_session(config_path, job_names)
    outcomes, interrupted = for_each_job(session.jobs, partial(_compare_job, session))
    failed = any(
        each.problem is not None or any(found.problem for found in each.result or ())
        for each in outcomes
    )
    status = exit_status(failed, interrupted)
    if as_json:
        jobs: list[dict[str, object]] = [
            {"job": each.job, "problem": each.problem, "filesystems": each.result or []}
            for each in outcomes
        ]
        print_document(document("versions", exit_status=status, jobs=jobs))
        return status
    for each in outcomes:
        if each.problem is not None:
            print_problem(each.job, each.problem)
        elif not each.result:
            _say(f"{each.job}: no filesystem has versions")
        for comparison in each.result or ():
            _print_comparison(each.job, comparison)
    return status


async def _compare_job(session: Session, job: JobConfig) -> tuple[Comparison, ...]:
    async with open_sides(session, job) as (sender, receiver):
        inventories = await survey(job_settings(job), sender, receiver)
    return compare(*inventories, patterns=job.filesystems)


def compare(
    sender: Inventory, receiver: Inventory, *, patterns: Sequence[str]
) -> tuple[Comparison, ...]:
    """Compare the filesystems that the patterns select on either side, by name."""
    senders = {each.name: each for each in sender.filesystems}
    receivers = {each.name: each for each in receiver.filesystems}
    names = select_filesystems(patterns, [*senders, *receivers])
    return tuple(
        _compare_filesystem(
            senders.get(name, Filesystem(name=name)), receivers.get(name, Filesystem(name=name))
        )
        for name in names
    )


def _compare_filesystem(sender: Filesystem, receiver: Filesystem) -> Comparison:
    sent = sorted(sender.versions, key=lambda version: version.order)
    received = sorted(receiver.versions, key=lambda version: version.order)
    snapshots = [version for version in sent if version.kind is VersionKind.SNAPSHOT]
    there = {version.guid for version in received if version.kind is VersionKind.SNAPSHOT}
    common = next((version for version in reversed(sent) if version.guid in there), None)
    behind = [version for version in snapshots if common is None or version.order > common.order]
    unreadable = find_unreadable(sender, receiver)
    return Comparison(
        filesystem=sender.name,
        newest_common=common,
        lag_versions=len(behind),
        lag_seconds=_seconds_between(common, snapshots[-1] if snapshots else None),
        cursor=sender.cursor,
        sender=tuple(sent),
        receiver=tuple(received),
        partial=receiver.resume_token is not None,
        problem=unreadable.problem() if unreadable is not None else None,
    )


def _seconds_between(older: Version | None, newer: Version | None) -> float | None:
    if older is None or newer is None or older.created is None or newer.created is None:
        return None
    return max(0.0, newer.created - older.created)


def _print_comparison(job: str, each: Comparison) -> None:
    _say(f"{job}: {each.filesystem}: {_verdict(each)}")
    columns = ["  version", "made", "sender", "receiver", ""]
    print_table(columns, list(_rows(each)))


def _verdict(each: Comparison) -> str:
    if each.problem is not None:
        return f"{each.problem.message} ({each.problem.hint})"
    if each.newest_common is None:
        verdict = "nothing in common"
    elif each.lag_versions == 0:
        verdict = f"up to date with {each.newest_common.relative_name}"
    else:
        behind = [count_of(each.lag_versions, "version")]
        if each.lag_seconds is not None:
            behind.append(format_duration(each.lag_seconds))
        verdict = f"common up to {each.newest_common.relative_name}, {', '.join(behind)} behind"
    return f"{verdict}; a receive was cut and can go on" if each.partial else verdict


def _rows(each: Comparison) -> Iterator[tuple[str, ...]]:
    """Give the sender's versions in their order, then what only the receiver has."""
    sent = {version.guid for version in each.sender}
    there = {version.guid for version in each.receiver}
    for version in each.sender:
        yield (
            f"  {version.relative_name}",
            format_time(version.created),
            "yes",
            _presence(version, there),
            "cursor" if version == each.cursor else "",
        )
    for version in each.receiver:
        if version.guid not in sent:
            yield (f"  {version.relative_name}", format_time(version.created), "-", "yes", "")


def _presence(version: Version, there: Collection[str]) -> str:
    """Say whether the receiver has a version; a bookmark holds nothing that it could have."""
    if version.kind is VersionKind.BOOKMARK:
        return ""
    return "yes" if version.guid in there else "-"


def _say(text: str) -> None:
    print(visible(text))  # noqa: T201  (the result of the command)
