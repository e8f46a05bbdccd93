"""The end that accepts."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fsrep_core import (
    Caller,
    ConfigError,
    Expiry,
    FsrepError,
    Identified,
    Listener,
    PermissionDeniedError,
)
from fsrep_tls.config import TlsListenerConfig
from fsrep_tls.credentials import Credentials
from fsrep_tls.problems import explain_tls
from fsrep_tls.stream import begin_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["TlsListener", "identity_of"]

BACKLOG = 1024
REFUSAL_SECONDS = 2.0
"""How long a client may take to hear that its handshake has failed."""


@attrs.define(eq=False)
class TlsListener(Listener):
    """Accepts TCP connections whose clients prove by certificate who they are."""

    config: TlsListenerConfig
    _credentials: Credentials = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = self.config
        self._credentials = Credentials(config.ca, config.certificate, config.key, server=True)

    def expiries(self) -> tuple[Expiry, ...]:
        """See :meth:`fsrep_core.Listener.expiries`."""
        return self._credentials.expiries()

    async def serve(
        self,
        welcome: Callable[[Caller], None],
        *,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See :meth:`fsrep_core.Listener.serve`."""
        self._credentials.context()  # what cannot be used is said now, not to the first client
        listeners = await self._open()

        async def accept(tcp: trio.SocketStream) -> None:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                peer = _address(tcp.socket.getpeername())
            except OSError:
                return  # it is gone already
            raw = socket.socket(fileno=tcp.socket.detach())
            welcome(TlsCaller(self._credentials, raw, peer))

        try:
            task_status.started(tuple(_address(each.socket.getsockname()) for each in listeners))
            await trio.serve_listeners(accept, listeners)
        finally:
            for listener in listeners:
                listener.socket.close()

    async def _open(self) -> list[trio.SocketListener]:
        where = f"{self.config.address or 'all addresses'}, port {self.config.port}"
        try:
            return await trio.open_tcp_listeners(
                self.config.port, host=self.config.address, backlog=BACKLOG
            )
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"cannot listen on {where}: {error}",
                hint="see whether something else listens there, and whether the address is "
                "one of this host",
            ) from error


@attrs.define(eq=False)
class TlsCaller(Caller):
    """A client that has connected; TLS has not begun."""

    _credentials: Credentials
    _raw: socket.socket
    _address: str

    @property
    def address(self) -> str:
        """See :attr:`fsrep_core.Caller.address`."""
        return self._address

    async def identify(self) -> Identified:
        """See :meth:`fsrep_core.Caller.identify`."""
        explain = partial(explain_tls, where=self._address)
        try:
            stream = begin_tls(self._raw, self._credentials.context(), explain)
        except OSError as error:
            raise explain(error) from error
        except BaseException:
            self._raw.close()
            raise
        try:
            await stream.do_handshake()
            return Identified(identity=identity_of(stream.connection.getpeercert()), stream=stream)
        except OSError as error:
            await stream.refuse(REFUSAL_SECONDS)
            raise _explain_client(error, self._address) from error
        except BaseException:
            stream.close()
            raise


def identity_of(certificate: Mapping[str, Any] | None) -> str:
    """Say whom a certificate names: its first DNS name, or else its common name.

    :param certificate: as ``SSLSocket.getpeercert`` gives it
    :raises PermissionDeniedError: it names nobody
    """
    certificate = certificate or {}
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    names += [value for kind, value in subject if kind == "commonName"]
    if not names:
        raise PermissionDeniedError(
            "the client's certificate has neither a DNS name nor a common name",
            local=False,
            hint="issue it with fsrep tls issue NAME",
        )
    return str(names[0])


def _explain_client(error: OSError, address: str) -> FsrepError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermissionDeniedError(
            f"{address}: the client's certificate was refused: {error.verify_message}",
            local=False,
            hint="issue it with the CA that this listener believes",
        )
    if isinstance(error, ssl.SSLError) and error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return PermissionDeniedError(f"{address}: the client has shown no certificate", local=False)
    return explain_tls(error, address)


def _address(name: tuple[Any, ...] | str) -> str:
    """Write an address as people do."""
    if isinstance(name, str):
        return name or "a local socket"
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
