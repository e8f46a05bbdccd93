"""A laboratory: two roots, and the engine driven in this process, without a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile

import attrs
import pytest

import fsrep_directory.engine.create
import fsrep_directory.engine.partial
import nobody
from fsrep_core.testing.trees import compare_trees
from fsrep_directory.engine.create import create
from fsrep_directory.engine.destroy import destroy
from fsrep_directory.engine.failures import Failure
from fsrep_directory.engine.inventory import inventory
from fsrep_directory.engine.receive import receive
from fsrep_directory.engine.send import estimate, send
from fsrep_directory.engine.store import Root, StoredVersion
from nobody import NOBODY


@attrs.define(eq=False)
class Laboratory:
    """A sender and a receiver of one filesystem, ``docs``."""

    path: str

    def __attrs_post_init__(self):
        os.makedirs(self.live)
        os.makedirs(self.root("receiver"))

    def root(self, side):
        return f"{self.path}/{side}"

    @property
    def live(self):
        return f"{self.root('sender')}/docs"

    def store(self, side):
        return Root(self.root(side)).filesystem("docs")

    def tree(self, side, version):
        return f"{self.store(side).path}/@{version.name}/tree"

    def create(self, name, filesystem="docs"):
        """Make a version; give it and its warnings."""
        request = {"root": self.root("sender"), "filesystems": [filesystem], "name": name}
        (result,) = create(request)["results"]
        if "failure" in result:
            raise Failure(**result["failure"])
        return StoredVersion(**result["version"]), result["warnings"]

    def ask(self, version, base=None, token=None):
        return {
            "root": self.root("sender"),
            "filesystem": "docs",
            "to_guid": version.guid,
            "from_guid": base.guid if base else None,
            "token": token,
        }

    def stream(self, version, base=None, token=None):
        """The bytes of a stream."""
        with tempfile.TemporaryFile() as file:
            send(self.ask(version, base, token), file.fileno())
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def size(self, version, base=None, token=None):
        return estimate(self.ask(version, base, token))

    def receive(self, data, version, base=None, *, token=None, vouched=True, **options):
        """Take a stream from memory."""
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            request = {
                **self.ask(version, base, token),
                "root": self.root("receiver"),
                "name": version.name,
                "clear": options.get("clear", False),
                "rollback": [each.guid for each in options.get("rollback", ())],
            }
            return receive(request, file.fileno(), lambda: vouched)

    def replicate(self, version, base=None, **options):
        return self.receive(self.stream(version, base), version, base, **options)

    def listed(self, side):
        """The filesystem ``docs`` as its side lists it; ``None`` = it does not."""
        found = inventory(self.root(side), "job", (), may_lack=False)
        return next((each for each in found if each.name == "docs"), None)

    def names(self, side):
        found = self.listed(side)
        return [each.folder for each in found.versions] if found else []

    def token(self):
        found = self.listed("receiver")
        return found.token["value"] if found and found.token else None

    def destroy(self, side, *versions):
        wanted = [{"kind": each.kind, "guid": each.guid} for each in versions]
        request = {"root": self.root(side), "filesystem": "docs", "versions": wanted}
        return destroy(request)["results"]

    def check(self, version, *, live=True):
        """See that the version is the same on both sides, and the live tree's."""
        sender, receiver = self.tree("sender", version), self.tree("receiver", version)
        assert compare_trees(sender, receiver) == []
        if live:
            assert compare_trees(self.live, sender) == []
        assert self.manifest("sender", version) == self.manifest("receiver", version)

    def manifest(self, side, version):
        with open(f"{self.store(side).path}/@{version.name}/manifest", "rb") as file:
            return file.read()

    def write(self, name, content=b"content"):
        path = os.path.join(os.fsencode(self.live), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path


@pytest.fixture
def some_acl():
    """An ACL that is more than a mode, as the kernel gives it (posix_acl_xattr.h)."""
    entries = (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 1234),
        (4, 4, 0xFFFFFFFF),
        (8, 7, 77),
        (16, 7, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


class AsNobody:
    """Runs a function in a child process without root, and gives its JSON answer."""

    def give(self, path):
        """Give everything below to nobody, and let nobody come to it."""
        for folder, names, files in os.walk(path):
            for name in ["", *names, *files]:
                os.chown(os.path.join(folder, name), NOBODY, NOBODY, follow_symlinks=False)
        nobody.let_in(path)

    def __call__(self, function):
        read_end, write_end = os.pipe()

        def work():
            try:
                answer = function()
            except Failure as failure:
                answer = failure.facts()
            os.write(write_end, json.dumps(answer).encode())

        nobody.as_nobody(work)
        os.close(write_end)
        with open(read_end, "rb") as file:
            return json.loads(file.read())


@pytest.fixture
def as_nobody():
    return AsNobody()


@pytest.fixture(autouse=True)
def engine_surroundings(monkeypatch):
    """The engine's umask, and no waiting for disks: ``disk_order`` shows what is synced when."""
    for module in (fsrep_directory.engine.create, fsrep_directory.engine.partial):
        monkeypatch.setattr(module, "sync_filesystem", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def disk_order(monkeypatch, engine_surroundings):
    """What is made durable and what is renamed, in order, by the last name of each path."""
    seen = []
    rename = os.rename

    def name_of(descriptor):
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    def rename_and_tell(*paths):
        seen.append(("rename", *(os.path.basename(path).partition("-")[0] for path in paths)))
        rename(*paths)

    for module in (fsrep_directory.engine.create, fsrep_directory.engine.partial):
        monkeypatch.setattr(
            module, "sync_filesystem", lambda descriptor: seen.append(("all", name_of(descriptor)))
        )
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(("one", name_of(descriptor))))
    monkeypatch.setattr(os, "rename", rename_and_tell)
    return seen


@contextlib.contextmanager
def _laboratory(parent):
    path = tempfile.mkdtemp(dir=parent)
    try:
        yield Laboratory(path)
    finally:
        shutil.rmtree(path)


@pytest.fixture
def laboratory(tmp_path):
    return Laboratory(str(tmp_path))


@pytest.fixture
def laboratories(tmp_path):
    """A maker of laboratories, for tests that need a fresh one for each example."""
    return lambda: _laboratory(tmp_path)
