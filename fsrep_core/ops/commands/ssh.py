"""``fsrep ssh``: what an administrator needs to let clients in over ssh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from fsrep_core.errors import ConfigError
from fsrep_core.ops.files import find_config, load_identities
from fsrep_core.ops.serving import find_identity

__all__ = ["authorized_key"]

KEY_LIMIT_BYTES = 1 << 16
"""The longest file that is read as a key. One of RSA with 16384 bits has 3 KB."""

PUBLIC_KEY = re.compile(
    r"(?P<key>(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*)(?P<comment> [^\r\n]*)?"
)
"""A public key as ``ssh-keygen`` writes it, in one line, without options."""

PLACEHOLDER = "<the client's public key>"


def authorized_key(name: str, key: Path | None, config: Path | None) -> int:
    """Print the line of ``authorized_keys`` that lets a key do what an identity may, no more."""
    path = find_config(config, os.environ).absolute()
    find_identity(load_identities(path), name)
    public_key = PLACEHOLDER if key is None else _read_key(key)
    arguments = [_program(), "endpoint", "--identity", name, "--config", str(path)]
    command = shlex.join(arguments).replace('"', '\\"')
    print(f'restrict,command="{command}" {public_key}')  # noqa: T201  (the result of the command)
    return 0


def _read_key(path: Path) -> str:
    """Give the public key in a file.

    :raises ConfigError: it holds something else; what it holds is not shown, since it may
        be a private key
    """
    try:
        with path.open("rb") as file:
            text = file.read(KEY_LIMIT_BYTES).decode(errors="replace").strip()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}",
            hint="name the client's public key, such as id_ed25519.pub",
        ) from error
    match = PUBLIC_KEY.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{path}: is not one public key of OpenSSH in one line",
            hint="name the file that ends in .pub"
            if "PRIVATE KEY" in text
            else "make a key with ssh-keygen -t ed25519, and name its .pub file",
        )
    return text


def _program() -> str:
    """Where this program is: the session of a forced command has another PATH than ours."""
    found = shutil.which(sys.argv[0]) or shutil.which("fsrep", path=sysconfig.get_path("scripts"))
    return str(Path(found).absolute()) if found else "fsrep"
