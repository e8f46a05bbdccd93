"""One TLS connection: a non-blocking socket, and trio to wait for it.

OpenSSL works on the socket itself. It encrypts out of the caller's buffer and decrypts
into it, without the buffers in between that a protocol object over memory would need, and
it can hand the work to the kernel where that knows TLS.

Two tasks may use the connection, one for each direction. Either may have to wait for
either: TLS sometimes reads in order to write, and the other way around. OpenSSL lets only
one thread at a time use a connection, hence the lock; nobody waits for the network while
holding it.

A connection that ends without TLS's own farewell was cut, and is never a clean end.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from fsrep_core import Carrier, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsrep_core import FsrepError

__all__ = ["TlsStream", "begin_tls", "prepare_socket"]

INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})

RECEIVE_BYTES = 1 << 16

GIVE_BYTES = 1 << 20
"""The most that is encrypted while the other direction waits for the lock."""

CORK_BYTES = 1 << 16
"""What is larger than this is several records, and no segment need go before the next is there."""

KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
KEEPALIVE_PROBES = 4


class TlsStream(Carrier):
    """A carrier over a non-blocking ``SSLSocket``, which becomes its own.

    :param connection: made with ``suppress_ragged_eofs=False``
    :param explain: makes the error of what ended the connection
    """

    def __init__(
        self, connection: ssl.SSLSocket, explain: Callable[[Exception], FsrepError]
    ) -> None:
        super().__init__()
        self.connection = connection
        self._explain = explain
        self._descriptor = connection.fileno()
        self._is_tcp = connection.family in INTERNET
        self._lock = threading.Lock()
        self._awaited = {Way.RECEIVE: select.POLLIN, Way.SEND: select.POLLOUT}

    def __repr__(self) -> str:
        return f"<TlsStream {'closed' if self.closed else self._descriptor}>"

    async def do_handshake(self) -> None:
        """Agree with the peer on who both are.

        :raises OSError: it failed; ``ssl.SSLError`` says how, where TLS has a word for it
        """
        while True:
            try:
                self.connection.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                self._blocked(Way.RECEIVE, wanted)
                await self.wait(Way.RECEIVE)
            else:
                await trio.lowlevel.checkpoint()
                return

    def take(self, buffer: memoryview) -> int:
        """See :meth:`fsrep_core.Carrier.take`; nothing is left inside OpenSSL."""
        # This is the loop of a receive: OpenSSL gives one record at a time.
        filled_bytes, size_bytes, receive = 0, len(buffer), self.connection.recv_into
        try:
            with self._lock:
                while filled_bytes < size_bytes:
                    count_bytes = receive(buffer[filled_bytes:], size_bytes - filled_bytes)
                    if not count_bytes:
                        break
                    filled_bytes += count_bytes
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            if not filled_bytes:
                raise self._blocked(Way.RECEIVE, wanted) from wanted
        except OSError as error:
            if not filled_bytes:
                raise
            self.fail(Way.RECEIVE, error)  # for the next call: these bytes came before
        return filled_bytes

    def give(self, data: memoryview) -> int:
        """See :meth:`fsrep_core.Carrier.give`: what OpenSSL has begun is offered again."""
        try:
            with self._lock, self._corked(len(data)):
                return self.connection.send(data[:GIVE_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            raise self._blocked(Way.SEND, wanted) from wanted

    def awaited(self, way: Way) -> tuple[int, int]:
        """See :meth:`fsrep_core.Carrier.awaited`."""
        return self._descriptor, self._awaited[way]

    def release(self) -> None:
        """See :meth:`fsrep_core.Carrier.release`."""
        self.connection.close()

    async def why_it_ended(self) -> FsrepError | None:
        """See :meth:`fsrep_core.Carrier.why_it_ended`."""
        await trio.lowlevel.checkpoint()
        # What was heard last tells more than that nothing could be said any more.
        failure = self.failure(Way.RECEIVE) or self.failure(Way.SEND)
        return None if failure is None else self._explain(failure)

    def close(self) -> None:
        """Say farewell as far as the socket takes it, and close, at once."""
        if self.closed:
            return
        with self._lock, suppress(OSError, ValueError):  # the peer may be gone, or still sending
            self.connection.unwrap()
        super().close()

    async def refuse(self, seconds: float) -> None:
        """Close after a handshake that failed, so that the peer learns why.

        OpenSSL has told it; but closing a socket with bytes unread would destroy that.
        """
        if self.closed:
            return
        self.detach()
        raw = trio.socket.from_stdlib_socket(socket.socket(fileno=self.connection.detach()))
        with raw, trio.move_on_after(seconds), suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            while await raw.recv(RECEIVE_BYTES):
                pass

    @contextmanager
    def _corked(self, size_bytes: int) -> Iterator[None]:
        """Let the kernel fill its segments: each wakes the peer, and OpenSSL writes by record."""
        if size_bytes <= CORK_BYTES or not self._is_tcp:
            yield
            return
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            yield
        finally:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _blocked(self, way: Way, wanted: ssl.SSLError) -> BlockingIOError:
        """Note what OpenSSL waits for, which may be the other direction."""
        reading = isinstance(wanted, ssl.SSLWantReadError)
        self._awaited[way] = select.POLLIN if reading else select.POLLOUT
        return BlockingIOError(str(wanted))


def prepare_socket(raw: socket.socket) -> None:
    """Let small frames go at once, and let the kernel notice peers that vanish."""
    raw.settimeout(0)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if raw.family in INTERNET:
        options += [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        ]
    for level, name, value in options:
        raw.setsockopt(level, name, value)


def begin_tls(
    raw: socket.socket,
    context: ssl.SSLContext,
    explain: Callable[[Exception], FsrepError],
    *,
    server_name: str | None = None,
) -> TlsStream:
    """Put TLS over a connected socket, which becomes the stream's own; shake hands next.

    :param server_name: whom the peer must prove to be; ``None`` on the accepting side
    :raises OSError: the peer is gone already; the socket is closed
    """
    try:
        prepare_socket(raw)
        connection = context.wrap_socket(
            raw,
            server_side=server_name is None,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=server_name,
        )
    except BaseException:
        raw.close()
        raise
    return TlsStream(connection, explain)
