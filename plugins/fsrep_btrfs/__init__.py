"""The storage ``btrfs``: snapshots of btrfs subvolumes, through the program ``btrfs``.

=============  =====================================================================
module         what it holds
=============  =====================================================================
``config``     the options
``listing``    pure: what the tools print, as values
``layout``     pure: which subvolumes are filesystems and versions, and their names
``messages``   pure: what the tools say when they fail, and what that means
``tool``       runs ``btrfs``
``files``      names and durability of what fsrep writes
``cursors``    the cursors of jobs
``staging``    where a receive happens until it is a version
``finder``     looks at the file system, and remembers what it saw
``receiving``  receives one version
``storage``    the hooks
=============  =====================================================================

What btrfs cannot do, and the capabilities therefore say: a cut receive cannot be resumed,
the size of a send is not known before, one stream carries one snapshot, and a snapshot
that is gone is no base any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core import hookimpl

if TYPE_CHECKING:
    from fsrep_core import Registry

__all__ = ["plugin"]


class BtrfsPlugin:
    """Adds the storage."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """See :meth:`fsrep_core.PluginSpec.register`."""
        from fsrep_btrfs.config import BtrfsConfig
        from fsrep_btrfs.storage import BtrfsStorage

        registry.add_storage(
            "btrfs",
            BtrfsStorage,
            config_class=BtrfsConfig,
            summary="Snapshots of btrfs subvolumes, sent and received by btrfs itself.",
        )


plugin = BtrfsPlugin()
