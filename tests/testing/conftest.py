"""A harness of memory storages, and a way to learn which laws something breaks."""

from contextlib import asynccontextmanager

import pytest

from fsrep_core.testing import STORAGE_LAWS, LawBroken, check_storage
from fsrep_fake import MemoryStorage
from harnesses import MemoryHarness


def memory_maker(storage_class=MemoryStorage, **options):
    @asynccontextmanager
    async def maker():
        yield MemoryHarness(storage_class, **options)

    return maker


@pytest.fixture
def make_memory():
    return memory_maker


@pytest.fixture
def broken_laws():
    """Check every law on its own and give the names of those that are broken."""

    async def broken(maker, **options):
        found = {}
        for law in STORAGE_LAWS:
            try:
                await check_storage(maker, laws=[law], **options)
            except LawBroken as error:
                found[error.law] = error.message
        return found

    return broken
