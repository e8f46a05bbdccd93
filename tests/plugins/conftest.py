"""Real servers and file systems, for the tests of every plugin and of all of them together.

They live in ``tests/shared``; what is imported here are their fixtures.
"""

from __future__ import annotations

from pretended_pools import pretended_sites
from real_btrfs import pools, site_roots, sites, tools
from real_sshd import scene, server
from real_tls import all_hosts, closed_port, hosts, kit, other_hosts, site
from ways import reach

__all__ = [
    "all_hosts",
    "closed_port",
    "hosts",
    "kit",
    "other_hosts",
    "pools",
    "pretended_sites",
    "reach",
    "scene",
    "server",
    "site",
    "site_roots",
    "sites",
    "tools",
]
