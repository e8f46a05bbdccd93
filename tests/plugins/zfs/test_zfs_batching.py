"""What several tasks ask for at once is one piece of work, whoever of them is cancelled."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
import trio.lowlevel

from fsrep_core import BusyError, StorageError
from fsrep_zfs.batching import ARGUMENTS_LIMIT_BYTES, Batch, chunks


class Work:
    """Doubles numbers, in time, and remembers how they came."""

    def __init__(self, fail=()):
        self.calls = []
        self.fail = fail

    async def __call__(self, items):
        self.calls.append(tuple(items))
        await trio.sleep(1)
        if "all" in self.fail:
            raise StorageError("nothing works")
        return {each: BusyError(f"{each}") if each in self.fail else each * 2 for each in items}


async def test_what_gathers_is_done_at_once(autojump_clock):
    work = Work()
    batch = Batch(work)
    results = {}

    async def ask(item):
        results[item] = await batch.submit(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1)
        await trio.sleep(0.5)
        for item in (2, 3, 4, 4):
            nursery.start_soon(ask, item)

    assert results == {1: 2, 2: 4, 3: 6, 4: 8}
    assert [len(call) for call in work.calls] == [1, 4]


async def test_what_begins_together_is_one_call(autojump_clock):
    work = Work()
    batch = Batch(work)
    async with trio.open_nursery() as nursery:
        for item in range(9):
            nursery.start_soon(batch.submit, item)

    assert [sorted(call) for call in work.calls] == [list(range(9))]


async def test_each_has_its_own_error(autojump_clock):
    batch = Batch(Work(fail=(2,)))
    outcomes = {}

    async def ask(item):
        try:
            outcomes[item] = await batch.submit(item)
        except BusyError as error:
            outcomes[item] = error.message

    async with trio.open_nursery() as nursery:
        for item in (1, 2, 3):
            nursery.start_soon(ask, item)

    assert outcomes == {1: 2, 2: "2", 3: 6}


async def test_work_that_fails_fails_for_all_who_asked(autojump_clock):
    batch = Batch(Work(fail=("all",)))
    errors = []

    async def ask(item):
        with pytest.raises(StorageError) as caught:
            await batch.submit(item)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for item in (1, 2):
            nursery.start_soon(ask, item)

    assert [error.message for error in errors] == ["nothing works"] * 2
    assert errors[0] is not errors[1]


async def test_others_do_the_work_of_one_that_is_cancelled(autojump_clock):
    work = Work()
    batch = Batch(work)
    results = []

    async def ask(item):
        results.append(await batch.submit(item))

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as doomed:
                doomed.start_soon(batch.submit, 1)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(ask, 2)
                nursery.start_soon(ask, 3)

    assert sorted(results) == [4, 6]
    assert 1 not in work.calls[-1]


def test_chunks_are_as_few_as_fit():
    names = [f"pool/{'x' * 250}@{number}" for number in range(2000)]

    divided = chunks((name,) for name in names)

    assert [name for chunk in divided for name in chunk] == names
    assert all(sum(len(name) + 1 for name in chunk) <= ARGUMENTS_LIMIT_BYTES for chunk in divided)
    assert len(divided) == -(-2000 * 262 // ARGUMENTS_LIMIT_BYTES)
    assert chunks([]) == []
    assert chunks([("y" * (ARGUMENTS_LIMIT_BYTES + 1),), ("z",)]) == [
        ["y" * (ARGUMENTS_LIMIT_BYTES + 1)],
        ["z"],
    ]


def test_a_command_takes_the_longest_chunk_as_one_argument():
    """As in ``zfs destroy docs@a,b,c``."""
    [chunk, *_] = chunks((f"{number:06}{'x' * 100}",) for number in range(2000))

    done = subprocess.run([sys.executable, "-c", "", f"{'y' * 255}@{','.join(chunk)}"], check=False)

    assert done.returncode == 0


def test_groups_stay_together():
    groups = [(f"pool/{number}", f"pool/{number}@{'x' * 250}") for number in range(2000)]

    divided = chunks(groups)

    assert len(divided) > 1
    assert all(
        name.startswith(f"{chunk[i - i % 2]}") for chunk in divided for i, name in enumerate(chunk)
    )
