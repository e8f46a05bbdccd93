"""The work of one plan: workers take steps from one queue until none can go on.

A worker brings one step of one filesystem to its end and goes back to the queue, so
that the oldest step of all filesystems is always next. While it works, a watchdog
stands over it: a cancel scope whose deadline moves whenever bytes move or the step
advances. A slow receiver is not a dead peer; only standing still is a failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from fsrep_core.errors import BrokenEndpointError, StaleTokenError, TimeoutExpiredError
from fsrep_core.events import FilesystemFinished, StepAborted, StepFinished, StepStarted
from fsrep_core.machines.queue import WorkQueue
from fsrep_core.machines.run import Run
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, Step, StepFailed, StepState
from fsrep_core.planning import TokenKey
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.context import bind
from fsrep_core.runtime.metering import MeteredStream
from fsrep_core.runtime.narrator import Narrator
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.runtime.survey import estimate_steps, send_request
from fsrep_core.values import Awaited, CursorRequest, PlannedStep, Problem, ReceiveRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping

    from fsrep_core.machines.replication import Replication
    from fsrep_core.machines.step import StepEvent

__all__ = ["STEP_ACTIONS", "Attempt", "StepKey", "step_key", "step_label"]

PROGRESS_INTERVAL_SECONDS = 0.5
LONG_STEP_SECONDS = 2.0
"""After this time, what is still being sent is worth an estimate."""

StepKey: TypeAlias = tuple[str, str | None, str]
"""Filesystem, guid of the base or origin, guid of the target."""


def step_label(filesystem: str, planned: PlannedStep) -> str:
    """Name a step as messages do: ``fs@to (full)`` or ``fs(@from => @to)``."""
    to_name = planned.to_version.relative_name
    if planned.from_version is None:
        return f"{filesystem}{to_name} ({_kind_of_first(planned)})"
    return f"{filesystem}({planned.from_version.relative_name} => {to_name})"


def _kind_of_first(planned: PlannedStep) -> str:
    if planned.mark_only:
        return "mark"
    return "full" if planned.origin is None else "clone"


def step_key(filesystem: str, planned: PlannedStep) -> StepKey:
    """What stays the same when a step is planned again."""
    base = planned.from_version
    start = base.guid if base is not None else planned.origin
    return filesystem, start, planned.to_version.guid


@attrs.define(eq=False, repr=False)
class Attempt:
    """One plan and the machines that carry it out."""

    settings: JobSettings
    sender: Endpoint
    receiver: Endpoint
    machine: Run
    narrator: Narrator
    replan_after_first: frozenset[str]
    """Filesystems whose first step resumes a token: what follows is planned anew."""
    estimates: bool
    """Whether the sender can say how big a step will be."""
    learned_sizes: dict[StepKey, int | None]
    """The estimates of this run so far; what is in here is not asked again."""
    refused_tokens: dict[TokenKey, str] = attrs.field(repr=False)
    """The tokens that a side would not go on from in this run, and why."""
    progressed: Callable[[], None]
    """Called when a step is completed."""
    refused: set[str] = attrs.field(init=False, factory=set)
    """Filesystems whose token was refused in this attempt; they have to be planned anew."""
    _queue: WorkQueue = attrs.field(init=False, factory=WorkQueue)
    _unsized: set[Step] = attrs.field(init=False, factory=set)
    """The steps whose streams were opened and say nothing of their sizes."""
    _ended_by: Problem | None = attrs.field(init=False, default=None)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def work(self) -> Problem | None:
        """Do all that can be done.

        :returns: the problem, not local to a filesystem, that ended the attempt early;
            ``None`` = there was none
        """
        self._queue, stranded = WorkQueue.of(self.machine.replications.values())
        for replication, awaited in stranded:
            self._fail_with_awaited(replication, awaited)
        async with trio.open_nursery() as nursery:
            if self.estimates:
                nursery.start_soon(self._estimate)
            async with trio.open_nursery() as workers:
                for _ in range(self.settings.concurrency):
                    workers.start_soon(self._worker, workers.cancel_scope)
            nursery.cancel_scope.cancel()
        return self._ended_by

    async def _worker(self, scope: trio.CancelScope) -> None:
        while not self._queue.exhausted:
            replication = self._queue.take()
            if replication is None:
                await self._changed.wait()
                continue
            name = replication.filesystem
            self.machine.active.add(name)
            try:
                with bind(filesystem=name):
                    problem = await self._advance_one_step(replication)
            finally:
                self.machine.active.discard(name)
            self._settle(replication, problem)
            if problem is not None and not problem.local:
                self._ended_by = self._ended_by or problem
                scope.cancel()
            self._changed.set()
            self._changed = trio.Event()

    def _settle(self, replication: Replication, problem: Problem | None) -> None:
        """Put a replication back into the queue, or take it out of the attempt."""
        if problem is None and not self._must_replan(replication):
            self._queue.step_completed(replication)
        else:
            for waiter, awaited in self._queue.release(replication):
                if problem is not None:
                    self._fail_with_awaited(waiter, awaited)
        if problem is not None or replication.completed:
            self.narrator.filesystem(FilesystemFinished, replication)

    def _must_replan(self, replication: Replication) -> bool:
        """Tell whether a token was just completed and others would follow, or was refused."""
        return replication.filesystem in self.replan_after_first and not replication.completed

    def _fail_with_awaited(self, replication: Replication, awaited: Awaited) -> None:
        """Record that what a replication waits for will not come in this attempt."""
        name = awaited.filesystem
        other = self.machine.replications.get(name)
        cause = other.problem if other is not None else None
        if awaited.guid is None:
            kind, what = "parent-failed", f"its parent {name} does not exist on the receiver"
        else:
            kind, what = "origin-failed", f"it waits for a snapshot of {name} to be a clone of"
        replication.fail(
            Problem(
                message=what + (f", and {name} failed: {cause.message}" if cause else ""),
                temporary=cause.temporary if cause else False,
                local=True,
                kind=kind,
                hint=f"repair {name} first",
            )
        )
        self.narrator.filesystem(FilesystemFinished, replication)

    async def _advance_one_step(self, replication: Replication) -> Problem | None:
        """Bring the first pending step to its end, or record why it stays.

        :returns: the problem; ``None`` = there was none, or another plan knows a way around it
        """
        step = replication.current_step
        assert step is not None  # noqa: S101  (only such are in the queue)
        label = step_label(replication.filesystem, step.planned)
        step.started_at = self.narrator.now()
        self.narrator.step(StepStarted, replication, step)
        problem = None
        try:
            with bind(step=label):
                while not step.completed:
                    await self._do(replication, step, label)
        except Exception as error:  # noqa: BLE001  (classified; the caller decides)
            problem = classify(error)
            if self._refuses_token(replication, step, problem):
                replication.advance(StepFailed(attrs.evolve(problem, temporary=True)))
                problem = None
            else:
                replication.advance(StepFailed(problem))
        except BaseException:
            self.narrator.step(StepAborted, replication, step)
            raise
        else:
            step.finished_at = self.narrator.now()
            self.progressed()
        self.narrator.step(StepFinished, replication, step)
        return problem

    def _refuses_token(self, replication: Replication, step: Step, problem: Problem) -> bool:
        """Note that a token is of no use, as only the storages can know before it is tried.

        What says that it is temporary, such as a partial that has moved on, needs no more
        than a fresh plan.
        """
        token = step.planned.resume_token
        refuses = problem.kind == StaleTokenError.kind and problem.local and not problem.temporary
        if token is None or not refuses:
            return False
        self.refused.add(replication.filesystem)
        self.refused_tokens[replication.filesystem, token.value] = problem.message
        return True

    async def _do(self, replication: Replication, step: Step, label: str) -> None:
        """Do what the step's state asks for, under the watchdog, and advance it."""
        from_state = step.state
        timeout_seconds = self.settings.progress_timeout_seconds
        watchdog = trio.CancelScope(deadline=trio.current_time() + timeout_seconds)
        with watchdog:
            event = await STEP_ACTIONS[from_state](self, replication, step, watchdog)
            replication.advance(event)
            self.narrator.step_state(replication, step, from_state.value)
            return
        raise TimeoutExpiredError(
            f"{label}: nothing moved for {timeout_seconds:g} seconds",
            temporary=True,
            local=True,
            hint="see what the storage is doing; raise progress_timeout if it is only slow",
        )

    async def _replicate(
        self, replication: Replication, step: Step, watchdog: trio.CancelScope
    ) -> StepEvent:
        """Send and receive; the sender's stream is closed before anything else is asked."""
        planned = step.planned
        cause: Exception | None = None
        try:
            async with self.sender.send(
                send_request(self.settings.name, replication.filesystem, planned)
            ) as response:
                assert response.stream is not None  # noqa: S101  (Endpoint has checked)
                step.resumed = response.resumed
                if response.size_bytes is None:
                    self._unsized.add(step)
                else:
                    step.expected_bytes = response.size_bytes
                progressed = self._progress_callback(replication, step, watchdog)
                stream = MeteredStream(
                    response.stream, progressed, interval_seconds=PROGRESS_INTERVAL_SECONDS
                )
                request = self._receive_request(
                    replication.filesystem, planned, resumed=response.resumed
                )
                try:
                    answer = await self.receiver.receive(request, stream)
                except Exception as error:
                    cause = error
                    raise
                finally:
                    progressed(stream.total_bytes)
        except Exception as error:
            # What closing the sender's stream says after the receive failed is an echo.
            if cause is not None and error is not cause:
                raise cause from None
            raise
        if answer.version.guid != planned.to_version.guid:
            raise BrokenEndpointError(
                f"the {self.receiver.name} committed {replication.filesystem}"
                f"{answer.version.relative_name} with the guid {answer.version.guid} where "
                f"{planned.to_version.guid} was sent",
                hint="do not trust that version; report this to the author of the plugin",
            )
        for warning in answer.warnings:
            self.narrator.warn(warning, filesystem=replication.filesystem)
        return ReceiverCommitted()

    def _receive_request(
        self, filesystem: str, planned: PlannedStep, *, resumed: bool
    ) -> ReceiveRequest:
        unused_token = planned.resume_token is not None and not resumed
        return ReceiveRequest(
            job=self.settings.name,
            filesystem=filesystem,
            from_version=planned.from_version,
            to_version=planned.to_version,
            intermediates=planned.intermediates,
            resume_token=planned.resume_token if resumed else None,
            clear_resume_token=planned.clear_resume_token or unused_token,
            rollback=planned.rollback,
            origin=planned.origin,
        )

    async def _mark(
        self, replication: Replication, step: Step, _watchdog: trio.CancelScope
    ) -> StepEvent:
        """Move the sender's cursor to what the receiver has confirmed.

        A cursor that is newer already stays: a receiver that lost versions gets them
        again, and the cursor never moves backwards.
        """
        wanted = step.planned.to_version
        cursor = await self.sender.replication_cursor(
            CursorRequest(job=self.settings.name, filesystem=replication.filesystem, move_to=wanted)
        )
        moved = cursor is not None and (cursor.guid == wanted.guid or cursor.order > wanted.order)
        if not moved:
            raise BrokenEndpointError(
                f"the {self.sender.name} did not move the cursor of {replication.filesystem} "
                f"to {wanted.relative_name}",
                hint="report this to the author of the plugin",
            )
        return CursorMoved()

    def _progress_callback(
        self, replication: Replication, step: Step, watchdog: trio.CancelScope
    ) -> Callable[[int], None]:
        def moved(total_bytes: int) -> None:
            new_bytes = total_bytes - step.transferred_bytes
            if not new_bytes:
                return
            step.transferred_bytes = total_bytes
            watchdog.deadline = trio.current_time() + self.settings.progress_timeout_seconds
            self.narrator.bytes_moved(replication, step, new_bytes)

        return moved

    async def _estimate(self) -> None:
        """Learn the sizes of steps, while work goes on.

        What has begun is asked about only when its stream says nothing itself, and it turns
        out to be long: most steps are over before an answer would come.
        """
        for begun, delay_seconds in ((False, 0.0), (True, LONG_STEP_SECONDS)):
            await trio.sleep(delay_seconds)
            await estimate_steps(
                self.settings,
                self.sender,
                self._steps_of_unknown_size(begun=begun),
                learn=self._learn,
                warn=lambda filesystem, message: self.narrator.warn(message, filesystem=filesystem),
            )

    def _steps_of_unknown_size(
        self, *, begun: bool
    ) -> Iterator[tuple[tuple[str, Step], str, PlannedStep]]:
        for name, replication in self.machine.replications.items():
            for step in replication.pending_steps:
                asked = step in self._unsized if begun else step.started_at is None
                asked = asked and not step.planned.mark_only
                known = step.expected_bytes is not None
                if asked and not known and step_key(name, step.planned) not in self.learned_sizes:
                    yield (name, step), name, step.planned

    def _learn(self, subject: tuple[str, Step], size_bytes: int | None) -> None:
        name, step = subject
        self.learned_sizes[step_key(name, step.planned)] = size_bytes
        if step.expected_bytes is None:
            step.expected_bytes = size_bytes


STEP_ACTIONS: Mapping[
    StepState,
    Callable[[Attempt, Replication, Step, trio.CancelScope], Awaitable[StepEvent]],
] = {
    StepState.REPLICATION_READY: Attempt._replicate,  # noqa: SLF001  (the table is the class's)
    StepState.MARK_REPLICATED_READY: Attempt._mark,  # noqa: SLF001  (likewise)
}
"""What each state of a step asks for; a state that is not here is terminal."""
