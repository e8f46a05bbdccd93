"""Where everything lies under a root, and what counts as a version.

::

    ROOT/photos/2024/                      the live tree (on a sender)
    ROOT/.fsrep/%format                    the layout's format
    ROOT/.fsrep/photos/2024/               the store of the filesystem photos/2024
        @daily-1/                          a snapshot: tree/ manifest index version.json
        #fsrep-cursor-job-GUID/            a bookmark: manifest version.json
        %lock %cursor-lock                 who may write
        %partial/                          a receive that is not complete
        %new-… %trash-…                    what is being made or removed

Stores nest by component, so an inventory reads as many directories as there are
filesystems and versions, and never a live tree. A version is complete exactly if its
folder has its name: folders are filled under a ``%`` name and renamed, once.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .failures import Failure
from .names import STORE, check_filesystem
from .removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = [
    "BOOKMARK",
    "PARTIAL",
    "SNAPSHOT",
    "FilesystemStore",
    "Root",
    "StoredVersion",
    "sync_directory",
    "write_durably",
    "write_private",
]

SNAPSHOT = "snapshot"
BOOKMARK = "bookmark"
PARTIAL = "%partial"
_FORMAT_FILE = "%format"
_FORMAT = "fsrep-directory-store 1\n"
_MARKS = {"@": SNAPSHOT, "#": BOOKMARK}


class StoredVersion(NamedTuple):
    """One version as its ``version.json`` tells it."""

    kind: str
    name: str
    guid: str
    order: int
    created: float
    manifest_digest: str
    entries: int
    cursor_job: str | None = None
    """The job whose replication cursor this bookmark is."""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return ("@" if self.kind == SNAPSHOT else "#") + self.name

    def to_json(self) -> str:
        """What stands in ``version.json``."""
        return json.dumps(self._asdict(), indent=1) + "\n"


class Root:
    """One root directory and the store in it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.store = f"{path}/{STORE}"

    def exists(self) -> bool:
        """Whether there is a store to read.

        :raises Failure: there is one that a later fsrep made
        """
        try:
            with open(f"{self.store}/{_FORMAT_FILE}", encoding="utf-8") as file:
                found = file.read(200)
        except FileNotFoundError:
            return False
        if found != _FORMAT:
            raise Failure(
                "storage",
                f"the store {self.store!r} has the format {found.strip()!r}, "
                f"and this fsrep knows {_FORMAT.strip()!r}",
                hint="use the fsrep that wrote it, or a later one",
                local=False,
            )
        return True

    def prepare(self) -> None:
        """Make the store if there is none. Only its owner may look into it."""
        if self.exists():
            return
        with suppress(FileExistsError):
            os.mkdir(self.store, 0o700)
        write_durably(f"{self.store}/{_FORMAT_FILE}", _FORMAT.encode())
        sync_directory(self.store)
        sync_directory(self.path)

    def filesystem(self, name: str) -> FilesystemStore:
        """The store of one filesystem, which need not exist.

        :raises Failure: the name cannot be one
        """
        check_filesystem(name)
        return FilesystemStore(self, name)

    def filesystems(self) -> Iterator[FilesystemStore]:
        """The stores that exist, parents before children."""
        pending = [""]
        while pending:
            name = pending.pop()
            children = []
            try:
                with os.scandir(f"{self.store}/{name}") as entries:
                    children = [entry.name for entry in entries if entry.name[0] not in "@#%"]
            except FileNotFoundError:
                continue
            if name:
                yield FilesystemStore(self, name)
            pending += [f"{name}/{child}" if name else child for child in sorted(children)[::-1]]


class FilesystemStore:
    """The versions of one filesystem on disk."""

    def __init__(self, root: Root, name: str) -> None:
        self.root = root
        self.name = name
        self.live = f"{root.path}/{name}"
        self.path = f"{root.store}/{name}"

    def versions(self) -> list[StoredVersion]:
        """All complete versions, in their order, a bookmark before its snapshot."""
        found = []
        try:
            folders = os.listdir(self.path)
        except FileNotFoundError:
            return []
        for folder in folders:
            if folder[0] in _MARKS:
                with suppress(FileNotFoundError):  # destroyed while we look
                    found.append(self._read(folder))
        return sorted(found, key=lambda each: (each.order, each.kind))

    def find(self, guid: str, *, kind: str | None = None) -> StoredVersion | None:
        """The version with this guid, a snapshot rather than a bookmark."""
        found = [
            each
            for each in self.versions()
            if each.guid == guid and (kind is None or each.kind == kind)
        ]
        return found[-1] if found else None

    def need(self, guid: str, *, kind: str | None = None) -> StoredVersion:
        """The same, where its absence is a failure."""
        version = self.find(guid, kind=kind)
        if version is None:
            raise Failure(
                "version-missing",
                f"the {kind or 'version'} with the guid {guid} of {self.name!r} is gone",
                hint="the next plan will be made without it",
            )
        return version

    def next_order(self) -> int:
        """What sorts a new version after all that are there."""
        versions = self.versions()
        return versions[-1].order + 1 if versions else 1

    def prepare(self) -> None:
        """Make the folder of this store, and those that lead to it."""
        self.root.prepare()
        path = self.root.store
        for component in self.name.split("/"):
            path += f"/{component}"
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)

    @contextmanager
    def locked(self, name: str = "%lock", *, wait: bool = False) -> Iterator[None]:
        """Be the only one who makes versions here, or moves cursors.

        :raises Failure: somebody else is
        """
        self.prepare()
        descriptor = os.open(f"{self.path}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Failure(
                    "busy",
                    f"another process is making a version of {self.name!r}",
                    hint="wait for it to end",
                ) from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def in_use(self, version: StoredVersion) -> Iterator[None]:
        """Keep a version from being destroyed.

        :raises Failure: it is gone already
        """
        path = f"{self.path}/{version.folder}/version.json"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.need(version.guid, kind=version.kind)
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            try:
                same = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:
                self.need(version.guid, kind=version.kind)
            yield
        finally:
            os.close(descriptor)

    def retire(self, version: StoredVersion) -> str:
        """Make a version disappear at once; what it held is left in a folder to remove.

        :returns: the path of that folder
        :raises Failure: somebody uses the version
        """
        path = f"{self.path}/{version.folder}"
        descriptor = os.open(f"{path}/version.json", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure(
                    "busy",
                    f"{self.name}{version.folder} is being sent, or is the base of a receive",
                    hint="destroy it when that has ended",
                ) from None
            trash = f"{self.path}/%trash-{os.urandom(8).hex()}"
            os.rename(path, trash)
        finally:
            os.close(descriptor)
        return trash

    def clean(self) -> None:
        """Remove what crashed processes left. Call it under the lock."""
        for folder in os.listdir(self.path):
            if folder.startswith(("%new-", "%trash-")):
                remove_tree(f"{self.path}/{folder}")

    def nested(self) -> set[bytes]:
        """The filesystems below this one, as paths below its live tree."""
        prefix = self.name + "/"
        return {
            os.fsencode(each.name.removeprefix(prefix))
            for each in self.root.filesystems()
            if each.name.startswith(prefix) and each.versions()
        }

    def _read(self, folder: str) -> StoredVersion:
        path = f"{self.path}/{folder}/version.json"
        try:
            with open(path, encoding="utf-8") as file:
                facts: dict[str, Any] = json.load(file)
            version = StoredVersion(**facts)
        except (ValueError, TypeError) as error:
            raise Failure(
                "storage",
                f"the version {path!r} is damaged: {error}",
                hint="move its folder out of the store",
            ) from error
        return version


def write_private(path: str, content: bytes, *, sync: bool = False) -> None:
    """Write a file that only the store's owner can read: it names what others may not see.

    :param sync: make its content durable
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: str, content: bytes) -> None:
    """Write such a file so that it is there, whole, after a loss of power, or not at all."""
    temporary = f"{path}-{os.getpid()}"  # two processes may be about it at once
    write_private(temporary, content, sync=True)
    os.rename(temporary, path)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
