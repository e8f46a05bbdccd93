"""Looking at both sides: what a preview tells, and that it changes nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from fsrep_core import StorageError
from fsrep_core.planning import Initial, Policy, Steps
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.runtime.survey import preview, survey
from fsrep_fake import FakeTransport, Fault, MemoryStorage, MemoryStore

SETTINGS = JobSettings(name="job", policy=Policy(initial=Initial.ALL, steps=Steps.EACH))


@asynccontextmanager
async def sides(sender_faults=(), receiver_faults=(), **capabilities):
    stores = MemoryStore("sender"), MemoryStore("receiver")
    storages = [MemoryStorage(store, **capabilities) for store in stores]
    async with (
        FakeTransport(tuple(sender_faults)).reach(storages[0]) as sender,
        FakeTransport(tuple(receiver_faults)).reach(storages[1]) as receiver,
    ):
        yield stores, [Endpoint(sender, name="sender"), Endpoint(receiver, name="receiver")]


async def test_a_preview_has_steps_and_sizes_and_changes_nothing(autojump_clock):
    async with sides() as ((sender, receiver), endpoints):
        sender.add_history("a", 3)
        before = sender.versions("a")

        seen = await preview(SETTINGS, *endpoints)

    [a] = seen.plan.filesystems
    assert len(a.steps) == len(seen.estimates["a"]) == 3
    assert all(isinstance(size, int) for size in seen.estimates["a"])
    assert receiver.filesystems == {}
    assert sender.versions("a") == before
    assert sender.filesystems["a"].cursors == {}


async def test_a_size_that_cannot_be_learned_is_unknown_and_told(autojump_clock):
    faults = [Fault("size_estimate", "fail_before", occurrence=2)]
    async with sides(sender_faults=faults) as ((sender, _), endpoints):
        sender.add_history("a", 3)

        seen = await preview(SETTINGS, *endpoints)

    assert [size is None for size in seen.estimates["a"]].count(True) == 1
    [warning] = seen.warnings
    assert "size of a@" in warning


async def test_without_the_capability_nobody_is_asked(autojump_clock):
    faults = [Fault("size_estimate", "fail_before")]
    async with sides(sender_faults=faults, estimates=False) as ((sender, _), endpoints):
        sender.add_history("a", 2)

        seen = await preview(SETTINGS, *endpoints)

    assert seen.estimates["a"] == (None, None)
    assert seen.warnings == ()


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_side_that_cannot_be_listed_is_named(autojump_clock, side):
    fault = Fault("inventory", "fail_before", temporary=False)

    async with sides(**{f"{side}_faults": [fault]}) as (_, endpoints):
        with pytest.raises(StorageError) as caught:
            await survey(SETTINGS, *endpoints)

    assert caught.value.__notes__ == [f"while listing the {side}"]
