"""What comparing the two sides of one filesystem gives: the base, and what follows it.

1. A version is the same on both sides when its guid is. Names, dates and ``order`` are
   never compared across sides.
2. The receiver's bookmarks hold no content and are ignored.
3. The base is the sender's newest version that the receiver has as a snapshot. Of a
   snapshot and a bookmark with the same guid the snapshot is taken, because its send can
   be estimated. Bookmarks count only where the sender can send from them; a bookmark
   stands before the snapshot of the same ``order``.

Linear in the number of versions, apart from sorting each side.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

import attrs

from fsrep_core.shown import Shown
from fsrep_core.values import ResumeToken, Version, VersionKind

if TYPE_CHECKING:
    from fsrep_core.values import Filesystem

__all__ = ["Comparison", "compare", "index_after"]

_SNAPSHOT = VersionKind.SNAPSHOT
_order = attrgetter("order")
_order_and_name = attrgetter("order", "name")
"""Sorts the versions of one side. The name makes a tie independent of the listing."""


@attrs.frozen(kw_only=True, repr=False)
class Comparison(Shown):
    """One filesystem on both sides. All versions oldest first."""

    filesystem: str
    cursor: Version | None
    token: ResumeToken | None
    sender_snapshots: Sequence[Version]
    sender_bookmarks: Sequence[Version]
    receiver_snapshots: Sequence[Version]
    receiver_guids: frozenset[str]
    """Of the receiver's snapshots."""
    base: Version | None
    """As the sender has it; ``None`` = the sides share no version."""
    later: Sequence[Version]
    """The sender's snapshots after the base; without a base, all."""
    newer: Sequence[Version]
    """The receiver's snapshots after the base; without a base, all."""


def compare(sender: Filesystem, receiver: Filesystem | None, *, from_bookmarks: bool) -> Comparison:
    """Find the base, and what each side has after it.

    :param receiver: ``None`` = the receiver does not have the filesystem
    :param from_bookmarks: the sender can send from a bookmark
    """
    snapshots = [version for version in sender.versions if version.kind is _SNAPSHOT]
    snapshots.sort(key=_order_and_name)
    bookmarks = [version for version in sender.versions if version.kind is not _SNAPSHOT]
    bookmarks.sort(key=_order_and_name)
    everything = receiver.versions if receiver is not None else ()
    received = [version for version in everything if version.kind is _SNAPSHOT]
    received.sort(key=_order_and_name)
    received_guids = frozenset([version.guid for version in received])

    base = _newest_common(snapshots, received_guids)
    later = snapshots[index_after(snapshots, base.guid) :] if base is not None else snapshots
    if from_bookmarks and bookmarks:
        still_snapshots = {version.guid for version in snapshots}
        lone = [version for version in bookmarks if version.guid not in still_snapshots]
        bookmark = _newest_common(lone, received_guids)
        if bookmark is not None and (base is None or bookmark.order > base.order):
            base = bookmark
            later = snapshots[bisect.bisect_left(snapshots, bookmark.order, key=_order) :]
    return Comparison(
        filesystem=sender.name,
        cursor=sender.cursor,
        token=receiver.resume_token if receiver is not None else None,
        sender_snapshots=snapshots,
        sender_bookmarks=bookmarks,
        receiver_snapshots=received,
        receiver_guids=received_guids,
        base=base,
        later=later,
        newer=received[index_after(received, base.guid) :] if base is not None else received,
    )


def index_after(versions: Sequence[Version], guid: str) -> int:
    """Give the index that follows the last version with this guid, which must be there."""
    index = len(versions)
    while versions[index - 1].guid != guid:
        index -= 1
    return index


def _newest_common(versions: Sequence[Version], guids: frozenset[str]) -> Version | None:
    return next((version for version in reversed(versions) if version.guid in guids), None)
