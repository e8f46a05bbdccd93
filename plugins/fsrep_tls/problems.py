"""What can go wrong between two hosts, told so that somebody can act on it.

OpenSSL's verdicts on a certificate are numbers of ``X509_verify_cert_error_string(3)``;
an alert of the peer comes as the reason of an error.
"""

from __future__ import annotations

import errno
import socket
import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING

from fsrep_core import ConnectivityError, FsrepError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["explain_connecting", "explain_server", "explain_tls"]

_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME = frozenset({62, 63, 64})
_WRONG_PURPOSE = 26

_ALERTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "CERTIFICATE_EXPIRED": ("it has expired", "issue a new one"),
        "UNKNOWN_CA": (
            "it is not from the CA that the peer believes",
            "issue it with the CA whose certificate the peer has as its ca",
        ),
        "CERTIFICATE_REQUIRED": (
            "it wants one, and none was shown",
            "set certificate and key",
        ),
        "UNSUPPORTED_CERTIFICATE": (
            "it is not meant for this use",
            "issue it for both ends of TLS, as fsrep tls issue does",
        ),
        "CERTIFICATE_REVOKED": ("it was revoked", "issue a new one"),
        "BAD_CERTIFICATE": (
            "it is damaged or not yet valid",
            "compare the clocks of both hosts; see the log of the peer",
        ),
        "CERTIFICATE_UNKNOWN": ("for a reason that it does not say", "see the log of the peer"),
        "ACCESS_DENIED": ("for a reason that it does not say", "see the log of the peer"),
    }
)
"""What the peer may say of this side's certificate: what that means, and what to do."""

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE")
_OLD_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")

_UNREACHABLE = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}
)


def explain_connecting(error: OSError, where: str) -> FsrepError:
    """Make the error of a connection that did not come about."""
    if isinstance(error, socket.gaierror):
        return ConnectivityError(
            f"{where}: the name cannot be resolved: {error.strerror}",
            hint="correct host, or see to the name service of this host",
        )
    numbers = {each.errno for each in _leaves(error)}
    if numbers == {errno.ECONNREFUSED}:
        return ConnectivityError(
            f"{where}: connection refused: nothing listens there",
            hint="start fsrep serve there, or correct host and port",
        )
    if numbers & _UNREACHABLE:
        return ConnectivityError(
            f"{where}: the host cannot be reached",
            hint="see to the network and the routes between the two hosts",
        )
    reasons = sorted({each.strerror or str(each) for each in _leaves(error)})
    return ConnectivityError(
        f"{where}: cannot connect: {'; '.join(reasons)}",
        hint="see whether a firewall stands between the two hosts",
    )


def explain_server(
    error: Exception, *, where: str, server_name: str, ca: str, certificate: str
) -> FsrepError:
    """Make the error of a connection to a server, in the handshake or after it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verdict(error, f"{where}: the server's certificate", server_name, ca)
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else ""
    for alert, (meaning, remedy) in _ALERTS.items():
        if alert in reason and "ALERT" in reason:
            return PermissionDeniedError(
                f"{where}: the server refuses this host's certificate {certificate}: {meaning}",
                local=False,
                hint=remedy,
            )
    return explain_tls(error, where)


def explain_tls(error: Exception, where: str) -> ConnectivityError:
    """Make the error of a TLS connection that ended without a word about certificates."""
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return ConnectivityError(f"{where}: the connection was cut: {_text(error)}")
    reason = error.reason or ""
    if any(each in reason for each in _OLD_TLS):
        return ConnectivityError(
            f"{where}: the other side does not speak TLS 1.3",
            temporary=False,
            local=False,
            hint="fsrep speaks nothing older; see what answers there",
        )
    if any(each in reason for each in _NO_TLS):
        return ConnectivityError(
            f"{where}: what answers there does not speak TLS",
            temporary=False,
            local=False,
            hint="correct host and port; fsrep serve listens on 7766 unless told otherwise",
        )
    return ConnectivityError(f"{where}: TLS failed: {_text(error)}")


def _explain_verdict(
    error: ssl.SSLCertVerificationError, what: str, server_name: str, ca: str
) -> FsrepError:
    code = error.verify_code
    if code == _EXPIRED:
        message, hint = "has expired", "issue a new one on the server, with fsrep tls issue"
    elif code == _NOT_YET_VALID:
        message, hint = "is not yet valid", "compare the clocks of both hosts"
    elif code in _UNKNOWN_CA:
        message = f"is not from the CA in {ca}"
        hint = "both sides need the certificate of the CA that issued the other's"
    elif code in _WRONG_NAME:
        message = f'is for another host than "{server_name}"'
        hint = f"issue one for {server_name}, or set server_name to the name in the certificate"
    elif code == _WRONG_PURPOSE:
        message, hint = "is not meant for servers", "issue it with fsrep tls issue"
    else:
        message = f"cannot be believed: {error.verify_message}"
        hint = "issue a new one on the server, with fsrep tls issue"
    return ConnectivityError(f"{what} {message}", temporary=False, local=False, hint=hint)


def _leaves(error: BaseException) -> Iterator[OSError]:
    """Give the errors of the single addresses, which trio puts behind one."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error.__cause__ is not None:
        yield from _leaves(error.__cause__)
    elif isinstance(error, OSError):
        yield error


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "it ended without a farewell"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
