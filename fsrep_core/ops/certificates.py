"""Certificates for hosts that reach each other over TLS, without a need to know openssl.

One CA of one's own vouches for every host. A host's certificate serves both ends of TLS
and names the host: by that name clients check the server, and the server knows clients.
Keys are P-256 on an elliptic curve, are written for their owner only, and never replaced.
"""

from __future__ import annotations

import ipaddress
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fsrep_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Issued", "issue", "make_ca", "renew"]

CA_NAME = "ca"
CLOCK_SKEW = timedelta(hours=1)
"""Certificates are valid from so long ago, for hosts whose clocks are late."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,238}[A-Za-z0-9])?")
_COMMON_NAME_LIMIT = 64


@attrs.frozen(kw_only=True)
class Issued:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    expires_at: datetime
    names: tuple[str, ...]


def make_ca(directory: Path, *, lifetime: timedelta) -> Issued:
    """Make a CA: ``ca.pem``, which every host needs, and ``ca.key``, which none needs.

    :raises ConfigError: there is one already, or it cannot be written
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fsrep CA")])
    now = datetime.now(UTC)
    public = key.public_key()
    certificate = (
        _builder(subject, subject, public, now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _write_new(directory, CA_NAME, certificate, key, ("fsrep CA",))


def issue(directory: Path, names: Sequence[str], *, lifetime: timedelta) -> Issued:
    """Issue a certificate with the CA in the same directory.

    :param names: host names and addresses; the first one names the files
    :param lifetime: cut to that of the CA
    :raises ConfigError: there is no CA, or one of the files is there already
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(directory, key.public_key(), names, lifetime)
    return _write_new(directory, names[0], certificate, key, tuple(names))


def renew(directory: Path, name: str, *, lifetime: timedelta) -> Issued:
    """Replace a certificate by one for the same key and names, in one step.

    So that whoever reads the two files meanwhile finds them fitting together.

    :raises ConfigError: there is no such certificate, or no CA
    """
    _check_name(name)
    path, key_path = _paths(directory, name)
    old = _read_certificate(path)
    names = _names_of(old)
    certificate = _sign(directory, old.public_key(), names, lifetime)
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()  # what an earlier attempt has left
    _write(fresh, _pem(certificate), mode=0o644)
    fresh.replace(path)
    return Issued(
        certificate=path, key=key_path, expires_at=certificate.not_valid_after_utc, names=names
    )


def _sign(
    directory: Path, public: object, names: Sequence[str], lifetime: timedelta
) -> x509.Certificate:
    for name in names:
        _check_name(name)
    ca_path, ca_key_path = _paths(directory, CA_NAME)
    ca, ca_key = _read_certificate(ca_path), _read_key(ca_key_path)
    now = datetime.now(UTC)
    if now >= ca.not_valid_after_utc:
        raise ConfigError(
            f"the CA in {ca_path} has expired",
            hint="make a new one in another directory, and give its certificate to every host",
        )
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ConfigError("the certificate was not issued by fsrep", hint="issue a new one")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_COMMON_NAME_LIMIT])])
    ends_at = min(now + lifetime, ca.not_valid_after_utc)
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _builder(subject, ca.subject, public, now, ends_at)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    ends_at: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(ends_at)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_name(name: str) -> None:
    if _as_address(name) is None and (not _NAME.fullmatch(name) or name == CA_NAME):
        raise ConfigError(
            f'"{name}" cannot be in a certificate',
            hint="write the name or address by which the host is reached: up to 240 letters, "
            'digits, ".", "_" and "-"; "ca" is the CA\'s own',
        )


def _as_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _general_name(name: str) -> x509.GeneralName:
    address = _as_address(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise ConfigError(
            "the certificate was not issued by fsrep: it names no host", hint="issue a new one"
        ) from None
    return tuple(str(each.value) for each in extension.value)


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.pem", directory / f"{name}.key"


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as exc:
        raise _not_there(path, exc) from exc
    except ValueError as exc:
        raise ConfigError(f"{path} holds no certificate in PEM form") from exc


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise _not_there(path, exc) from exc
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{path} holds no key without a password in PEM form") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not the key of a CA that fsrep made")
    return key


def _not_there(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read {path}: {error.strerror}",
        hint='name the directory with --directory; "fsrep tls ca" makes a CA',
    )


def _write_new(
    directory: Path,
    name: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
) -> Issued:
    """Write a key and its certificate, or neither."""
    path, key_path = _paths(directory, name)
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if path.exists():
        raise _already_there(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise _not_written(directory, exc) from exc
    _write(key_path, content, mode=0o600)
    try:
        _write(path, _pem(certificate), mode=0o644)
    except ConfigError:
        key_path.unlink()
        raise
    return Issued(
        certificate=path, key=key_path, expires_at=certificate.not_valid_after_utc, names=names
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write a new file, with its mode from the first moment on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123  (a descriptor, not a path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise _already_there(path) from None
    except OSError as exc:
        raise _not_written(path, exc) from exc


def _already_there(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is there already and is not replaced",
        hint="to give a host a new certificate for the key that it has, use --renew",
    )


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write {path}: {error.strerror}",
        hint="name a directory that you may write to with --directory",
    )
