"""The harnesses of the kit for the bundled storages, each over a place of its own.

What reads a version here never asks the storage that made it.
"""

from __future__ import annotations

import random
from pathlib import Path

from fsrep_core import Side
from fsrep_core.testing import StorageHarness, differences, read_tree
from fsrep_directory.storage import DirectoryConfig, DirectoryStorage
from fsrep_fake import Generated, MemoryStorage, MemoryStore

__all__ = ["BtrfsHarness", "DirectoryHarness", "MemoryHarness"]


class MemoryHarness(StorageHarness):
    """Two stores of this process."""

    def __init__(self, storage_class=MemoryStorage, **options):
        self.stores = {Side.SENDER: MemoryStore("sender"), Side.RECEIVER: MemoryStore("receiver")}
        self.sender = storage_class(self.stores[Side.SENDER], **options)
        self.receiver = storage_class(self.stores[Side.RECEIVER], **options)

    async def change(self, filesystem, seed):
        self.stores[Side.SENDER].change(filesystem, Generated(seed, 200_000))
        self.stores[Side.SENDER].change(filesystem, b"%d" % seed)

    async def read(self, side, filesystem, version):
        return self.stores[side].read(filesystem, version)


class DirectoryHarness(StorageHarness):
    """Two roots below one folder."""

    def __init__(self, path):
        self.roots = {side: Path(path, side.value) for side in Side}
        for root in self.roots.values():
            root.mkdir(exist_ok=True)
        self.sender = DirectoryStorage(DirectoryConfig(root=str(self.roots[Side.SENDER])))
        self.receiver = DirectoryStorage(DirectoryConfig(root=str(self.roots[Side.RECEIVER])))

    async def change(self, filesystem, seed):
        """Alter, rename, delete and add."""
        live = self.roots[Side.SENDER] / filesystem
        chosen = random.Random(seed)
        folder = live / "folder"
        if folder.exists():
            (live / "renamed").rename(live / f"renamed-{chosen.random()}")
            (folder / "gone").unlink()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("renamed", "folder/gone", "folder/altered", f"added-{chosen.random()}"):
            (live / name).write_bytes(chosen.randbytes(100_000))

    async def read(self, side, filesystem, version):
        return read_tree(self.roots[side] / ".fsrep" / filesystem / f"@{version.name}" / "tree")

    def differences(self, expected, found):
        return differences(expected, found)


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
