import pytest

from fsrep_core.machines import ReplicationBuilder, WorkQueue
from fsrep_core.machines.step import CursorMoved, ReceiverCommitted, StepFailed
from fsrep_core.values import Awaited, PlannedStep, Problem, Version, VersionKind

PERMANENT = Problem(message="forbidden", temporary=False, local=True)
TEMPORARY = Problem(message="busy", temporary=True, local=True)


def replication(name, *dates, waits_for=()):
    """Wait for ``"parent"``, or for ``("filesystem", "guid")``."""
    each_of = [waits_for] if isinstance(waits_for, str) else waits_for
    awaited = [Awaited(*([each] if isinstance(each, str) else each)) for each in each_of]
    builder = ReplicationBuilder(name, waits_for=tuple(awaited))
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


def in_vain(stranded):
    """Tell, in the order in which they left, for which filesystem each waited in vain."""
    return {each.filesystem: awaited.filesystem for each, awaited in stranded}


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

    assert in_vain(dropped) == {"a/b": "a", "a/d": "a", "a/b/c": "a/b"}
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

    assert in_vain(stranded) == {"a/b": "a", "a/b/c": "a/b"}
    assert names(take_all(queue)) == ["z"]


def test_clone_waits_for_the_snapshot_that_it_was_made_from():
    queue = queue_of(replication("a", 1, 2, 3), replication("b", 0, waits_for=[("a", "1")]))
    order = []
    for _ in range(4):
        taken = queue.take()
        order.append(taken.filesystem)
        complete_step(queue, taken)

    assert order == ["a", "a", "b", "a"]
    assert queue.exhausted


def test_clone_is_let_go_by_a_stream_that_carries_its_origin_among_others():
    origin, newest = (Version(VersionKind.SNAPSHOT, each, each, 1) for each in ("o", "n"))
    builder = ReplicationBuilder("a")
    builder.add_step(PlannedStep(to_version=newest, intermediates=(origin,)))
    builder.add_step(PlannedStep(to_version=newest))
    queue = queue_of(builder.done(), replication("b", 0, waits_for=[("a", "o")]))
    complete_step(queue, queue.take())

    assert names(take_all(queue)) == ["a", "b"]


def test_who_waits_for_two_goes_on_after_both():
    queue = queue_of(
        replication("a", 1), replication("b", 2), replication("a/c", 0, waits_for=["a", ("b", "0")])
    )
    order = []
    for _ in range(3):
        taken = queue.take()
        order.append(taken.filesystem)
        complete_step(queue, taken)

    assert order == ["a", "b", "a/c"]


@pytest.mark.parametrize("failing", ["a", "b"])
def test_who_waits_for_two_leaves_with_either(failing):
    queue = queue_of(
        replication("a", 1), replication("b", 2), replication("a/c", 0, waits_for=["a", ("b", "0")])
    )
    dropped = []
    for _ in range(2):
        taken = queue.take()
        if taken.filesystem == failing:
            dropped += queue.release(taken)
        else:
            complete_step(queue, taken)

    assert in_vain(dropped) == {"a/c": failing}
    assert queue.exhausted


def test_who_has_what_it_waited_for_is_not_dropped_when_that_fails_later():
    queue = queue_of(
        replication("b", 1, 2),
        replication("a", 9),
        replication("a/c", 0, waits_for=["a", ("b", "0")]),
    )
    complete_step(queue, queue.take())
    dropped = queue.release(queue.take())
    complete_step(queue, queue.take())

    assert dropped == ()
    assert names(take_all(queue)) == ["a/c"]


def test_what_never_brings_the_awaited_lets_go_when_it_is_completed():
    """The receiver knows better than the plan, and refuses what it lacks."""
    queue = queue_of(replication("a", 1, 2), replication("b", 2, waits_for=[("a", "other")]))
    complete_step(queue, queue.take())
    last = queue.take()
    nothing = queue.take()
    complete_step(queue, last)

    assert (last.filesystem, nothing) == ("a", None)
    assert queue.take().filesystem == "b"


def test_a_chain_of_clones_leaves_in_the_order_of_the_chain():
    queue = queue_of(
        replication("z", 1),
        replication("b", 2, waits_for=[("z", "0")]),
        replication("a", 2, waits_for=[("b", "0")]),
    )

    assert list(in_vain(queue.release(queue.take())).items()) == [("b", "z"), ("a", "b")]


def test_what_waits_for_itself_is_stranded_and_not_waited_for_for_ever():
    queue, stranded = WorkQueue.of(
        [
            replication("a", 1, waits_for=[("a/b", "0")]),
            replication("a/b", 1, waits_for=["a"]),
            replication("c", 1, waits_for=[("a/b", "0")]),
            replication("d", 1),
            replication("e", 1, waits_for=["d"]),
        ]
    )

    assert in_vain(stranded) == {"a": "a/b", "a/b": "a", "c": "a/b"}
    complete_step(queue, queue.take())
    complete_step(queue, queue.take())
    assert queue.exhausted


def test_thousands_of_clones_of_thousands_of_snapshots_are_let_go_one_by_one():
    """Each step looks only for those that wait for what it brought."""
    count = 4_001
    clones = [replication(f"b{at}", -1, waits_for=[("a", str(at))]) for at in range(count)]
    queue = queue_of(replication("a", *range(count)), *clones)
    order = []
    while (taken := queue.take()) is not None:
        order.append(taken.filesystem)
        complete_step(queue, taken)

    assert order == [name for at in range(count) for name in ("a", f"b{at}")]


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
