"""Laws of looking, estimating, and making versions."""

from __future__ import annotations

import functools

from fsrep_core.errors import VersionMissingError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.storage_trial import JOB, MAIN, StorageTrial
from fsrep_core.values import InventoryRequest, SendRequest, Side, VersionKind

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law()
async def an_empty_storage_is_an_empty_inventory(trial: StorageTrial) -> None:
    """A storage without filesystems answers with none, and names its stream formats."""
    inventory = await trial.receiver.inventory(InventoryRequest(job=JOB))

    trial.require(not inventory.filesystems, f"it lists {inventory.filesystems}")
    trial.require(inventory.capabilities.stream_formats, "it names no stream format")


@LAWS.law()
async def a_version_that_was_made_is_listed(trial: StorageTrial) -> None:
    """What create_version answers is what inventory lists: a snapshot of that name."""
    version = await trial.snapshot()
    listed = await trial.listed(Side.SENDER, version)

    trial.require(listed == version, f"{version} was made, {listed} is listed")
    trial.require(version.kind is VersionKind.SNAPSHOT, f"it made a {version.kind.value}")
    trial.require(version.name == "kit-1", f"the name is {version.name!r} instead of 'kit-1'")
    trial.require(version.guid, "the guid is empty")


@LAWS.law()
async def guids_differ_and_orders_grow(trial: StorageTrial) -> None:
    """Each version has a guid of its own and an order above all before it."""
    versions = []
    listed = []
    for change in (True, True, False):
        versions.append(await trial.snapshot(change=change))
        listed.append(await trial.listed(Side.SENDER, versions[-1]))
    orders = [version.order for version in versions]
    dates = [version.created for version in versions if version.created is not None]

    trial.require(len({version.guid for version in versions}) == len(versions), "guids repeat")
    trial.require(orders == sorted(set(orders)), f"the orders, oldest first, are {orders}")
    trial.require(dates == sorted(dates), f"the dates, oldest first, are {dates}")
    for version, first_listed in zip(versions, listed, strict=True):
        trial.require(
            await trial.listed(Side.SENDER, version) == first_listed,
            f"{version.relative_name} changed when later ones were made",
        )


@LAWS.law()
async def an_order_is_not_used_again(trial: StorageTrial) -> None:
    """A version made after the newest was destroyed has an order above that one's, too.

    A cursor or bookmark may still mark the one that is gone; what has the same order
    would not count as newer, and would never be sent.
    """
    first, second = await trial.snapshots(2)
    await trial.cursor(second)
    await trial.destroy(Side.SENDER, second)
    third = await trial.snapshot()

    trial.require(
        first.order < second.order < third.order,
        f"the orders, with that of the destroyed one, are {first.order}, {second.order}, "
        f"{third.order}",
    )


@LAWS.law()
async def a_version_keeps_its_content(trial: StorageTrial) -> None:
    """What happens to the live filesystem afterwards does not reach into a version."""
    version = await trial.snapshot()
    before = await trial.harness.read(Side.SENDER, MAIN, version)
    await trial.harness.change(MAIN, 1000)
    later = await trial.snapshot()

    found = trial.harness.differences(before, await trial.harness.read(Side.SENDER, MAIN, version))
    trial.require(not found, f"it changed: {'; '.join(found)}")
    trial.require(
        trial.harness.differences(before, await trial.harness.read(Side.SENDER, MAIN, later)),
        "a version after a change equals the one before it: the harness changes nothing",
    )


@LAWS.law()
async def what_cannot_be_made_stops_no_other(trial: StorageTrial) -> None:
    """create_version answers for each filesystem, in order; one that fails stands in its result."""
    first = await trial.snapshot()

    results = await trial.create(("missing", MAIN), "second")

    trial.require(
        [result.filesystem for result in results] == ["missing", MAIN],
        f"the results are those of {[result.filesystem for result in results]}",
    )
    missing, made = results
    trial.require(
        missing.problem and not missing.version, "a filesystem that is not there was made"
    )
    trial.require(made.version, f"the other one failed as well: {made.problem}")
    trial.require(await trial.listed(Side.SENDER, first), "the version before is gone")


@LAWS.law()
async def a_name_that_is_taken_is_refused(trial: StorageTrial) -> None:
    """A second version of the same name is a problem, and the first one stays as it is."""
    version = await trial.snapshot()
    before = await trial.harness.read(Side.SENDER, MAIN, version)
    await trial.harness.change(MAIN, 1000)

    (result,) = await trial.create((MAIN,), version.name)

    trial.require(result.problem and not result.version, "it was made, so the name exists twice")
    trial.require(await trial.listed(Side.SENDER, version), "the first one is gone")
    after = await trial.harness.read(Side.SENDER, MAIN, version)
    found = trial.harness.differences(before, after)
    trial.require(not found, f"the content of the first one changed: {'; '.join(found)}")


@LAWS.law()
async def looking_changes_nothing(trial: StorageTrial) -> None:
    """inventory, size_estimate and a look at the cursor leave everything as it was."""
    version = await trial.snapshot()
    request = SendRequest(job=JOB, filesystem=MAIN, to_version=version)

    first = await trial.sender.inventory(InventoryRequest(job=JOB))
    await trial.sender.size_estimate(request)
    await trial.cursor()
    second = await trial.sender.inventory(InventoryRequest(job=JOB))

    trial.require(first == second, f"the inventory was {first}, and then {second}")


@LAWS.law()
async def an_estimate_is_unknown_or_near(trial: StorageTrial) -> None:
    """size_estimate says None, or something near the size of the stream; never zero for much."""
    first, second = await trial.snapshots(2)
    for base in (None, first):
        estimate = await trial.sender.size_estimate(
            SendRequest(job=JOB, filesystem=MAIN, to_version=second, from_version=base)
        )
        size_bytes = await trial.stream_size(second, base)
        said = estimate.size_bytes
        if said is None:
            trial.require(not trial.capabilities.estimates, "it estimates, but cannot say")
        else:
            trial.require(
                size_bytes / 10 <= said <= size_bytes * 10 + 1_000_000,
                f"it says {said} bytes of a stream of {size_bytes}",
            )


@LAWS.law()
async def a_version_that_is_gone_cannot_be_sent(trial: StorageTrial) -> None:
    """Send and size_estimate raise VersionMissingError where a version of the request is gone."""
    first, second, third = await trial.snapshots(3)
    await trial.destroy(Side.SENDER, second)
    for what, to_version, base in (("to", second, first), ("from", third, second)):
        request = SendRequest(job=JOB, filesystem=MAIN, to_version=to_version, from_version=base)
        await trial.expect_error(
            f"sending {what} a version that is gone",
            functools.partial(trial.begin_stream, to_version, base),
            VersionMissingError,
        )
        await trial.expect_error(
            f"estimating {what} a version that is gone",
            functools.partial(trial.sender.size_estimate, request),
            VersionMissingError,
        )
