"""All machines at once, driven with every event, against a model that is only lists.

The model keeps, for each filesystem, the words of what is still to be done ("send 0",
"mark 0", "send 1", ...). What the machines say, at any moment, must be what the lists say.
"""

import attrs
import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fsrep_core.machines import ReplicationBuilder, Run, WorkQueue
from fsrep_core.machines.run import (
    AttemptFailed,
    PlanMade,
    PlanningFailed,
    ReplanNeeded,
    RunFailed,
    WaitOver,
    WorkDone,
    summarize_failures,
)
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, StepFailed
from fsrep_core.table import IllegalTransitionError
from fsrep_core.values import Awaited, PlannedStep, Problem, Version, VersionKind

NAMES = ("a", "a/b", "a/b/c", "a/d", "aa", "z")
PARENTS = {"a/b": "a", "a/b/c": "a/b", "a/d": "a"}
CONFLICT = Problem(message="diverged", temporary=False, local=True, kind="conflict")
ORPHANED = Problem(message="the parent is not there", temporary=True, local=True)
CUT = Problem(message="cut", temporary=True, local=False, kind="connectivity")

RUN_EVENTS = (
    PlanMade(),
    PlanningFailed(CUT, 1.0),
    WaitOver(),
    AttemptFailed(CUT, 1.0),
    ReplanNeeded(),
    WorkDone(),
    RunFailed(CUT),
)
STEP_EVENTS = (ReceiverCommitted(), CursorMoved(), StepFailed(CUT))

problems = st.builds(
    Problem,
    message=st.sampled_from(["busy", "full", "forbidden"]),
    temporary=st.sampled_from([True, True, True, True, False]),
    local=st.just(value=True),
)
dates = st.one_of(st.none(), st.integers(1, 4).map(float))


@attrs.define
class Expected:
    """What the model knows of one filesystem."""

    todo: list = attrs.field(factory=list)
    """Words such as ``send 0`` and ``mark 0``, next one first."""
    done: int = 0
    """Steps completed in this run."""
    dates: dict = attrs.field(factory=dict)
    problem: Problem | None = None
    exists: bool = False
    """On the receiver."""
    place: str = "out"
    """``ready``, ``taken``, ``waiting`` for its parent, or ``out`` of this attempt."""

    @property
    def step(self):
        return int(self.todo[0].split()[1]) if self.todo else None

    @property
    def can_retry(self):
        return bool(self.todo) and (self.problem is None or self.problem.temporary)


class Machines(RuleBasedStateMachine):
    @initialize(
        counts=st.lists(st.sampled_from([1, 2, 3, 0]), min_size=len(NAMES), max_size=len(NAMES)),
        marks=st.sets(st.sampled_from(NAMES), max_size=3),
        conflicts=st.sampled_from([(), (), ("z",), ("a",), ("a/b", "aa")]),
        every_date=st.lists(dates, min_size=18, max_size=18),
    )
    def begin(self, counts, marks, conflicts, every_date):
        self.model = {}
        self.taken_reports = []
        self.start()
        for name, count in zip(NAMES, counts, strict=True):
            todo = [f"{word} {at}" for at in range(count) for word in ("send", "mark")]
            expected = Expected(todo=todo, dates={at: every_date.pop() for at in range(3)})
            if name in marks and todo:
                del todo[0]
            parent = self.model.get(PARENTS.get(name), Expected(exists=True))
            expected.exists = (name in marks or count == 0) and parent.exists
            if not parent.exists and name in marks:
                expected.todo = []
                expected.problem = CONFLICT
            if name in conflicts:
                expected.todo = []
                expected.problem = CONFLICT
            self.model[name] = expected

    def start(self):
        self.run = Run("job")
        self.queue = None
        self.machines = {}
        self.earlier = {}
        self.wait = None
        self.attempt = 1
        self.state = "planning"

    def taken(self):
        return sorted(name for name, each in self.model.items() if each.place == "taken")

    def planned(self, name, at):
        target = Version(
            VersionKind.SNAPSHOT, f"{name}-{at}", f"{name}-{at}", at, self.model[name].dates[at]
        )
        mark_only = f"send {at}" not in self.model[name].todo
        return PlannedStep(to_version=target, mark_only=mark_only)

    def build(self, name):
        expected = self.model[name]
        parent = PARENTS.get(name)
        waits_for = (Awaited(parent),) if parent and not self.model[parent].exists else ()
        builder = ReplicationBuilder(name, waits_for=waits_for, earlier=self.earlier.get(name, ()))
        if expected.problem == CONFLICT:
            return builder.conflict(CONFLICT)
        for word in expected.todo:
            if word.startswith("mark"):
                builder.add_step(self.planned(name, int(word.split()[1])))
        return builder.done()

    @rule(data=st.data())
    def go_on(self, data):
        """Do one of the things that can happen now, the likely ones more often."""
        choices = self.possible() * 2 + [self.tell_the_run_something_illegal]
        if self.machines:
            choices += [self.tell_a_step_something_illegal]
        if len(self.taken_reports) < 4:
            choices += [self.keep_a_report]
        data.draw(st.sampled_from(choices))(data)

    def possible(self):
        if self.state == "planning":
            return [self.make_plan] * 7 + [self.fail_to_plan]
        if self.state in ("planning-error", "working-wait"):
            return [self.wake_up]
        if self.state != "working":
            return [self.begin_another_run]
        if all(each.place == "out" for each in self.model.values()):
            return [self.finish_the_work]
        choices = [self.take] * 6 + [self.lose_the_connection]
        if self.taken():
            choices += [self.succeed] * 8 + [self.fail] * 3
        if self.attempt > 4:
            choices += [self.give_up]
        return choices

    def begin_another_run(self, _data):
        """The job runs again; the machines are new, what was done stays done."""
        for expected in self.model.values():
            expected.done = 0
            if expected.problem != CONFLICT:
                expected.problem = None
        self.start()

    def make_plan(self, _data):
        for name, expected in self.model.items():
            former = self.machines.get(name)
            if former is not None:
                if former.problem and not former.can_retry:
                    continue
                self.earlier[name] = former.step_reports()
            if expected.problem != CONFLICT:
                expected.problem = None
            self.machines[name] = self.build(name)
        self.run.replications = dict(self.machines)
        self.run.advance(PlanMade())
        self.state = "working"
        self.enqueue()

    def enqueue(self):
        self.queue, stranded = WorkQueue.of(self.machines.values())
        lost = set()
        for name, expected in self.model.items():
            waits_for = [each.filesystem for each in self.machines[name].waits_for]
            if not expected.can_retry:
                expected.place = "out"
            elif not waits_for:
                expected.place = "ready"
            elif waits_for[0] in lost or not self.model[waits_for[0]].can_retry:
                expected.place = "out"
                lost.add(name)
            else:
                expected.place = "waiting"
        assert {each.filesystem for each, _ in stranded} == lost
        for each, _ in stranded:
            self.orphan(each)

    def orphan(self, replication):
        replication.fail(ORPHANED)
        self.model[replication.filesystem].problem = ORPHANED
        self.model[replication.filesystem].place = "out"

    def take(self, _data):
        ready = [
            ((each.dates[each.step] or 0.0), name)
            for name, each in self.model.items()
            if each.place == "ready"
        ]

        replication = self.queue.take()

        if not ready:
            assert replication is None
            return
        _, name = min(ready)
        assert replication is self.machines[name]
        self.model[name].place = "taken"
        self.run.active.add(name)

    def succeed(self, data):
        name = data.draw(st.sampled_from(self.taken()))
        expected = self.model[name]
        word = expected.todo.pop(0)
        expected.problem = None
        if word.startswith("send"):
            self.machines[name].advance(ReceiverCommitted())
            expected.exists = True
            return
        self.machines[name].advance(CursorMoved())
        expected.done += 1
        self.queue.step_completed(self.machines[name])
        self.run.active.discard(name)
        expected.place = "ready" if expected.todo else "out"
        for child, parent in PARENTS.items():
            if parent == name and self.model[child].place == "waiting":
                self.model[child].place = "ready"

    def fail(self, data):
        problem = data.draw(problems)
        name = data.draw(st.sampled_from(self.taken()))
        self.machines[name].advance(StepFailed(problem))
        self.model[name].problem = problem
        self.model[name].place = "out"
        self.run.active.discard(name)

        dropped = self.queue.release(self.machines[name])

        lost = {name}
        for child in NAMES:
            if self.model[child].place == "waiting" and PARENTS[child] in lost:
                lost.add(child)
        order = [name, *(each.filesystem for each, _ in dropped)]
        assert sorted(order) == sorted(lost)
        assert all(PARENTS[each] in order[:at] for at, each in enumerate(order) if at)
        event(f"{len(dropped)} descendants dropped")
        assert all(awaited.filesystem == PARENTS[each.filesystem] for each, awaited in dropped)
        for each, _ in dropped:
            self.orphan(each)

    def lose_the_connection(self, data):
        sleep_until = data.draw(st.floats(1, 9))
        self.run.active.clear()
        for expected in self.model.values():
            expected.place = "out"
        self.run.advance(AttemptFailed(CUT, sleep_until))
        self.state, self.wait = "working-wait", (CUT, sleep_until)

    def finish_the_work(self, _data):
        failed = summarize_failures(self.machines.values())
        if any(each.can_retry for each in self.model.values()):
            event("planned again after failures")
            self.run.advance(ReplanNeeded())
            self.state = "planning"
            self.attempt += 1
        elif failed is None:
            event("completed")
            self.run.advance(WorkDone())
            self.state = "completed"
        else:
            event("failed for good")
            self.run.advance(RunFailed(failed))
            self.state, self.wait = "permanent-error", (failed, None)

    def fail_to_plan(self, data):
        sleep_until = data.draw(st.floats(1, 9))
        self.run.advance(PlanningFailed(CUT, sleep_until))
        self.state, self.wait = "planning-error", (CUT, sleep_until)

    def wake_up(self, _data):
        self.run.advance(WaitOver())
        self.state, self.wait = "planning", None
        self.attempt += 1

    def give_up(self, _data):
        self.run.active.clear()
        for expected in self.model.values():
            expected.place = "out"
        self.run.advance(RunFailed(CUT))
        self.state, self.wait = "permanent-error", (CUT, None)

    def tell_the_run_something_illegal(self, data):
        legal = {
            "planning": (PlanMade, PlanningFailed, RunFailed),
            "planning-error": (WaitOver,),
            "working": (AttemptFailed, ReplanNeeded, WorkDone, RunFailed),
            "working-wait": (WaitOver,),
        }
        told = data.draw(st.sampled_from(RUN_EVENTS))
        if not isinstance(told, legal.get(self.state, ())):
            with pytest.raises(IllegalTransitionError):
                self.run.advance(told)

    def tell_a_step_something_illegal(self, data):
        name = data.draw(st.sampled_from(NAMES))
        told = data.draw(st.sampled_from(STEP_EVENTS))
        todo = self.model[name].todo
        legal = {"send": (ReceiverCommitted, StepFailed), "mark": (CursorMoved, StepFailed)}
        if not todo or not isinstance(told, legal[todo[0].split()[0]]):
            with pytest.raises(IllegalTransitionError):
                self.machines[name].advance(told)

    def keep_a_report(self, _data):
        report = self.run.report()
        self.taken_reports.append((report, repr(report)))

    @invariant()
    def run_is_what_the_model_says(self):
        report = self.run.report()
        assert report.status == self.state
        assert report.attempt == self.attempt
        assert (report.problem, report.sleep_until) == (self.wait or (None, None))
        assert self.run.finished == (self.state in ("completed", "permanent-error"))
        assert {each.filesystem for each in report.active} == set(self.taken())
        if self.state == "completed":
            assert not any(each.todo or each.problem for each in self.model.values())

    @invariant()
    def every_filesystem_is_what_the_model_says(self):
        for name, machine in self.machines.items():
            expected, report = self.model[name], machine.report()
            assert report.problem == expected.problem
            assert machine.can_retry == expected.can_retry
            assert machine.completed == (not expected.todo)
            assert report.status == ("ready" if expected.todo else "completed")
            assert len(report.completed) == expected.done
            assert all(step.status == "completed" for step in report.completed)
            words = []
            for step in report.pending:
                at = step.to_version.order
                if step.status == "replication-ready":
                    words.append(f"send {at}")
                words.append(f"mark {at}")
            assert words == expected.todo
            date = expected.dates[expected.step] if expected.todo else None
            assert machine.next_step_date == date

    @invariant()
    def queue_is_what_the_model_says(self):
        if self.state == "working":
            assert {each.filesystem for each in self.queue.active} == set(self.taken())
            places = {each.place for each in self.model.values()}
            assert self.queue.exhausted == (places == {"out"})

    @invariant()
    def reports_that_were_taken_have_not_changed(self):
        for report, words in self.taken_reports:
            assert repr(report) == words


TestMachinesTogether = Machines.TestCase
TestMachinesTogether.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
