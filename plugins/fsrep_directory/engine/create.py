"""Makes a version of a live tree: immutable from the moment it can be seen.

The live tree is walked once, in the order of a manifest. A file that is as it was when
the previous version was made is linked from that version's tree; every other is cloned
where the filesystem can (``FICLONE``) and copied where it cannot. Nothing is ever shared
with the live tree, so that writing there cannot change a version.

"As it was" is decided by what the kernel keeps: inode, size, modification and change
time, mode and owner, kept in the version's ``index``. A file that changed within
two seconds before the walk is not trusted, since a further change might carry the
same times; it is read and compared by content instead.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from .failures import Failure, from_os_error
from .folders import open_directory, open_subdirectory
from .names import check_version_name
from .partial import make_staging, sync_filesystem
from .removal import remove_tree
from .store import SNAPSHOT, Root, StoredVersion, sync_directory, write_private
from .walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import FilesystemStore

__all__ = ["create"]


def create(request: dict[str, Any]) -> dict[str, Any]:
    """Make one version of each filesystem of the request.

    :returns: ``results``, one for each, in their order
    """
    root = Root(request["root"])
    results = []
    for name in request["filesystems"]:
        try:
            results.append(_create_one(root, name, request["name"]))
        except Failure as failure:
            results.append({"failure": failure.facts()})
        except OSError as error:
            attempted = f"making the version @{request['name']} of {name!r}"
            results.append({"failure": from_os_error(error, attempted).facts()})
    return {"results": results}


def _create_one(root: Root, filesystem: str, name: str) -> dict[str, Any]:
    store = root.filesystem(filesystem)
    check_version_name(name)
    with ExitStack() as stack:
        live = _open_live(store)
        stack.callback(os.close, live)
        stack.enter_context(store.locked())
        store.clean()
        versions = store.versions()
        if any(each.kind == SNAPSHOT and each.name == name for each in versions):
            raise Failure(
                "conflict",
                f"{filesystem!r} has a version @{name} already",
                hint="choose another name, or destroy that version",
            )
        staging = f"{store.path}/%new-{os.urandom(8).hex()}"
        make_staging(staging)
        stack.callback(remove_tree, staging)  # after the rename there is nothing to remove
        walk = stack.enter_context(Walk(store, staging, versions))
        digest, entries, warnings = walk.run(live)
        version = StoredVersion(
            SNAPSHOT,
            name,
            os.urandom(16).hex(),
            store.next_order(),
            walk.started,
            digest,
            entries,
        )
        write_private(f"{staging}/version.json", version.to_json().encode())
        descriptor = open_directory(staging)
        try:
            sync_filesystem(descriptor)
        finally:
            os.close(descriptor)
        os.rename(staging, f"{store.path}/{version.folder}")
        sync_directory(store.path)
        return {"version": version._asdict(), "warnings": warnings}


def _open_live(store: FilesystemStore) -> int:
    """Open a live tree, component by component: a symbolic link could lead anywhere."""
    descriptor = os.open(store.root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for component in store.name.split("/"):
        try:
            below = open_subdirectory(descriptor, os.fsencode(component))
        except FileNotFoundError:
            raise Failure(
                "storage",
                f"there is no directory {store.live!r} to make a version of",
                hint="create it, or take it out of the job",
            ) from None
        except NotADirectoryError:
            raise Failure(
                "storage",
                f"{store.live!r} cannot become a version: {component!r} in it is no directory",
                hint="a symbolic link is not followed; name its target",
            ) from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor
