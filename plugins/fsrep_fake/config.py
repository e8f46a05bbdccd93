"""The options of the memory storage, as a job's configuration names them."""

from __future__ import annotations

import attrs

__all__ = ["MemoryConfig"]


@attrs.frozen(kw_only=True)
class MemoryConfig:
    """Options of the storage ``memory``."""

    store: str
    """Which store of this process: storages with the same name meet in the same data."""
    resumable: bool = True
    """Keep what a cut receive got, and go on from there."""
    estimates: bool = True
    """Say how large a stream will be."""
    batched: bool = True
    """Carry several snapshots in one stream."""
    bookmarks: bool = True
    """Show cursors as bookmarks, which outlive their snapshot as a base."""
    nests: bool = False
    """Receive a filesystem only where its parent exists."""
