"""What the engine says when it cannot go on, in a form that crosses a process boundary.

A :class:`Failure` is the engine's only error of its own. The kinds are those of
:mod:`fsrep_core.errors`, which this package must not import: a child process starts with
the standard library alone.
"""

from __future__ import annotations

import errno
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Failure", "from_os_error", "quoted"]

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


class Failure(Exception):  # noqa: N818  (what is raised is what is reported)
    """Something that was attempted, on what, and what happened.

    :param kind: the ``kind`` of the error class that the plugin raises for it
    :param temporary: ``None`` takes the answer of that class
    :param local: ``None`` takes the answer of that class
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        hint: str | None = None,
        temporary: bool | None = None,
        local: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.temporary = temporary
        self.local = local

    def facts(self) -> dict[str, Any]:
        """The failure as plain values."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "temporary": self.temporary,
            "local": self.local,
        }

    def to_json(self) -> str:
        """The failure on one line."""
        return json.dumps(self.facts())


def from_os_error(error: OSError, attempted: str) -> Failure:
    """Give the failure that an operating system's error means.

    :param attempted: what was being done and on what, to stand before the reason
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    named = ""
    if isinstance(error.filename, str | bytes):
        named = f" ({quoted(os.fsencode(error.filename))})"
    message = f"{attempted}: {reason}{named}"
    if error.errno in _OUT_OF_SPACE:
        hint = "make room or raise the quota, then run again"
        return Failure("out-of-space", message, hint=hint)
    if error.errno in _FORBIDDEN:
        hint = "run as the owner of these files, or as root"
        return Failure("permission-denied", message, hint=hint)
    if error.errno == errno.EROFS:
        hint = "mount that filesystem for writing, then run again"
        return Failure("permission-denied", message, hint=hint)
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        hint = "directories are nested deeper than the limit of open files (ulimit -n) allows"
        return Failure("storage", message, hint=hint)
    return Failure("storage", message)


def quoted(path: bytes) -> str:
    """A path as a message shows it: one line, whatever its bytes."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
