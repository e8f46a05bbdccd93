"""The driver over memory storages: what each kind of error leads to, and the reports.

Each side is a ``Side``: a memory storage whose hooks a test may replace one by one, and
which records every call.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from fsrep_core import (
    BrokenEndpointError,
    ByteStream,
    ConflictError,
    ConnectivityError,
    InterruptedStreamError,
    Origin,
    PermissionDeniedError,
    ReceiveResponse,
    SendResponse,
    SizeEstimate,
    StaleTokenError,
    StorageError,
    VersionMissingError,
    hookimpl,
)
from fsrep_core import events as e
from fsrep_core.machines import RunState, StepState
from fsrep_core.machines import run as run_machine
from fsrep_core.machines import step as step_machine
from fsrep_core.planning import Diverged, Initial, Policy, StaleToken, Steps
from fsrep_core.runtime.attempt import STEP_ACTIONS, step_label
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.context import bound
from fsrep_core.runtime.driver import RUN_ACTIONS, Driver
from fsrep_core.runtime.observers import Observers
from fsrep_core.runtime.settings import JobSettings
from fsrep_fake import MemoryStorage, MemoryStore

EACH = Policy(initial=Initial.ALL, steps=Steps.EACH)
HANGING_SECONDS = 30 * 24 * 3600.0
"""Of virtual time: no run here takes so long."""
CALLS_LIMIT = 5000
"""Of one side: no run here makes so many."""


class EndlessRun(BaseException):
    """The driver asks again and again. No ``except Exception`` of the driver holds this up."""


@attrs.define(eq=False)
class Side:
    """A memory storage; ``before[hook]`` runs before each call of that hook."""

    storage: MemoryStorage
    calls: list = attrs.field(factory=list)
    before: dict = attrs.field(factory=dict)
    after: dict = attrs.field(factory=dict)

    def _count_call(self, hook, request):
        self.calls.append((hook, request))
        if len(self.calls) > CALLS_LIMIT:
            raise EndlessRun

    async def _call(self, hook, request, *rest):
        self._count_call(hook, request)
        if hook in self.before:
            await self.before[hook](request)
        answer = await getattr(self.storage, hook)(request, *rest)
        if hook in self.after:
            answer = await self.after[hook](request, answer)
        return answer

    @hookimpl
    async def inventory(self, request):
        return await self._call("inventory", request)

    @hookimpl
    async def size_estimate(self, request):
        return await self._call("size_estimate", request)

    @hookimpl
    @asynccontextmanager
    async def send(self, request):
        self._count_call("send", request)
        if "send" in self.before:
            await self.before["send"](request)
        try:
            async with self.storage.send(request) as response:
                if "send" in self.after:
                    yield await self.after["send"](request, response)
                else:
                    yield response
        finally:
            self.calls.append(("send closed", request))

    @hookimpl
    async def receive(self, request, stream):
        return await self._call("receive", request, stream)

    @hookimpl
    async def replication_cursor(self, request):
        return await self._call("replication_cursor", request)

    @hookimpl
    async def create_version(self, request):
        return await self._call("create_version", request)

    @hookimpl
    async def destroy_versions(self, request):
        return await self._call("destroy_versions", request)

    def count(self, hook, filesystem=None):
        return sum(
            each == hook and filesystem in (None, getattr(request, "filesystem", None))
            for each, request in self.calls
        )


@attrs.define(eq=False)
class Recorder:
    events: list = attrs.field(factory=list)
    contexts: list = attrs.field(factory=list)

    @hookimpl
    def observe(self, event):
        self.events.append(event)
        self.contexts.append(dict(bound()))

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def in_hand(self):
        """The filesystems of steps that began and never ended."""
        begun = []
        for event in self.events:
            if isinstance(event, e.StepStarted):
                begun.append(event.filesystem)
            elif isinstance(event, e.StepFinished | e.StepAborted):
                begun.remove(event.filesystem)
        return begun


@attrs.define(eq=False)
class World:
    """Two stores, their sides, and drivers between them."""

    policy: Policy = EACH
    settings: dict = attrs.field(factory=dict)
    capabilities: dict = attrs.field(factory=dict)
    sender_store: MemoryStore = attrs.field(factory=lambda: MemoryStore("sender"))
    receiver_store: MemoryStore = attrs.field(factory=lambda: MemoryStore("receiver"))
    sender: Side = attrs.field(init=False)
    receiver: Side = attrs.field(init=False)
    recorder: Recorder = attrs.field(factory=Recorder)

    def __attrs_post_init__(self):
        self.sender = Side(MemoryStorage(self.sender_store, **self.capabilities))
        self.receiver = Side(MemoryStorage(self.receiver_store, **self.capabilities))

    async def run(self):
        """Run once. What would hang fails, whether it waits or asks again and again."""
        with trio.fail_after(HANGING_SECONDS):
            return await self.driver().run()

    def driver(self, *observers, **settings):
        return Driver(
            JobSettings(name="job", policy=self.policy, **{**self.settings, **settings}),
            Endpoint(self.sender, name="sender"),
            Endpoint(self.receiver, name="receiver"),
            Observers([self.recorder, *observers]),
            randomness=random.Random(1),
        )

    def assert_replicated(self, *filesystems):
        for name in filesystems:
            newest = self.sender_store.versions(name)[-1]
            [mine] = [
                version
                for version in self.receiver_store.versions(name)
                if version.guid == newest.guid
            ]
            digests = (
                self.sender_store.digest(name, newest),
                self.receiver_store.digest(name, mine),
            )
            assert digests[0] == digests[1]
            cursor = self.sender_store.filesystems[name].cursors["job"].version
            assert cursor.guid == newest.guid


def failing(*errors, of=None):
    """A ``before`` that raises each of ``errors`` once, on calls for ``of``, then none."""
    waiting = list(errors)

    async def before(request):
        await trio.lowlevel.checkpoint()
        if waiting and of in (None, getattr(request, "filesystem", None)):
            raise waiting.pop(0)

    return before


def always(make_error, of=None):
    async def before(request):
        await trio.lowlevel.checkpoint()
        if of in (None, getattr(request, "filesystem", None)):
            raise make_error()

    return before


@pytest.fixture
def world():
    return World()


# The tables


def test_actions_and_terminal_states_cover_every_state():
    terminal_runs = {state for state, row in run_machine.TRANSITIONS.items() if not row}
    terminal_steps = {state for state, row in step_machine.TRANSITIONS.items() if not row}

    assert set(RUN_ACTIONS) | terminal_runs == set(RunState)
    assert not set(RUN_ACTIONS) & terminal_runs
    assert set(STEP_ACTIONS) | terminal_steps == set(StepState)
    assert not set(STEP_ACTIONS) & terminal_steps


# What goes well


async def test_replicates_everything_and_then_finds_nothing_to_do(world, autojump_clock):
    world.sender_store.add_history("a", 5)
    world.sender_store.add_history("b", 3)

    report = await world.run()

    assert report.status == "completed"
    assert report.problem is None
    assert [len(each.completed) for each in report.replications] == [5, 3]
    world.assert_replicated("a", "b")

    world.receiver.calls.clear()
    world.sender.calls.clear()
    again = await world.run()

    assert again.status == "completed"
    assert again.transferred_bytes == 0
    assert [hook for hook, _ in world.sender.calls] == ["inventory"]
    assert [hook for hook, _ in world.receiver.calls] == ["inventory"]


async def test_no_filesystems_is_a_finished_run_with_a_warning(world, autojump_clock):
    """Lesson 17."""
    report = await world.run()

    assert report.status == "completed"
    assert "no filesystem is selected" in report.warnings[-1]


async def test_the_oldest_step_of_all_filesystems_is_next(world, autojump_clock):
    for name, created in [("a", 10.0), ("b", 20.0), ("a", 30.0), ("b", 40.0)]:
        world.sender_store.change(name, b"x")
        world.sender_store.snapshot(name, created=created)

    await world.run()

    received = [
        request.to_version.created for hook, request in world.receiver.calls if hook == "receive"
    ]
    assert received == [10.0, 20.0, 30.0, 40.0]


async def test_the_senders_stream_is_closed_before_the_cursor_moves(world, autojump_clock):
    world.sender_store.add_history("a", 2)

    await world.run()

    hooks = [hook for hook, _ in world.sender.calls if hook != "size_estimate"]
    assert hooks == ["inventory", *["send", "send closed", "replication_cursor"] * 2]


async def test_the_senders_stream_is_closed_before_anything_follows_a_failed_receive(
    world, autojump_clock
):
    world.sender_store.add_history("a", 1)
    world.receiver.before["receive"] = failing(StorageError("hiccup", temporary=True))
    closed = []

    @attrs.define(eq=False)
    class Watch:
        @hookimpl
        def observe(self, event):
            if isinstance(event, e.StepFinished):
                closed.append(world.sender.count("send closed"))

    await world.driver(Watch()).run()

    hooks = [hook for hook, _ in world.sender.calls if hook != "size_estimate"]
    assert hooks[:4] == ["inventory", "send", "send closed", "inventory"]
    assert closed == [1, 2]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_steps_at_once_and_no_more(autojump_clock, concurrency):
    world = World(settings={"concurrency": concurrency})
    for name in "abcdef":
        world.sender_store.add_history(name, 2)
    now = most = 0

    async def before(_request):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        now -= 1

    world.receiver.before["receive"] = before
    report = await world.run()

    assert report.status == "completed"
    assert most == concurrency


async def test_estimates_are_bounded_and_kept_and_unknown_stays_unknown(autojump_clock):
    """Lesson 7."""
    world = World(settings={"estimate_concurrency": 3})
    for name in "abcdefgh":
        world.sender_store.add_history(name, 2)
    now = most = 0

    async def before(_request):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        now -= 1

    async def after(request, estimate):
        await trio.lowlevel.checkpoint()
        return SizeEstimate(size_bytes=None) if request.filesystem == "a" else estimate

    world.sender.before["size_estimate"] = before
    world.sender.after["size_estimate"] = after

    async def slow(_request):
        await trio.sleep(10)

    async def no_size(_request, response):
        await trio.lowlevel.checkpoint()
        return attrs.evolve(response, size_bytes=None)

    world.receiver.before["receive"] = slow
    world.sender.after["send"] = no_size
    report = await world.run()

    assert most == 3
    sizes = {each.filesystem: each.expected_bytes for each in report.replications}
    assert sizes["a"] is None
    assert sizes["h"] == report.replications[-1].transferred_bytes > 0


@pytest.mark.parametrize(("seconds", "asked"), [(1, 0), (60, 1)])
async def test_a_step_that_begins_at_once_is_estimated_if_it_takes_long(
    world, autojump_clock, seconds, asked
):
    world.sender_store.add_history("a", 1)

    async def slow(_request):
        await trio.sleep(seconds)

    async def no_size(_request, response):
        await trio.lowlevel.checkpoint()
        return attrs.evolve(response, size_bytes=None)

    world.receiver.before["receive"] = slow
    world.sender.after["send"] = no_size
    report = await world.run()

    assert world.sender.count("size_estimate") == asked
    [replication] = report.replications
    if asked:
        assert replication.expected_bytes == replication.transferred_bytes > 0


async def test_a_stream_that_will_say_its_size_is_not_asked_about(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    async def slow(_request):
        await trio.sleep(60)

    world.sender.before["send"] = slow
    report = await world.run()

    assert world.sender.count("size_estimate") == 0
    [replication] = report.replications
    assert replication.expected_bytes == replication.transferred_bytes > 0


async def test_a_failed_estimate_costs_only_the_size(world, autojump_clock):
    world.sender_store.add_history("a", 3)
    world.sender.before["size_estimate"] = always(lambda: StorageError("no idea"))

    report = await world.run()

    assert report.status == "completed"
    assert any("no idea" in warning for warning in report.replications[0].warnings)


# One filesystem fails


async def test_a_local_temporary_error_steps_back_and_converges(world, autojump_clock):
    """Lessons 1, 4: the failed step and all after it are done; the others do not wait."""
    world.sender_store.add_history("a", 4)
    world.sender_store.add_history("b", 4)
    world.receiver.before["receive"] = failing(
        StorageError("disk hiccup", temporary=True), StorageError("again", temporary=True), of="a"
    )

    report = await world.run()

    assert report.status == "completed"
    assert report.attempt == 3
    world.assert_replicated("a", "b")
    first_wait = next(
        index
        for index, event in enumerate(world.recorder.events)
        if isinstance(event, e.RunStateChanged) and event.to_state == "working-wait"
    )
    b_steps = [
        event
        for event in world.recorder.events[:first_wait]
        if isinstance(event, e.StepFinished) and event.filesystem == "b"
    ]
    assert len(b_steps) == 4


async def test_a_local_permanent_error_fails_that_filesystem_only(world, autojump_clock):
    """Lessons 4, 29."""
    for name in "abc":
        world.sender_store.add_history(name, 2)
    world.receiver.before["receive"] = always(
        lambda: PermissionDeniedError("not allowed", hint="allow it"), of="b"
    )

    report = await world.run()

    assert report.status == "permanent-error"
    assert [each.filesystem for each in report.failed] == ["b"]
    assert report.attempt == 1
    assert report.problem.message == "b: not allowed"
    assert report.problem.hint == "allow it"
    assert world.receiver.count("receive", "b") == 1
    world.assert_replicated("a", "c")


async def test_the_last_error_of_one_does_not_decide_for_all(world, autojump_clock):
    """Lesson 4: a permanent failure after a temporary one leaves the latter its retry."""
    world.sender_store.add_history("a", 2)
    world.sender_store.add_history("b", 2)
    world.receiver.before["receive"] = failing(StorageError("hiccup", temporary=True), of="a")
    world.sender.before["send"] = always(lambda: StorageError("gone bad"), of="b")

    report = await world.run()

    assert [each.filesystem for each in report.failed] == ["b"]
    assert world.sender.count("send", "b") == 1
    world.assert_replicated("a")


async def test_a_conflict_is_a_completed_replication_with_a_permanent_problem(
    world, autojump_clock
):
    world.sender_store.add_history("a", 2)
    world.receiver_store.add_history("a", 2)
    world.sender_store.add_history("b", 2)

    report = await world.run()

    assert report.status == "permanent-error"
    [failed] = report.failed
    assert (failed.filesystem, failed.status) == ("a", "completed")
    assert not failed.problem.temporary
    assert failed.problem.local
    world.assert_replicated("b")


async def test_conflict_of_one_takes_part_in_the_decision_not_the_end_of_the_run(
    world, autojump_clock
):
    """Lesson 2: the planning error of one, and the temporary one of another."""
    world.sender_store.add_history("a", 1)
    world.receiver_store.add_history("a", 1)
    world.sender_store.add_history("b", 2)
    world.receiver.before["receive"] = failing(StorageError("hiccup", temporary=True), of="b")

    report = await world.run()

    assert [each.filesystem for each in report.failed] == ["a"]
    assert report.attempt == 2
    world.assert_replicated("b")


async def test_alike_failures_are_named_together(world, autojump_clock):
    for name in "abc":
        world.sender_store.add_history(name, 1)
    world.receiver.before["receive"] = always(lambda: StorageError("no"))

    report = await world.run()

    assert report.problem.message == "a, b, c: no"


# The way to a side fails


async def test_lost_connectivity_ends_the_attempt_and_plans_again(world, autojump_clock):
    """Lesson 5: nothing goes on by the old plan."""
    for name in "abc":
        world.sender_store.add_history(name, 3)
    world.sender.before["send"] = failing(None or ConnectivityError("reset"), of="b")

    report = await world.run()

    assert report.status == "completed"
    assert report.attempt == 2
    assert world.sender.count("inventory") == 2
    after_error = [event for event in world.recorder.of(e.RunStateChanged) if event.problem]
    assert [event.to_state for event in after_error] == ["working-wait"]
    world.assert_replicated("a", "b", "c")


async def test_steps_that_are_in_hand_when_the_attempt_ends_are_told_of(autojump_clock):
    world = World(settings={"concurrency": 3})
    for name in "abc":
        world.sender_store.add_history(name, 2)

    async def before(request):
        await trio.sleep({"a": 1.5, "b": 2, "c": 3}[request.filesystem])
        if world.sender.count("inventory") == 1 and request.filesystem == "b":
            raise ConnectivityError("reset")

    world.receiver.before["receive"] = before
    report = await world.run()

    assert report.status == "completed"
    aborted = world.recorder.of(e.StepAborted)
    assert sorted(event.filesystem for event in aborted) == ["a", "c"]
    assert all(event.step.problem is None for event in aborted)
    assert world.recorder.in_hand() == []


@pytest.mark.parametrize(
    "inner",
    [
        ConnectionResetError("reset"),
        BrokenPipeError("pipe"),
        EOFError("end"),
        TimeoutError("late"),
        trio.TooSlowError(),
        trio.BrokenResourceError("broken"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_wrapped_connectivity_is_connectivity(world, autojump_clock, inner):
    """Lesson 3."""
    world.sender_store.add_history("a", 2)
    world.sender_store.add_history("b", 2)
    wrapped = InterruptedStreamError("the stream broke")
    wrapped.__cause__ = StorageError("reading it")
    wrapped.__cause__.__cause__ = inner
    world.sender.before["send"] = failing(wrapped, of="a")

    report = await world.run()

    assert report.status == "completed"
    first = next(each for each in world.recorder.of(e.StepFinished) if each.step.problem)
    assert first.step.problem.temporary
    assert not first.step.problem.local


async def test_a_vanished_version_is_a_reason_to_plan_again(world, autojump_clock):
    """Lesson 5."""
    world.sender_store.add_history("a", 4)
    second = world.sender_store.versions("a")[1]

    async def before(request):
        await trio.lowlevel.checkpoint()
        if request.to_version.guid == second.guid and second in world.sender_store.versions("a"):
            world.sender_store.destroy("a", second)

    world.sender.before["send"] = before
    report = await world.run()

    assert report.status == "completed"
    assert report.attempt == 2
    world.assert_replicated("a")


async def test_an_unreachable_side_is_tried_again_until_retry_for_is_spent(world, autojump_clock):
    world.receiver.before["inventory"] = always(lambda: ConnectivityError("no route"))
    started = trio.current_time()

    report = await world.run()

    assert report.status == "permanent-error"
    assert "no route" in report.problem.message
    assert "receiver" in report.problem.message
    assert 3600 - 120 <= trio.current_time() - started <= 3600
    waits = [each.sleep_seconds for each in world.recorder.of(e.RunStateChanged)]
    waits = [each for each in waits if each is not None]
    assert all(1 <= each <= 120 for each in waits)
    assert waits[0] <= 2
    assert max(waits) > 60
    states = [each.to_state for each in world.recorder.of(e.RunStateChanged)]
    assert states[:2] == ["planning-error", "planning"]


async def test_waits_double_up_to_a_limit_and_two_jobs_do_not_keep_step(autojump_clock):
    waits = []
    for seed in (1, 2):
        world = World()
        world.receiver.before["inventory"] = always(lambda: ConnectivityError("no route"))
        driver = world.driver()
        driver.randomness = random.Random(seed)
        await driver.run()
        told = [each.sleep_seconds for each in world.recorder.of(e.RunStateChanged)]
        waits.append([each for each in told if each is not None])

    for one in waits:
        for number, seconds in enumerate(one):
            longest = min(2.0 * 2**number, 120.0)
            assert longest / 2 <= seconds <= longest
    assert all(a != b for a, b in zip(*waits, strict=False))


async def test_progress_renews_the_time_to_retry(autojump_clock):
    world = World(settings={"retry_for_seconds": 60.0})
    world.sender_store.add_history("a", 40)
    calls = 0

    async def flaky(_request):
        nonlocal calls
        calls += 1
        await trio.sleep(50 if calls % 2 else 0)
        if calls % 2:
            raise ConnectivityError("reset")

    world.receiver.before["receive"] = flaky
    report = await world.run()

    assert report.status == "completed"
    assert trio.current_time() > 40 * 50


async def test_a_permanent_error_of_a_side_ends_the_run(world, autojump_clock):
    world.sender_store.add_history("a", 2)
    world.sender_store.add_history("b", 2)
    world.receiver.before["receive"] = always(
        lambda: PermissionDeniedError("this client may not receive", local=False)
    )

    report = await world.run()

    assert report.status == "permanent-error"
    assert report.attempt == 1
    assert world.receiver.count("receive") == 1
    assert report.problem.message == "this client may not receive"


# Marking


async def test_a_failed_cursor_move_never_sends_the_data_again(world, autojump_clock):
    world.sender_store.add_history("a", 3)
    newest = world.sender_store.versions("a")[-1]
    failures = iter([StorageError("hiccup", temporary=True), ConnectivityError("reset")])

    async def before(request):
        await trio.lowlevel.checkpoint()
        if request.move_to is not None and request.move_to.guid == newest.guid:
            error = next(failures, None)
            if error is not None:
                raise error

    world.sender.before["replication_cursor"] = before
    report = await world.run()

    assert report.status == "completed"
    assert world.receiver.count("receive") == 3
    assert world.sender.count("send") == 3
    assert [step.mark_only for step in report.replications[0].completed] == [False] * 3 + [True]
    world.assert_replicated("a")


async def test_a_lost_answer_after_the_commit_costs_only_the_mark(world, autojump_clock):
    world.sender_store.add_history("a", 1)
    lost = False

    async def after(_request, answer):
        nonlocal lost
        await trio.lowlevel.checkpoint()
        if not lost:
            lost = True
            raise ConnectivityError("the answer was lost")
        return answer

    world.receiver.after["receive"] = after
    report = await world.run()

    assert report.status == "completed"
    assert world.receiver.count("receive") == 1
    [_, step] = [event.step for event in world.recorder.of(e.StepFinished)]
    assert step.mark_only
    [data, mark] = report.replications[0].completed
    assert (data.mark_only, data.problem, data.status) == (False, None, "completed")
    assert mark.mark_only
    assert report.transferred_bytes == data.transferred_bytes > 0
    world.assert_replicated("a")


async def test_the_cursor_is_never_ahead_of_the_receiver(world, autojump_clock):
    """Lesson 10."""
    world.sender_store.add_history("a", 5)

    async def before(request):
        await trio.lowlevel.checkpoint()
        if request.move_to is not None:
            guids = {each.guid for each in world.receiver_store.versions("a")}
            assert request.move_to.guid in guids

    world.sender.before["replication_cursor"] = before
    report = await world.run()

    assert report.status == "completed"


# Broken endpoints


async def test_a_send_without_a_stream_is_a_broken_endpoint(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    async def after(_request, response):
        await trio.lowlevel.checkpoint()
        return attrs.evolve(response, stream=None)

    world.sender.after["send"] = after
    report = await world.run()

    assert report.problem.kind == "broken-endpoint"
    assert not report.problem.temporary
    assert world.receiver.count("receive") == 0


async def test_another_guid_than_promised_is_not_success(world, autojump_clock):
    """Lesson 13."""
    world.sender_store.add_history("a", 1)

    async def after(_request, answer):
        await trio.lowlevel.checkpoint()
        return ReceiveResponse(version=attrs.evolve(answer.version, guid="another"))

    world.receiver.after["receive"] = after
    report = await world.run()

    assert report.problem.kind == "broken-endpoint"
    assert world.sender.count("replication_cursor") == 0


async def test_a_cursor_that_does_not_move_is_not_success(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    async def after(_request, _answer):
        await trio.lowlevel.checkpoint()

    world.sender.after["replication_cursor"] = after
    report = await world.run()

    assert report.problem.kind == "broken-endpoint"
    assert len(world.receiver_store.versions("a")) == 1


async def test_a_receiver_that_lost_versions_gets_them_back_under_a_cursor_that_is_newer(
    world, autojump_clock
):
    """The cursor never moves backwards, so it stays while older steps are repeated."""
    world.sender_store.add_history("a", 3)
    await world.run()
    oldest, *lost = world.receiver_store.versions("a")
    for version in reversed(lost):
        world.receiver_store.destroy("a", version)

    report = await world.run()

    assert report.status == "completed", report.problem
    assert "had confirmed" in report.replications[0].warnings[0]
    assert len(report.replications[0].completed) == 2
    world.assert_replicated("a")
    assert world.receiver_store.versions("a")[0] == oldest


async def test_a_cursor_that_stays_behind_is_not_success(world, autojump_clock):
    world.sender_store.add_history("a", 2)
    first, _ = world.sender_store.versions("a")

    async def after(_request, _answer):
        await trio.lowlevel.checkpoint()
        return first

    world.sender.after["replication_cursor"] = after
    report = await world.run()

    assert report.problem.kind == "broken-endpoint"
    assert len(world.receiver_store.versions("a")) == 2


async def test_an_unexpected_exception_is_named_and_stops_one_filesystem(world, autojump_clock):
    world.sender_store.add_history("a", 1)
    world.sender_store.add_history("b", 1)
    world.receiver.before["receive"] = always(lambda: KeyError("oops"), of="a")

    report = await world.run()

    [failed] = report.failed
    assert failed.problem.kind == "unexpected"
    assert "KeyError" in failed.problem.message
    world.assert_replicated("b")


# Streams


@attrs.define(eq=False)
class Gate(ByteStream):
    """A stream of which a test decides when it goes on."""

    inner: ByteStream
    pause_seconds: float = 0.0
    error: Exception | None = None
    after_bytes: int = 0
    given_bytes: int = 0

    async def receive_some(self, max_bytes):
        await trio.sleep(self.pause_seconds)
        if self.error is not None and self.given_bytes >= self.after_bytes:
            raise self.error
        piece = await self.inner.receive_some(min(max_bytes, 100))
        self.given_bytes += len(piece)
        return piece

    async def finish(self):
        await self.inner.finish()


def gated(**options):
    async def after(_request, response):
        await trio.lowlevel.checkpoint()
        return attrs.evolve(response, stream=Gate(response.stream, **options))

    return after


async def test_nothing_moving_is_a_failure_of_that_filesystem(autojump_clock):
    """Lesson 6: the watchdog."""
    world = World(settings={"progress_timeout_seconds": 30.0, "retry_for_seconds": 100.0})
    world.sender_store.add_history("a", 1)
    world.sender_store.add_history("b", 1)

    async def hang(request):
        if request.filesystem == "a":
            await trio.sleep_forever()

    world.receiver.before["receive"] = hang
    report = await world.run()

    [failed] = report.failed
    assert failed.filesystem == "a"
    assert failed.problem.kind == "timeout"
    assert "30 seconds" in failed.problem.message
    world.assert_replicated("b")


async def test_slow_but_moving_is_no_failure(autojump_clock):
    """Lesson 6: a slow peer is not a dead one."""
    world = World(settings={"progress_timeout_seconds": 30.0})
    world.sender_store.change("a", b"x" * 2000)
    world.sender_store.snapshot("a")
    world.sender.after["send"] = gated(pause_seconds=25.0)

    report = await world.run()

    assert report.status == "completed"
    assert report.attempt == 1
    assert trio.current_time() > 300


async def test_a_hung_cursor_move_is_a_failure_too(autojump_clock):
    world = World(settings={"progress_timeout_seconds": 30.0, "retry_for_seconds": 40.0})
    world.sender_store.add_history("a", 1)

    async def hang(_request):
        await trio.sleep_forever()

    world.sender.before["replication_cursor"] = hang
    report = await world.run()

    assert report.problem.kind == "timeout"


async def test_bytes_are_told_about_while_they_move(autojump_clock):
    """Lesson 20."""
    world = World()
    world.sender_store.change("a", b"x" * 5000)
    world.sender_store.snapshot("a")
    world.sender.after["send"] = gated(pause_seconds=0.1)

    report = await world.run()

    moved = world.recorder.of(e.BytesMoved)
    assert len(moved) >= 5
    assert sum(event.new_bytes for event in moved) == report.transferred_bytes > 5000
    assert all(event.step.transferred_bytes for event in moved)


async def test_bytes_of_a_failed_step_count_too(world, autojump_clock):
    world.sender_store.change("a", b"x" * 5000)
    world.sender_store.snapshot("a")
    world.sender.after["send"] = gated(error=StorageError("broken disk"), after_bytes=1000)

    report = await world.run()

    assert report.transferred_bytes >= 1000
    assert sum(each.new_bytes for each in world.recorder.of(e.BytesMoved)) >= 1000


async def test_the_receivers_error_is_the_cause_and_the_senders_its_echo(world, autojump_clock):
    """Lesson 15."""
    world.sender_store.add_history("a", 1)
    real_send = world.sender.storage.send

    @asynccontextmanager
    async def send(request):
        async with real_send(request) as response:
            try:
                yield response
            except StorageError:
                raise StorageError("echo: signal received") from None

    class Sender(Side):
        @hookimpl
        def send(self, request):
            return send(request)

    world.sender = Sender(world.sender.storage)
    world.receiver.before["receive"] = always(lambda: StorageError("disk full"))
    report = await world.run()

    assert report.problem.message == "a: disk full"


async def test_a_cut_stream_resumes_where_it_was_and_plans_again(autojump_clock):
    world = World()
    for _ in range(3):
        world.sender_store.change("a", b"x" * 5000)
        world.sender_store.snapshot("a")
    cuts = 0

    async def after(_request, response):
        nonlocal cuts
        await trio.lowlevel.checkpoint()
        cuts += 1
        if cuts > 4:
            return response
        error = InterruptedStreamError("cut")
        return attrs.evolve(response, stream=Gate(response.stream, error=error, after_bytes=1200))

    world.sender.after["send"] = after
    report = await world.run()

    assert report.status == "completed"
    [a] = report.replications
    assert a.completed[0].resumed
    assert world.sender.count("inventory") == 6  # 4 cuts, 1 after the resumed step, 1 first
    world.assert_replicated("a")
    resumed = [
        request
        for hook, request in world.receiver.calls
        if hook == "receive" and request.resume_token
    ]
    assert len(resumed) == 4


async def test_a_growing_partial_is_progress(autojump_clock):
    """A step longer than ``retry_for`` gets through a link that breaks all the time."""
    world = World(settings={"retry_for_seconds": 30.0})
    world.sender_store.change("a", b"x" * 20_000)
    world.sender_store.snapshot("a")

    async def after(_request, response):
        await trio.sleep(20)
        error = ConnectivityError("cut")
        return attrs.evolve(response, stream=Gate(response.stream, error=error, after_bytes=1500))

    world.sender.after["send"] = after
    report = await world.run()

    assert report.status == "completed"
    assert trio.current_time() > 200


def refuse_tokens(world):
    """Let the sender refuse every token, as only it can know; give what it was asked with."""
    asked = []

    async def before(request):
        await trio.lowlevel.checkpoint()
        if request.resume_token is not None:
            asked.append((request.filesystem, request.resume_token.value))
            raise StaleTokenError("it was made by a newer release")

    world.sender.before["send"] = before
    return asked


async def leave_partial(world, *names):
    """Let a run be cut in the first stream of each filesystem."""
    world.sender.after["send"] = gated(error=InterruptedStreamError("cut"), after_bytes=1200)
    for name in names:
        world.sender_store.change(name, b"x" * 5000)
        world.sender_store.snapshot(name)
    await world.driver(retry_for_seconds=0).run()
    world.sender.after.clear()
    assert all(world.receiver_store.filesystems[name].partial for name in names)


async def test_a_token_that_the_sender_refuses_is_discarded_at_once(autojump_clock):
    world = World(settings={"concurrency": 2}, capabilities={"nests": True})
    await leave_partial(world, "a", "b")
    world.sender_store.add_history("a/child", 2)
    asked = refuse_tokens(world)
    started = trio.current_time()

    report = await world.driver(retry_for_seconds=0).run()

    assert report.status == "completed", report.problem
    assert trio.current_time() == started
    assert sorted(name for name, _ in asked) == ["a", "b"]
    assert "made by a newer release" in report.replications[0].reasons[1]
    cleared = [request for hook, request in world.receiver.calls if hook == "receive"][-1]
    assert cleared.resume_token is None
    world.assert_replicated("a", "a/child", "b")


async def test_a_token_that_the_sender_refuses_is_kept_where_the_policy_says_so(autojump_clock):
    world = World(policy=attrs.evolve(EACH, stale_token=StaleToken.FAIL))
    await leave_partial(world, "a")
    asked = refuse_tokens(world)

    report = await world.run()

    assert report.status == "permanent-error"
    assert report.problem.kind == "conflict"
    assert "made by a newer release" in report.problem.message
    assert len(asked) == 1
    assert world.receiver_store.filesystems["a"].partial is not None


async def test_each_token_is_refused_once_and_a_new_one_is_tried(autojump_clock):
    world = World()
    await leave_partial(world, "a")
    asked = refuse_tokens(world)
    streams = 0

    async def after(_request, response):
        nonlocal streams
        await trio.lowlevel.checkpoint()
        streams += 1
        if streams > 2:
            return response
        error = InterruptedStreamError("cut")
        limit = 1200 + 100 * streams
        return attrs.evolve(response, stream=Gate(response.stream, error=error, after_bytes=limit))

    world.sender.after["send"] = after
    report = await world.run()

    assert report.status == "completed", report.problem
    assert len(asked) == len(set(asked)) == 3
    world.assert_replicated("a")


async def test_a_stale_token_where_none_was_given_is_no_reason_to_plan_again(world, autojump_clock):
    world.sender_store.add_history("a", 1)
    world.sender.before["send"] = always(lambda: StaleTokenError("which token?"))

    report = await world.run()

    assert report.status == "permanent-error"
    assert report.attempt == 1


async def test_an_unused_token_is_cleared(world, autojump_clock):
    world.sender_store.change("a", b"x" * 5000)
    world.sender_store.snapshot("a")
    first = True

    async def after(_request, response):
        nonlocal first
        await trio.lowlevel.checkpoint()
        if not first:
            return response
        first = False
        error = InterruptedStreamError("cut")
        return attrs.evolve(response, stream=Gate(response.stream, error=error, after_bytes=1200))

    world.sender.after["send"] = after
    world.sender.storage.resumable = False  # the sender cannot use tokens, the receiver can
    report = await world.run()

    assert report.status == "completed"
    [fresh, again] = [request for hook, request in world.receiver.calls if hook == "receive"]
    assert not fresh.clear_resume_token
    assert again.clear_resume_token
    assert again.resume_token is None


# Parents


async def test_a_child_waits_for_its_parent_and_similar_names_do_not(autojump_clock):
    """Lesson 14."""
    world = World(capabilities={"nests": True}, settings={"concurrency": 4})
    for name, created in [("a/b", 1.0), ("a", 5.0), ("aa", 3.0), ("a/b/c", 2.0)]:
        world.sender_store.change(name, b"x")
        world.sender_store.snapshot(name, created=created)

    report = await world.run()

    assert report.status == "completed"
    order = [request.filesystem for hook, request in world.receiver.calls if hook == "receive"]
    assert order.index("a") < order.index("a/b") < order.index("a/b/c")


async def test_a_parent_that_failed_fails_its_children_by_name_and_not_its_siblings(autojump_clock):
    world = World(capabilities={"nests": True})
    for name in ["a", "a/b", "a/b/c", "aa", "d"]:
        world.sender_store.add_history(name, 1)
    world.receiver.before["receive"] = always(lambda: ConflictError("in the way"), of="a")

    report = await world.run()

    assert [each.filesystem for each in report.failed] == ["a", "a/b", "a/b/c"]
    child = report.failed[1]
    assert "parent a " in child.problem.message
    assert "in the way" in child.problem.message
    assert world.receiver.count("receive", "a/b") == 0
    world.assert_replicated("aa", "d")


async def test_a_parents_temporary_failure_is_its_childrens(autojump_clock):
    world = World(capabilities={"nests": True})
    for name in ["a", "a/b"]:
        world.sender_store.add_history(name, 2)
    world.receiver.before["receive"] = failing(StorageError("hiccup", temporary=True), of="a")

    report = await world.run()

    assert report.status == "completed"
    world.assert_replicated("a", "a/b")


# Clones


def with_a_clone(**settings):
    """Give a world whose ``variant`` is a clone of ``docs@1``, the second of three."""
    world = World(settings={"concurrency": 4, **settings})
    world.sender_store.add_history("docs", 3)
    world.sender_store.add_history("variant", 2)
    origin = world.sender_store.versions("docs")[1].guid
    tell_of_clones(world, variant=Origin("docs", origin))
    return world, origin


def tell_of_clones(world, **origins):
    """Let the sender say that these are clones, and both sides that they know of such."""

    async def tell(_request, inventory):
        await trio.lowlevel.checkpoint()
        filesystems = [
            attrs.evolve(each, origin=origins.get(each.name.replace("/", "_")))
            for each in inventory.filesystems
        ]
        able = attrs.evolve(inventory.capabilities, clones=True)
        return attrs.evolve(inventory, capabilities=able, filesystems=tuple(filesystems))

    world.sender.after["inventory"] = world.receiver.after["inventory"] = tell


async def test_a_clone_begins_from_its_origin_as_soon_as_that_is_there(autojump_clock):
    world, origin = with_a_clone()

    report = await world.run()

    assert report.status == "completed"
    received = [
        (request.filesystem, request.to_version.name, request.origin)
        for hook, request in world.receiver.calls
        if hook == "receive"
    ]
    docs = [version.name for version in world.sender_store.versions("docs")]
    first = next(each for each in received if each[0] == "variant")
    assert received[:2] == [("docs", name, None) for name in docs[:2]]
    assert first[2] == origin
    assert [each[2] for each in received if each != first] == [None] * 4
    sent = {request.origin for hook, request in world.sender.calls if hook == "send"}
    assert sent == {None, origin}
    world.assert_replicated("docs", "variant")


async def test_a_clone_whose_origin_failed_says_so(autojump_clock):
    world, _ = with_a_clone()
    world.receiver.before["receive"] = always(lambda: ConflictError("in the way"), of="docs")

    report = await world.run()

    assert [each.filesystem for each in report.failed] == ["docs", "variant"]
    problem = report.failed[1].problem
    assert problem.kind == "origin-failed"
    assert problem.message.startswith(
        "it waits for a snapshot of docs to be a clone of, and docs failed: "
    )
    assert "in the way" in problem.message
    assert world.receiver.count("receive", "variant") == 0


async def test_a_clone_whose_origin_failed_for_a_while_comes_after_it(autojump_clock):
    world, origin = with_a_clone()
    world.receiver.before["receive"] = failing(StorageError("hiccup", temporary=True), of="docs")

    report = await world.run()

    assert report.status == "completed"
    assert origin in {request.origin for hook, request in world.receiver.calls if hook == "receive"}
    world.assert_replicated("docs", "variant")


async def test_a_clone_whose_origin_is_in_conflict_fails_with_it(autojump_clock):
    """And is not made a copy in full for ever by what is mended tomorrow."""
    world, _ = with_a_clone()
    world.receiver_store.add_history("docs", 1)

    report = await world.run()

    kinds = {each.filesystem: each.problem.kind for each in report.failed}
    assert kinds == {"docs": "conflict", "variant": "origin-failed"}


async def test_a_clone_fails_for_what_it_still_waits_for_and_nothing_else(autojump_clock):
    """Its origin has arrived; what becomes of that filesystem later is not its concern."""
    world = World(capabilities={"nests": True}, settings={"concurrency": 1})
    for name, dates in {"docs": (1.0, 2.0), "a": (3.0,), "a/c": (4.0,)}.items():
        for date in dates:
            world.sender_store.change(name, b"x")
            world.sender_store.snapshot(name, created=date)
    first, second = world.sender_store.versions("docs")
    tell_of_clones(world, a_c=Origin("docs", first.guid))
    hiccup = failing(StorageError("hiccup", temporary=True), of="a")

    async def before(request):
        await hiccup(request)
        if request.to_version == second:
            raise ConflictError("in the way")

    world.receiver.before["receive"] = before

    report = await world.run()

    assert [each.filesystem for each in report.failed] == ["docs"]
    world.assert_replicated("a", "a/c")


# Interruption and reports


async def test_interrupt_ends_cleanly_and_the_next_run_goes_on(autojump_clock):
    world = World()
    world.sender_store.add_history("a", 6)
    driver = world.driver()

    async def before(request):
        if request.to_version.name == "s4":
            driver.interrupt()
            await trio.sleep_forever()

    world.receiver.before["receive"] = before
    report = await driver.run()

    [finished] = world.recorder.of(e.RunFinished)
    assert finished.interrupted
    assert world.recorder.in_hand() == []
    assert report.status == "working"
    assert [len(report.replications[0].completed), len(report.replications[0].pending)] == [3, 3]
    assert len(world.receiver_store.versions("a")) == 3

    world.receiver.before.clear()
    assert (await world.run()).status == "completed"
    world.assert_replicated("a")


async def test_cancellation_is_no_error(world, autojump_clock):
    world.sender_store.add_history("a", 2)

    async def hang(_request):
        await trio.sleep_forever()

    world.receiver.before["receive"] = hang
    with trio.move_on_after(5) as scope:
        await world.run()

    assert scope.cancelled_caught
    [finished] = world.recorder.of(e.RunFinished)
    assert finished.interrupted
    assert finished.report.problem is None
    assert all(each.problem is None for each in finished.report.replications)


async def test_a_report_can_be_taken_at_any_moment(world, autojump_clock):
    world.sender_store.add_history("a", 3)
    world.sender_store.add_history("b", 3)
    driver = world.driver()
    seen = []

    async def before(_request):
        await trio.lowlevel.checkpoint()
        seen.append(driver.report())

    world.receiver.before["receive"] = before
    world.sender.before["inventory"] = before
    await driver.run()

    assert seen[0].status == "planning"
    assert {each.status for each in seen[1:]} == {"working"}
    assert all(len(each.active) == 1 for each in seen[1:])
    for each in seen[1:]:
        steps = [*each.active[0].completed, *each.active[0].pending]
        assert len(steps) == 3


async def test_the_context_carries_job_filesystem_and_step(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    await world.run()

    at = {
        type(event): context
        for event, context in zip(world.recorder.events, world.recorder.contexts, strict=True)
    }
    assert at[e.StepStateChanged] == {"job": "job", "filesystem": "a", "step": "a@s1 (full)"}
    assert at[e.FilesystemPlanned] == {"job": "job"}


async def test_events_come_in_order_and_the_last_is_the_end(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    report = await world.run()

    kinds = [type(event).__name__ for event in world.recorder.events]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunFinished"
    assert world.recorder.events[-1].report == report
    assert kinds.index("FilesystemPlanned") < kinds.index("StepStarted")
    assert kinds.index("StepFinished") < kinds.index("FilesystemFinished")


async def test_an_observer_that_fails_is_dropped_and_the_others_hear_of_it(world, autojump_clock):
    world.sender_store.add_history("a", 1)

    class Broken:
        @hookimpl
        def observe(self, event):
            raise RuntimeError(f"observer bug at {event}")

    driver = world.driver()
    driver.observers = Observers([Broken(), world.recorder])
    report = await driver.run()

    assert report.status == "completed"
    [warning] = [each for each in world.recorder.of(e.Warned) if "observer bug" in each.message]
    assert warning.job == "job"


async def test_rollback_names_exactly_what_may_go(autojump_clock):
    world = World(policy=Policy(initial=Initial.ALL, steps=Steps.EACH, diverged=Diverged.ROLLBACK))
    world.sender_store.add_history("a", 2)
    await world.run()
    world.receiver_store.change("a", b"local")
    local = world.receiver_store.snapshot("a", "local")
    world.sender_store.add_history("a", 1)

    report = await world.run()

    assert report.status == "completed"
    requests = [request for hook, request in world.receiver.calls if hook == "receive"]
    assert [each.guid for each in requests[-1].rollback] == [local.guid]
    world.assert_replicated("a")


async def test_a_filesystem_that_vanishes_between_attempts_is_told_of(world, autojump_clock):
    world.sender_store.add_history("a", 2)
    world.sender_store.add_history("b", 2)

    async def before(request):
        await trio.lowlevel.checkpoint()
        if request.filesystem == "b":
            world.sender_store.filesystems.pop("b", None)
            raise VersionMissingError("gone")

    world.sender.before["send"] = before
    report = await world.run()

    assert report.status == "completed"
    assert any(warning.startswith("b is gone") for warning in report.warnings)


def test_steps_are_named_as_operators_write_them():
    store = MemoryStore("any")
    one, two = store.add_history("a", 2)
    from fsrep_core.values import PlannedStep

    assert step_label("a", PlannedStep(to_version=one)) == "a@s1 (full)"
    assert step_label("a", PlannedStep(from_version=one, to_version=two)) == "a(@s1 => @s2)"


def test_what_a_broken_endpoint_error_is():
    assert BrokenEndpointError("x").local
    assert not BrokenEndpointError("x").temporary
    assert SendResponse(stream=None).stream is None
