"""The files that prove who this host is, and that say whom it believes.

They are read again when they change, before the next handshake, so that a renewed
certificate needs no restart; connections that are open keep theirs. While files are being
replaced they may not fit together: what was read before stays in use then, and the log
says so, until they do.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import NoReturn

import attrs

from fsrep_core import ConfigError, Expiry

__all__ = ["Credentials"]

_LOG = logging.getLogger(__name__)
_READABLE_BY_OTHERS = 0o004

_Seen = tuple[tuple[int, int, int], ...]


@attrs.define(eq=False)
class Credentials:
    """A certificate, its key and a CA, in files.

    :param server: whether this side accepts
    """

    ca: Path
    certificate: Path
    key: Path
    server: bool = attrs.field(kw_only=True)
    _seen: _Seen | None = attrs.field(init=False, default=None, repr=False)
    _context: ssl.SSLContext | None = attrs.field(init=False, default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """Give what a handshake needs, from the files as they are now.

        :raises ConfigError: they cannot be used, and never could
        """
        try:
            seen = self._look()
            if self._context is None or seen != self._seen:
                self._context = self._read()
                self._seen = seen
        except ConfigError as error:
            if self._context is None:
                raise
            _LOG.warning("certificates have changed and the old ones stay in use: %s", error)
        return self._context

    def expiries(self) -> tuple[Expiry, ...]:
        """Tell until when the certificates are valid.

        :raises ConfigError: one cannot be read
        """
        return tuple(Expiry(what=str(each), expires_at=_end_of(each)) for each in self._files[:2])

    @property
    def _files(self) -> tuple[Path, Path, Path]:
        return self.ca, self.certificate, self.key

    def _look(self) -> _Seen:
        """Note what changes when a file is replaced or written."""
        statuses = []
        for path in self._files:
            try:
                statuses.append(path.stat())
            except OSError as error:
                raise _unreadable(path, error) from error
        if statuses[-1].st_mode & _READABLE_BY_OTHERS:
            raise ConfigError(
                f"the key {self.key} can be read by everyone on this host",
                hint=f"chmod 600 {self.key}, and have a new one issued if strangers are here",
            )
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in statuses)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(
            ssl.PROTOCOL_TLS_SERVER if self.server else ssl.PROTOCOL_TLS_CLIENT
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        # Kernel TLS, where Python, OpenSSL and the kernel all have it.
        context.options |= getattr(ssl, "OP_ENABLE_KTLS", 0)
        if self.server:
            context.num_tickets = 0  # a connection serves many steps; none is resumed
        else:
            context.hostname_checks_common_name = False
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_verify_locations(cafile=self.ca)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{self.ca} holds no certificate of a CA: {error.reason or error}",
                hint='it is the file "ca.pem" that "fsrep tls ca" has made',
            ) from error
        except OSError as error:
            raise _unreadable(self.ca, error) from error
        try:
            context.load_cert_chain(self.certificate, self.key, password=self._refuse_password)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{self.certificate} and {self.key} are no certificate with its key: "
                f"{error.reason or error}",
                hint='"fsrep tls issue" makes two files that belong together',
            ) from error
        except OSError as error:
            readable = next((each for each in self._files[1:] if not _readable(each)), self.key)
            raise _unreadable(readable, error) from error

    def _refuse_password(self) -> NoReturn:
        raise ConfigError(
            f"the key {self.key} is protected by a password, which nobody is there to type",
            hint="store the key without one, in a file that only fsrep's user can read",
        )


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read {path}: {error.strerror or error}",
        hint='"fsrep tls issue" makes certificates and keys; fsrep\'s user must own them',
    )


def _readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def _end_of(path: Path) -> float:
    """Tell when the first certificate of a file ends."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate", hint="it must be in PEM form") from error
    return certificate.not_valid_after_utc.timestamp()
