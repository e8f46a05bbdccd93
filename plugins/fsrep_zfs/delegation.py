"""What an unprivileged user has to be allowed, for each side of a job. Pure.

``zfs allow`` gives a user rights on a dataset and all that is or will be below it. Linux
lets nobody but root mount, so the right to mount is only the one that other operations ask
for, and everything received stays unmounted (``zfs-allow(8)``).
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from fsrep_core import Side
from fsrep_zfs.config import Protection, ZfsConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PERMISSIONS", "allow_commands", "permissions"]

PERMISSIONS = {
    Side.SENDER: {
        "send": "make streams",
        "bookmark": "make cursors",
        "destroy": "remove cursors; needed to destroy anything, so it allows that, too",
        "mount": "asked for by destroy and snapshot",
        "hold": "protect what is being sent; also asked for by streams of several snapshots",
        "release": "end that protection",
        "snapshot": "make versions (fsrep snapshot)",
    },
    Side.RECEIVER: {
        "receive": "receive",
        "create": "make what is received",
        "mount": "asked for by create and receive, although nothing is mounted",
        "destroy": "discard a partial receive, and destroy what a rollback gives up",
        "rollback": "roll back where a job's policy says so",
        "hold": "protect what was received last",
        "release": "end that protection",
        "userprop": "mark what fsrep made",
        "canmount": "keep what is received from being mounted",
        "mountpoint": "make placeholders that are not mounted",
        "volmode": "keep volumes that are received out of /dev",
    },
}
"""What each side asks for, with the reason."""


def permissions(config: ZfsConfig, side: Side) -> list[str]:
    """Give the permissions that one side needs with these options."""
    needed = dict.fromkeys(PERMISSIONS[side])
    if side is Side.RECEIVER:
        protections = {config.protect_initial, config.protect_incremental}
        if protections == {Protection.NONE}:
            del needed["hold"], needed["release"]
        needed |= dict.fromkeys(
            "userprop" if ":" in name else name for name in (*config.override, *config.exclude)
        )
        if config.placeholder_encryption.value == "off":
            needed["encryption"] = None
    return list(needed)


def allow_commands(config: ZfsConfig, side: Side, user: str) -> list[str]:
    """Give the commands that root has to type, once, for a user to work on one side."""
    commands = [_command(["zfs", "allow", "-u", user, ",".join(permissions(config, side))], config)]
    if side is Side.RECEIVER:
        commands.append(_command(["zfs", "set", "mountpoint=none"], config))
    return commands


def _command(words: Iterable[str], config: ZfsConfig) -> str:
    return shlex.join([*words, config.root])
