"""Looks at the file system, and remembers what it saw.

What is there is listed once for an inventory; a step then needs no listing of its own.
That is safe because nothing is believed that is not checked where it counts: a snapshot
that was replaced under its name makes a stream with another UUID, which the receiver
refuses. What is not remembered is looked for once more before it counts as missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import trio

from fsrep_btrfs.config import BtrfsConfig
from fsrep_btrfs.layout import Arrangement, Found, Places, arrange
from fsrep_btrfs.listing import Mount, Subvolume, find_mount
from fsrep_btrfs.staging import read_mark
from fsrep_btrfs.tool import BtrfsTool
from fsrep_core import StorageError, Version, VersionMissingError

__all__ = ["Finder", "View", "gone"]


@attrs.frozen
class View:
    """What one listing showed."""

    mount: Mount
    places: Places
    arrangement: Arrangement

    def path_of(self, subvolume: Subvolume) -> str:
        """Give the absolute path; only what is reachable is ever arranged."""
        return cast("str", self.mount.path_of(subvolume.path))

    def at(self, filesystem: str, name: str) -> Version | None:
        """Give the version of this name."""
        versions = self.arrangement.versions.get(filesystem, {}).values()
        return next((each.version for each in versions if each.version.name == name), None)


@attrs.define(eq=False)
class Finder:
    """Finds filesystems and versions below a root."""

    config: BtrfsConfig
    tool: BtrfsTool
    _view: View | None = attrs.field(init=False, default=None)

    async def look(self) -> View:
        """List what is there now, and remember it."""
        root = self.config.root
        mount = await trio.to_thread.run_sync(_mount_of, root)
        places = Places(
            root=mount.tree_path_of(str(root.resolve())),
            snapshots=self.config.snapshots.strip("/"),
            subvolumes=self.config.subvolumes,
            also=self.config.also,
        )
        self._view = View(
            mount=mount,
            places=places,
            arrangement=arrange(
                await self.tool.list(str(root)),
                places,
                reachable=lambda path: mount.path_of(path) is not None,
                marked_filesystem=lambda path: read_mark(mount.path_of(path) or ""),
            ),
        )
        return self._view

    async def known(self) -> View:
        """Give what is remembered; look if nothing is."""
        return self._view or await self.look()

    def remember(self, found: Found) -> None:
        """Remember a version that was just made."""
        if self._view is not None:
            self._view.arrangement.add(found)

    def forget(self) -> None:
        """Look again the next time: something was destroyed."""
        self._view = None

    async def find(self, filesystem: str, guid: str) -> tuple[View, Found] | None:
        """Find a version of a filesystem by its identity."""
        for view_of in (self.known, self.look):
            view = await view_of()
            found = view.arrangement.find(filesystem, guid)
            if found is not None:
                return view, found
        return None

    async def find_base(self, attempt: str, base: Version) -> str:
        """Give the path of a read-only subvolume with an identity, wherever it lies.

        :raises VersionMissingError: there is none below the mount point
        """
        for view_of in (self.known, self.look):
            view = await view_of()
            subvolume = view.arrangement.readonly.get(base.guid)
            if subvolume is not None:
                return view.path_of(subvolume)
        raise gone(attempt, base)


def gone(attempt: str, version: Version) -> VersionMissingError:
    """Make the error of a version that is not there."""
    return VersionMissingError(
        f"{attempt}: {version.relative_name} (UUID {version.guid}) does not exist as a read-only "
        "subvolume below the mount point",
        hint="plan again",
    )


def _mount_of(root: Path) -> Mount:
    """Find the mount of the root.

    :raises StorageError: the root is missing, or not on btrfs
    """
    try:
        resolved = root.resolve(strict=True)
    except OSError as error:
        raise StorageError(
            f"the storage's root {root} cannot be reached: {error.strerror}",
            local=False,
            hint="is the disk mounted? fsrep does not make the root",
        ) from error
    mount = find_mount(
        Path("/proc/self/mountinfo").read_text(errors="surrogateescape"), str(resolved)
    )
    if mount.type != "btrfs":
        raise StorageError(
            f"the storage's root {root} is on {mount.type} ({mount.source} at {mount.point}), "
            "not on btrfs",
            local=False,
            hint="is the disk mounted?",
        )
    return mount
