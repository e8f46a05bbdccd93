"""Checks that a storage keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core.testing.laws import Deviations, Law, LawBook, check_laws
from fsrep_core.testing.storage_laws import (
    creating,
    cursors,
    destroying,
    receiving,
    replicating,
    resuming,
    sending,
)
from fsrep_core.testing.storage_trial import StorageHarness, StorageMaker, StorageTrial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_core.testing.laws import Verdict

__all__ = ["STORAGE_LAWS", "check_storage"]

STORAGE_LAWS: LawBook[StorageTrial] = LawBook(
    {
        **creating.LAWS,
        **replicating.LAWS,
        **sending.LAWS,
        **receiving.LAWS,
        **resuming.LAWS,
        **cursors.LAWS,
        **destroying.LAWS,
    }
)
"""All laws of storages, by name."""


async def check_storage(
    maker: StorageMaker,
    *,
    deviations: Deviations | None = None,
    laws: Iterable[str] | None = None,
) -> Verdict:
    """Check that a storage keeps the contract, law by law.

    :param maker: gives a fresh harness; called once for each law
    :param deviations: what the storage does not keep, on purpose
    :param laws: names of :data:`STORAGE_LAWS`; ``None`` = all
    :raises LawBroken: the first law that is broken
    """
    declared = deviations or Deviations()

    async def begin(law: Law[StorageTrial], harness: StorageHarness) -> StorageTrial:
        return await StorageTrial.begin(law, harness, declared)

    return await check_laws(
        STORAGE_LAWS,
        maker,
        begin=begin,
        lacks=_lacks,
        deviations=declared,
        laws=laws,
    )


def _lacks(trial: StorageTrial, capability: str) -> str | None:
    if getattr(trial.capabilities, capability):
        return None
    return f"{capability} is not among its capabilities"
