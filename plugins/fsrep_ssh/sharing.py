"""One connection for several ssh: after one another or at once, of one run or of many.

ssh does this itself (``ControlMaster`` in ``ssh_config(5)``): the first one leaves a process
in the background, and those that follow hand their pipes to it through a socket, without
logging in. That process is a session of its own, so ending the ssh that left it behind does
not end it; it ends by itself once nobody has used it for as long as it was told.

Whoever reaches the socket can do on the other host what this account may do there. So it is
in a directory that nobody else can enter, which is looked at before each use. Its name holds
all that makes one connection differ from another: ``%C``, which ssh replaces by a hash of
host, port and user as its configuration has them, and a hash of what else was configured. A
job with another key thus never goes through a connection that this key did not open.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fsrep_core import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsrep_ssh.config import SshConfig

__all__ = ["make_private", "sharing_options", "socket_directory"]

NAME = "fsrep-ssh"
"""What the directory is called, below one that is this user's own."""

DIGEST_CHARACTERS = 8

DIRECTORY_LIMIT_BYTES = 107 - len("/") - DIGEST_CHARACTERS - len("-") - 40 - 17
"""A socket's path has at most 107 bytes (``unix(7)``); ``%C`` becomes 40, and ssh adds 17 while
it makes the socket."""

PLAIN = re.compile(r"/[A-Za-z0-9/._+-]*")
"""A path in which ssh replaces nothing."""

PRIVATE_MODE = 0o700

NOTICES = {"ServerAliveInterval": "10", "ServerAliveCountMax": "3"}
"""fsrep's heartbeats end one ssh whose peer has vanished, but not the connection that it was
shared by; the next ssh would wait in vain on that."""


def socket_directory(environ: Mapping[str, str]) -> Path:
    """Say where sockets of this user are: in its runtime directory, or else a temporary one.

    :raises ConfigError: no socket can be there
    """
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(Path(runtime)):
        directory = Path(runtime) / NAME
    else:  # in which others cannot replace what is ours: it is sticky
        directory = Path(tempfile.gettempdir()) / f"{NAME}-{os.geteuid()}"
    if not PLAIN.fullmatch(str(directory)) or len(str(directory)) > DIRECTORY_LIMIT_BYTES:
        raise ConfigError(
            f"the socket of a shared connection cannot be in {directory}: its name must have at "
            f"most {DIRECTORY_LIMIT_BYTES} characters, and none that ssh reads as its own",
            hint="set XDG_RUNTIME_DIR or TMPDIR to a shorter one, or leave share_connection out",
        )
    return directory


def sharing_options(
    config: SshConfig, ciphers: str | None, directory: Path, stay_seconds: float
) -> dict[str, str]:
    """Give the options of ssh by which it shares its connection.

    :param ciphers: as ``ssh -c`` takes them
    :param directory: where the socket is
    :param stay_seconds: how long the connection stays after its last use
    """
    told = (config.host, config.identity_file, config.options, ciphers, stay_seconds)
    digest = hashlib.sha256(repr(told).encode()).hexdigest()[:DIGEST_CHARACTERS]
    return {
        "ControlMaster": "auto",
        "ControlPath": f"{directory}/{digest}-%C",
        "ControlPersist": str(round(stay_seconds)),
        **NOTICES,
    }


def make_private(directory: Path) -> None:
    """See to it that a directory is there, and that only this user can enter it.

    :raises ConfigError: it cannot be made, or is not this user's alone
    """
    try:
        directory.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make {directory}, where the sockets of shared connections are: "
            f"{error.strerror}",
            hint="see to the directory that holds it, or leave share_connection out",
        ) from error
    if not _is_private(directory):
        raise ConfigError(
            f"{directory}, where the sockets of shared connections are, is not a directory of "
            "this user alone: others could use the connections, or put theirs in their place",
            hint="remove it; it is made again, with mode 0700",
        )


def _is_private(path: Path) -> bool:
    """Tell whether this is a directory, and no link to one, that only this user can enter."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == PRIVATE_MODE
    )
