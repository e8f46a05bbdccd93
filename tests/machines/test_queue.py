import pytest

from fsrep_core.machines import ReplicationBuilder, WorkQueue
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, StepFailed
from fsrep_core.values import PlannedStep, Problem, Version, VersionKind

PERMANENT = Problem(message="forbidden", temporary=False, local=True)
TEMPORARY = Problem(message="busy", temporary=True, local=True)


def replication(name, *dates, waits_for=None):
    builder = ReplicationBuilder(name, waits_for=waits_for)
    for number, date in enumerate(dates):
        target = Version(VersionKind.SNAPSHOT, str(number), str(number), number, date)
        builder.add_step(PlannedStep(to_version=target))
    return builder.done()


def queue_of(*replications):
    queue, stranded = WorkQueue.of(replications)
    assert stranded == ()
    return queue


def complete_step(queue, taken):
    taken.advance(ReceiverCommitted())
    taken.advance(CursorMoved())
    queue.step_completed(taken)


def take_all(queue):
    taken = []
    while (each := queue.take()) is not None:
        taken.append(each)
    return taken


def names(replications):
    return [each.filesystem for each in replications]


def test_oldest_next_step_goes_first_across_filesystems():
    queue = queue_of(replication("a", 3, 4), replication("b", 1, 6), replication("c", 2, 5))
    order = []
    while (taken := queue.take()) is not None:
        order.append(f"{taken.filesystem}{taken.next_step_date}")
        complete_step(queue, taken)

    assert order == ["b1", "c2", "a3", "a4", "c5", "b6"]
    assert queue.exhausted


def test_equal_and_unknown_dates_go_by_name():
    queue = queue_of(replication("b", 1), replication("a", 1), replication("z", None))

    assert names(take_all(queue)) == ["z", "a", "b"]


def test_filesystem_is_taken_by_one_worker_only():
    queue = queue_of(replication("a", 1, 2))
    taken = queue.take()

    assert queue.take() is None
    assert names(queue.active) == ["a"]
    assert not queue.exhausted
    complete_step(queue, taken)
    assert queue.active == ()
    assert queue.take() is taken


def test_completed_and_hopeless_ones_are_not_in_the_queue():
    failed = replication("failed", 1)
    failed.advance(StepFailed(PERMANENT))
    conflict = ReplicationBuilder("conflict").conflict(PERMANENT)

    queue = queue_of(failed, conflict, replication("done"))

    assert queue.exhausted
    assert queue.take() is None


def test_one_that_failed_for_now_is_in_the_queue():
    failed = replication("failed", 1)
    failed.advance(StepFailed(TEMPORARY))

    assert queue_of(failed).take() is failed


def test_child_waits_for_its_parents_first_step_only():
    queue = queue_of(replication("a", 8, 9), replication("a/b", 1, waits_for="a"))
    parent = queue.take()

    assert parent.filesystem == "a"
    assert queue.take() is None
    complete_step(queue, parent)
    assert names(take_all(queue)) == ["a/b", "a"]


def test_grandchild_waits_for_the_child():
    queue = queue_of(
        replication("a", 1),
        replication("a/b", 2, waits_for="a"),
        replication("a/b/c", 0, waits_for="a/b"),
    )
    order = []
    while (taken := queue.take()) is not None:
        order.append(taken.filesystem)
        complete_step(queue, taken)

    assert order == ["a", "a/b", "a/b/c"]
    assert queue.exhausted


def test_parent_that_failed_takes_its_descendants_along_and_no_sibling():
    queue = queue_of(
        replication("a", 1),
        replication("a/b", 2, waits_for="a"),
        replication("a/b/c", 2, waits_for="a/b"),
        replication("a/d", 2, waits_for="a"),
        replication("aa", 3),
    )

    dropped = queue.release(queue.take())

    assert names(dropped) == ["a/b", "a/b/c", "a/d"]
    assert names(take_all(queue)) == ["aa"]
    assert not queue.exhausted
    assert queue.release(queue.active[0]) == ()
    assert queue.exhausted


def test_parent_that_fails_later_takes_nobody_along():
    queue = queue_of(replication("a", 1, 2), replication("a/b", 1, waits_for="a"))
    parent = queue.take()
    complete_step(queue, parent)
    child = queue.take()
    again = queue.take()

    assert names([child, again]) == ["a/b", "a"]
    assert queue.release(again) == ()
    complete_step(queue, child)
    assert queue.exhausted


@pytest.mark.parametrize("parent", ["conflict", "permanent", "absent"])
def test_descendants_of_a_parent_without_a_future_are_stranded(parent):
    family = [
        replication("a/b/c", 1, waits_for="a/b"),
        replication("a/b", 1, waits_for="a"),
        replication("z", 1),
    ]
    if parent == "conflict":
        family.append(ReplicationBuilder("a").conflict(PERMANENT))
    if parent == "permanent":
        failed = replication("a", 1)
        failed.advance(StepFailed(PERMANENT))
        family.append(failed)

    queue, stranded = WorkQueue.of(family)

    assert names(stranded) == ["a/b", "a/b/c"]
    assert names(take_all(queue)) == ["z"]


def test_empty_queue_is_exhausted():
    assert queue_of().exhausted


def test_waiting_children_are_not_exhausted():
    queue = queue_of(replication("a", 1), replication("a/b", 1, waits_for="a"))
    complete_step(queue, queue.take())

    assert not queue.exhausted


def test_thousands_are_taken_in_order():
    count = 4_001
    queue = queue_of(*(replication(str(at), (at * 7919) % count) for at in range(count)))

    assert [each.next_step_date for each in take_all(queue)] == list(range(count))
