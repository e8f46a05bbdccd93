"""Real btrfs file systems on loop devices, and storages over them.

Three file systems serve a whole session; each test has a directory of its own on each.
They are unmounted in every path out, which gives the loop devices back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import attrs
import pytest

from fsrep_btrfs.config import BtrfsConfig
from fsrep_btrfs.storage import BtrfsStorage
from fsrep_core import (
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InventoryRequest,
    ReceiveRequest,
    SendRequest,
)
from fsrep_core.planning import Policy
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.testing.trees import compare_trees

JOB = "job"
POOL_BYTES = 1 << 30

SUBVOLUME_INODE = 256
SET_FLAGS = 0x4008941A  # BTRFS_IOC_SUBVOL_SETFLAGS, linux/btrfs.h
READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY


def why_not():
    """Say what is missing for these tests; ``None`` = nothing."""
    if os.geteuid() != 0:
        return "mounting file systems needs root"
    missing = [name for name in ("btrfs", "mkfs.btrfs", "filefrag") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: install btrfs-progs and e2fsprogs"
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text():
        return "this kernel has no btrfs"
    return None


def run(*argv, check=True):
    """Run a program; give what it printed."""
    return subprocess.run(argv, check=check, capture_output=True, text=True).stdout


def btrfs(*arguments):
    """Run ``btrfs``; give what it printed."""
    return run("btrfs", *arguments)


def send_and_receive(snapshot, directory):
    """Replicate as a shell would."""
    program = shutil.which("btrfs")
    with subprocess.Popen((program, "send", "-q", snapshot), stdout=subprocess.PIPE) as sender:
        subprocess.run((program, "receive", "-q", directory), stdin=sender.stdout, check=True)
    assert sender.returncode == 0


@contextlib.contextmanager
def mounted(image, point):
    """Make a btrfs in an image and mount it."""
    run("mkfs.btrfs", "-q", image)
    point.mkdir()
    run("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        run("umount", "--lazy", point)


@contextlib.contextmanager
def bound(directory, point):
    """Mount a directory at another place."""
    run("mount", "--bind", directory, point)
    try:
        yield
    finally:
        run("umount", point)


@pytest.fixture(scope="session")
def pools():
    """Three file systems, mounted whole."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fsrep-btrfs-")))
        points = []
        for name in "abc":
            image = directory / f"{name}.img"
            with image.open("wb") as file:
                file.truncate(POOL_BYTES)
            points.append(stack.enter_context(mounted(image, directory / name)))
        yield points


def subvolumes_below(path):
    """List the paths of all subvolumes below a directory, deepest first."""
    found = []
    for directory, names, _ in os.walk(path):
        paths = [Path(directory, name) for name in names]
        found += [path for path in paths if path.lstat().st_ino == SUBVOLUME_INODE]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


@pytest.fixture
def site_roots(pools, request):
    """Make a directory on each file system, empty again after the test."""
    roots = [pool / request.node.name for pool in pools]
    for root in roots:
        root.mkdir()
    yield roots
    for root in roots:
        for path in subvolumes_below(root):
            btrfs("subvolume", "delete", path)
        shutil.rmtree(root)


@attrs.define(eq=False)
class Site:
    """A storage over a root of its own, and what tests want to do and know there."""

    root: Path
    options: dict = attrs.field(factory=dict)
    storage: BtrfsStorage = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.reopen()

    def reopen(self, **options):
        """Make the storage anew, as another process would, perhaps with other options."""
        self.options |= options
        self.storage = BtrfsStorage(BtrfsConfig(root=self.root, **self.options))

    def subvolume(self, name):
        btrfs("subvolume", "create", self.root / name)
        return self.root / name

    async def snapshot(self, name, filesystem="docs"):
        (result,) = await self.storage.create_version(
            CreateVersionRequest(job=JOB, filesystems=(filesystem,), name=name)
        )
        assert result.problem is None, result.problem
        return result.version

    async def filesystem(self, name="docs", job=JOB):
        inventory = await self.storage.inventory(InventoryRequest(job=job))
        return next((each for each in inventory.filesystems if each.name == name), None)

    async def versions(self, filesystem="docs"):
        """Give guids by name."""
        found = await self.filesystem(filesystem)
        return {each.name: each.guid for each in found.versions} if found else {}

    async def cursor(self, filesystem="docs"):
        return await self.storage.replication_cursor(CursorRequest(job=JOB, filesystem=filesystem))

    async def destroy(self, versions, filesystem="docs"):
        return await self.storage.destroy_versions(
            DestroyVersionsRequest(job=JOB, filesystem=filesystem, versions=tuple(versions))
        )

    def place(self, name, filesystem="docs"):
        return self.root / "snapshots" / filesystem / f"@{name}" / "snapshot"

    def left_behind(self):
        """List what is in the staging directories.

        An empty one does not count: a kill between a commit and its removal leaves it for
        the next receive of that filesystem.
        """
        staging = self.root / "snapshots" / ".fsrep" / "staging"
        return sorted(staging.glob("*/*")) if staging.exists() else []


@pytest.fixture
def sites(site_roots):
    """Three storages, on a file system each."""
    return [Site(root) for root in site_roots]


async def replicate(sender, receiver, to_version, from_version=None, filesystem="docs", **wrap):
    """Carry out one step; give the receiver's version and how many bytes it took."""
    request = {
        "job": JOB,
        "filesystem": filesystem,
        "to_version": to_version,
        "from_version": from_version,
    }
    rollback = wrap.pop("rollback", ())
    change = wrap.pop("change", lambda stream: stream)
    assert not wrap
    async with sender.storage.send(SendRequest(**request)) as response:
        stream = change(response.stream)
        received = await receiver.storage.receive(
            ReceiveRequest(**request, rollback=rollback), stream
        )
    return received.version


async def run_job(sender, receiver, **options):
    """Run a job with the driver, as ``fsrep run`` does; give its report."""
    policy = Policy(**{key: options.pop(key) for key in ("initial", "diverged") if key in options})
    settings = JobSettings(name=JOB, retry_for_seconds=0, policy=policy, **options)
    driver = Driver(
        settings,
        Endpoint(sender.storage, name="sender"),
        Endpoint(receiver.storage, name="receiver"),
    )
    return await driver.run()


def same_content(path_a, path_b):
    """Say how two trees differ; ``[]`` = they do not."""
    return compare_trees(path_a, path_b)


def set_readonly(path, *, readonly):
    """Flip the flag as tools before btrfs-progs 5.14 did: the received UUID stays."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("Q", READ_ONLY if readonly else 0))
    finally:
        os.close(descriptor)


@pytest.fixture
def tools():
    """Give the helpers of this file to test modules, which cannot import it."""
    return Tools


class Tools:
    """See :func:`tools`."""

    Site = Site
    bound = staticmethod(bound)
    send_and_receive = staticmethod(send_and_receive)
    btrfs = staticmethod(btrfs)
    run = staticmethod(run)
    replicate = staticmethod(replicate)
    run_job = staticmethod(run_job)
    same_content = staticmethod(same_content)
    set_readonly = staticmethod(set_readonly)
    subvolumes_below = staticmethod(subvolumes_below)
