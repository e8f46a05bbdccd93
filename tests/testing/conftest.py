"""A harness of memory storages, and a way to learn which laws something breaks."""

from contextlib import asynccontextmanager

import pytest

from fsrep_core.testing import STORAGE_LAWS, LawBroken, StorageHarness, check_storage
from fsrep_core.values import Side
from fsrep_fake import Generated, MemoryStorage, MemoryStore


class MemoryHarness(StorageHarness):
    def __init__(self, storage_class=MemoryStorage, **options):
        self.stores = {Side.SENDER: MemoryStore("sender"), Side.RECEIVER: MemoryStore("receiver")}
        self.sender = storage_class(self.stores[Side.SENDER], **options)
        self.receiver = storage_class(self.stores[Side.RECEIVER], **options)

    async def change(self, filesystem, seed):
        self.stores[Side.SENDER].change(filesystem, Generated(seed, 200_000))
        self.stores[Side.SENDER].change(filesystem, b"%d" % seed)

    async def read(self, side, filesystem, version):
        return self.stores[side].read(filesystem, version)


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
