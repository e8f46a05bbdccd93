"""The directory storage keeps every law of the kit."""

import contextlib
import os
import random
import shutil
import tempfile

import pytest

from fsrep_core import Side
from fsrep_core.testing import (
    STORAGE_LAWS,
    StorageHarness,
    check_storage,
    differences,
    no_leaks,
    read_tree,
)
from fsrep_directory.storage import DirectoryConfig, DirectoryStorage


def change(live, chosen):
    """Alter, rename, delete and add."""
    if os.path.exists(f"{live}/folder"):
        os.rename(f"{live}/renamed", f"{live}/renamed-{chosen.random()}")
        os.unlink(f"{live}/folder/gone")
    os.makedirs(f"{live}/folder", exist_ok=True)
    for name in ("renamed", "folder/gone", "folder/altered", f"added-{chosen.random()}"):
        with open(f"{live}/{name}", "wb") as file:
            file.write(chosen.randbytes(100_000))


class DirectoryHarness(StorageHarness):
    """Two roots below one folder."""

    def __init__(self, path):
        self.roots = {side: f"{path}/{side.value}" for side in Side}
        for root in self.roots.values():
            os.mkdir(root)
        self.sender = DirectoryStorage(DirectoryConfig(root=self.roots[Side.SENDER]))
        self.receiver = DirectoryStorage(DirectoryConfig(root=self.roots[Side.RECEIVER]))

    async def change(self, filesystem, seed):
        change(f"{self.roots[Side.SENDER]}/{filesystem}", random.Random(seed))

    async def read(self, side, filesystem, version):
        return read_tree(f"{self.roots[side]}/.fsrep/{filesystem}/@{version.name}/tree")

    def differences(self, expected, found):
        return differences(expected, found)


@contextlib.asynccontextmanager
async def maker():
    path = tempfile.mkdtemp()
    try:
        async with no_leaks():
            yield DirectoryHarness(path)
    finally:
        shutil.rmtree(path)


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law):
    await check_storage(maker, laws=[law])
