"""The storage keeps every law of the kit, over real pools."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from fsrep_core.testing import STORAGE_LAWS, check_storage
from real_zfs import ZfsHarness

pytestmark = [pytest.mark.zfs, pytest.mark.proof]


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law, zfs_sites):
    """Each on pools of its own."""

    @asynccontextmanager
    async def make():
        yield ZfsHarness(*zfs_sites)

    await check_storage(make, laws=[law])
