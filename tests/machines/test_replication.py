import pytest

from fsrep_core.machines import ReplicationBuilder, ReplicationState, StepState
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, StepFailed
from fsrep_core.table import IllegalTransitionError
from fsrep_core.values import PlannedStep, Problem, Version, VersionKind

TEMPORARY = Problem(message="busy", temporary=True, local=True)
PERMANENT = Problem(message="forbidden", temporary=False, local=True)


def version(name, created=None):
    return Version(VersionKind.SNAPSHOT, name, name, 0, created)


def build(*targets, **options):
    builder = ReplicationBuilder("f", **options)
    for target in targets:
        to_version = target if isinstance(target, Version) else version(target)
        builder.add_step(PlannedStep(to_version=to_version))
    return builder.done()


def complete_step(replication):
    replication.advance(ReceiverCommitted())
    replication.advance(CursorMoved())


def targets(reports):
    return [report.to_version.name for report in reports]


class TestBuilder:
    def test_steps_keep_their_order(self):
        replication = build("a", "b", "c")

        assert replication.state is ReplicationState.READY
        assert targets(replication.report().pending) == ["a", "b", "c"]

    def test_no_step_is_completed(self):
        replication = build()

        assert replication.completed
        assert replication.problem is None
        assert not replication.can_retry

    def test_conflict_is_completed_with_a_permanent_problem(self):
        builder = ReplicationBuilder("f", reasons=("because",), warnings=["look"])
        builder.add_step(PlannedStep(to_version=version("a")))

        replication = builder.conflict(PERMANENT)

        assert replication.completed
        assert replication.problem == PERMANENT
        assert replication.current_step is None
        assert not replication.can_retry
        report = replication.report()
        assert (report.status, report.problem) == ("completed", PERMANENT)
        assert (report.reasons, report.warnings) == (("because",), ("look",))

    @pytest.mark.parametrize(("temporary", "local"), [(True, True), (False, False), (True, False)])
    def test_conflict_is_nothing_that_passes_or_concerns_others(self, temporary, local):
        problem = Problem(message="no", temporary=temporary, local=local)

        with pytest.raises(ValueError, match="permanent and local"):
            ReplicationBuilder("f").conflict(problem)

    def test_estimate_is_kept_with_its_step(self):
        builder = ReplicationBuilder("f")
        builder.add_step(PlannedStep(to_version=version("a")), expected_bytes=7)
        step = builder.add_step(PlannedStep(to_version=version("b")))

        replication = builder.done()

        assert [each.expected_bytes for each in replication.report().pending] == [7, None]
        assert replication.report().expected_bytes is None
        step.expected_bytes = 5
        assert replication.report().expected_bytes == 12


class TestSteps:
    def test_run_in_order_to_the_end(self):
        replication = build("a", "b")
        seen = []
        while not replication.completed:
            seen.append(replication.current_step.planned.to_version.name)
            complete_step(replication)

        assert seen == ["a", "b"]
        assert targets(replication.report().completed) == ["a", "b"]
        assert replication.report().pending == ()
        assert replication.completed_count == 2
        assert replication.report().status == "completed"

    def test_step_that_failed_stays_first_and_all_after_it_stay_pending(self):
        replication = build("a", "b", "c")
        complete_step(replication)

        replication.advance(StepFailed(TEMPORARY))

        assert replication.problem == TEMPORARY
        assert replication.current_step.planned.to_version.name == "b"
        assert targets(replication.report().pending) == ["b", "c"]
        assert targets(replication.report().completed) == ["a"]
        assert replication.pending_steps[0] is replication.current_step
        assert len(replication.pending_steps) == 2

    def test_retry_of_the_last_step_is_not_forgotten(self):
        replication = build("a")
        replication.advance(StepFailed(TEMPORARY))

        assert not replication.completed
        assert replication.can_retry
        complete_step(replication)
        assert replication.completed
        assert replication.problem is None

    def test_success_clears_the_problem(self):
        replication = build("a", "b")
        replication.advance(StepFailed(TEMPORARY))
        replication.advance(ReceiverCommitted())

        assert replication.problem is None
        assert replication.report().problem is None

    def test_failed_mark_is_retried_as_a_mark(self):
        replication = build("a")
        replication.advance(ReceiverCommitted())
        replication.advance(StepFailed(TEMPORARY))

        assert replication.current_step.state is StepState.MARK_REPLICATED_READY
        with pytest.raises(IllegalTransitionError):
            replication.advance(ReceiverCommitted())

    def test_completed_replication_takes_nothing(self):
        replication = build("a")
        complete_step(replication)
        before = replication.report()

        for event in (ReceiverCommitted(), CursorMoved(), StepFailed(TEMPORARY)):
            with pytest.raises(IllegalTransitionError, match="f: no step is pending"):
                replication.advance(event)
        with pytest.raises(IllegalTransitionError):
            replication.fail(PERMANENT)

        assert replication.report() == before

    def test_illegal_event_changes_nothing(self):
        replication = build("a", "b")
        replication.advance(StepFailed(TEMPORARY))
        before = replication.report()

        with pytest.raises(IllegalTransitionError):
            replication.advance(CursorMoved())

        assert replication.report() == before

    def test_problem_from_outside_the_steps(self):
        replication = build("a")
        replication.fail(PERMANENT)

        assert replication.problem == PERMANENT
        assert replication.current_step.problem is None
        assert not replication.completed
        assert not replication.can_retry


@pytest.mark.parametrize(
    ("steps", "event", "expected"),
    [
        ("", None, False),
        ("a", None, True),
        ("a", StepFailed(TEMPORARY), True),
        ("a", StepFailed(PERMANENT), False),
    ],
)
def test_can_retry(steps, event, expected):
    replication = build(*steps)
    if event:
        replication.advance(event)

    assert replication.can_retry is expected


def test_next_step_date_is_that_of_the_first_pending_version():
    replication = build(version("a", 5.0), version("b", 3.0), version("c"))
    dates = [replication.next_step_date]
    while not replication.completed:
        complete_step(replication)
        dates.append(replication.next_step_date)

    assert dates == [5.0, 3.0, None, None]


def test_newest_common_version_follows_what_the_receiver_has_confirmed():
    base = version("base")
    replication = build("a", "b", base=base)

    assert replication.newest_common == base
    replication.advance(ReceiverCommitted())
    assert replication.report().newest_common.name == "a"
    replication.advance(CursorMoved())
    assert replication.newest_common.name == "a"
    replication.advance(StepFailed(PERMANENT))
    assert replication.newest_common.name == "a"
    complete_step(replication)
    assert replication.newest_common.name == "b"
    assert build("a").newest_common is None


def test_steps_of_former_plans_stay_in_the_report():
    former = build("a", "b")
    complete_step(former)

    replication = build("b", "c", earlier=former.step_reports())
    complete_step(replication)

    assert targets(replication.report().completed) == ["a", "b"]
    assert targets(replication.report().pending) == ["c"]
    assert replication.completed_count == 1


def test_report_does_not_change_after_it_was_taken():
    replication = build("a", "b", warnings=["first"])
    before = replication.report()
    complete_step(replication)
    replication.warnings.append("second")

    assert targets(before.pending) == ["a", "b"]
    assert before.warnings == ("first",)
