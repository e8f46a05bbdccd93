from contextlib import asynccontextmanager

import pytest
import trio

from fsrep_core.testing import STORAGE_LAWS, Deviations, LawBroken, check_storage
from fsrep_fake import FakeTransport, MemoryStorage

LAW = "a_full_stream_makes_an_equal_version"


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_the_memory_storage_keeps(law, make_memory):
    verdict = await check_storage(make_memory(nests=True), laws=[law])

    assert verdict.kept == (law,)


async def test_laws_of_what_a_storage_cannot_do_are_left_out_by_name(make_memory):
    maker = make_memory(resumable=False, estimates=False, batched=False, bookmarks=False)

    verdict = await check_storage(maker)

    needing = {law.name: law.needs for law in STORAGE_LAWS.values() if law.needs}
    assert verdict.not_applicable == {
        name: f"{need} is not among its capabilities" for name, need in needing.items()
    }
    assert set(needing.values()) == {"resumable", "batched", "bookmarks", "nests"}
    assert set(verdict.kept) == STORAGE_LAWS.keys() - needing.keys()


class Fails(MemoryStorage):
    """Fails with what no law foresees."""

    async def size_estimate(self, **_):
        raise ZeroDivisionError("a defect")

    size_estimate.fsrep_impl = MemoryStorage.size_estimate.fsrep_impl


async def test_whatever_is_raised_breaks_the_law_with_its_cause(make_memory):
    with pytest.raises(LawBroken, match=r"^looking_changes_nothing: .*ZeroDivisionError") as caught:
        await check_storage(make_memory(Fails), laws=["looking_changes_nothing"])

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_declared_deviation_is_no_failure_and_is_told(make_memory):
    deviations = Deviations(unkept={"looking_changes_nothing": "it cannot estimate"})

    verdict = await check_storage(
        make_memory(Fails), laws=["looking_changes_nothing", LAW], deviations=deviations
    )

    assert verdict.kept == (LAW,)
    assert verdict.not_applicable == {"looking_changes_nothing": "it cannot estimate"}


async def test_a_deviation_that_is_not_needed_is_a_failure(make_memory):
    with pytest.raises(LawBroken, match="kept, but declared as unkept: an old reason"):
        await check_storage(
            make_memory(), laws=[LAW], deviations=Deviations(unkept={LAW: "an old reason"})
        )


@pytest.mark.parametrize(
    "options", [{"laws": ["no_law"]}, {"deviations": Deviations(unkept={"no_law": "reason"})}]
)
async def test_a_name_that_is_no_law_is_refused(make_memory, options):
    with pytest.raises(ValueError, match="no law named no_law"):
        await check_storage(make_memory(), **options)


async def test_what_the_harness_leaves_behind_breaks_the_law(make_memory):
    @asynccontextmanager
    async def maker():
        async with make_memory()() as harness:
            yield harness
        opened.append(open("/dev/null"))  # noqa: ASYNC230, PTH123, SIM115  (left open on purpose)

    opened = []
    with pytest.raises(LawBroken, match=r"this was left: descriptor \d+ \(/dev/null\)"):
        await check_storage(maker, laws=[LAW])
    opened[0].close()


async def test_bounded_time_is_what_the_deviations_say(make_memory, autojump_clock):
    class Slow(MemoryStorage):
        async def receive(self, request, stream):
            await trio.sleep(50)
            return await MemoryStorage.receive(self, request, stream)

        receive.fsrep_impl = MemoryStorage.receive.fsrep_impl

    with pytest.raises(LawBroken, match="took more than 30 seconds"):
        await check_storage(make_memory(Slow), laws=[LAW])
    await check_storage(
        make_memory(Slow), laws=[LAW], deviations=Deviations(time_limit_seconds=100)
    )


def test_every_law_says_what_it_means():
    for law in STORAGE_LAWS.values():
        assert law.summary.endswith("."), law.name
        assert len(law.summary) > 30, law.name


async def test_a_storage_keeps_its_laws_through_a_transport(make_memory):
    @asynccontextmanager
    async def maker():
        async with (
            make_memory(nests=True)() as harness,
            FakeTransport().reach(harness.sender) as harness.sender,
            FakeTransport().reach(harness.receiver) as harness.receiver,
        ):
            yield harness

    verdict = await check_storage(maker)

    assert set(verdict.kept) == set(STORAGE_LAWS)
