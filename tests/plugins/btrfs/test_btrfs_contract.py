"""The storage keeps every law of the kit, over real file systems."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest

from fsrep_core import Side
from fsrep_core.testing import STORAGE_LAWS, StorageHarness, check_storage
from fsrep_core.testing.trees import differences, read_tree

pytestmark = pytest.mark.btrfs


class BtrfsHarness(StorageHarness):
    """Two sites; a filesystem is a subvolume below the first one's root."""

    def __init__(self, sender, receiver):
        self.sites = {Side.SENDER: sender, Side.RECEIVER: receiver}
        self.sender = sender.storage
        self.receiver = receiver.storage

    async def change(self, filesystem, seed):
        path = self.sites[Side.SENDER].root / filesystem
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.sites[Side.SENDER].subvolume(filesystem)
        before = sorted(path.glob("file*"))
        if len(before) > 2:
            before[0].unlink()
            before[1].rename(path / f"renamed{seed}")
            with before[2].open("ab") as file:
                file.write(b"altered")
        bytes_of = random.Random(seed)
        for number in range(4):
            (path / f"file{seed}-{number}").write_bytes(bytes_of.randbytes(100_000))
        (path / "link").unlink(missing_ok=True)
        (path / "link").symlink_to(f"file{seed}-0")

    async def read(self, side, filesystem, version):
        return read_tree(self.sites[side].place(version.name, filesystem))

    def differences(self, expected, found):
        return differences(expected, found)


@pytest.mark.parametrize("law", STORAGE_LAWS)
async def test_law(law, sites):
    """Each on directories of its own; what btrfs cannot do its capabilities say."""

    @asynccontextmanager
    async def make():
        yield BtrfsHarness(sites[0], sites[1])

    await check_storage(make, laws=[law])
