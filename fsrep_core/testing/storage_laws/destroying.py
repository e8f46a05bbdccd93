"""Laws of destroying: exactly what is named, by its guid, and nothing in use."""

from __future__ import annotations

from itertools import pairwise

import attrs

from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.storage_trial import MAIN, StorageTrial
from fsrep_core.testing.tampering import drain
from fsrep_core.values import Side

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law()
async def destroying_takes_exactly_what_is_named(trial: StorageTrial) -> None:
    """The versions named are gone on that side, and the others have all their content still."""
    versions = await trial.snapshots(5)
    await trial.replicate(versions[0])
    for base, version in pairwise(versions):
        await trial.replicate(version, base)
    for side in (Side.SENDER, Side.RECEIVER):
        here = [await trial.listed(side, version) for version in versions]
        doomed = tuple(each for each in (here[3], here[1]) if each is not None)

        results = await trial.destroy(side, *doomed)

        trial.require(
            [result.name for result in results] == [version.name for version in doomed],
            f"the results are those of {[result.name for result in results]}",
        )
        for result in results:
            trial.require(not result.problem, f"the {side.value} failed: {result.problem}")
        for version in (versions[1], versions[3]):
            trial.require(
                await trial.listed(side, version) is None,
                f"the {side.value} still lists {version.relative_name}",
            )
    await trial.require_equal(versions[0], versions[2], versions[4])


@LAWS.law()
async def what_is_gone_counts_as_destroyed(trial: StorageTrial) -> None:
    """Destroying a version again, or one that never was, succeeds; an unknown filesystem too."""
    first, second = await trial.snapshots(2)
    never = attrs.evolve(first, guid="no-such-guid", name="never")
    await trial.destroy(Side.SENDER, first)

    for filesystem, versions in ((MAIN, (first, never)), ("missing", (never,))):
        results = await trial.destroy(Side.SENDER, *versions, filesystem=filesystem)
        trial.require(
            not any(result.problem for result in results),
            f"{filesystem}: {[result.problem for result in results]}",
        )

    trial.require(await trial.listed(Side.SENDER, second), "another one is gone as well")


@LAWS.law()
async def versions_are_destroyed_by_guid(trial: StorageTrial) -> None:
    """A version of the same name, but another guid, is not touched."""
    version = await trial.snapshot()

    await trial.destroy(Side.SENDER, attrs.evolve(version, guid="no-such-guid"))

    trial.require(await trial.listed(Side.SENDER, version), "it was destroyed by name")


@LAWS.law()
async def a_version_in_use_is_kept(trial: StorageTrial) -> None:
    """While a version is being sent it is not destroyed, and the result says that it is busy."""
    version = await trial.snapshot()
    async with trial.bounded("destroying what is being sent"), trial.stream(version) as stream:
        await stream.receive_some(1)
        (result,) = await trial.destroy(Side.SENDER, version)
        problem = result.problem
        trial.require(
            problem and problem.kind == "busy" and problem.temporary,
            f"the result of destroying it is {result}",
        )
        trial.require(await trial.listed(Side.SENDER, version), "it is gone, whatever was said")
        await drain(stream)

    (result,) = await trial.destroy(Side.SENDER, version)
    trial.require(not result.problem, f"it is kept after the stream ended: {result.problem}")
