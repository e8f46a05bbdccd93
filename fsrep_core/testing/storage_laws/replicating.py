"""Laws of whole steps: what is received is what was sent."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import FsrepError, StorageError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.tampering import PieceStream
from fsrep_core.values import Side, Version

if TYPE_CHECKING:
    from fsrep_core.testing.storage_trial import StorageTrial

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law()
async def a_full_stream_makes_an_equal_version(trial: StorageTrial) -> None:
    """What a full stream carries is received with the same content, name and guid."""
    version = await trial.snapshot()

    response = await trial.replicate(version)

    await trial.require_equal(version)
    listed = await trial.listed(Side.RECEIVER, version)
    trial.require(
        response.version == listed, f"{response.version} was answered, {listed} is listed"
    )
    trial.require(response.version.name == version.name, f"the name is {response.version.name!r}")


@LAWS.law()
async def an_incremental_stream_makes_an_equal_version(trial: StorageTrial) -> None:
    """Increments bring the receiver from version to version; those before stay as they are."""
    versions = await trial.snapshots(4)

    await trial.replicate(versions[0])
    for base, version in pairwise(versions):
        await trial.replicate(version, base)
        await trial.require_equal(version)

    await trial.require_equal(*versions)
    orders = [
        listed.order
        for version in versions
        if (listed := await trial.listed(Side.RECEIVER, version)) is not None
    ]
    trial.require(orders == sorted(set(orders)), f"the receiver's orders, oldest first: {orders}")


@LAWS.law()
async def an_increment_can_skip_versions(trial: StorageTrial) -> None:
    """A step may leave out what is between its ends, and what is between is then not received."""
    first, second, third = await trial.snapshots(3)

    await trial.replicate(first)
    await trial.replicate(third, first)

    await trial.require_equal(first, third)
    await trial.require_absent(second, "though it was not asked for")


@LAWS.law()
async def an_increment_is_smaller_than_the_whole(trial: StorageTrial) -> None:
    """After a small change of much, an increment carries less than a full stream."""
    versions = await trial.snapshots(4)

    full = await trial.stream_size(versions[-1])
    step = await trial.stream_size(versions[-1], versions[-2])

    trial.require(step < full, f"the increment has {step} bytes, the full stream {full}")


@LAWS.law()
async def a_step_without_change_is_replicated(trial: StorageTrial) -> None:
    """A version that equals the one before it is replicated like any other."""
    first = await trial.snapshot()
    second = await trial.snapshot(change=False)

    await trial.replicate(first)
    await trial.replicate(second, first)

    await trial.require_equal(first, second)


@LAWS.law(needs="batched")
async def a_batch_makes_every_version(trial: StorageTrial) -> None:
    """One stream brings all the versions of the request, each with its own content and guid."""
    versions = await trial.snapshots(4)

    await trial.replicate(versions[0])
    await trial.replicate(versions[3], versions[0], intermediates=tuple(versions[1:3]))

    await trial.require_equal(*versions)


@LAWS.law()
async def pieces_of_any_size_are_received(trial: StorageTrial) -> None:
    """A receiver takes what it gets, byte by byte or much at once, and keeps no buffer."""
    first, second = await trial.snapshots(2)

    await trial.replicate(first, tamper=lambda stream: PieceStream(stream, 1))
    await trial.replicate(second, first, tamper=lambda stream: PieceStream(stream, 2))

    await trial.require_equal(first, second)


@LAWS.law()
async def a_version_that_is_there_is_left_alone(trial: StorageTrial) -> None:
    """Receiving a version again succeeds, answers with the one there is, and changes nothing."""
    first, second = await trial.snapshots(2)
    await trial.replicate(first)
    await trial.replicate(second, first)
    before = await trial.look(Side.RECEIVER)

    again = await trial.replicate(second, first)
    full = await trial.replicate(first)

    trial.require(await trial.look(Side.RECEIVER) == before, "the receiver changed")
    trial.require(again.version.guid == second.guid, f"it answered with {again.version}")
    trial.require(full.version.guid == first.guid, f"it answered with {full.version}")
    await trial.require_equal(first, second)


@LAWS.law()
async def a_missing_base_is_refused(trial: StorageTrial) -> None:
    """An increment on a base that the receiver lacks is an error of that filesystem only."""
    first, second = await trial.snapshots(2)

    error = await trial.expect_error(
        "receiving without the base", partial(trial.replicate, second, first), FsrepError
    )

    trial.require(error.local, f"the error concerns more than the filesystem: {error!r}")
    await trial.require_absent(second, "though its base is missing")
    await trial.converge(second)


@LAWS.law()
async def nothing_newer_is_lost_unasked(trial: StorageTrial) -> None:
    """Without rollback, a step from an older version destroys nothing, whatever comes of it."""
    first, second, third = await trial.snapshots(3)
    await trial.replicate(first)
    await trial.replicate(second, first)

    await _try(trial, third, first)

    await trial.require_equal(first, second)


@LAWS.law()
async def a_rollback_destroys_only_what_is_named(trial: StorageTrial) -> None:
    """A step may destroy the versions that its rollback names, and no others."""
    first, second, third, fourth = await trial.snapshots(4)
    await trial.replicate(first)
    await trial.replicate(second, first)
    await trial.replicate(third, second)
    await _try(trial, fourth, first, rollback=(await _here(trial, third),))
    await trial.require_equal(first, second)

    if await trial.listed(Side.RECEIVER, fourth) is None:
        rest = [await trial.listed(Side.RECEIVER, version) for version in (second, third)]
        await trial.replicate(fourth, first, rollback=tuple(each for each in rest if each))

    await trial.require_equal(first, fourth)


@LAWS.law(needs="nests")
async def a_child_needs_its_parent(trial: StorageTrial) -> None:
    """Where filesystems nest, a child is refused until its parent is there."""
    parent = await trial.snapshot("nest")
    child = await trial.snapshot("nest/child")

    error = await trial.expect_error(
        "receiving a child without its parent",
        partial(trial.replicate, child, filesystem="nest/child"),
        StorageError,
    )
    trial.require(error.local, f"the error concerns more than the filesystem: {error!r}")
    await trial.replicate(parent, filesystem="nest")
    await trial.replicate(child, filesystem="nest/child")

    await trial.require_equal(parent, filesystem="nest")
    await trial.require_equal(child, filesystem="nest/child")


@LAWS.law()
async def filesystems_replicate_side_by_side(trial: StorageTrial) -> None:
    """Several filesystems are sent and received at once, each with its own content."""
    names = ("alpha", "beta", "gamma")
    versions = {name: [await trial.snapshot(name), await trial.snapshot(name)] for name in names}

    async def replicate(name: str) -> None:
        first, second = versions[name]
        await trial.replicate(first, filesystem=name)
        await trial.replicate(second, first, filesystem=name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(replicate, name)

    for name in names:
        await trial.require_equal(*versions[name], filesystem=name)


async def _try(
    trial: StorageTrial, version: Version, base: Version, *, rollback: tuple[Version, ...] = ()
) -> None:
    """Replicate; a refusal is as good as success, if it is this filesystem's own matter."""
    try:
        await trial.replicate(version, base, rollback=rollback)
    except FsrepError as error:
        trial.require(error.local, f"the error concerns more than the filesystem: {error!r}")
    else:
        await trial.require_equal(version)


async def _here(trial: StorageTrial, version: Version) -> Version:
    """The version as the receiver has it."""
    listed = await trial.listed(Side.RECEIVER, version)
    if listed is None:
        raise trial.broken(f"the receiver does not list {version.relative_name}")
    return attrs.evolve(listed)
