"""Does something for each of several jobs, one after the other; one that fails stops none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from fsrep_core.ops.signals import interruptible
from fsrep_core.ops.words import problem_lines
from fsrep_core.runtime.classify import classify
from fsrep_core.values import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fsrep_core.ops.config import JobConfig

__all__ = ["Outcome", "exit_status", "for_each_job", "print_problem"]

T = TypeVar("T")


@attrs.frozen
class Outcome(Generic[T]):
    """What came of one job."""

    job: str
    result: T | None
    problem: Problem | None


def for_each_job(
    jobs: Sequence[JobConfig], work: Callable[[JobConfig], Awaitable[T]]
) -> tuple[list[Outcome[T]], int | None]:
    """Do the work for each job.

    :returns: what came of each, and the exit status if a signal ended it early
    """
    outcomes: list[Outcome[T]] = []

    async def work_through() -> int | None:
        async with interruptible() as interruption:
            for job in jobs:
                try:
                    outcomes.append(Outcome(job.name, await work(job), None))
                except Exception as exc:  # noqa: BLE001  (one job must not stop the others)
                    outcomes.append(Outcome(job.name, None, classify(exc)))
        return interruption.exit_status

    status = trio.run(work_through)
    return outcomes, status


def exit_status(failed: bool, interrupted: int | None) -> int:  # noqa: FBT001  (read as a sentence)
    """Give the exit status of a command that went through jobs."""
    if interrupted is not None:
        return interrupted
    return 1 if failed else 0


def print_problem(subject: str, problem: Problem) -> None:
    """Print a problem in full."""
    for line in problem_lines(subject, problem):
        print(line)  # noqa: T201  (the result of a command)
