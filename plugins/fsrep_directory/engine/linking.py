"""Links from the base's tree what a new tree shares with it, beside the one who builds.

An incremental receive is mostly links. A few threads make them: the kernel does the work
while Python lets go of its lock, and two threads nearly double the rate. Each directory
belongs to one thread, whose orders come in turn: first its links, then its attributes,
which the links would change.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from typing import NamedTuple

from .extents import copy_content, data_extents
from .failures import Failure, quoted
from .folders import Folder, create_file
from .records import Entry, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attributes import Restorer

__all__ = ["Linker"]

_WORKERS = 2
_BATCH_LIMIT = 256
_FOLDERS_LIMIT = 256
"""Directories that may wait, with two descriptors each, before the builder waits too."""
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Order(NamedTuple):
    folder: Folder
    links: list[tuple[bytes, bytes]]
    is_last: bool


class Linker:
    """The threads, and what they are told.

    :param resumed: a link that is there already is the one that was asked for
    """

    def __init__(self, restorer: Restorer, *, resumed: bool) -> None:
        self._restorer = restorer
        self._resumed = resumed
        self._failure: BaseException | None = None
        self._waiting_folders = 0
        # A lock among the orders is released when all before it are done; None ends.
        self._queues: list[queue.SimpleQueue[_Order | threading.Lock | None]] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads: there is something to link from."""
        for _ in range(_WORKERS):
            orders: queue.SimpleQueue[_Order | threading.Lock | None] = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(orders,), daemon=True)
            self._queues.append(orders)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads; what they were told before is done, unless something failed."""
        for orders in self._queues:
            orders.put(None)
        for thread in self._threads:
            thread.join()

    def link(self, folder: Folder, name: bytes, line: bytes) -> None:
        """Take an entry that is no directory from the base.

        :param line: its record
        :raises Failure: or an :class:`OSError`, also from an earlier link
        """
        folder.links.append((name, line))
        if len(folder.links) >= _BATCH_LIMIT:
            self._hand_over(folder, is_last=False)

    def complete(self, folder: Folder) -> None:
        """Make what was asked for in a folder, then its attributes, and close it."""
        if not self._queues:
            self._complete(folder)
            return
        self._hand_over(folder, is_last=True)
        self._waiting_folders += 1
        if self._waiting_folders >= _FOLDERS_LIMIT:
            self.settle(())

    def settle(self, folders: tuple[Folder, ...]) -> None:
        """Wait until all that was asked for is made, also in these folders.

        :raises Failure: or an :class:`OSError`: something of it failed
        """
        for folder in folders:
            if folder.links:
                self._hand_over(folder, is_last=False)
        marks = [threading.Lock() for _ in self._queues]
        for mark, orders in zip(marks, self._queues, strict=True):
            mark.acquire()
            orders.put(mark)
        for mark in marks:
            mark.acquire()
        self._waiting_folders = 0
        self._check()

    def _hand_over(self, folder: Folder, *, is_last: bool) -> None:
        self._queues[folder.worker % _WORKERS].put(_Order(folder, folder.links, is_last))
        folder.links = []
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self, orders: queue.SimpleQueue[_Order | threading.Lock | None]) -> None:
        while (order := orders.get()) is not None:
            if not isinstance(order, _Order):
                order.release()
                continue
            try:
                if self._failure is None:
                    self._link_all(order.folder, order.links)
            except BaseException as error:  # noqa: BLE001  (raised again by the one who waits)
                self._failure = self._failure or error
            if order.is_last:
                self._complete(order.folder)

    def _complete(self, folder: Folder) -> None:
        try:
            if self._failure is None and folder.entry is not None:
                self._restorer.restore(folder.descriptor, folder.entry)
        except OSError as error:
            if not self._queues:
                raise
            self._failure = error
        finally:
            folder.close()

    def _link_all(self, folder: Folder, links: list[tuple[bytes, bytes]]) -> None:
        base, descriptor, link = folder.base, folder.descriptor, os.link
        for name, line in links:
            try:
                link(name, name, src_dir_fd=base, dst_dir_fd=descriptor, follow_symlinks=False)
            except FileExistsError:
                if not self._resumed:
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
            target = create_file(folder, name, 0o600)
            try:
                info = os.fstat(source)
                extents = data_extents(source, info.st_size, info.st_blocks)
                copy_content(source, target, info.st_size, extents)
                self._restorer.restore(target, entry)
            finally:
                os.close(target)
        finally:
            os.close(source)
