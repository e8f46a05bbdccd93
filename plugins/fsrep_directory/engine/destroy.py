"""Destroys versions: each disappears at once, then what it held is removed."""

from __future__ import annotations

from .failures import Failure, from_os_error
from .removal import remove_tree
from .store import Root, sync_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["destroy"]


def destroy(request: dict[str, Any]) -> dict[str, Any]:
    """Destroy exactly the versions that the request names by kind and guid.

    :returns: ``results``, one for each, in their order: empty, or with a ``failure``
    """
    root = Root(request["root"])
    store = root.filesystem(request["filesystem"])
    there = {(each.kind, each.guid): each for each in store.versions()} if root.exists() else {}
    results: list[dict[str, Any]] = []
    trash = []
    for wanted in request["versions"]:
        version = there.get((wanted["kind"], wanted["guid"]))
        results.append({})
        if version is None:
            continue  # gone already, as was wanted
        try:
            trash.append(store.retire(version))
        except FileNotFoundError:
            continue
        except Failure as failure:
            results[-1]["failure"] = failure.facts()
        except OSError as error:
            attempted = f"destroying {store.name}{version.folder}"
            results[-1]["failure"] = from_os_error(error, attempted).facts()
    if trash:
        sync_directory(store.path)
    for folder in trash:
        remove_tree(folder)
    return {"results": results}
