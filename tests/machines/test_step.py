import attrs
import pytest

from fsrep_core.machines import Step, StepState
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, StepFailed
from fsrep_core.table import IllegalTransitionError
from fsrep_core.values import PlannedStep, Problem, Version, VersionKind

A, B, C = (Version(VersionKind.SNAPSHOT, name, name, order) for order, name in enumerate("abc"))
PLANNED = PlannedStep(from_version=A, to_version=C, intermediates=(B,))
PROBLEM = Problem(message="no", temporary=True, local=True)


def test_data_then_mark_then_completed():
    step = Step(PLANNED)
    seen = [step.state]
    for event in (ReceiverCommitted(), CursorMoved()):
        step.advance(event)
        seen.append(step.state)

    assert seen == list(StepState)
    assert step.completed


def test_cursor_that_cannot_be_moved_never_sends_the_data_again():
    step = Step(PLANNED)
    step.advance(ReceiverCommitted())
    step.advance(StepFailed(PROBLEM))

    assert step.state is StepState.MARK_REPLICATED_READY
    assert step.problem == PROBLEM

    step.advance(CursorMoved())

    assert step.completed
    assert step.problem is None


def test_failed_send_keeps_its_state():
    step = Step(PLANNED)
    step.advance(StepFailed(PROBLEM))

    assert step.state is StepState.REPLICATION_READY
    assert step.problem == PROBLEM

    step.advance(ReceiverCommitted())

    assert step.problem is None


def test_step_whose_data_is_there_begins_with_the_mark():
    step = Step(PlannedStep(to_version=C, mark_only=True))

    assert step.state is StepState.MARK_REPLICATED_READY
    assert step.report().mark_only
    with pytest.raises(IllegalTransitionError):
        step.advance(ReceiverCommitted())


@pytest.mark.parametrize(
    ("done", "illegal"),
    [
        ([], CursorMoved()),
        ([ReceiverCommitted()], ReceiverCommitted()),
        ([ReceiverCommitted(), CursorMoved()], ReceiverCommitted()),
        ([ReceiverCommitted(), CursorMoved()], CursorMoved()),
        ([ReceiverCommitted(), CursorMoved()], StepFailed(PROBLEM)),
        ([StepFailed(PROBLEM)], CursorMoved()),
    ],
)
def test_illegal_event_changes_nothing(done, illegal):
    step = Step(PLANNED)
    for event in done:
        step.advance(event)
    before = step.report()

    with pytest.raises(IllegalTransitionError):
        step.advance(illegal)

    assert step.report() == before


def test_report_says_all_that_is_known():
    step = Step(PLANNED, expected_bytes=100)
    step.transferred_bytes = 40
    step.resumed = True
    step.started_at, step.finished_at = 1.0, 2.0
    step.advance(StepFailed(PROBLEM))

    report = step.report()

    assert attrs.asdict(report, recurse=False) == {
        "from_version": A,
        "to_version": C,
        "status": "replication-ready",
        "problem": PROBLEM,
        "transferred_bytes": 40,
        "expected_bytes": 100,
        "resumed": True,
        "intermediate_count": 1,
        "started_at": 1.0,
        "finished_at": 2.0,
        "mark_only": False,
        "origin": None,
    }


def test_unknown_size_stays_unknown():
    assert Step(PLANNED).report().expected_bytes is None
    assert Step(PLANNED, expected_bytes=0).report().expected_bytes == 0


def test_report_does_not_change_after_it_was_taken():
    step = Step(PLANNED)
    before = step.report()
    step.advance(ReceiverCommitted())
    step.transferred_bytes = 9

    assert before.status == "replication-ready"
    assert before.transferred_bytes == 0
