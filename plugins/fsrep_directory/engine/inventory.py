"""Lists what a root has: filesystems, versions, cursors, partial receives."""

from __future__ import annotations

import os

from .cursor import cursor_of
from .failures import Failure, from_os_error
from .partial import read_token
from .store import FilesystemStore, Root, StoredVersion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Listed", "inventory"]

_PATTERN_MARKS = frozenset("*?[]!")


class Listed:
    """One filesystem of an inventory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: list[StoredVersion] = []
        self.cursor: StoredVersion | None = None
        self.token: dict[str, Any] | None = None
        self.failure: Failure | None = None
        """Why the rest cannot be said."""


def inventory(
    root_path: str, job: str, patterns: tuple[str, ...], *, may_lack: bool
) -> list[Listed]:
    """List every filesystem that has a version or a partial receive.

    A directory that a pattern names literally is listed although it has no version yet:
    the job wants it, and whoever plans can say what it lacks. A filesystem that cannot be
    read is listed with its failure.

    :param may_lack: a root that does not exist is empty, and can be made later

    :raises Failure: not local to a filesystem: nothing can be said of the root
    """
    root = Root(root_path)
    if not os.path.isdir(root_path):
        if may_lack and not os.path.lexists(root_path):
            return []
        raise Failure(
            "storage",
            f"the root {root_path!r} is no directory",
            hint="create it, or mount what should be there",
            local=False,
        )
    listed: dict[str, Listed] = {}
    for store in root.filesystems() if root.exists() else ():
        found = _look(store, job)
        if found.versions or found.token or found.failure:
            listed[store.name] = found
    for pattern in patterns:
        if pattern not in listed and not _PATTERN_MARKS.intersection(pattern):
            try:
                live = root.filesystem(pattern).live
            except Failure:
                continue  # no filesystem can have that name
            if os.path.isdir(live):
                listed[pattern] = Listed(pattern)
    return [listed[name] for name in sorted(listed)]


def _look(store: FilesystemStore, job: str) -> Listed:
    """List one filesystem. What is wrong with it concerns no other."""
    found = Listed(store.name)
    try:
        found.versions = store.versions()
        found.token = read_token(store)
        found.cursor = cursor_of(job, found.versions)
    except Failure as failure:
        found.failure = failure
    except OSError as error:
        found.failure = from_os_error(error, f"listing the versions of {store.name!r}")
    return found
