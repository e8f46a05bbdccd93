"""The directory storage keeps every law of the kit."""

import contextlib
import tempfile

import pytest

from fsrep_core.testing import STORAGE_LAWS, check_storage, no_leaks
from harnesses import DirectoryHarness


@contextlib.asynccontextmanager
async def maker():
    with tempfile.TemporaryDirectory() as path:
        async with no_leaks():
            yield DirectoryHarness(path)


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law):
    await check_storage(maker, laws=[law])
