"""The options of the transport, and the command line of ssh that they make.

Whatever ssh's own configuration says of the host holds: names, addresses, keys, jump
hosts. Set here is only what a program needs that speaks through ssh: never ask, no
terminal, nothing but the connection itself, and words from which errors can be told.
The first value that ssh sees for an option counts, so these stand before the user's.

Names come from a configuration file, but must not be able to become an option or a
command all the same: they are checked here, and again stand behind ``--``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_core import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LEFT_TO_SSH", "SshConfig", "command_line"]

LEFT_TO_SSH = "default"
"""As ``ciphers``: what ssh's configuration says, or its default."""

HOST = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:%+-]*")
"""Names, addresses and aliases of ``ssh_config``; ``%`` for the zones of IPv6."""

USER = re.compile(r"[^\s\x00-\x1f\x7f'`\";&<>|(){}$\\@-][^\s\x00-\x1f\x7f'`\";&<>|(){}$\\]*")
"""What OpenSSH itself lets pass, without what shells read as theirs."""

OPTION = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9]*)\s*[=\s]\s*[^\x00-\x1f\x7f]+")

CIPHERS = re.compile(r"[+^-]?[a-z0-9@.-]+(,[a-z0-9@.-]+)*")

OURS = {
    "BatchMode": "yes",
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
}
"""Never ask; nothing on standard output but what the far side says; no more than is needed."""

OF_SHARING = ("ControlMaster", "ControlPath", "ControlPersist")
"""What ``share_connection`` says; without it, they are left to ssh's configuration."""

_PORT_LIMIT = 65535


def _check_host(_instance: object, _attribute: object, host: str) -> None:
    if "@" in host:
        raise ValueError(f'"{host}" holds a user; write the name before "@" as user')
    if not HOST.fullmatch(host):
        raise ValueError(
            f'"{host}" cannot be a host; use a name, an address, or an alias of ssh\'s '
            "configuration"
        )


def _check_user(_instance: object, _attribute: object, user: str | None) -> None:
    if user is not None and not USER.fullmatch(user):
        raise ValueError(f'"{user}" cannot be a user; use the name of an account on the host')


def _check_port(_instance: object, _attribute: object, port: int | None) -> None:
    if port is not None and not 1 <= port <= _PORT_LIMIT:
        raise ValueError(f"{port} is out of range; write 1 to {_PORT_LIMIT}")


def _check_ciphers(_instance: object, _attribute: object, ciphers: str | None) -> None:
    if ciphers is not None and not CIPHERS.fullmatch(ciphers):
        raise ValueError(
            f'"{ciphers}" is no list of ciphers; write names with commas between them, '
            f'or "{LEFT_TO_SSH}"'
        )


def _check_options(_instance: object, _attribute: object, options: tuple[str, ...]) -> None:
    for option in options:
        match = OPTION.fullmatch(option)
        if match is None:
            raise ValueError(f'"{option}" is no option of ssh; write it as "ServerAliveInterval=5"')
        for name, value in OURS.items():
            if match["name"].lower() == name.lower():
                raise ValueError(f"{name} is always {value}; leave it out")


def _check_command(_instance: object, _attribute: object, command: str) -> None:
    if not command.strip() or command.startswith("-") or "\0" in command:
        raise ValueError(f'"{command}" is no command; write one such as "/opt/bin/fsrep endpoint"')


def _check_timeout(_instance: object, _attribute: object, seconds: float) -> None:
    if seconds < 1:
        raise ValueError('must be at least a second; write a duration such as "30s"')


def _check_sharing(config: SshConfig, _attribute: object, seconds: float | None) -> None:
    if seconds is None:
        return
    if seconds < 1:
        raise ValueError('must be at least a second; write a duration such as "1m"')
    for option in config.options:
        for name in OF_SHARING:
            if re.match(rf"{name}\b", option, re.IGNORECASE):
                raise ValueError(f"options says {name} as well; leave one of the two out")


@attrs.frozen(kw_only=True)
class SshConfig:
    """The options of ``ssh``."""

    host: str = attrs.field(validator=_check_host)
    """A name, an address, or an alias of ssh's configuration."""
    user: str | None = attrs.field(default=None, validator=_check_user)
    """The account there. ``None`` = as ssh decides."""
    port: int | None = attrs.field(default=None, validator=_check_port)
    """``None`` = as ssh decides."""
    identity_file: Path | None = None
    """The private key. ``None`` = as ssh decides, with the agent's keys and the usual files."""
    ciphers: str | None = attrs.field(default=None, validator=_check_ciphers)
    """As ``ssh -c`` takes it; ``"default"`` leaves it to ssh. ``None`` = AES-GCM first, where
    this processor has AES and ssh's configuration names no ciphers."""
    options: tuple[str, ...] = attrs.field(default=(), validator=_check_options)
    """More options of ``ssh_config(5)``, each as ``"Name=value"``. They are visible in the
    list of processes."""
    share_connection_seconds: float | None = attrs.field(
        default=None,
        alias="share_connection",
        metadata={"parse": parse_duration},
        validator=_check_sharing,
    )
    """Let all connections with the same options go through one login, which stays for so long
    after its last use. ``None`` = as ssh's configuration says."""
    command: str = attrs.field(default="fsrep endpoint", validator=_check_command)
    """What starts fsrep there; a shell reads it. A forced command takes its place."""
    connect_timeout_seconds: float = attrs.field(
        default=30.0,
        alias="connect_timeout",
        metadata={"parse": parse_duration},
        validator=_check_timeout,
    )
    """How long the host may take to answer. Logging in and starting fsrep there may take as
    long again."""


def command_line(
    config: SshConfig, ciphers: str | None, more: Mapping[str, str] | None = None
) -> list[str]:
    """Give the arguments that start ssh.

    :param ciphers: as ``ssh -c`` takes them; ``None`` = nothing is said of them
    :param more: further options, which count where the user's say nothing
    """
    # Without a user's word on it, messages are as telling as errors need them to be.
    telling = {"LogLevel": "INFO", "ConnectTimeout": str(round(config.connect_timeout_seconds))}
    words = ["ssh", "-T"]
    for option in (
        *(f"{name}={value}" for name, value in OURS.items()),
        *config.options,
        *(f"{name}={value}" for name, value in {**telling, **(more or {})}.items()),
    ):
        words += ["-o", option]
    if ciphers is not None:
        words += ["-c", ciphers]
    if config.identity_file is not None:
        words += ["-i", str(config.identity_file), "-o", "IdentitiesOnly=yes"]
    if config.port is not None:
        words += ["-p", str(config.port)]
    if config.user is not None:
        words += ["-l", config.user]
    return [*words, "--", config.host, config.command]
