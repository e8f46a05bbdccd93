"""The storage ``zfs``: filesystems and volumes of ZFS, through the program ``zfs``.

===============  ===================================================================
module           what it holds
===============  ===================================================================
``config``       the options
``names``        pure: the names that fsrep writes onto disks
``listing``      pure: what ``zfs list`` prints, as values
``nvlists``      pure: packed name-value lists, which tokens and streams contain
``tokens``       pure: what a resume token means
``headers``      pure: what the first records of a stream say
``messages``     pure: what ``zfs`` says when it fails, and what that means
``delegation``   pure: what an unprivileged user has to be allowed
``tool``         runs ``zfs``
``batching``     one command for what several tasks ask for at once
``catalog``      what was listed, remembered
``guarding``     holds
``sending``      sends one step
``withholding``  gives a stream to ``zfs receive`` so that its end is the commit
``receiving``    receives one step
``cursors``      the cursors of jobs, which are bookmarks
``destroying``   destroys versions
``upkeep``       lists and releases what fsrep left on a pool
``storage``      the hooks
===============  ===================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core import hookimpl

if TYPE_CHECKING:
    from fsrep_core import Registry

__all__ = ["plugin"]


class ZfsPlugin:
    """Adds the storage."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """See :meth:`fsrep_core.PluginSpec.register`."""
        from fsrep_zfs.config import ZfsConfig
        from fsrep_zfs.storage import ZfsStorage

        registry.add_storage(
            "zfs",
            ZfsStorage,
            config_class=ZfsConfig,
            summary="Filesystems and volumes of ZFS, sent and received by ZFS itself.",
        )


plugin = ZfsPlugin()
