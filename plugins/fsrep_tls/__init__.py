"""The transport ``tls``: TCP with TLS 1.3 and certificates on both sides.

===============  ====================================================================
module           what it holds
===============  ====================================================================
``config``       the options of both ends
``credentials``  files with certificates and keys, read again when they change
``stream``       one connection that moves bytes
``problems``     what went wrong, in words that say what to do
``dialing``      the end that connects
``listening``    the end that accepts
===============  ====================================================================

Names are imported on first use, so that a command which selects another transport stays
fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core import hookimpl

if TYPE_CHECKING:
    from fsrep_core import Listener, Registry, Transport
    from fsrep_tls.config import TlsConfig, TlsListenerConfig

__all__ = ["plugin"]


class TlsPlugin:
    """Adds both ends of the transport."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """See :meth:`fsrep_core.PluginSpec.register`."""
        from fsrep_tls.config import TlsConfig, TlsListenerConfig

        registry.add_transport(
            "tls",
            _create_transport,
            config_class=TlsConfig,
            summary="Reaches fsrep serve over TCP with TLS 1.3; both sides have certificates.",
        )
        registry.add_listener(
            "tls",
            _create_listener,
            config_class=TlsListenerConfig,
            summary="Accepts clients over TCP with TLS 1.3; their certificates say who they are.",
        )


plugin = TlsPlugin()


def _create_transport(config: TlsConfig) -> Transport:
    from fsrep_tls.dialing import TlsTransport

    return TlsTransport(config)


def _create_listener(config: TlsListenerConfig) -> Listener:
    from fsrep_tls.listening import TlsListener

    return TlsListener(config)
