"""The cursors of jobs: one small file each, replaced as a whole.

btrfs has no bookmarks. A snapshot kept as a mark would hold space, and a name or a link
would not survive a rename, so the mark is a file that holds the guid. It is written
beside its place, synced, and renamed over the old one: at every moment, also after a
crash, there is the old cursor or the new one, whole. The rename itself is not waited
for: a crash that takes it back leaves a cursor that is behind, never one that is ahead.
The reasoning stands in docs/explanation/btrfs-cursor.md.

Plain blocking functions; the storage calls them in threads.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsrep_btrfs.files import make_directories, slug
from fsrep_core import Version, VersionKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["move_cursor", "read_cursor", "read_cursors"]

_SUFFIX = ".json"

logger = logging.getLogger(__name__)


def read_cursors(directory: Path, job: str) -> dict[str, Version]:
    """Read all cursors of a job, by filesystem. No directory = no cursors."""
    cursors = {}
    try:
        paths = sorted((directory / slug(job)).iterdir())
    except FileNotFoundError:
        return {}
    for path in paths:
        read = _read(path) if path.name.endswith(_SUFFIX) else None
        if read is not None:
            cursors[read[0]] = read[1]
    return cursors


def read_cursor(directory: Path, job: str, filesystem: str) -> Version | None:
    """Read one cursor."""
    read = _read(_path(directory, job, filesystem))
    return read[1] if read is not None else None


def move_cursor(directory: Path, job: str, filesystem: str, version: Version) -> Version:
    """Make ``version`` the cursor, unless the cursor is newer.

    :returns: the cursor after that
    """
    path = _path(directory, job, filesystem)
    cursor = Version(
        kind=VersionKind.BOOKMARK,
        name=version.name,
        guid=version.guid,
        order=version.order,
        created=version.created,
    )
    make_directories(path.parent)
    with _locked(path.parent):
        present = _read(path)
        if present is not None and (
            present[1].guid == version.guid or present[1].order > version.order
        ):
            return present[1]
        _replace(path, _encode(job, filesystem, cursor))
    return cursor


def _path(directory: Path, job: str, filesystem: str) -> Path:
    return directory / slug(job) / f"{slug(filesystem)}{_SUFFIX}"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _encode(job: str, filesystem: str, cursor: Version) -> bytes:
    return json.dumps(
        {
            "job": job,
            "filesystem": filesystem,
            "name": cursor.name,
            "guid": cursor.guid,
            "order": cursor.order,
            "created": cursor.created,
        },
        indent=1,
    ).encode()


def _read(path: Path) -> tuple[str, Version] | None:
    """Read a cursor; one that cannot be read is missing, which is an answer."""
    try:
        content = json.loads(path.read_bytes())
        created = content["created"]
        return str(content["filesystem"]), Version(
            kind=VersionKind.BOOKMARK,
            name=str(content["name"]),
            guid=str(content["guid"]),
            order=int(content["order"]),
            created=None if created is None else float(created),
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("the cursor %s cannot be read (%r) and counts as missing", path, error)
        return None
