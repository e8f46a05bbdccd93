"""Runs ``btrfs``: one method for each subcommand that the storage needs.

Every argument that is a path is absolute, so none can be taken for an option. Messages
are in English and times in UTC, whatever the host's settings.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import attrs

from fsrep_btrfs.listing import (
    INFORMATION_BYTES,
    merge_listings,
    parse_information,
    parse_list,
    parse_show,
    parse_version,
)
from fsrep_btrfs.messages import Explanation
from fsrep_core import feed_process, open_process_stream, run_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from fsrep_btrfs.listing import Subvolume
    from fsrep_core import ByteStream

__all__ = ["BtrfsTool"]

_GET_SUBVOLUME_INFORMATION = 0x81F8943C
"""``BTRFS_IOC_GET_SUBVOL_INFO`` (``linux/btrfs.h``, since Linux 4.18)."""

COLUMNS = ("-a", "-c", "-u", "-q", "-R")
"""Paths from the top level, generation at creation, and the three UUIDs."""


@attrs.define(eq=False)
class BtrfsTool:
    """The program ``btrfs``, started as the operator wants it."""

    command: tuple[str, ...]
    _version: tuple[int, int] | None = attrs.field(init=False, default=None)

    async def list(self, root: str) -> tuple[Subvolume, ...]:
        """List all subvolumes of the file system that ``root`` is on.

        Three processes, whatever their number: which are read-only, and when a snapshot
        was made, the program only tells by listing those alone.
        """
        every, readonly, snapshots = [
            parse_list(
                await self._run(
                    f"listing the subvolumes of {root}",
                    *("subvolume", "list", *COLUMNS, *flags, root),
                ),
                readonly="-r" in flags,
            )
            for flags in ((), ("-r",), ("-s",))
        ]
        return merge_listings(every, readonly, snapshots)

    async def show(self, path: str) -> Subvolume:
        """Tell everything of one subvolume.

        The kernel tells it to whoever may open the subvolume, without a process. With sudo,
        fsrep itself often may not.
        """
        try:
            return parse_information(_information(path), path)
        except PermissionError:
            pass
        return parse_show(
            await self._run(f"looking at the subvolume {path}", "subvolume", "show", path)
        )

    async def snapshot(self, source: str, target: str) -> None:
        """Make a read-only snapshot, durably."""
        await self._run(
            f"making a snapshot of {source} at {target}",
            *("subvolume", "snapshot", "-r", source, target),
        )

    async def delete(self, paths: Sequence[str], *, commit: bool) -> None:
        """Delete subvolumes; with ``commit``, wait until they cannot come back."""
        await self._run(
            f"deleting {', '.join(paths)}",
            *("subvolume", "delete", *(("--commit-after",) if commit else ()), *paths),
        )

    async def version(self) -> tuple[int, int]:
        """Tell the version of btrfs-progs."""
        if self._version is None:
            self._version = parse_version(await self._run("asking for the version", "--version"))
        return self._version

    def send(
        self, attempt: str, path: str, *, parent: str | None, compressed_data: bool
    ) -> AbstractAsyncContextManager[ByteStream]:
        """Open the stream of a read-only snapshot, from ``parent`` or in full."""
        return open_process_stream(
            [
                *(*self.command, "send", "--quiet"),
                *(("--proto", "2", "--compressed-data") if compressed_data else ()),
                *(("-p", parent) if parent is not None else ()),
                path,
            ],
            explain=Explanation(attempt),
            env=_environment(),
        )

    async def receive(self, attempt: str, stream: ByteStream, directory: str, *, lock: int) -> None:
        """Feed a stream to ``btrfs receive``, which makes a subvolume in ``directory``.

        The program inherits the descriptor of the lock: should fsrep be killed, the lock
        is held for as long as the program lives.
        """
        await feed_process(
            [*self.command, "receive", "--quiet", directory],
            stream,
            explain=Explanation(attempt),
            env=_environment(),
            pass_fds=(lock,),
        )

    async def _run(self, attempt: str, *arguments: str) -> str:
        output = await run_process(
            [*self.command, *arguments], explain=Explanation(attempt), env=_environment()
        )
        return os.fsdecode(output.stdout)


def _information(path: str) -> bytes:
    buffer = bytearray(INFORMATION_BYTES)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, _GET_SUBVOLUME_INFORMATION, buffer)
    finally:
        os.close(descriptor)
    return bytes(buffer)


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
