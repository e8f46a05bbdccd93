"""Which cipher is preferred, where nobody has said so.

OpenSSH before 10 puts ChaCha20 first, which on a processor with AES instructions costs
several times as much as AES-GCM. AES-GCM is therefore asked for first, and the rest of
the client's list stays behind it, for servers that do not have it.

Somebody who names ciphers in ssh's configuration has a reason, and so has a distribution
that sets them for the whole system. The command line would overrule both. So the
configuration files are looked through, and where any of them names ciphers, for whatever
host, or cannot be read, nothing is said. Asking ssh itself (``ssh -G``) would be exact and
would start one more process for each job.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AES_GCM_FIRST", "config_files", "preferred_ciphers"]

AES_GCM_FIRST = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"

_KEYWORD = re.compile(r"\s*(?P<name>[A-Za-z]+)\s*[=\s]\s*(?P<value>.*)")
_DEPTH_LIMIT = 16  # as in OpenSSH


def config_files() -> tuple[Path, ...]:
    """Where ssh looks. It asks the password database for the home, not the environment."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    return (
        home / ".ssh" / "config",
        Path("/etc/ssh/ssh_config"),
        Path("/usr/etc/ssh/ssh_config"),
    )


def preferred_ciphers(files: tuple[Path, ...], cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Give what to tell ``ssh -c``; ``None`` = nothing.

    :param files: ssh's configuration
    """
    if not _has_aes(cpuinfo) or any(_names_ciphers(path, 0) for path in files):
        return None
    return AES_GCM_FIRST


def _has_aes(cpuinfo: Path) -> bool:
    """Tell whether the processor has instructions for AES (``flags`` or ``Features``)."""
    try:
        with cpuinfo.open() as lines:
            return any(
                "aes" in line.split() for line in lines if line.startswith(("flags", "Features"))
            )
    except OSError:
        return False


def _names_ciphers(path: Path, depth: int) -> bool:
    """Tell whether a file of ssh's configuration, or one that it includes, names ciphers."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # ssh may read what we cannot
    for line in lines:
        match = _KEYWORD.match(line)
        if match is None:
            continue
        name = match["name"].lower()
        if name == "ciphers":
            return True
        if name == "include" and (
            depth == _DEPTH_LIMIT
            or any(_names_ciphers(each, depth + 1) for each in _included(path, match["value"]))
        ):
            return True
    return False


def _included(path: Path, patterns: str) -> Iterator[Path]:
    """Give the files that an ``Include`` means: relative ones stand beside the including one."""
    try:
        words = shlex.split(patterns, comments=True)
    except ValueError:
        words = patterns.split()
    for word in words:
        pattern = Path(word).expanduser()
        if not pattern.is_absolute():
            pattern = path.parent / pattern
        yield from Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
