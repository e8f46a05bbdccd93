import os
import subprocess

import pytest
import trio

from fsrep_core.testing import find_leaks, no_leaks, open_resources


async def test_nothing_left_is_fine():
    async with no_leaks(), trio.open_nursery() as nursery:
        first, second = os.pipe()
        nursery.start_soon(trio.sleep, 0)
        os.close(first)
        os.close(second)


async def test_a_descriptor_is_found():
    before = open_resources()
    ends = os.pipe()

    leaks = await find_leaks(before)

    for end in ends:
        os.close(end)
    assert [leak.split(" (")[0] for leak in leaks] == [f"descriptor {end}" for end in ends]
    assert await find_leaks(before) == []


@pytest.mark.parametrize("program", ["/bin/sleep", "/bin/true"])
async def test_a_child_is_found_also_when_it_has_ended(program):
    before = open_resources()
    child = subprocess.Popen([program, "60"])  # noqa: ASYNC220  (starts at once)
    if program == "/bin/true":
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  (as above)

    leaks = await find_leaks(before)

    child.kill()
    child.wait()
    assert leaks == [f"child process {child.pid}"]


async def test_a_task_is_found(nursery):
    with pytest.raises(AssertionError, match=r"task .*sleep_forever"):
        async with no_leaks():
            nursery.start_soon(trio.sleep_forever)
    nursery.cancel_scope.cancel()


async def test_a_task_that_is_about_to_end_is_none(nursery):
    async with no_leaks():
        scope = trio.CancelScope()

        async def wait():
            with scope:
                await trio.sleep_forever()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()


async def test_a_task_in_place_of_one_that_has_ended_is_none(nursery):
    scope = await nursery.start(sleep_in_scope)
    before = open_resources()

    scope.cancel()
    await nursery.start(sleep_in_scope)
    in_its_place = await find_leaks(before)
    await nursery.start(sleep_in_scope)
    beside_it = await find_leaks(before)

    nursery.cancel_scope.cancel()
    assert in_its_place == []
    assert beside_it == [f"task {__name__}.sleep_in_scope"]


async def sleep_in_scope(task_status):
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await trio.sleep_forever()
