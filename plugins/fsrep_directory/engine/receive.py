"""Takes the stream of one step and makes the version that it carries, or nothing.

The order of the end: all bytes are in, their maker vouches for them, the digest is right,
the tree is complete and durable, the versions that may go are gone, then one rename, then
the parent is durable.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from .failures import Failure
from .names import check_version_name
from .partial import Mark, Partial, parse_token
from .receiving import Receiver
from .removal import remove_tree
from .store import SNAPSHOT, Root, StoredVersion, sync_directory
from .stream import stream_identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .receiving import Promise
    from .store import FilesystemStore

__all__ = ["receive"]


def receive(
    request: dict[str, Any], descriptor: int, is_vouched: Callable[[], bool]
) -> dict[str, Any]:
    """Read the stream from ``descriptor`` to its end and commit it.

    :param is_vouched: waits until the stream's maker has said whether these bytes were
        the whole stream; called after the last byte, before the commit
    :returns: the version, and warnings
    :raises Failure: nothing became visible; a partial may be left that can be resumed
    """
    store = Root(request["root"]).filesystem(request["filesystem"])
    check_version_name(request["name"])
    with ExitStack() as stack:
        stack.enter_context(store.locked())
        if store.find(request["to_guid"], kind=SNAPSHOT):
            # It was not when this step began, so the stream is on its way and nobody wants it.
            raise Failure(
                "busy",
                f"{store.name!r} has just received @{request['name']} from another process",
                hint="run again: there is nothing left to send",
            )
        store.clean()
        leaving = _check_state(store, request)
        base = None
        if request["from_guid"]:
            base = store.need(request["from_guid"], kind=SNAPSHOT)
            stack.enter_context(store.in_use(base))
        partial = Partial(store)
        stack.callback(partial.close)
        mark = _open_partial(partial, request)
        receiver = Receiver(store, partial, base, request, is_vouched)
        try:
            warnings = receiver.run(descriptor, mark)
        except Failure as failure:
            if failure.kind == "storage":
                # The stream itself is wrong: going on from here would only repeat that.
                partial.discard()
            raise
        version = _commit(store, partial, receiver.promise, request["name"], leaving)
        return {"version": version._asdict(), "warnings": warnings}


def _check_state(store: FilesystemStore, request: dict[str, Any]) -> list[StoredVersion]:
    """See that the step fits what is there.

    :returns: the versions that have to be destroyed before the commit
    :raises Failure: something is there that the request does not let go
    """
    allowed = set(request["rollback"])
    snapshots = [each for each in store.versions() if each.kind == SNAPSHOT]
    base = None
    if request["from_guid"]:
        base = store.need(request["from_guid"], kind=SNAPSHOT)
    newer = [each for each in snapshots if base is None or each.order > base.order]
    blocking = [each for each in newer if each.guid not in allowed]
    taken = [each for each in snapshots if each.name == request["name"] and each not in newer]
    if blocking or taken:
        names = ", ".join("@" + each.name for each in (blocking or taken)[:5])
        raise Failure(
            "conflict",
            f"{store.name!r} cannot receive @{request['name']}: "
            + (f"it has {names} after the base" if blocking else f"it has another {names}"),
            hint='destroy these versions, or let the job roll back (diverged = "rollback")',
        )
    return newer


def _open_partial(partial: Partial, request: dict[str, Any]) -> Mark | None:
    """Begin a partial receive, or find the place where an earlier one goes on."""
    mark = partial.read_mark() if partial.exists() else None
    token = request["token"]
    if token is None or request["clear"]:
        if mark and mark.offset and not request["clear"]:
            raise Failure(
                "conflict",
                "there is a partial receive that this step would lose",
                hint="plan again: the partial's token is in the inventory",
                temporary=True,
            )
        partial.discard()
        partial.begin()
        return None
    facts = parse_token(token)
    if (
        mark is None
        or facts["offset"] != mark.offset
        or facts["stream"] != stream_identity(partial.read("start"))
    ):
        raise Failure(
            "stale-token",
            "the partial receive is no longer where the resume token says",
            hint="run again",
            temporary=True,
        )
    return mark


def _commit(
    store: FilesystemStore,
    partial: Partial,
    promise: Promise,
    name: str,
    leaving: list[StoredVersion],
) -> StoredVersion:
    version = StoredVersion(
        SNAPSHOT,
        name,
        promise.guid,
        store.next_order(),
        promise.created,
        promise.manifest,
        promise.entries,
    )
    partial.keep("version.json", version.to_json().encode())
    partial.sync()
    trash = [store.retire(each) for each in leaving]
    os.rename(partial.path, f"{store.path}/{version.folder}")
    sync_directory(store.path)
    for kept in ("mark", "durable", "start", "file"):
        with suppress(FileNotFoundError):
            os.unlink(f"{store.path}/{version.folder}/{kept}")
    for folder in trash:
        remove_tree(folder)
    return version
