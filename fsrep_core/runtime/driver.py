"""Drives one run: does what each state asks for and tells the machine what happened.

The table at the end, from state to action, is the only loop that advances the run. What
an error leads to is decided here and in :mod:`~fsrep_core.runtime.attempt`, nowhere else:

====================  ==================================================
the error is          what follows
====================  ==================================================
local, temporary      this filesystem steps back, the others go on;
                      another attempt follows after a wait
a refused token       this filesystem steps back, the others go on; another
                      attempt follows at once, without that token
local, permanent      this filesystem is given up, the others go on
not local, temporary  the attempt ends; another follows after a wait
not local, permanent  the run ends
====================  ==================================================

Every attempt plans afresh, so nothing is ever done by a plan that has become untrue.
``retry_for`` counts from the last progress: a completed step, or a partial receive that
has grown. Cancellation is no error: it passes through, the endpoints clean up after
themselves, and the report shows how far the run came.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.events import FilesystemPlanned, RunFinished, RunStarted, RunStateChanged
from fsrep_core.machines.replication import Replication, ReplicationBuilder
from fsrep_core.machines.run import (
    AttemptFailed,
    PlanMade,
    PlanningFailed,
    ReplanNeeded,
    Run,
    RunEvent,
    RunFailed,
    RunState,
    WaitOver,
    WorkDone,
    summarize_failures,
)
from fsrep_core.machines.step import StepState
from fsrep_core.planning import FilesystemPlan, Plan, TokenKey, make_plan
from fsrep_core.runtime.attempt import Attempt, StepKey, step_key
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.context import bind
from fsrep_core.runtime.narrator import Narrator
from fsrep_core.runtime.observers import Observers
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.runtime.survey import survey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fsrep_core.reports import RunReport, StepReport
    from fsrep_core.values import Inventory, Problem

__all__ = ["RUN_ACTIONS", "Driver", "JobSettings"]

_DOUBLINGS_LIMIT = 30


@attrs.define(eq=False, repr=False)
class Driver:
    """Runs one job once.

    :param randomness: spreads the waits; pass a seeded one to repeat a run exactly
    """

    settings: JobSettings
    sender: Endpoint
    receiver: Endpoint
    observers: Observers = attrs.field(factory=Observers)
    randomness: random.Random = attrs.field(factory=random.Random, kw_only=True)
    _machine: Run = attrs.field(init=False)
    _narrator: Narrator = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _attempt: Attempt | None = attrs.field(init=False, default=None)
    _last_progress_at: float = attrs.field(init=False, default=0.0)
    _waits_in_a_row: int = attrs.field(init=False, default=0)
    _partial_bytes: dict[str, int] = attrs.field(init=False, factory=dict)
    _learned_sizes: dict[StepKey, int | None] = attrs.field(init=False, factory=dict)
    _refused_tokens: dict[TokenKey, str] = attrs.field(init=False, factory=dict, repr=False)

    def __attrs_post_init__(self) -> None:
        self._machine = Run(self.settings.name)

    def report(self) -> RunReport:
        """What is known of the run now, at any moment."""
        return self._machine.report()

    def interrupt(self) -> None:
        """End the run soon and cleanly: steps in flight are aborted, nothing new begins.

        :meth:`run` then returns its report. What the receiver has committed counts; the
        next run goes on from there.
        """
        self._scope.cancel()

    async def run(self) -> RunReport:
        """Replicate all filesystems of the job. Call it once.

        :returns: the report at the end; the errors of sides and filesystems stand in it
        :raises trio.Cancelled: after the observers have heard ``RunFinished``
        """
        self._narrator = Narrator(self._machine, self.observers)
        self._last_progress_at = trio.current_time()
        self._machine.started_at = self._narrator.now()
        self.observers.tell(RunStarted(job=self.settings.name))
        try:
            with bind(job=self.settings.name), self._scope:
                while not self._machine.finished:
                    await RUN_ACTIONS[self._machine.state](self)
        finally:
            self._machine.finished_at = self._narrator.now()
            self.observers.tell(
                RunFinished(
                    job=self.settings.name,
                    report=self.report(),
                    interrupted=not self._machine.finished,
                )
            )
        return self.report()

    async def _plan(self) -> None:
        try:
            sender, receiver = await survey(self.settings, self.sender, self.receiver)
            plan = make_plan(
                sender,
                receiver,
                patterns=self.settings.filesystems,
                policy=self.settings.policy,
                refused_tokens=self._refused_tokens,
            )
        except Exception as error:  # noqa: BLE001  (classified, and decided upon here)
            self._try_again_or_fail(classify(error), PlanningFailed)
            return
        self._note_partials(receiver)
        for warning in plan.warnings:
            self._narrator.warn(warning)
        self._adopt(plan)
        self._attempt = Attempt(
            settings=self.settings,
            sender=self.sender,
            receiver=self.receiver,
            machine=self._machine,
            narrator=self._narrator,
            replan_after_first=frozenset(
                each.filesystem for each in plan.filesystems if each.replan_after_first
            ),
            estimates=sender.capabilities.estimates,
            learned_sizes=self._learned_sizes,
            refused_tokens=self._refused_tokens,
            progressed=self._progressed,
        )
        self._advance(PlanMade())

    async def _wait(self) -> None:
        sleep_until = self._machine.sleep_until
        assert sleep_until is not None  # noqa: S101  (the events that lead here set it)
        await trio.sleep_until(self._narrator.clock_time(sleep_until))
        self._advance(WaitOver())

    async def _work(self) -> None:
        attempt, self._attempt = self._attempt, None
        assert attempt is not None  # noqa: S101  (planning leads here)
        ended_by = await attempt.work()
        replications = self._machine.replications.values()
        to_retry = [each for each in replications if each.can_retry]
        for_now = summarize_failures(
            each for each in to_retry if each.filesystem not in attempt.refused
        )
        if ended_by is not None:
            self._try_again_or_fail(ended_by, AttemptFailed)
        elif for_now is not None:
            self._try_again_or_fail(for_now, AttemptFailed)
        elif to_retry:
            self._advance(ReplanNeeded())
        else:
            failed = summarize_failures(replications)
            self._advance(WorkDone() if failed is None else RunFailed(failed))

    def _try_again_or_fail(
        self, problem: Problem, event: type[PlanningFailed | AttemptFailed]
    ) -> None:
        delay_seconds = self._next_delay_seconds()
        give_up_at = self._last_progress_at + self.settings.retry_for_seconds
        if problem.temporary and trio.current_time() + delay_seconds <= give_up_at:
            self._waits_in_a_row += 1
            sleep_until = self._narrator.now() + delay_seconds
            self._advance(event(problem, sleep_until), sleep_seconds=delay_seconds)
        elif problem.local:
            failed = summarize_failures(self._machine.replications.values())
            self._advance(RunFailed(failed or problem))
        else:
            self._advance(RunFailed(problem))

    def _next_delay_seconds(self) -> float:
        """Doubles with each wait in a row, up to a limit; jitter keeps jobs apart."""
        longest = min(
            self.settings.backoff_limit_seconds,
            self.settings.backoff_initial_seconds
            * 2.0 ** min(self._waits_in_a_row, _DOUBLINGS_LIMIT),
        )
        return longest * self.randomness.uniform(0.5, 1.0)

    def _progressed(self) -> None:
        self._last_progress_at = trio.current_time()
        self._waits_in_a_row = 0

    def _note_partials(self, receiver: Inventory) -> None:
        """Count a partial receive that has grown since the last plan as progress."""
        first = self._machine.attempt == 1
        for filesystem in receiver.filesystems:
            token = filesystem.resume_token
            if token is None or token.received_bytes is None:
                continue
            if token.received_bytes > self._partial_bytes.get(token.to_guid, 0):
                self._partial_bytes[token.to_guid] = token.received_bytes
                if not first:
                    self._progressed()

    def _adopt(self, plan: Plan) -> None:
        """Replace the replications by those of a new plan, except what is settled.

        A filesystem that failed for good in an earlier attempt stays failed.
        """
        former = self._machine.replications
        fresh = {name: each for name, each in former.items() if each.problem and not each.can_retry}
        for filesystem_plan in plan.filesystems:
            name = filesystem_plan.filesystem
            if name not in fresh:
                fresh[name] = self._replication(filesystem_plan, former.get(name))
        for name in former.keys() - fresh.keys():
            self._narrator.warn(f"{name} is gone from the sender: it is no longer replicated")
        self._machine.replications = fresh
        for replication in fresh.values():
            self._narrator.filesystem(FilesystemPlanned, replication)

    def _replication(self, plan: FilesystemPlan, former: Replication | None) -> Replication:
        """Make the machine of one planned filesystem; it remembers what was done before."""
        builder = ReplicationBuilder(
            plan.filesystem,
            reasons=plan.reasons,
            base=plan.base,
            waits_for=plan.waits_for,
            warnings=(*(former.warnings if former is not None else ()), *plan.warnings),
            earlier=_earlier_steps(plan, former) if former is not None else (),
        )
        if plan.conflict is not None:
            return builder.conflict(plan.conflict.problem())
        for planned in plan.steps:
            builder.add_step(
                planned,
                expected_bytes=self._learned_sizes.get(step_key(plan.filesystem, planned)),
            )
        return builder.done()

    def _advance(self, event: RunEvent, *, sleep_seconds: float | None = None) -> None:
        from_state = self._machine.state
        self._machine.advance(event)
        self.observers.tell(
            RunStateChanged(
                job=self.settings.name,
                from_state=from_state.value,
                to_state=self._machine.state.value,
                attempt=self._machine.attempt,
                problem=self._machine.problem,
                sleep_seconds=sleep_seconds,
            )
        )


def _earlier_steps(plan: FilesystemPlan, former: Replication) -> tuple[StepReport, ...]:
    """What former plans of the run have completed, for the report.

    Among it a step that the receiver had committed when the answer was lost: the new
    plan begins at its version, so nobody else would ever tell of it.
    """
    steps = former.step_reports()
    last = former.current_step
    if last is None or last.planned.mark_only or last.started_at is None:
        return steps
    if plan.base is None or last.planned.to_version.guid != plan.base.guid:
        return steps
    unheard = attrs.evolve(last.report(), status=StepState.COMPLETED.value, problem=None)
    return (*steps, unheard)


RUN_ACTIONS: Mapping[RunState, Callable[[Driver], Awaitable[None]]] = {
    RunState.PLANNING: Driver._plan,  # noqa: SLF001  (the table is the class's)
    RunState.PLANNING_ERROR: Driver._wait,  # noqa: SLF001  (likewise)
    RunState.WORKING: Driver._work,  # noqa: SLF001  (likewise)
    RunState.WORKING_WAIT: Driver._wait,  # noqa: SLF001  (likewise)
}
"""What each state of a run asks for; a state that is not here is terminal."""
