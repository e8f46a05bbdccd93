"""Laws of cursors: the sender's memory of what the receiver has confirmed."""

from __future__ import annotations

from functools import partial

import attrs

from fsrep_core.errors import FsrepError, VersionMissingError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.storage_trial import MAIN, StorageTrial
from fsrep_core.values import InventoryRequest, Side, Version, VersionKind

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law()
async def a_missing_cursor_is_an_answer(trial: StorageTrial) -> None:
    """Where no cursor was set, the answer is None, and no error."""
    await trial.snapshot()

    trial.require(await trial.cursor() is None, "there is a cursor that nobody set")
    found = await trial.look(Side.SENDER)
    trial.require(found and found.cursor is None, "the inventory has a cursor that nobody set")


@LAWS.law()
async def a_cursor_moves_forward(trial: StorageTrial) -> None:
    """A moved cursor is answered and listed with the guid of its version; again changes nothing."""
    for version in await trial.snapshots(3):
        for _ in range(2):
            moved = await trial.cursor(version)
            trial.require(_marks(moved, version), f"moved to {version.guid}, answered {moved}")
        found = await trial.look(Side.SENDER)
        trial.require(_marks(await trial.cursor(), version), "it is not there when asked for")
        trial.require(found and _marks(found.cursor, version), "the inventory does not list it")


@LAWS.law()
async def a_cursor_never_moves_back(trial: StorageTrial) -> None:
    """Asked to move to an older version, a cursor stays where it is."""
    first, second = await trial.snapshots(2)
    await trial.cursor(second)

    try:
        answer = await trial.cursor(first)
    except FsrepError as error:
        trial.require(error.local, f"the error concerns more than the filesystem: {error!r}")
    else:
        trial.require(_marks(answer, second), f"the answer is {answer}")

    trial.require(_marks(await trial.cursor(), second), "it moved back")


@LAWS.law()
async def a_cursor_belongs_to_its_job(trial: StorageTrial) -> None:
    """Each job has a cursor of its own on each filesystem."""
    first, second = await trial.snapshots(2)
    other = await trial.snapshot("beta")
    await trial.cursor(first, job="one")
    await trial.cursor(second, job="two")
    await trial.cursor(other, job="one", filesystem="beta")

    for job, version, filesystem in (
        ("one", first, MAIN),
        ("two", second, MAIN),
        ("one", other, "beta"),
    ):
        cursor = await trial.cursor(job=job, filesystem=filesystem)
        trial.require(_marks(cursor, version), f"job {job} has {cursor} on {filesystem}")
        inventory = await trial.sender.inventory(InventoryRequest(job=job))
        listed = {each.name: each.cursor for each in inventory.filesystems}.get(filesystem)
        trial.require(_marks(listed, version), f"for job {job}, {filesystem} lists {listed}")
    for job, filesystem in (("three", MAIN), ("two", "beta")):
        cursor = await trial.cursor(job=job, filesystem=filesystem)
        trial.require(cursor is None, f"job {job} has {cursor} on {filesystem}, which it never set")


@LAWS.law()
async def a_cursor_outlives_its_version(trial: StorageTrial) -> None:
    """When the snapshot it marks is destroyed, a cursor is still there, and can move on."""
    first, second = await trial.snapshots(2)
    await trial.cursor(first)
    await trial.destroy(Side.SENDER, first)

    trial.require(_marks(await trial.cursor(), first), "it went with its version")
    trial.require(_marks(await trial.cursor(first), first), "moving it to where it is failed")
    found = await trial.look(Side.SENDER)
    trial.require(found and _marks(found.cursor, first), "the inventory does not list it")
    trial.require(_marks(await trial.cursor(second), second), "it cannot move on")


@LAWS.law()
async def a_cursor_marks_only_what_exists(trial: StorageTrial) -> None:
    """A move to a version that is gone is VersionMissingError, and the cursor stays."""
    first, second, third = await trial.snapshots(3)
    await trial.cursor(first)
    await trial.destroy(Side.SENDER, second)

    for version in (second, attrs.evolve(third, guid="no-such-guid")):
        await trial.expect_error(
            "moving a cursor to what does not exist",
            partial(trial.cursor, version),
            VersionMissingError,
        )
        trial.require(_marks(await trial.cursor(), first), "it moved all the same")


@LAWS.law(needs="bookmarks")
async def a_bookmark_is_a_base(trial: StorageTrial) -> None:
    """When the base was destroyed on the sender, its bookmark still serves for the next step."""
    first, second = await trial.snapshots(2)
    await trial.replicate(first)
    await trial.cursor(first)
    await trial.destroy(Side.SENDER, first)

    found = await trial.look(Side.SENDER)
    bookmarks = [
        each
        for each in (found.versions if found else ())
        if each.guid == first.guid and each.kind is VersionKind.BOOKMARK
    ]
    trial.require(bookmarks, f"no bookmark of {first.guid} is listed: {found}")
    await trial.replicate(second, bookmarks[0])

    await trial.require_equal(second)


def _marks(cursor: Version | None, version: Version) -> bool:
    return cursor is not None and cursor.guid == version.guid
