"""``fsrep tls ca`` and ``fsrep tls issue``: certificates for the transport ``tls``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fsrep_core.errors import ConfigError
from fsrep_core.ops.certificates import issue as issue_certificate
from fsrep_core.ops.certificates import make_ca, renew

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fsrep_core.ops.certificates import Issued

__all__ = ["ca", "issue"]


def ca(directory: Path, *, days: int) -> int:
    """Make a CA and say which of its files goes where."""
    made = make_ca(directory, lifetime=timedelta(days=days))
    _say(f"{made.certificate}: the CA's certificate; every host needs it")
    _say(f"{made.key}: its key; whoever has it can be any host, so keep it off the network")
    _say_end(made)
    return 0


def issue(name: str, also: Sequence[str], directory: Path, *, days: int, anew: bool) -> int:
    """Issue or renew a certificate and say what belongs where."""
    lifetime = timedelta(days=days)
    if anew and also:
        raise ConfigError(
            "a certificate is renewed with the names that it has",
            hint="issue another one to change them",
        )
    if anew:
        made = renew(directory, name, lifetime=lifetime)
    else:
        made = issue_certificate(directory, [name, *also], lifetime=lifetime)
    _say(f"{made.certificate}: the certificate of {', '.join(made.names)}")
    _say(f"{made.key}: its key; only that host needs it")
    _say_end(made)
    return 0


def _say_end(made: Issued) -> None:
    _say(f"valid until {made.expires_at:%Y-%m-%d}")


def _say(text: str) -> None:
    print(text)  # noqa: T201  (the result of the command)
