"""Builds the tree of a new version: directory by directory, never by a path.

A :class:`TreeBuilder` is driven in the order of a manifest. It holds the descriptors of
the directories that lead to where it stands, and makes every entry by its last component
below one of them, without following a symbolic link. So nothing that a tree holds, or
that a stream says, can lead out of it, and no path is too long.

What a version shares with its base is linked from the base's tree. Those links, and the
attributes of directories that must come after them, are made by a few threads: the
kernel does the work while Python lets go of its lock, and two threads nearly double the
rate. Each directory belongs to one thread, whose queue keeps its links before its
attributes.
"""

from __future__ import annotations

import errno
import os
import queue
import stat
import threading

from .attributes import Restorer
from .extents import copy_content, data_extents
from .failures import Failure, quoted
from .records import Entry, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["Folder", "TreeBuilder", "open_directory", "open_subdirectory"]

_WORKERS = 2
_QUEUE_LIMIT = 64
_BATCH_LIMIT = 256
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(path: str) -> int:
    """Open the directory at a path that is our own."""
    return os.open(path, _OPEN_DIRECTORY)


def open_subdirectory(parent: int, name: bytes) -> int:
    """Open a directory by its name below another; a symbolic link is refused."""
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


class Folder:
    """A directory that is being filled."""

    __slots__ = ("base", "descriptor", "entry", "links", "path", "worker")

    def __init__(
        self, path: bytes, descriptor: int, base: int, entry: Entry | None, worker: int
    ) -> None:
        self.path = path
        """Of the entries below it, without the last slash; empty for the root."""
        self.descriptor = descriptor
        self.base = base
        """The same directory in the base's tree; -1 = it has none."""
        self.entry = entry
        self.worker = worker
        self.links: list[bytes] = []
        """Records of entries to be linked from the base."""

    def close(self) -> None:
        """Let go of both descriptors."""
        os.close(self.descriptor)
        if self.base >= 0:
            os.close(self.base)


class TreeBuilder:
    """Makes a tree, entry by entry, in the order of its manifest. A context manager.

    :param tree: descriptor of the empty root directory; the builder closes it
    :param base: descriptor of the root of the tree to link from, or -1; it closes it too
    :param resumed: what the tree already holds is met again and kept
    """

    def __init__(self, tree: int, base: int, *, resumed: bool = False) -> None:
        self.restorer = Restorer()
        self.resumed = resumed
        self._root = os.dup(tree)
        self._directories = 0
        self._failure: BaseException | None = None
        self._folders = [Folder(b"", tree, base, None, 0)]
        self._queues: list[queue.Queue[Folder | tuple[Folder, list[bytes]] | None]] = []
        self._threads: list[threading.Thread] = []
        if base >= 0:
            self._queues = [queue.Queue(_QUEUE_LIMIT) for _ in range(_WORKERS)]
            self._threads = [
                threading.Thread(target=self._work, args=(each,), daemon=True)
                for each in self._queues
            ]
            for thread in self._threads:
                thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads; what :meth:`finish` has not completed stays as it is."""
        for each in self._queues:
            each.put(None)
        for thread in self._threads:
            thread.join()
        for folder in self._folders:
            folder.close()
        os.close(self._root)

    def root(self, entry: Entry) -> None:
        """Say what the root of the tree shall be, which is there already."""
        self._folders[0].entry = entry

    def enter(self, parent: bytes) -> Folder:
        """The folder with this path, which must be one that leads to where we stand.

        :raises Failure: the entry's parent is not a directory of this tree
        """
        folders = self._folders
        while folders[-1].path != parent:
            if len(folders) == 1:
                raise Failure(
                    "storage",
                    f"an entry lies in {quoted(parent)!r}, which is no directory of its tree",
                    hint="the stream or the manifest that it came from is damaged or hostile",
                )
            self._leave(folders.pop())
        return folders[-1]

    def directory(self, folder: Folder, name: bytes, entry: Entry, *, in_base: bool) -> Folder:
        """Make a directory and step into it.

        :param in_base: entries below it may be linked from the same place of the base
        """
        try:
            os.mkdir(name, 0o700, dir_fd=folder.descriptor)
        except FileExistsError:
            if not self.resumed:
                raise
        descriptor = open_subdirectory(folder.descriptor, name)
        base = -1
        if in_base and folder.base >= 0:
            base = open_subdirectory(folder.base, name)
        if self.resumed and not self.restorer.privileged:
            os.chmod(descriptor, 0o700)
        self._directories += 1
        made = Folder(entry.path, descriptor, base, entry, self._directories % _WORKERS)
        self._folders.append(made)
        return made

    def file(self, folder: Folder, name: bytes, mode: int) -> int:
        """Make an empty file and give its descriptor, which the caller closes."""
        try:
            return os.open(name, _CREATE_FILE, mode, dir_fd=folder.descriptor)
        except FileExistsError:
            self._replace(folder, name)
            return os.open(name, _CREATE_FILE, mode, dir_fd=folder.descriptor)

    def symlink(self, folder: Folder, name: bytes, entry: Entry) -> None:
        """Make a symbolic link, whose target is only text here."""
        try:
            os.symlink(entry.target, name, dir_fd=folder.descriptor)
        except FileExistsError:
            self._replace(folder, name)
            os.symlink(entry.target, name, dir_fd=folder.descriptor)
        self.restorer.restore_named(name, folder.descriptor, entry)

    def fifo(self, folder: Folder, name: bytes, entry: Entry) -> None:
        """Make a fifo."""
        try:
            os.mkfifo(name, 0o600, dir_fd=folder.descriptor)
        except FileExistsError:
            self._replace(folder, name)
            os.mkfifo(name, 0o600, dir_fd=folder.descriptor)
        self.restorer.restore_named(name, folder.descriptor, entry)

    def hard_link(self, folder: Folder, name: bytes, entry: Entry) -> None:
        """Give an entry of this tree, made or linked before, a further name.

        :raises Failure: the target is no file, symbolic link or fifo of this tree
        """
        try:
            self._link_within(folder, name, entry.target)
        except FileNotFoundError:
            # It may still wait in a thread's queue.
            self.settle()
            try:
                self._link_within(folder, name, entry.target)
            except FileNotFoundError:
                raise _no_target(entry) from None
        except NotADirectoryError:
            raise _no_target(entry) from None

    def link(self, folder: Folder, line: bytes) -> None:
        """Take an entry that is no directory from the base, as its record says."""
        folder.links.append(line)
        if len(folder.links) >= _BATCH_LIMIT:
            self._submit(folder)

    def settle(self) -> None:
        """Wait until every link that was asked for is made."""
        for folder in self._folders:
            self._submit(folder)
        for each in self._queues:
            each.join()
        self._check()

    def finish(self) -> None:
        """Complete every directory. The tree is then as its manifest says.

        :raises Failure: or an :class:`OSError`, also from a link made earlier
        """
        while self._folders:
            self._leave(self._folders.pop())
        for each in self._queues:
            each.join()
        self._check()

    def _leave(self, folder: Folder) -> None:
        self._submit(folder)
        if self._queues:
            self._queues[folder.worker].put(folder)
        else:
            self._complete(folder)
        self._check()

    def _submit(self, folder: Folder) -> None:
        if folder.links:
            self._queues[folder.worker].put((folder, folder.links))
            folder.links = []
            self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self, orders: queue.Queue[Folder | tuple[Folder, list[bytes]] | None]) -> None:
        while True:
            order = orders.get()
            try:
                if order is None:
                    return
                if isinstance(order, Folder):
                    self._complete(order)
                elif self._failure is None:
                    self._link_all(*order)
            except BaseException as error:  # noqa: BLE001  (raised again by the one who waits)
                self._failure = self._failure or error
            finally:
                orders.task_done()

    def _complete(self, folder: Folder) -> None:
        try:
            if self._failure is None and folder.entry is not None:
                self.restorer.restore(folder.descriptor, folder.entry)
        finally:
            folder.close()

    def _link_all(self, folder: Folder, lines: list[bytes]) -> None:
        base, descriptor, link = folder.base, folder.descriptor, os.link
        for line in lines:
            name = line.partition(b"\t")[0].rpartition(b"/")[2]
            if b"\\" in name:
                name = parse_record(line).path.rpartition(b"/")[2]
            try:
                link(name, name, src_dir_fd=base, dst_dir_fd=descriptor, follow_symlinks=False)
            except FileExistsError:
                if not self.resumed:
                    raise
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                self._copy(folder, name, parse_record(line))

    def _copy(self, folder: Folder, name: bytes, entry: Entry) -> None:
        """Stand in for a link that the filesystem refuses: the file has too many."""
        if entry.kind != b"f":
            raise Failure(
                "storage",
                f"{quoted(entry.path)!r} has more hard links than the filesystem allows",
                hint="destroy old versions: each holds one more",
            )
        source = os.open(name, _READ_FILE, dir_fd=folder.base)
        try:
            target = self.file(folder, name, 0o600)
            try:
                info = os.fstat(source)
                extents = data_extents(source, info.st_size, info.st_blocks)
                copy_content(source, target, info.st_size, extents)
                self.restorer.restore(target, entry)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _link_within(self, folder: Folder, name: bytes, target: bytes) -> None:
        parent, _, target_name = target.rpartition(b"/")
        directory = self._walk(parent)
        try:
            info = os.stat(target_name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                raise NotADirectoryError
            arguments = {"src_dir_fd": directory, "dst_dir_fd": folder.descriptor}
            try:
                os.link(target_name, name, **arguments, follow_symlinks=False)
            except FileExistsError:
                self._replace(folder, name)
                os.link(target_name, name, **arguments, follow_symlinks=False)
        finally:
            os.close(directory)

    def _walk(self, path: bytes) -> int:
        for folder in reversed(self._folders):
            if folder.path == path:
                return os.dup(folder.descriptor)
        descriptor = os.dup(self._root)
        for name in path.split(b"/"):
            try:
                below = open_subdirectory(descriptor, name)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _replace(self, folder: Folder, name: bytes) -> None:
        """Take away what an interrupted receive left behind at this place."""
        if not self.resumed:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        os.unlink(name, dir_fd=folder.descriptor)


def _no_target(entry: Entry) -> Failure:
    return Failure(
        "storage",
        f"{quoted(entry.path)!r} is a hard link to {quoted(entry.target)!r}, "
        "which is no file of its tree",
        hint="nothing of it was used; the sender is broken or hostile",
    )
