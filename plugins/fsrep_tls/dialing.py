"""The end that connects."""

from __future__ import annotations

import socket
from functools import partial

import attrs
import trio

from fsrep_core import (
    EndpointContext,
    Expiry,
    FsrepError,
    StreamTransport,
    TimeoutExpiredError,
    Timing,
)
from fsrep_tls.config import TlsConfig
from fsrep_tls.credentials import Credentials
from fsrep_tls.problems import explain_connecting, explain_server
from fsrep_tls.stream import TlsStream, begin_tls

__all__ = ["TlsTransport"]

GREETING_SECONDS = 10.0
"""How long the server's hello may take once TLS stands."""


@attrs.define(eq=False)
class TlsTransport(StreamTransport):
    """Connects to ``fsrep serve``, by whatever address of the host answers first."""

    config: TlsConfig
    _credentials: Credentials = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config = self.config
        self._credentials = Credentials(config.ca, config.certificate, config.key, server=False)

    def describe(self, context: EndpointContext) -> str:
        """See :meth:`fsrep_core.StreamTransport.describe`."""
        return f"{context.side.value} at {self._where}"

    def timing(self) -> Timing:
        """See :meth:`fsrep_core.StreamTransport.timing`."""
        config = self.config
        return Timing(
            connect_seconds=config.dial_timeout_seconds
            + config.handshake_timeout_seconds
            + GREETING_SECONDS
        )

    def expiries(self) -> tuple[Expiry, ...]:
        """See :meth:`fsrep_core.Transport.expiries`."""
        return self._credentials.expiries()

    async def connect(self, context: EndpointContext) -> trio.abc.Stream:  # noqa: ARG002  (the peer is the same for all)
        """See :meth:`fsrep_core.StreamTransport.connect`."""
        tls_context = self._credentials.context()
        raw = await self._dial()
        explain = partial(
            explain_server,
            where=self._where,
            server_name=self._server_name,
            ca=str(self.config.ca),
            certificate=str(self.config.certificate),
        )
        stream: TlsStream | None = None
        try:
            with trio.fail_after(self.config.handshake_timeout_seconds):
                stream = begin_tls(raw, tls_context, explain, server_name=self._server_name)
                await stream.do_handshake()
        except OSError as error:
            raise explain(error) from error
        except trio.TooSlowError as error:
            raise self._too_slow(
                "no TLS handshake", self.config.handshake_timeout_seconds
            ) from error
        else:
            accepted, stream = stream, None
            return accepted
        finally:
            if stream is not None:
                stream.close()

    async def _dial(self) -> socket.socket:
        config = self.config
        try:
            with trio.fail_after(config.dial_timeout_seconds):
                tcp = await trio.open_tcp_stream(config.host, config.port)
        except (OSError, UnicodeError) as error:
            raise self._explain_dialing(error) from error
        except trio.TooSlowError as error:
            raise self._too_slow("no connection", config.dial_timeout_seconds) from error
        return socket.socket(fileno=tcp.socket.detach())

    def _explain_dialing(self, error: OSError | UnicodeError) -> FsrepError:
        if isinstance(error, UnicodeError):  # no name of the domain name system can be so
            error = socket.gaierror(socket.EAI_NONAME, "it is no valid name")
        return explain_connecting(error, self._where)

    def _too_slow(self, what: str, seconds: float) -> TimeoutExpiredError:
        return TimeoutExpiredError(
            f"{self._where}: {what} within {seconds:g} seconds",
            hint="see whether the host is up, and whether a firewall drops what is sent to it",
        )

    @property
    def _where(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{host}:{self.config.port}"

    @property
    def _server_name(self) -> str:
        return self.config.server_name or self.config.host
