"""The easy way to write a transport: say how to connect, and the rest is done here."""

from __future__ import annotations

import abc
from functools import partial
from typing import TYPE_CHECKING

from fsrep_core.runtime.remote.endpoint import open_remote_endpoint
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.transports import EndpointContext, Transport
from fsrep_core.wire import StorageAsk

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import trio

__all__ = ["StreamTransport"]


class StreamTransport(Transport):
    """A transport that connects to ``fsrep endpoint`` or ``fsrep serve`` by any stream.

    A subclass implements :meth:`connect`. Connections are opened when they are needed, at
    most one more than there are steps at once, used again for many calls, and closed in
    the end. Each speaks the wire: heartbeats, typed errors, and streams that are whole
    only with their byte count are no matter of the transport.
    """

    @abc.abstractmethod
    async def connect(self, context: EndpointContext) -> trio.abc.Stream:
        """Open one connection.

        The bytes must come in order and unchanged, and the peer must be who it should be:
        the wire itself protects nothing. Cancelling ``receive_some`` of the stream must
        not lose bytes, as with trio's own streams. The stream is closed by its user, in
        bounded time; everything that this connection has started must end with that.

        May be called by several tasks at once. When it is cancelled, and when it raises,
        nothing may be left of the attempt.

        :raises ConnectivityError: the peer cannot be reached; also any ``OSError`` or
            ``trio.BrokenResourceError`` is understood so
        :raises FsrepError: connecting failed for another reason, such as a refusal
        """

    def describe(self, context: EndpointContext) -> str:
        """Name the peer for messages, such as ``receiver at nas.example``."""
        return f"{context.side.value} over {type(self).__name__}"

    def timing(self) -> Timing:
        """Give the deadlines; a subclass with options for them gives its own."""
        return Timing()

    def open_endpoint(self, context: EndpointContext) -> AbstractAsyncContextManager[object]:
        """See :meth:`fsrep_core.Transport.open_endpoint`."""
        return open_remote_endpoint(
            partial(self.connect, context),
            peer_name=self.describe(context),
            ask=StorageAsk(
                job=context.job,
                side=context.side.value,
                storage=context.storage.name,
                options=context.storage.options,
            ),
            timing=self.timing(),
        )
