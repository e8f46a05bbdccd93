"""Real pools of OpenZFS, and storages over them.

Each test has pools of its own, on sparse files in memory; they are destroyed in every path
out. Where the kernel has no ZFS, ``tests/zfs_guest/run`` runs these tests in a guest. What
takes longest there is to start a process, so the helpers do without where they can.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import attrs
import pytest

from fsrep_core import (
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InventoryRequest,
    ReceiveRequest,
    SendRequest,
    Side,
    VersionKind,
)
from fsrep_core.planning import Policy
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.options import structure_options
from fsrep_core.runtime.settings import JobSettings
from fsrep_core.testing import StorageHarness, differences, read_tree
from fsrep_zfs.config import ZfsConfig
from fsrep_zfs.storage import ZfsStorage

__all__ = [
    "ENCRYPTED",
    "KEY",
    "Pool",
    "Site",
    "ZfsHarness",
    "carry_out",
    "drive",
    "make_pool",
    "replicate",
    "run_job",
    "zfs",
    "zfs_pools",
    "zfs_sites",
]

JOB = "job"
POOL_BYTES = 1 << 30
MEMORY = "/dev/shm"  # noqa: S108  (the pools' files are in memory, and private to this user)

KEY = 4 * "0123456789abcdef"
"""Not a passphrase: to derive a key from one takes seconds where the machine is emulated."""
ENCRYPTED = {"encryption": "on", "keyformat": "hex", "key": KEY}

ZVOL_ID = "/lib/udev/zvol_id"
DEVICE_TIMEOUT_SECONDS = 30

MOUNT_READ_ONLY = 1
"""``MS_RDONLY`` of ``mount(2)``."""

numbers = itertools.count(1)
libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    """Say what is missing for these tests; ``None`` = nothing."""
    if os.geteuid() != 0:
        return "making pools needs root"
    if not Path("/dev/zfs").exists():
        return "this kernel has no ZFS; tests/zfs_guest/run runs a command where it has"
    return None


def run(*argv, check=True, **options):
    """Run a program, which reads no locale's files; give what it printed."""
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        **options,
    )
    if check and done.returncode:
        raise AssertionError(f"{argv}: status {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def zfs(*arguments, **options):
    """Run ``zfs``; give what it printed."""
    return run("zfs", *arguments, **options)


@contextlib.contextmanager
def mounted(snapshot):
    """Mount a snapshot, without a process; give where, ``None`` = it is of a volume."""
    with tempfile.TemporaryDirectory() as point:
        if libc.mount(snapshot.encode(), point.encode(), b"zfs", MOUNT_READ_ONLY, None):
            number = ctypes.get_errno()
            if number != errno.EINVAL:
                raise OSError(number, os.strerror(number), snapshot)
            yield None
            return
        try:
            yield point
        finally:
            assert not libc.umount2(point.encode(), 0), snapshot


@attrs.define(eq=False)
class Pool:
    """A pool on a file, with a directory to mount its filesystems in."""

    name: str
    directory: Path

    @property
    def mounts(self):
        return self.directory / "mounts"


@contextlib.contextmanager
def make_pool(*, size_bytes=POOL_BYTES, features=()):
    """Make a pool; destroy it whatever happened to it."""
    with tempfile.TemporaryDirectory(prefix="fsrep-zfs-", dir=MEMORY) as path:
        pool = Pool(f"fsrep{os.getpid()}n{next(numbers)}", Path(path))
        pool.directory.chmod(0o755)
        image = pool.directory / "vdev"
        with image.open("wb") as file:
            file.truncate(size_bytes)
        settings = [f"-o{each}" for each in ("cachefile=none", *features)]
        run("zpool", "create", *settings, "-O", f"mountpoint={pool.mounts}", pool.name, image)
        try:
            yield pool
        finally:
            run("zpool", "destroy", "-f", pool.name)


@attrs.define(eq=False)
class Site:
    """A storage over a root of its own, and what tests want to do and know there."""

    pool: Pool
    options: dict = attrs.field(factory=dict)
    storage: ZfsStorage = attrs.field(init=False)

    def __attrs_post_init__(self):
        self.reopen()

    @property
    def root(self):
        return self.options.get("root") or self.pool.name

    def reopen(self, **options):
        """Make the storage anew, as another process would, perhaps with other options."""
        self.options |= options
        given = {"root": self.root} | self.options
        self.storage = ZfsStorage(structure_options(ZfsConfig, given, "options"))

    def dataset(self, name="docs"):
        return f"{self.root}/{name}" if name else self.root

    def filesystem(self, name="docs", **properties):
        """Make a filesystem; give where it is mounted."""
        self._create(name, (), properties)
        return self.mounted_at(name)

    def mounted_at(self, name):
        """Give where a filesystem is mounted, without a process; ``None`` = nowhere."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            dataset, path = [word.replace("\\040", " ") for word in line.split()[:2]]
            if dataset == self.dataset(name):
                return Path(path)
        return None

    def volume(self, name, size_bytes=8 << 20, **properties):
        """Make a volume."""
        self._create(name, ("-s", "-V", str(size_bytes)), properties)

    def _create(self, name, arguments, properties):
        stdin = properties.pop("key", None)
        settings = [word for each in properties.items() for word in ("-o", "=".join(each))]
        zfs("create", "-p", *arguments, *settings, self.dataset(name), input=stdin)

    def get(self, name, properties, *options):
        """Give the value of a property, or what else ``zfs get`` is asked for."""
        return zfs("get", "-Hp", *(options or ("-o", "value")), properties, self.dataset(name))[:-1]

    def exists(self, name):
        """Say whether a dataset, snapshot or bookmark exists, given below the root."""
        argv = ("zfs", "list", "-Ht", "all", self.dataset(name))
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def write(self, number, name="docs", size_bytes=1 << 20):
        """Write bytes that do not compress into a file of a filesystem."""
        path = self.mounted_at(name) / f"file{number}"
        path.write_bytes(os.urandom(size_bytes))
        return path

    async def snapshot(self, name, filesystem="docs"):
        (result,) = await self.storage.create_version(
            CreateVersionRequest(job=JOB, filesystems=(filesystem,), name=name)
        )
        assert result.problem is None, result.problem
        return result.version

    async def listed(self, name="docs", job=JOB):
        """Give what the inventory says of one filesystem, or ``None``."""
        inventory = await self.storage.inventory(InventoryRequest(job=job))
        return next((each for each in inventory.filesystems if each.name == name), None)

    async def version(self, relative_name, filesystem="docs"):
        found = await self.listed(filesystem)
        return next(each for each in found.versions if each.relative_name == relative_name)

    async def versions(self, filesystem="docs"):
        """Give the guids of the snapshots by name."""
        found = await self.listed(filesystem)
        versions = found.versions if found else ()
        return {each.name: each.guid for each in versions if each.kind is VersionKind.SNAPSHOT}

    async def cursor(self, filesystem="docs", move_to=None):
        return await self.storage.replication_cursor(
            CursorRequest(job=JOB, filesystem=filesystem, move_to=move_to)
        )

    async def destroy(self, versions, filesystem="docs"):
        return await self.storage.destroy_versions(
            DestroyVersionsRequest(job=JOB, filesystem=filesystem, versions=tuple(versions))
        )

    def holds(self, *snapshots):
        """Give the tags on snapshots, sorted."""
        names = [self.dataset(each) for each in snapshots]
        return sorted(line.split("\t")[1] for line in zfs("holds", "-H", *names).splitlines())

    def content(self, name, snapshot):
        """Read a snapshot without the storage's hooks, though its filesystem is not mounted."""
        dataset = self.dataset(name)
        with mounted(f"{dataset}@{snapshot}") as point:
            if point is not None:
                return read_tree(point)
        # What was received has no device, and gets those of its snapshots only after its own.
        for setting in ("volmode=dev", "snapdev=visible"):
            zfs("set", setting, dataset)
        return hashlib.sha256(self.device(f"{name}@{snapshot}").read_bytes()).hexdigest()

    def device(self, name):
        """Find the device of a volume or of its snapshot, also where nobody links to it."""
        deadline = time.monotonic() + DEVICE_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            for found in Path("/sys/block").glob("zd*"):
                device = Path("/dev", found.name)
                if run(ZVOL_ID, device, check=False).strip() == self.dataset(name):
                    return device
            time.sleep(0.1)
        raise AssertionError(f"no device appeared for {self.dataset(name)}")


def change_files(path, seed):
    """Alter, rename, delete and add."""
    before = sorted(path.glob("file*"))
    if len(before) > 2:
        before[0].unlink()
        before[1].rename(path / f"renamed{seed}")
        with before[2].open("ab") as file:
            file.write(b"altered")
    bytes_of = random.Random(seed)
    for number in range(4):
        (path / f"file{seed}-{number}").write_bytes(bytes_of.randbytes(100_000))


class ZfsHarness(StorageHarness):
    """Two sites; what changes are files of the first one's filesystems."""

    def __init__(self, sender, receiver):
        receiver.reopen(make_parents=False)
        self.sites = {Side.SENDER: sender, Side.RECEIVER: receiver}
        self.sender = sender.storage
        self.receiver = receiver.storage

    async def change(self, filesystem, seed):
        site = self.sites[Side.SENDER]
        change_files(site.mounted_at(filesystem) or site.filesystem(filesystem), seed)

    async def read(self, side, filesystem, version):
        return self.sites[side].content(filesystem, version.name)

    def differences(self, expected, found):
        return differences(expected, found)


@pytest.fixture
def zfs_pools():
    """Give what makes a pool for the length of a test."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(make_pool(**options))


@pytest.fixture
def zfs_sites(zfs_pools):
    """Two storages, on a pool each."""
    return [Site(zfs_pools()) for _ in range(2)]


async def replicate(*args, **options):
    """Carry out one step; give the receiver's version."""
    return (await carry_out(*args, **options)).version


async def carry_out(sender, receiver, to_version, from_version=None, filesystem="docs", **wrap):
    """Carry out one step; give the receiver's response."""
    request = {
        "job": JOB,
        "filesystem": filesystem,
        "to_version": to_version,
        "from_version": from_version,
        "intermediates": wrap.pop("intermediates", ()),
        "resume_token": wrap.pop("resume_token", None),
        "origin": wrap.pop("origin", None),
    }
    change = wrap.pop("change", lambda stream: stream)
    async with sender.storage.send(SendRequest(**request)) as response:
        stream = change(response.stream)
        return await receiver.storage.receive(ReceiveRequest(**request, **wrap), stream)


async def run_job(sender, receiver, **options):
    """Run a job between two sites; give its report."""
    ends = [
        Endpoint(site.storage, name=side)
        for site, side in ((sender, "sender"), (receiver, "receiver"))
    ]
    return await drive(*ends, **options)


async def drive(sender, receiver, **options):
    """Run a job with the driver, as ``fsrep run`` does; give its report."""
    names = {field.name for field in attrs.fields(Policy)}
    policy = Policy(**{key: options.pop(key) for key in names & set(options)})
    settings = JobSettings(**{"name": JOB, "retry_for_seconds": 0, "policy": policy, **options})
    return await Driver(settings, sender, receiver).run()
