"""Real pools for the tests of this storage; see ``tests/shared/real_zfs.py``."""

from __future__ import annotations

from real_zfs import zfs_pools, zfs_sites

__all__ = ["zfs_pools", "zfs_sites"]
