"""``fsrep plan``: what a run would do now, and why. Nothing is changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fsrep_core.ops.jobs import exit_status, for_each_job, print_problem
from fsrep_core.ops.report import document, print_document
from fsrep_core.ops.session import job_settings, open_session, open_sides
from fsrep_core.ops.words import count_of, format_size_or_unknown, step_name, visible
from fsrep_core.quantities import format_size
from fsrep_core.runtime.survey import preview

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.ops.session import Session
    from fsrep_core.planning.plan import FilesystemPlan
    from fsrep_core.runtime.survey import PlanPreview
    from fsrep_core.values import PlannedStep

__all__ = ["plan"]


def plan(config_path: Path | None, job_names: Sequence[str], *, as_json: bool) -> int:
    """Plan each job. The exit status is 1 if a filesystem or a job cannot be replicated."""
    session = open_session(config_path, job_names)
    outcomes, interrupted = for_each_job(session.jobs, partial(_plan_job, session))
    failed = any(
        each.result is None or any(one.conflict for one in each.result.plan.filesystems)
        for each in outcomes
    )
    status = exit_status(failed, interrupted)
    if as_json:
        jobs = [
            {
                "job": each.job,
                "problem": each.problem,
                "warnings": _warnings(each.result) if each.result else [],
                "filesystems": list(_json_plans(each.result)) if each.result else [],
            }
            for each in outcomes
        ]
        print_document(document("plan", exit_status=status, jobs=jobs))
        return status
    for each in outcomes:
        if each.result is not None:
            for line in _lines(each.job, each.result):
                print(visible(line))  # noqa: T201  (the result of the command)
        if each.problem is not None:
            print_problem(each.job, each.problem)
    return status


async def _plan_job(session: Session, job: JobConfig) -> PlanPreview:
    async with open_sides(session, job) as (sender, receiver):
        return await preview(job_settings(job), sender, receiver)


def _warnings(found: PlanPreview) -> tuple[str, ...]:
    return (*found.plan.warnings, *found.warnings)


def _json_plans(found: PlanPreview) -> Iterator[dict[str, object]]:
    for each in found.plan.filesystems:
        sizes = found.estimates.get(each.filesystem, ())
        yield {
            "filesystem": each.filesystem,
            "base": each.base,
            "steps": [
                {
                    "from_version": step.from_version,
                    "to_version": step.to_version,
                    "intermediates": step.intermediates,
                    "resumes": step.resume_token is not None,
                    "mark_only": step.mark_only,
                    "origin": step.origin,
                    "rollback": step.rollback,
                    "expected_bytes": size_bytes,
                }
                for step, size_bytes in zip(each.steps, sizes, strict=True)
            ],
            "conflict": each.conflict,
            "reasons": each.reasons,
            "warnings": each.warnings,
        }


def _lines(job: str, found: PlanPreview) -> Iterator[str]:
    plans = found.plan.filesystems
    steps = sum(len(each.steps) for each in plans)
    conflicts = sum(1 for each in plans if each.conflict)
    sizes = [size for each in found.estimates.values() for size in each]
    parts = [count_of(len(plans), "filesystem"), count_of(steps, "step")]
    if sizes:
        known = format_size(sum(size or 0 for size in sizes))
        parts.append(f"at least {known}" if None in sizes else known)
    if conflicts:
        parts.append(count_of(conflicts, "conflict"))
    yield f"{job}: {', '.join(parts)}"
    for warning in _warnings(found):
        yield f"  warning: {warning}"
    for each in plans:
        yield from (
            f"  {line}" for line in _plan_lines(each, found.estimates.get(each.filesystem, ()))
        )


def _plan_lines(each: FilesystemPlan, sizes: Sequence[int | None]) -> Iterator[str]:
    if each.conflict is not None:
        yield f"{each.filesystem}: conflict: {each.conflict.message}"
        yield f"    {each.conflict.hint}"
    elif not each.steps:
        yield f"{each.filesystem}: nothing to do"
    else:
        yield f"{each.filesystem}: {count_of(len(each.steps), 'step')}"
    for step, size_bytes in zip(each.steps, sizes, strict=True):
        yield f"    {_step_line(each.filesystem, step, size_bytes)}"
    for reason in each.reasons:
        yield f"    why: {reason}"
    for warning in each.warnings:
        yield f"    warning: {warning}"


def _step_line(filesystem: str, step: PlannedStep, size_bytes: int | None) -> str:
    name = step_name(filesystem, step)
    if step.mark_only:
        return f"{name}: only the cursor moves"
    facts = [f"size {format_size_or_unknown(size_bytes)}"]
    if step.intermediates:
        facts.append(f"with {count_of(len(step.intermediates), 'snapshot')} between")
    if step.resume_token is not None:
        facts.append("goes on where a receive was cut")
    if step.clear_resume_token:
        facts.append("throws a partial receive away")
    if step.rollback:
        names = " ".join(version.relative_name for version in step.rollback)
        facts.append(f"destroys {names} on the receiver first")
    return f"{name}: {', '.join(facts)}"
