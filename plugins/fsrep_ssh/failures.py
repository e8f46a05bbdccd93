"""What ssh's exit status and words mean: a typed error that says what to do next.

ssh ends with 255 where it failed itself, and otherwise as the command did that it ran.
So ssh's own words are looked for only beside a 255: whatever the far side writes to
standard error cannot pass for them. The words are those of OpenSSH 7.4 to 10; it does not
translate them.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import attrs

from fsrep_core import ConfigError, ConnectivityError, FsrepError, PermissionDeniedError

if TYPE_CHECKING:
    from fsrep_ssh.config import SshConfig

__all__ = ["explain", "target_of"]

SSH_FAILED = 255
NOT_FOUND = 127
NOT_EXECUTABLE = 126
USAGE = 2
SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a command."""

_QUOTE_LIMIT = 300


@attrs.frozen
class _Failure:
    """One way in which ssh fails."""

    words: str
    """A regular expression, found in what ssh says."""
    message: str
    hint: str
    temporary: bool = False
    error_class: type[FsrepError] = ConnectivityError


_FAILURES = (
    _Failure(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY",
        "the key of the host is not the one that is known: it was installed anew, or "
        "somebody stands in between",
        "compare the key's fingerprint with what the host's administrator says; if it is "
        "right, remove the old one with: ssh-keygen -R {name}, and connect once with: {ssh}",
    ),
    _Failure(
        r"Host key verification failed|No .* host key is known",
        "the key of the host is not known yet, and nobody is there to be asked",
        "connect once by hand as the user that runs fsrep, and compare the fingerprint: {ssh}",
    ),
    _Failure(
        r"Permission denied \(|Too many authentication failures|No more authentication methods|"
        r"UNPROTECTED PRIVATE KEY FILE",
        "the host refuses to let us in",
        "see that this works as the user that runs fsrep, and asks nothing: {ssh} true; "
        "name the key with identity_file, and put its public half into ~/.ssh/authorized_keys "
        "there",
        error_class=PermissionDeniedError,
    ),
    _Failure(
        r"Temporary failure in name resolution",
        "the name of the host cannot be resolved now",
        "see whether the network and the name server work",
        temporary=True,
    ),
    _Failure(
        r"Could not resolve hostname|No address associated",
        "there is no host of this name",
        "correct host, or add it to the name server or to ssh's configuration",
    ),
    _Failure(
        r"Connection refused",
        "nothing listens there",
        "see whether the ssh server runs there, and on which port",
        temporary=True,
    ),
    _Failure(
        r"No route to host|[Nn]etwork is unreachable|Host is down",
        "there is no way to the host",
        "see whether the host is on, and whether network and firewall let ssh through",
        temporary=True,
    ),
    _Failure(
        r"timed out",
        "the host did not answer in time",
        "see whether the host is on and the firewall lets ssh through; connect_timeout says "
        "how long to wait",
        temporary=True,
    ),
    _Failure(
        r"Unable to negotiate|no matching|[Bb]ad SSH2 cipher spec|Unknown cipher type",
        "the two sides have no algorithm in common",
        "see what the host offers with: {ssh} -v; then set ciphers, or options such as "
        '"HostKeyAlgorithms=..."',
    ),
    _Failure(
        r"Bad configuration option|bad configuration options|[Bb]ad owner or permissions|"
        r"[Mm]issing argument|[Uu]nsupported option|Bad number|No user exists|"
        r"command-line: line",
        "ssh cannot use its configuration",
        "correct options, or the file that ssh names",
        error_class=ConfigError,
    ),
    _Failure(
        r"kex_exchange_identification|Connection (closed|reset)|Broken pipe|disconnect|"
        r"message authentication code|[Cc]orrupted|Timeout, server",
        "the connection was cut",
        "see the ssh server's log there",
        temporary=True,
    ),
)
"""In the order in which they are tried: what ssh says first tells more than how it ends."""


def target_of(config: SshConfig) -> str:
    """Name where ssh goes, for messages."""
    return config.host if config.user is None else f"{config.user}@{config.host}"


def explain(config: SshConfig, status: int, said: str) -> FsrepError:
    """Give the error for the end of an ssh whose fsrep did not say goodbye.

    :param status: ssh's exit status; negative = the signal that ended it
    :param said: what came on standard error, from ssh and from the far side
    """
    target = target_of(config)
    if status < 0:
        name = signal.Signals(-status).name
        return ConnectivityError(f"{target}: ssh was ended by {name}")
    quoted = _last_line(said)
    if status == SSH_FAILED:
        return _ssh_failure(config, quoted, said)
    if status in {NOT_FOUND, NOT_EXECUTABLE}:
        what = "there is no" if status == NOT_FOUND else "cannot be run:"
        return ConnectivityError(
            f"{target}: {what} {config.command.split()[0]!r} there{_because(quoted)}",
            temporary=False,
            hint="install fsrep there, or say where it is, as in "
            'command = "/opt/fsrep/bin/fsrep endpoint"; ssh starts commands with a shorter '
            "PATH than a login has",
        )
    if status == USAGE and "No such" in said:
        return ConnectivityError(
            f"{target}: the fsrep there is too old to serve{_because(quoted)}",
            temporary=False,
            hint="install the same release of fsrep on both sides",
        )
    if status == USAGE:
        return ConnectivityError(
            f"{target}: fsrep there cannot serve{_because(quoted)}",
            temporary=False,
            hint="correct what it says, on that host",
        )
    ended = f"ended with status {status}"
    if status > SIGNALLED:
        ended = f"was ended by signal {status - SIGNALLED}"
    return ConnectivityError(
        f"{target}: fsrep there {ended}{_because(quoted)}",
        hint="see the log of that host; the next attempt goes on from what arrived",
    )


def _ssh_failure(config: SshConfig, quoted: str, said: str) -> FsrepError:
    target = target_of(config)
    name = config.host if config.port is None else f"'[{config.host}]:{config.port}'"
    port = "" if config.port is None else f" -p {config.port}"
    for failure in _FAILURES:
        if re.search(failure.words, said):
            return failure.error_class(
                f"{target}: {failure.message}{_because(quoted)}",
                temporary=failure.temporary,
                local=False,
                hint=failure.hint.format(name=name, ssh=f"ssh{port} {target}"),
            )
    return ConnectivityError(
        f"{target}: the connection was cut, or fsrep was killed there{_because(quoted)}",
        hint="see the log of that host; the next attempt goes on from what arrived",
    )


def _last_line(said: str) -> str:
    """Give the line that usually tells most."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:_QUOTE_LIMIT] if lines else ""


def _because(quoted: str) -> str:
    return f" ({quoted})" if quoted else ""
