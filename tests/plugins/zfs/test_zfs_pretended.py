"""The storage over a ``zfs`` that only pretends: its rules, and the processes it starts."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager

import pytest

from fsrep_core.testing import STORAGE_LAWS, check_storage
from fsrep_zfs import guarding
from pretended_pools import PretendedHarness
from real_zfs import run_job


@pytest.mark.proof
@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law, pretended_sites):
    """Each on pools of its own."""

    @asynccontextmanager
    async def make():
        yield PretendedHarness(*pretended_sites)

    await check_storage(make, laws=[law])


async def test_the_processes_of_a_job_are_few(pretended_sites, monkeypatch):
    """Full; ten snapshots more; eight children; one snapshot more of each; nothing to do.

    On a machine that has time for them: no release waits so long for others that it goes alone.
    """
    monkeypatch.setattr(guarding, "PATIENCE_SECONDS", math.inf)
    sender, receiver = pretended_sites
    counts = []

    async def count():
        for each in pretended_sites:
            each.reopen()
            each.calls()
        report = await run_job(sender, receiver, concurrency=10)
        assert report.status == "completed", report
        counts.append(len(sender.calls()) + len(receiver.calls()))

    sender.write("docs", 100_000)
    await sender.snapshot("s0", "docs")
    await count()
    for number in range(1, 11):
        sender.write("docs")
        await sender.snapshot(f"s{number}", "docs")
    await count()
    family = ["docs", *(f"docs/{number}" for number in range(8))]
    for name in family:
        sender.write(name)
    await sender.snapshot("t", *family)
    await count()
    for name in family:
        sender.write(name)
    await sender.snapshot("u", *family)
    await count()
    await count()

    assert counts[-1] == 2
    assert all(count <= limit for count, limit in zip(counts, (9, 10, 45, 50, 2), strict=True)), (
        counts
    )
