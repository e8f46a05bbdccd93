"""The storage keeps every law of the kit, over real file systems."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from fsrep_core.testing import STORAGE_LAWS, check_storage
from harnesses import BtrfsHarness

pytestmark = pytest.mark.btrfs


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law, sites):
    """Each on directories of its own; what btrfs cannot do its capabilities say."""

    @asynccontextmanager
    async def make():
        yield BtrfsHarness(sites[0], sites[1])

    await check_storage(make, laws=[law])
