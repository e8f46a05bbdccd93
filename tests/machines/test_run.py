import itertools

import pytest

from fsrep_core.machines import ReplicationBuilder, Run, RunState
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
from fsrep_core.machines.step import StepFailed
from fsrep_core.table import IllegalTransitionError
from fsrep_core.values import PlannedStep, Problem, Version, VersionKind

PROBLEM = Problem(message="cut", temporary=True, local=False, kind="connectivity")
VERSION = Version(VersionKind.SNAPSHOT, "a", "a", 0)
EVENTS = (
    PlanMade(),
    PlanningFailed(PROBLEM, 60.0),
    WaitOver(),
    AttemptFailed(PROBLEM, 60.0),
    ReplanNeeded(),
    WorkDone(),
    RunFailed(PROBLEM),
)


def after(*events):
    run = Run("job")
    for event in events:
        run.advance(event)
    return run


def replication(name, problem=None, *, pending=True):
    builder = ReplicationBuilder(name)
    if pending:
        builder.add_step(PlannedStep(to_version=VERSION))
    made = builder.done()
    if problem is not None:
        made.advance(StepFailed(problem))
    return made


def problem(message="no", *, temporary=False, kind="storage", hint=None):
    return Problem(message=message, temporary=temporary, local=True, kind=kind, hint=hint)


def test_run_begins_by_planning():
    run = Run("job")

    assert run.state is RunState.PLANNING
    assert run.attempt == 1
    assert not run.finished
    assert run.report().status == "planning"


def test_plan_then_work_then_completed():
    run = after(PlanMade(), WorkDone())

    assert run.state is RunState.COMPLETED
    assert run.finished
    assert run.attempt == 1


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([PlanningFailed(PROBLEM, 60.0)], RunState.PLANNING_ERROR),
        ([PlanMade(), AttemptFailed(PROBLEM, 60.0)], RunState.WORKING_WAIT),
    ],
)
def test_waiting_run_says_until_when_and_why_and_then_plans_again(events, state):
    run = after(*events)

    assert run.state is state
    report = run.report()
    assert (report.problem, report.sleep_until) == (PROBLEM, 60.0)
    assert run.attempt == 1

    run.advance(WaitOver())

    assert run.state is RunState.PLANNING
    assert run.attempt == 2
    assert (run.report().problem, run.report().sleep_until) == (None, None)


def test_work_that_went_well_may_be_planned_again_at_once():
    run = after(PlanMade(), ReplanNeeded())

    assert run.state is RunState.PLANNING
    assert run.attempt == 2
    assert run.problem is None


@pytest.mark.parametrize("events", [[], [PlanMade()]])
def test_run_that_failed_says_why_and_ends(events):
    run = after(*events, RunFailed(PROBLEM))

    assert run.state is RunState.PERMANENT_ERROR
    assert run.finished
    assert run.problem == PROBLEM
    assert run.sleep_until is None


def test_illegal_event_changes_nothing():
    ways = {
        RunState.PLANNING: [],
        RunState.PLANNING_ERROR: [PlanningFailed(PROBLEM, 1.0)],
        RunState.WORKING: [PlanMade()],
        RunState.WORKING_WAIT: [PlanMade(), AttemptFailed(PROBLEM, 1.0)],
        RunState.COMPLETED: [PlanMade(), WorkDone()],
        RunState.PERMANENT_ERROR: [RunFailed(PROBLEM)],
    }
    illegal = 0
    for way, event in itertools.product(ways.values(), EVENTS):
        run = after(*way)
        before = run.report()
        try:
            run.advance(event)
        except IllegalTransitionError:
            illegal += 1
            assert run.report() == before

    assert list(ways) == list(RunState)
    assert illegal == len(ways) * len(EVENTS) - 9


class TestReport:
    def test_every_filesystem_stands_in_one_place(self):
        run = after(PlanMade())
        run.replications = {
            "c": replication("c", pending=False),
            "b": replication("b"),
            "a": replication("a", pending=False),
            "d": replication("d"),
        }
        run.active = {"d"}

        report = run.report()

        assert [each.filesystem for each in report.active] == ["d"]
        assert [each.filesystem for each in report.completed] == ["a", "c"]
        assert [each.filesystem for each in report.pending] == ["b"]
        assert [each.filesystem for each in report.replications] == ["a", "b", "c", "d"]

    def test_report_does_not_change_after_it_was_taken(self):
        run = after(PlanMade())
        run.replications = {"a": replication("a")}
        run.warnings.append("first")
        before = run.report()
        words = repr(before)

        run.replications["a"].advance(StepFailed(problem()))
        run.replications["b"] = replication("b")
        run.warnings.append("second")
        run.advance(RunFailed(PROBLEM))

        assert repr(before) == words

    def test_failed_filesystems_are_those_with_a_problem_now(self):
        run = after(PlanMade())
        run.replications = {
            "b": replication("b", problem()),
            "a": replication("a", problem(temporary=True)),
            "c": replication("c"),
        }

        assert [each.filesystem for each in run.report().failed] == ["a", "b"]

    def test_dates_and_warnings_are_passed_on(self):
        run = Run("job")
        run.started_at, run.finished_at = 1.0, 2.0
        run.warnings.append("no filesystem")

        report = run.report()

        assert (report.started_at, report.finished_at) == (1.0, 2.0)
        assert report.warnings == ("no filesystem",)
        assert report.job == "job"


class TestSummary:
    def test_no_failure_is_none(self):
        assert summarize_failures([replication("a"), replication("b", pending=False)]) is None

    def test_one_failure_is_its_own_with_its_name(self):
        found = summarize_failures([replication("a", problem("disk full", hint="delete"))])

        assert found == problem("a: disk full", hint="delete")

    def test_alike_failures_are_told_once(self):
        alike = [replication(name, problem("disk full")) for name in ("b", "a")]

        assert summarize_failures(alike).message == "a, b: disk full"

    def test_each_failure_is_named(self):
        found = summarize_failures(
            [
                replication("b", problem("forbidden", kind="permission-denied", hint="allow")),
                replication("ok"),
                replication("a", problem("disk full", kind="out-of-space", hint="delete")),
            ]
        )

        assert found.message == "a: disk full; b: forbidden"
        assert found.kind == "several"
        assert found.hint is None

    def test_kind_and_hint_in_common_are_kept(self):
        found = summarize_failures(
            [
                replication("a", problem("one", hint="do this")),
                replication("b", problem("two", hint="do this")),
            ]
        )

        assert (found.kind, found.hint) == ("storage", "do this")

    @pytest.mark.parametrize("facts", list(itertools.product([True, False], repeat=2)))
    def test_temporary_only_when_all_are(self, facts):
        found = summarize_failures(
            [
                replication(str(at), problem(str(at), temporary=temporary))
                for at, temporary in enumerate(facts)
            ]
        )

        assert found.temporary is all(facts)

    def test_conflicts_take_part(self):
        conflict = ReplicationBuilder("a").conflict(problem("diverged", kind="conflict"))

        assert summarize_failures([conflict]).kind == "conflict"
