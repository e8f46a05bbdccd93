"""The ``directory`` storage: versions of directory trees, on any Linux filesystem.

It needs no root, no special filesystem and no program but Python's own. What it stores
can be browsed, and what it sends is a tar that GNU tar can list and extract.

:mod:`~fsrep_directory.storage` answers the hooks of an endpoint;
:mod:`~fsrep_directory.launch` starts the engine, a child process of the standard library
alone, for what takes time; ``engine`` does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core import hookimpl

if TYPE_CHECKING:
    from fsrep_core import Registry

__all__ = ["plugin"]


class DirectoryPlugin:
    """Registers the storage."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """Offer the storage ``directory``."""
        from fsrep_directory.storage import DirectoryConfig, DirectoryStorage

        registry.add_storage(
            "directory",
            DirectoryStorage,
            config_class=DirectoryConfig,
            summary="Versions of directory trees, on any Linux filesystem, without root.",
        )


plugin = DirectoryPlugin()
