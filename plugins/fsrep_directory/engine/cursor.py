"""The replication cursor: a bookmark of each job, moved without ever being absent.

It holds the manifest of the version that it marks, by hard link, so that it can be the
base of a send after the snapshot is gone.
"""

from __future__ import annotations

import hashlib
import os
from urllib.parse import quote

from .failures import Failure
from .removal import remove_tree
from .store import BOOKMARK, Root, StoredVersion, sync_directory, write_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import FilesystemStore

__all__ = ["cursor_of", "move_cursor", "read_cursor"]

_JOB_LIMIT_BYTES = 120


def cursor_of(job: str, versions: list[StoredVersion]) -> StoredVersion | None:
    """The cursor of a job among the versions of a filesystem: its newest."""
    found = [each for each in versions if each.cursor_job == job]
    return found[-1] if found else None


def read_cursor(request: dict[str, Any]) -> StoredVersion | None:
    """The cursor of the request's job, if it has one."""
    root = Root(request["root"])
    store = root.filesystem(request["filesystem"])
    return cursor_of(request["job"], store.versions()) if root.exists() else None


def move_cursor(request: dict[str, Any]) -> StoredVersion:
    """Move the cursor of the request's job to the version with ``guid``, forward only.

    :returns: the cursor afterwards
    :raises Failure: the version is gone
    """
    root = Root(request["root"])
    store = root.filesystem(request["filesystem"])
    job = request["job"]
    with store.locked("%cursor-lock", wait=True):
        for folder in os.listdir(store.path):
            if folder.startswith("%cursor-new-"):
                remove_tree(f"{store.path}/{folder}")
        versions = store.versions()
        cursors = [each for each in versions if each.cursor_job == job]
        current = cursors[-1] if cursors else None
        if current is None or current.guid != request["guid"]:
            target = store.need(request["guid"])
            if current is None or target.order > current.order:
                current = _make(store, job, target)
        # The new one is there, durably; now the older ones can go.
        for old in cursors:
            if old.folder != current.folder:
                _remove_old(store, old)
        return current


def _remove_old(store: FilesystemStore, old: StoredVersion) -> None:
    try:
        remove_tree(store.retire(old))
    except Failure as failure:
        if failure.kind != "busy":  # a send uses it as its base; the next move removes it
            raise


def _make(store: FilesystemStore, job: str, target: StoredVersion) -> StoredVersion:
    label = quote(job, safe="")
    if len(label) > _JOB_LIMIT_BYTES:
        label = hashlib.sha256(job.encode()).hexdigest()
    cursor = target._replace(
        kind=BOOKMARK, name=f"fsrep-cursor-{label}-{target.guid}", cursor_job=job
    )
    staging = f"{store.path}/%cursor-new-{os.urandom(8).hex()}"
    os.mkdir(staging, 0o700)
    os.link(f"{store.path}/{target.folder}/manifest", f"{staging}/manifest")
    write_private(f"{staging}/version.json", cursor.to_json().encode(), sync=True)
    sync_directory(staging)
    os.rename(staging, f"{store.path}/{cursor.folder}")
    sync_directory(store.path)
    return cursor
