"""Which names may become paths: of filesystems, of versions, of entries in a tree.

Every name that comes from a request or a stream passes here before it touches the disk.
The store keeps ``@``, ``#`` and ``%`` at the start of a component for itself.
"""

from __future__ import annotations

from .failures import Failure, quoted
from .records import sort_key

__all__ = [
    "COMPONENT_LIMIT_BYTES",
    "FILESYSTEM_LIMIT_BYTES",
    "PATH_LIMIT_BYTES",
    "STORE",
    "VERSION_LIMIT_BYTES",
    "check_component",
    "check_filesystem",
    "check_target",
    "check_version_name",
]

STORE = ".fsrep"
"""The folder under a root that holds everything but the live trees."""
COMPONENT_LIMIT_BYTES = 255
FILESYSTEM_LIMIT_BYTES = 2048
VERSION_LIMIT_BYTES = 200
"""Leaves room in a file's name for the mark before it and for a job's cursor."""
PATH_LIMIT_BYTES = 65_535
"""Of an entry below the root of its tree: above ``PATH_MAX`` on purpose."""


def check_filesystem(name: str) -> None:
    """Refuse the name of a filesystem that could mean something outside its root.

    :raises Failure: says what is wrong with it
    """
    parts = name.split("/")
    if not 0 < len(_encoded(name, "filesystem")) <= FILESYSTEM_LIMIT_BYTES:
        raise _refused("filesystem", name, f"must have 1 to {FILESYSTEM_LIMIT_BYTES} bytes")
    for part in parts:
        if part in {"", ".", ".."}:
            raise _refused("filesystem", name, f"has a component {part!r}")
        if part[0] in "-%":
            raise _refused("filesystem", name, f"has a component that starts with {part[0]!r}")
        if part == STORE:
            raise _refused("filesystem", name, f"names the store {STORE!r} itself")
        if len(part.encode()) > COMPONENT_LIMIT_BYTES:
            raise _refused("filesystem", name, "has a component of more than 255 bytes")
    for forbidden in "@#\0\n":
        if forbidden in name:
            raise _refused("filesystem", name, f"contains {forbidden!r}")


def check_version_name(name: str) -> None:
    """Refuse the name of a version that cannot stand in a file's name.

    :raises Failure: says what is wrong with it
    """
    if not 0 < len(_encoded(name, "version")) <= VERSION_LIMIT_BYTES:
        raise _refused("version", name, f"must have 1 to {VERSION_LIMIT_BYTES} bytes")
    if name[0] == "-":
        raise _refused("version", name, "starts with '-'")
    for forbidden in "/@#\0\n":
        if forbidden in name:
            raise _refused("version", name, f"contains {forbidden!r}")


def check_component(component: bytes, path: bytes) -> None:
    """Refuse the last component of an entry's path if it could lead elsewhere.

    :raises Failure: it is empty, ``.``, ``..``, too long, or holds NUL or ``/``
    """
    if component in {b"", b".", b".."} or b"\0" in component or b"/" in component:
        raise Failure(
            "storage",
            f"the stream names the entry {quoted(path)!r}, which could lead out of the tree",
            hint="nothing of it was used; the sender is broken or hostile",
        )
    if len(component) > COMPONENT_LIMIT_BYTES or len(path) > PATH_LIMIT_BYTES:
        raise Failure("storage", f"the stream names an entry with too long a path: {quoted(path)}")


def check_target(target: bytes, path: bytes) -> None:
    """Refuse the target of a hard link that could lead out of its tree.

    :raises Failure: a component of it could lead elsewhere
    """
    for component in target.split(b"/"):
        check_component(component, target)
    if sort_key(target) >= sort_key(path):
        raise Failure(
            "storage",
            f"the stream links {quoted(path)!r} to {quoted(target)!r}, which comes after it",
            hint="nothing of it was used; the sender is broken or hostile",
        )


def _encoded(name: str, what: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise _refused(what, name, "is not valid UTF-8") from None


def _refused(what: str, name: str, why: str) -> Failure:
    return Failure(
        "invalid-request",
        f"the {what} name {name!r} cannot be used: it {why}",
        hint="rename it in the job or in the request",
    )
