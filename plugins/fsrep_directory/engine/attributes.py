"""Reads and restores what an entry has beside its content: owner, mode, times, xattrs.

What cannot be restored is counted and told in one warning of each kind: a version whose
manifest is whole may still stand on a filesystem, or belong to a user, that cannot show
all of it. The manifest keeps the truth, and a send from here carries it on.

Without root, the owner of a version always keeps the right to read its files and to
search its directories; otherwise nobody could send, or even remove, what was received.
"""

from __future__ import annotations

import errno
import os

from . import acl
from .failures import quoted
from .records import parse_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .records import Entry

__all__ = ["Restorer", "is_carried", "read_xattrs"]

_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODATA})
_SPECIAL_BITS = 0o7000
_KEPT_FILE_MODE = 0o400
_KEPT_DIRECTORY_MODE = 0o500


def is_carried(name: bytes) -> bool:
    """Whether an extended attribute belongs to the content, not to the host's policy."""
    return (
        name.startswith((b"user.", b"trusted."))
        or name in (acl.ACCESS, acl.DEFAULT)
        or name == b"security.capability"
    )


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """The extended attributes that a version carries; none where there cannot be any.

    :param target: a descriptor, or a path whose last component is not followed
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return {}
        raise
    found = {}
    for text in names:
        name = os.fsencode(text)
        if is_carried(name):
            found[name] = os.getxattr(target, name, follow_symlinks=follow)
    return found


class Restorer:
    """Gives entries their attributes, in the one order that keeps them all."""

    def __init__(self) -> None:
        self.privileged = os.geteuid() == 0
        self._owner = (os.geteuid(), os.getegid())
        self._lost: dict[str, tuple[int, bytes, str]] = {}

    def visible_mode(self, entry: Entry) -> int:
        """The mode that the entry gets on disk."""
        if self.privileged:
            return entry.mode
        kept = _KEPT_DIRECTORY_MODE if entry.kind == b"d" else _KEPT_FILE_MODE
        if entry.mode & kept != kept:
            self._lose("withholding the owner's own access", entry.path, "not without root")
        return entry.mode | kept

    def restore(self, descriptor: int, entry: Entry, *, created_mode: int | None = None) -> None:
        """Give an open file or directory its owner, mode, xattrs and times.

        :param created_mode: the mode that it was created with; ``None`` = some other
        """
        mode = self.visible_mode(entry)
        changes_owner = (entry.uid, entry.gid) != self._owner
        if changes_owner:
            self._own(entry, lambda: os.chown(descriptor, entry.uid, entry.gid))
        # A change of owner or content takes the special bits away.
        if mode != created_mode or (mode & _SPECIAL_BITS):
            os.chmod(descriptor, mode)
        if entry.xattrs:
            self._set_xattrs(descriptor, entry)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def restore_named(self, name: bytes, directory: int, entry: Entry) -> None:
        """Do the same for a symbolic link or a fifo, which is not opened."""
        if (entry.uid, entry.gid) != self._owner:
            self._own(
                entry,
                lambda: os.chown(
                    name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False
                ),
            )
        if entry.kind != b"l":
            os.chmod(name, self.visible_mode(entry), dir_fd=directory)
        if entry.xattrs:
            self._set_xattrs(b"/proc/self/fd/%d/%b" % (directory, name), entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)

    def warnings(self) -> list[str]:
        """What could not be restored, one sentence for each kind."""
        return [
            f"{what} failed for {count} entries, first for {quoted(path)!r}: {why}"
            for what, (count, path, why) in sorted(self._lost.items())
        ]

    def _own(self, entry: Entry, change: Callable[[], None]) -> None:
        if not self.privileged:
            self._lose("restoring the owner", entry.path, "not without root")
            return
        try:
            change()
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._lose("restoring the owner", entry.path, error.strerror or str(error))

    def _set_xattrs(self, target: int | bytes, entry: Entry) -> None:
        for name, value in parse_xattrs(entry.xattrs).items():
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                what = f"restoring the extended attribute {quoted(name)!r}"
                self._lose(what, entry.path, error.strerror or str(error))

    def _lose(self, what: str, path: bytes, why: str) -> None:
        count, first_path, first_why = self._lost.get(what, (0, path, why))
        self._lost[what] = (count + 1, first_path, first_why)
