"""The options of both ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from attrs import validators

from fsrep_core import parse_duration

__all__ = ["DEFAULT_PORT", "TlsConfig", "TlsListenerConfig"]

DEFAULT_PORT = 7766
_PORT_LIMIT = 65535


def _check_host(_instance: object, _attribute: object, host: Any) -> None:  # noqa: ANN401  (a string or None)
    if host is not None and (not host or not host.isprintable() or " " in host or "/" in host):
        raise ValueError(f'"{host}" is no host; write a name or an address, without a port')


def _check_port(_instance: object, _attribute: object, port: int) -> None:
    if not 1 <= port <= _PORT_LIMIT:
        raise ValueError(f"{port} is no port; write 1 to {_PORT_LIMIT}")


def _check_listening_port(_instance: object, _attribute: object, port: int) -> None:
    if not 0 <= port <= _PORT_LIMIT:
        raise ValueError(f"{port} is no port; write 1 to {_PORT_LIMIT}, or 0 for any free one")


def _duration(default_seconds: float, key: str) -> Any:  # noqa: ANN401  (attrs gives what the annotation says)
    return attrs.field(
        default=default_seconds,
        alias=key,
        metadata={"parse": parse_duration},
        validator=validators.gt(0),
    )


@attrs.frozen(kw_only=True)
class TlsConfig:
    """The options of the transport ``tls``, for the side that connects."""

    host: str = attrs.field(validator=_check_host)
    """The host on which ``fsrep serve`` runs: a name, or an IPv4 or IPv6 address."""
    port: int = attrs.field(default=DEFAULT_PORT, validator=_check_port)
    """The port on which it listens."""
    ca: Path
    """The certificate of the CA that vouches for the server."""
    certificate: Path
    """This host's certificate. The name in it is how the server knows this host."""
    key: Path
    """The key of this host's certificate. Nobody else may read it."""
    server_name: str | None = attrs.field(default=None, validator=_check_host)
    """The name that the server's certificate must have, if it is not ``host``."""
    dial_timeout_seconds: float = _duration(10.0, "dial_timeout")
    """How long to try to connect, over all addresses of the host."""
    handshake_timeout_seconds: float = _duration(10.0, "handshake_timeout")
    """How long the TLS handshake may take."""


@attrs.frozen(kw_only=True)
class TlsListenerConfig:
    """The options of the listener ``tls``."""

    address: str | None = attrs.field(default=None, validator=_check_host)
    """The address or name of this host on which to listen. Default: all of them."""
    port: int = attrs.field(default=DEFAULT_PORT, validator=_check_listening_port)
    """The port on which to listen."""
    ca: Path
    """The certificate of the CA that vouches for clients."""
    certificate: Path
    """This host's certificate. It must have the name by which clients reach it."""
    key: Path
    """The key of this host's certificate. Nobody else may read it."""
