"""Real pools for the tests of this storage; see ``tests/shared/real_zfs.py``.

They may be shared out among several guests: ``TEST_SHARE=2/3`` is the second of three shares.
"""

from __future__ import annotations

import os

import pytest

from real_zfs import zfs_pools, zfs_sites

__all__ = ["zfs_pools", "zfs_sites"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep one test of each so many, after others were deselected, so that shares are alike."""
    number, shares = map(int, os.environ.get("TEST_SHARE", "1/1").split("/"))
    mine = items[number - 1 :: shares]
    others = [item for item in items if item not in mine]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = mine
