"""One TLS connection: a non-blocking socket, and trio to wait for it.

OpenSSL works on the socket itself. It encrypts out of the caller's buffer and decrypts
into it, without the buffers in between that a protocol object over memory would need, and
it can hand the work to the kernel where that knows TLS.

Two tasks may use the connection, one for each direction. Either may have to wait for
either: TLS sometimes reads in order to write, and the other way around. trio allows one
task to wait for one direction of a socket, hence :class:`_Readiness`.

A connection that ends without TLS's own farewell was cut, and is never a clean end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import attrs
import trio

from fsrep_core import Carrier, FsrepError

__all__ = ["TlsStream", "begin_tls", "prepare_socket"]

RECEIVE_BYTES = 1 << 16

KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
KEEPALIVE_PROBES = 4


@attrs.define(eq=False)
class _Readiness:
    """One direction of a socket that several tasks may wait for."""

    _wait: Callable[[int], Awaitable[None]]
    _descriptor: int
    _waiting: trio.Event | None = attrs.field(init=False, default=None)

    async def wait(self) -> None:
        """Wait until it is worth while to try again; perhaps too short, never too long."""
        if self._waiting is not None:
            await self._waiting.wait()
            return
        self._waiting = waiting = trio.Event()
        try:
            await self._wait(self._descriptor)
        finally:
            self._waiting = None
            waiting.set()


class TlsStream(Carrier):
    """A carrier over a non-blocking ``SSLSocket``, which becomes its own.

    :param connection: made with ``suppress_ragged_eofs=False``
    :param explain: makes the error of what ended the connection
    """

    def __init__(
        self, connection: ssl.SSLSocket, explain: Callable[[Exception], FsrepError]
    ) -> None:
        self.connection = connection
        self._explain = explain
        self._descriptor = connection.fileno()
        self._readable = _Readiness(trio.lowlevel.wait_readable, self._descriptor)
        self._writable = _Readiness(trio.lowlevel.wait_writable, self._descriptor)
        self._busy: set[str] = set()
        self._closed = False
        self._torn = False
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        return f"<TlsStream {'closed' if self._closed else self._descriptor}>"

    async def do_handshake(self) -> None:
        """Agree with the peer on who both are.

        :raises OSError: it failed; ``ssl.SSLError`` says how, where TLS has a word for it
        """
        while True:
            try:
                self.connection.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                await self._wait_for(wanted)
            else:
                await trio.lowlevel.checkpoint()
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``trio.abc.ReceiveStream``."""
        size_bytes = RECEIVE_BYTES if max_bytes is None else max_bytes
        if size_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        buffer = bytearray(size_bytes)
        count_bytes = await self.receive_into(memoryview(buffer))
        return bytes(memoryview(buffer)[:count_bytes])

    async def receive_into(self, buffer: memoryview) -> int:
        """See :class:`fsrep_core.Carrier`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._used("receive"):
            waited = False
            while True:
                try:
                    filled_bytes = self._take(buffer)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                    await self._wait_for(wanted)
                    waited = True
                else:
                    break
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return filled_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._used("send"), memoryview(data).cast("B") as view:
            if self._torn:
                raise trio.BrokenResourceError("an earlier send was cut in the middle")
            # OpenSSL wants what it has begun to be offered again, and could not tell other
            # bytes from it: after a send that was cut, this direction is of no use.
            self._torn = True
            waited = False
            sent_bytes = 0
            while sent_bytes < len(view):
                try:
                    sent_bytes += self.connection.send(view[sent_bytes:])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                    await self._wait_for(wanted)
                    waited = True
            self._torn = False
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._used("send"):
            await self._writable.wait()

    async def why_it_ended(self) -> FsrepError | None:
        """See :meth:`fsrep_core.Carrier.why_it_ended`."""
        await trio.lowlevel.checkpoint()
        return None if self._failure is None else self._explain(self._failure)

    def close(self) -> None:
        """Say farewell as far as the socket takes it, and close, at once."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError, ValueError):  # the peer may be gone, or still sending
            self.connection.unwrap()
        trio.lowlevel.notify_closing(self._descriptor)
        self.connection.close()

    async def aclose(self) -> None:
        """See ``trio.abc.AsyncResource``."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def refuse(self, seconds: float) -> None:
        """Close after a handshake that failed, so that the peer learns why.

        OpenSSL has told it; but closing a socket with bytes unread would destroy that.
        """
        if self._closed:
            return
        self._closed = True
        trio.lowlevel.notify_closing(self._descriptor)
        raw = trio.socket.from_stdlib_socket(socket.socket(fileno=self.connection.detach()))
        with raw, trio.move_on_after(seconds), suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            while await raw.recv(RECEIVE_BYTES):
                pass

    def _take(self, buffer: memoryview) -> int:
        """Fill the buffer with what there is; nothing of it waits in TLS afterwards."""
        if self._failure is not None:
            raise self._failure
        filled_bytes = 0
        try:
            while filled_bytes < len(buffer):
                count_bytes = self.connection.recv_into(buffer[filled_bytes:])
                if not count_bytes:
                    break
                filled_bytes += count_bytes
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not filled_bytes:
                raise
        except OSError as error:
            if not filled_bytes:
                raise
            self._failure = error  # for the next call: these bytes came before
        return filled_bytes

    async def _wait_for(self, wanted: ssl.SSLError) -> None:
        if isinstance(wanted, ssl.SSLWantReadError):
            await self._readable.wait()
        else:
            await self._writable.wait()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    @contextmanager
    def _used(self, what: str) -> Iterator[None]:
        """Give one direction to one task; what breaks becomes trio's errors."""
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is using this stream to {what}")
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        self._busy.add(what)
        try:
            yield
        except OSError as error:
            self._failure = self._failure or error
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._busy.discard(what)


def prepare_socket(raw: socket.socket) -> None:
    """Let small frames go at once, and let the kernel notice peers that vanish."""
    raw.settimeout(0)
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if raw.family in {socket.AF_INET, socket.AF_INET6}:
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
