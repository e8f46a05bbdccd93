"""Brings to the disk what is being received, while it is being received."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from fsrep_btrfs.files import sync_file_system

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["written_back"]

LOOK_SECONDS = 0.5
"""How long between two looks at what waits in memory."""

DIRTY_BYTES = 128 << 20
"""With so much, the disk has work that is worth a sync."""


async def written_back(directory: Path, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work while what it writes to the btrfs of a directory goes to the disk.

    The kernel keeps new data in memory for half a minute, or until there are gigabytes of
    it. Whoever has to wait for all of it in the end, as a receive does, would find that the
    disk has been idle until then. Cancelled, it waits for a sync that has begun.

    :raises Exception: what the work raised, as it is
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_back, directory)
        try:
            await work()
        except Exception as error:  # noqa: BLE001  (a nursery would put it into a group)
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _write_back(directory: Path) -> None:
    while True:
        await trio.sleep(LOOK_SECONDS)
        if _dirty_bytes() >= DIRTY_BYTES:
            with suppress(OSError):  # the sync in the end will tell
                await trio.to_thread.run_sync(sync_file_system, directory)


def _dirty_bytes() -> int:
    """Say how much in memory is newer than on all disks (``proc(5)``, ``meminfo``)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Dirty:"):
            return int(line.split()[1]) * 1024
    return 0
