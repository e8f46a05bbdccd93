"""One TLS connection: a non-blocking socket, and trio to wait for it.

OpenSSL works on the socket itself. It encrypts out of the caller's buffer and decrypts
into it, without the buffers in between that a protocol object over memory would need, and
it can hand the work to the kernel where that knows TLS.

Two tasks may use the connection, one for each direction. Either may have to wait for
either: TLS sometimes reads in order to write, and the other way around. trio allows one
task to wait for one direction of a socket, hence :class:`_Readiness`.

While a large payload flows, the loop that moves it borrows a thread, a turn at a time: a
round through trio's loop for every few records would cost more than the moving, most of all
where processes compete for processors. OpenSSL lets only one thread at a time use a
connection, hence the lock; nobody waits for the network while holding it.

A connection that ends without TLS's own farewell was cut, and is never a clean end.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import attrs
import trio

from fsrep_core import Carrier, FsrepError

__all__ = ["TlsStream", "begin_tls", "prepare_socket"]

RECEIVE_BYTES = 1 << 16

RECORD_BYTES = 1 << 14
"""The most that one record of TLS carries."""

TURN_BYTES = 1 << 16
"""What is smaller than this needs no thread."""
TURN_SECONDS = 0.02
"""How long a turn in a thread lasts, and so how long cancelling may take."""
SEND_BYTES = 1 << 18
"""The most that is encrypted while the other direction waits for the lock."""

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


@attrs.define(eq=False)
class _Outgoing:
    """Bytes to be sent, in several parts, none of them empty."""

    _parts: list[memoryview]
    remaining_bytes: int = attrs.field(init=False)

    @remaining_bytes.default
    def _count(self) -> int:
        return sum(map(len, self._parts))

    def next(self, limit_bytes: int) -> memoryview:
        """Give what comes next; as much as before, until some of it was sent."""
        return self._parts[0][:limit_bytes]

    def sent(self, count_bytes: int) -> None:
        """Hear how much of that was sent."""
        self.remaining_bytes -= count_bytes
        self._parts[0] = self._parts[0][count_bytes:]
        if not self._parts[0]:
            del self._parts[0]


@attrs.define(eq=False)
class _Filling:
    """A buffer that is being filled."""

    _buffer: memoryview
    filled_bytes: int = 0

    @property
    def rest(self) -> memoryview:
        return self._buffer[self.filled_bytes :]


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
        self._lock = threading.Lock()
        # Of their own, so that no turn ever waits for a thread that waits for its bytes.
        self._limiters = {what: trio.CapacityLimiter(1) for what in ("receive", "send")}
        self._closed = False
        self._let_go = False
        self._torn = False
        self._failures: dict[str, OSError] = {}
        """Of each direction; one that cannot be sent to may still be heard."""

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
            if filled_bytes and len(buffer) - filled_bytes >= TURN_BYTES:
                filling = _Filling(buffer[filled_bytes:])
                with trio.CancelScope(shield=True):  # or the bytes that are here would be lost
                    await self._take_turn("receive", partial(self._take_more, filling))
                filled_bytes += filling.filled_bytes
            elif not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        return filled_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        with memoryview(data).cast("B") as view:
            await self._send([view] if view else [])

    async def send_both(self, header: bytes, payload: bytes | bytearray | memoryview) -> None:
        """See :meth:`fsrep_core.Carrier.send_both`: the header goes with the first record."""
        with memoryview(payload).cast("B") as view:
            first_bytes = RECORD_BYTES - len(header)
            first = b"".join((header, view[:first_bytes]))
            await self._send([memoryview(first), view[first_bytes:]])

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._used("send"):
            await self._writable.wait()

    async def why_it_ended(self) -> FsrepError | None:
        """See :meth:`fsrep_core.Carrier.why_it_ended`."""
        await trio.lowlevel.checkpoint()
        # What was heard last tells more than that nothing could be said any more.
        failure = self._failures.get("receive") or self._failures.get("send")
        return None if failure is None else self._explain(failure)

    def close(self) -> None:
        """Say farewell as far as the socket takes it, and close, at once."""
        if self._closed:
            return
        self._closed = True
        with self._lock, suppress(OSError, ValueError):  # the peer may be gone, or still sending
            self.connection.unwrap()
        trio.lowlevel.notify_closing(self._descriptor)
        self._close_unused()

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
        self._closed = self._let_go = True
        trio.lowlevel.notify_closing(self._descriptor)
        raw = trio.socket.from_stdlib_socket(socket.socket(fileno=self.connection.detach()))
        with raw, trio.move_on_after(seconds), suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            while await raw.recv(RECEIVE_BYTES):
                pass

    def _close_unused(self) -> None:
        """Close the socket, once closed and no thread uses it: its number is used again."""
        if self._closed and not self._let_go and not self._in_thread:
            self._let_go = True
            self.connection.close()

    @property
    def _in_thread(self) -> bool:
        return any(limiter.borrowed_tokens for limiter in self._limiters.values())

    async def _take_turn(self, what: str, move: Callable[[], int]) -> int:
        """Move bytes in a thread for a while; give how many. Not cancelled meanwhile.

        What ends the connection is told by the next try: there may be bytes before it.
        """
        turn = partial(self._move_on, what, move)
        try:
            moved_bytes = await trio.to_thread.run_sync(turn, limiter=self._limiters[what])
        finally:
            self._close_unused()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        return moved_bytes

    def _move_on(self, what: str, move: Callable[[], int]) -> int:
        """Move until there is nothing more to move, or the turn is over. Runs in a thread."""
        ends = time.monotonic() + TURN_SECONDS
        moved_bytes = 0
        while not self._closed:
            try:
                count_bytes = move()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                count_bytes = 0
                reading = isinstance(wanted, ssl.SSLWantReadError)
                if not self._poll(reading=reading, seconds=ends - time.monotonic()):
                    break
            except OSError as error:
                self._failures.setdefault(what, error)
                break
            else:
                if not count_bytes:
                    break
            moved_bytes += count_bytes
            if time.monotonic() >= ends:
                break
        return moved_bytes

    def _poll(self, *, reading: bool, seconds: float) -> bool:
        if seconds <= 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN if reading else select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def _give(self, outgoing: _Outgoing) -> int:
        """Encrypt and send what goes in; what OpenSSL has begun must be offered again."""
        if "send" in self._failures:
            raise self._failures["send"]
        if not outgoing.remaining_bytes:
            return 0
        with self._lock:
            count_bytes = self.connection.send(outgoing.next(SEND_BYTES))
        outgoing.sent(count_bytes)
        return count_bytes

    async def _send(self, parts: list[memoryview]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._used("send"):
            if self._torn:
                raise trio.BrokenResourceError("an earlier send was cut in the middle")
            # OpenSSL wants what it has begun to be offered again, and could not tell other
            # bytes from it: after a send that was cut, this direction is of no use.
            self._torn = True
            waited = False
            outgoing = _Outgoing(parts)
            while outgoing.remaining_bytes:
                if outgoing.remaining_bytes >= TURN_BYTES:
                    waited = True
                    if await self._take_turn("send", partial(self._give, outgoing)):
                        continue
                try:
                    self._give(outgoing)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
                    await self._wait_for(wanted)
                    waited = True
            self._torn = False
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _take_more(self, filling: _Filling) -> int:
        count_bytes = self._take(filling.rest) if filling.rest else 0
        filling.filled_bytes += count_bytes
        return count_bytes

    def _take(self, buffer: memoryview) -> int:
        """Fill the buffer with what there is; nothing of it waits in TLS afterwards."""
        if "receive" in self._failures:
            raise self._failures["receive"]
        filled_bytes = 0
        try:
            while filled_bytes < len(buffer):
                with self._lock:
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
            self._failures["receive"] = error  # for the next call: these bytes came before
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
            self._failures.setdefault(what, error)
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
