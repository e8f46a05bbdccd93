"""Pools that only pretend (:mod:`pretend_zfs`), and storages over them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import attrs
import pytest

import pretend_zfs
from fsrep_core import CreateVersionRequest, InventoryRequest, Side
from fsrep_core.runtime.options import structure_options
from fsrep_core.testing import StorageHarness
from fsrep_zfs.config import ZfsConfig
from fsrep_zfs.storage import ZfsStorage

__all__ = ["Pretended", "PretendedHarness", "pretended_sites"]

JOB = "job"
PIECE = 7_000


@attrs.define(eq=False)
class Pretended:
    """A storage over pools that only pretend, and what tests want to do and know there."""

    state: Path
    root: str
    storage: ZfsStorage = attrs.field(init=False)
    options: dict = attrs.field(factory=dict)

    def __attrs_post_init__(self):
        (self.state / "blobs").mkdir(exist_ok=True)
        with pretend_zfs.Pools(str(self.state)) as pools:
            pools.create(self.root)
        self.reopen()

    def reopen(self, **options):
        """Make the storage anew, as another process would, perhaps with other options."""
        self.options |= options
        command = (sys.executable, "-I", "-S", pretend_zfs.__file__, str(self.state))
        options = {"root": self.root, "command": list(command), **self.options}
        self.storage = ZfsStorage(structure_options(ZfsConfig, options, ""))

    def pools(self):
        return pretend_zfs.Pools(str(self.state))

    def dataset(self, name):
        with self.pools() as pools:
            return pools.datasets.get(f"{self.root}/{name}")

    def write(self, name, size_bytes=10_000, seed=None):
        """Change what a filesystem holds; make it if it is not there."""
        data = random.Random(seed).randbytes(size_bytes)
        pieces = [data[start : start + PIECE] for start in range(0, size_bytes, PIECE)]
        new = [pretend_zfs.add_blob(self.state, piece) for piece in pieces]
        with self.pools() as pools:
            full = f"{self.root}/{name}"
            head = pools.datasets.get(full) or pools.create(full)
            head["content"] = [*head["content"][1:], *new]
            head["changed"] = True

    async def snapshot(self, name, *filesystems):
        results = await self.storage.create_version(
            CreateVersionRequest(job=JOB, filesystems=filesystems, name=name)
        )
        assert not [each.problem for each in results if each.problem]

    async def listed(self, name="docs", job=JOB):
        inventory = await self.storage.inventory(InventoryRequest(job=job))
        return next((each for each in inventory.filesystems if each.name == name), None)

    def holds(self, name="docs"):
        """Give the tags on the snapshots of a filesystem, by name."""
        snapshots = self.dataset(name)["snapshots"]
        return {each: value["holds"] for each, value in snapshots.items() if value["holds"]}

    def refuse(self, command, words):
        """Have a command fail from now on."""
        (self.state / f"refuse-{command}").write_text(words)

    def calls(self):
        """Give the calls since the last time, and forget them."""
        log = self.state / "log"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.write_text("")
        return calls


class PretendedHarness(StorageHarness):
    """Two pretended pools, side by side."""

    def __init__(self, sender, receiver):
        receiver.reopen(make_parents=False)  # a law wants a child without its parent refused
        self.sites = {Side.SENDER: sender, Side.RECEIVER: receiver}
        self.sender, self.receiver = sender.storage, receiver.storage

    async def change(self, filesystem, seed):
        self.sites[Side.SENDER].write(filesystem, 210_000, seed)

    async def read(self, side, filesystem, version):
        site = self.sites[side]
        content = site.dataset(filesystem)["snapshots"][version.name]["content"]
        return [(site.state / "blobs" / blob).read_bytes() for blob in content]


@pytest.fixture
def pretended_sites(tmp_path):
    """Two storages; what each has is its own."""
    found = []
    for name in ("sender", "receiver"):
        (tmp_path / name).mkdir()
        found.append(Pretended(tmp_path / name, f"pool{name}"))
    return found
