"""Builds the tree of a new version: directory by directory, never by a path.

A :class:`TreeBuilder` is driven in the order of a manifest. It holds the descriptors of
the directories that lead to where it stands, and makes every entry by its last component
below one of them, without following a symbolic link. So nothing that a tree holds, or
that a stream says, can lead out of it, and no path is too long.
"""

from __future__ import annotations

import errno
import os
import stat

from .attributes import Restorer
from .failures import Failure, quoted
from .folders import Folder, create_file, open_subdirectory
from .linking import Linker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from .records import Entry

__all__ = ["TreeBuilder"]


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
        self._folders = [Folder(b"", tree, base, None, 0)]
        self._linker = Linker(self.restorer, resumed=resumed)
        if base >= 0:
            self._linker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads; what :meth:`finish` has not completed stays as it is."""
        self._linker.stop()
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
            self._linker.complete(folders.pop())
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
        made = Folder(entry.path, descriptor, base, entry, self._directories)
        self._folders.append(made)
        return made

    def file(self, folder: Folder, name: bytes, mode: int) -> int:
        """Make an empty file and give its descriptor, which the caller closes."""
        try:
            return create_file(folder, name, mode)
        except FileExistsError:
            self._replace(folder, name)
            return create_file(folder, name, mode)

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
            # A thread may still be about to link it.
            self._linker.settle(tuple(self._folders))
            try:
                self._link_within(folder, name, entry.target)
            except FileNotFoundError:
                raise _no_target(entry) from None
        except NotADirectoryError:
            raise _no_target(entry) from None

    def link(self, folder: Folder, name: bytes, line: bytes) -> None:
        """Take an entry that is no directory from the base, as its record says."""
        self._linker.link(folder, name, line)

    def finish(self) -> None:
        """Complete every directory. The tree is then as its manifest says.

        :raises Failure: or an :class:`OSError`, also from a link made earlier
        """
        while self._folders:
            self._linker.complete(self._folders.pop())
        self._linker.settle(())

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
