"""The seam for transports whose connection can do more than ``trio.abc.Stream`` says.

Any ``trio.abc.Stream`` carries the wire. A :class:`Carrier` also says how to try to move
bytes at once, without waiting, and what to wait for otherwise. From that it is a stream,
and one that moves payloads well: into a buffer that is used again and again, and many
frames in one go. It also knows why its connection ended.

:class:`DescriptorStream` is the carrier over plain descriptors: pipes of a child process,
standard input and output, a socket. Between them and a pipe, payloads go by ``splice(2)``,
without a copy through this process.

A peer takes and gives some kilobytes at a time. While a large payload flows, the loop
that moves it therefore borrows a thread, a turn at a time, as the pump's does: a round
through trio's loop for each of those pieces would cost more than the moving.
"""

from __future__ import annotations

import abc
import enum
import fcntl
import os
import select
import socket
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from fsrep_core.runtime.processes import enlarge_pipe
from fsrep_core.runtime.pump import TURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsrep_core.errors import FsrepError

__all__ = ["Carrier", "DescriptorStream", "Mover", "Way", "becomes_ready"]

RECEIVE_BYTES = 1 << 16

TURN_BYTES = 1 << 16
"""What is smaller than this needs no thread."""

JOIN_BYTES = 1 << 14
"""A header and the start of its payload, up to so much in all, are given together: one record
of TLS."""

SHORTEST_PAUSE_SECONDS = 0.0001
LONGEST_PAUSE_SECONDS = 0.002
"""Between two pieces of a large payload."""


class Way(enum.Enum):
    """A direction of a connection, as seen from here."""

    RECEIVE = "receive"
    SEND = "send"


Mover: TypeAlias = "Callable[[float], None]"
"""Moves bytes in a thread until there is nothing to move, or trouble, or a moment of
``time.monotonic()`` has come."""


def becomes_ready(descriptor: int, event: int, ends: float) -> bool:
    """Whether a descriptor is ready before a moment, or is broken, which the next try tells.

    Blocks. Of a moment that has passed, it tells of now.
    """
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, ends - time.monotonic()) * 1000))


@attrs.define(eq=False)
class _Pace:
    """How long to wait before the next piece, so that it is neither small nor late.

    A peer that moves some kilobytes at a time would have us wake for each. What lies
    between us and it has room for more: a pause is right after which a third of that has
    been used. It is found by trying, so that it suits any speed.
    """

    room_bytes: int
    """What the kernel keeps between the two; ``0`` = not known, and no pauses."""
    seconds: float = 0.0

    def pause(self) -> None:
        """Let the peer go on for a moment. Blocks."""
        if self.seconds >= SHORTEST_PAUSE_SECONDS:
            time.sleep(self.seconds)

    def learn(self, count_bytes: int) -> None:
        """Hear how much could be moved after the last pause."""
        if count_bytes * 2 > self.room_bytes:
            self.seconds /= 2
        elif count_bytes * 4 < self.room_bytes:
            wanted_seconds = max(self.seconds, SHORTEST_PAUSE_SECONDS) * 1.25
            self.seconds = min(wanted_seconds, LONGEST_PAUSE_SECONDS)


@attrs.define(eq=False)
class _Lane:
    """One direction, used by one task at a time."""

    pace: _Pace | None = None
    busy: bool = False
    torn: bool = False
    """A send was cut in the middle: what would come behind it means nothing."""
    failure: OSError | None = None
    """What ended it, as found by a turn in a thread."""
    # Of its own, so that it never waits for a thread that waits for these bytes.
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))


class Carrier(trio.abc.Stream):
    """A stream that is made of tries which never wait.

    A transport gives :meth:`take`, :meth:`give`, :meth:`awaited` and :meth:`release`; the
    rest follows. The tries may be called from a thread, one for each direction. All of
    ``trio.abc.Stream`` holds. Cancelling a receive loses no bytes: what was taken from the
    connection is returned, or is still there. After a send that was cut in the middle,
    nothing more can be sent.
    """

    def __init__(self) -> None:
        self._lanes = {way: _Lane() for way in Way}
        self._waiting: dict[tuple[int, int], trio.Event] = {}
        self._released = False
        self.closed = False
        """Closed on this side."""

    # --- what a transport gives -----------------------------------------------------------

    @abc.abstractmethod
    def take(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with what is there; ``0`` = the peer has ended its side.

        :raises BlockingIOError: nothing is there yet
        :raises OSError: the connection is broken
        """

    @abc.abstractmethod
    def give(self, data: memoryview) -> int:
        """Send the start of ``data``, as much as goes at once: at least a byte.

        :raises BlockingIOError: nothing goes yet
        :raises OSError: the connection is broken
        """

    @abc.abstractmethod
    def awaited(self, way: Way) -> tuple[int, int]:
        """Say what a try that could not go on waits for.

        :returns: a descriptor, and ``select.POLLIN`` or ``select.POLLOUT``
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Let the connection go. Called once, when it is closed and no thread uses it."""

    def splice_end(self, way: Way) -> int | None:  # noqa: ARG002  (for those who have one)
        """Give the descriptor between which and a pipe ``splice(2)`` may move bytes."""
        return None

    def room_bytes(self, way: Way) -> int:  # noqa: ARG002  (for those who know)
        """Say how much the kernel keeps between here and the peer; ``0`` = not known."""
        return 0

    async def why_it_ended(self) -> FsrepError | None:
        """Say what is behind the end of the connection, where the transport knows.

        Called once, with a deadline, when the connection has ended without a farewell.
        ``None`` = nothing beyond that.
        """
        return None

    # --- the stream -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``trio.abc.ReceiveStream``."""
        size_bytes = RECEIVE_BYTES if max_bytes is None else max_bytes
        if size_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        buffer = bytearray(size_bytes)
        count_bytes = await self.receive_into(memoryview(buffer))
        return bytes(memoryview(buffer)[:count_bytes])

    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with at least one byte.

        :returns: how many bytes; ``0`` = the peer has ended its side
        :raises trio.BrokenResourceError: the connection is broken
        :raises trio.ClosedResourceError: it was closed here
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with self.used(Way.RECEIVE):
            waited = False
            while (count_bytes := self.try_take(buffer)) is None:
                await self.wait(Way.RECEIVE)
                waited = True
            if count_bytes and len(buffer) - count_bytes >= TURN_BYTES:
                filling = _Filling(self, buffer[count_bytes:])
                with trio.CancelScope(shield=True):  # or the bytes that are here would be lost
                    await self.turn(Way.RECEIVE, filling.move)
                count_bytes += filling.filled_bytes
            elif not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        return count_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        with memoryview(data).cast("B") as view:
            await self._send([view] if view else [])

    async def send_both(self, header: bytes, payload: bytes | bytearray | memoryview) -> None:
        """Send a header and its payload, as ``send_all`` would send them joined."""
        with memoryview(payload).cast("B") as view:
            first_bytes = JOIN_BYTES - len(header)
            first = b"".join((header, view[:first_bytes]))
            rest = view[first_bytes:]
            await self._send([memoryview(first), rest] if rest else [memoryview(first)])

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self.used(Way.SEND):
            await self._wait_for(*self.awaited(Way.SEND))

    def close(self) -> None:
        """Close both directions at once; tasks that use them get ``ClosedResourceError``."""
        if self.closed:
            return
        self.closed = True
        for descriptor in {self.awaited(way)[0] for way in Way}:
            trio.lowlevel.notify_closing(descriptor)
        self._release_unused()

    async def aclose(self) -> None:
        """See ``trio.abc.AsyncResource``."""
        self.close()
        await trio.lowlevel.checkpoint()

    def detach(self) -> None:
        """Close without a word, and without letting the connection go: it is the caller's now."""
        self._released = True
        Carrier.close(self)

    # --- for those who move frames --------------------------------------------------------

    def try_take(self, buffer: memoryview) -> int | None:
        """Take, with ``None`` where nothing is there yet. A failure is remembered."""
        return self.attempt(Way.RECEIVE, lambda: self.take(buffer))

    def try_give(self, data: memoryview) -> int | None:
        """Give, with ``None`` where nothing goes yet. A failure is remembered."""
        return self.attempt(Way.SEND, lambda: self.give(data))

    def attempt(self, way: Way, move: Callable[[], int]) -> int | None:
        """Try to move something one way.

        The kernel tells of some failures once, and afterwards of a clean end: whoever
        comes later is told of the failure, too.
        """
        lane = self._lanes[way]
        if lane.failure is not None:
            raise lane.failure
        try:
            return move()
        except BlockingIOError:
            return None
        except OSError as error:
            self.fail(way, error)
            raise

    def fail(self, way: Way, error: OSError) -> None:
        """Remember what has ended one direction."""
        self._lanes[way].failure = error

    def failure(self, way: Way) -> OSError | None:
        """Give what has ended one direction; one that cannot be sent to may still be heard."""
        return self._lanes[way].failure

    def poll(self, way: Way, ends: float) -> bool:
        """Wait in a thread until another try is worth while, or a moment has come."""
        return becomes_ready(*self.awaited(way), ends)

    async def wait(self, way: Way) -> None:
        """Wait until another try is worth while; perhaps too short, never too long."""
        await self._wait_for(*self.awaited(way))
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")

    async def turn(self, way: Way, move: Mover) -> None:
        """Let bytes move in a thread for a while. Not cancelled meanwhile."""
        try:
            await trio.to_thread.run_sync(
                lambda: move(time.monotonic() + TURN_SECONDS), limiter=self._lanes[way].limiter
            )
        finally:
            self._release_unused()
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")

    def pace(self, way: Way) -> _Pace:
        """Give what tells how long to pause in a turn."""
        lane = self._lanes[way]
        if lane.pace is None:
            lane.pace = _Pace(self.room_bytes(way))
        return lane.pace

    @contextmanager
    def used(self, way: Way) -> Iterator[None]:
        """Give one direction to one task; what breaks becomes trio's errors."""
        lane = self._lanes[way]
        if lane.busy:
            raise trio.BusyResourceError(f"another task is using this stream to {way.value}")
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        lane.busy = True
        try:
            yield
        except OSError as error:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            lane.busy = False

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Give the way out to one task. If that is cut in the middle, nothing more goes out."""
        with self.used(Way.SEND):
            lane = self._lanes[Way.SEND]
            if lane.torn:
                raise trio.BrokenResourceError("an earlier send was cut in the middle")
            lane.torn = True
            yield
            lane.torn = False

    # --- within ---------------------------------------------------------------------------

    async def _send(self, parts: list[memoryview]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        with self.sending():
            waited = False
            emptying = _Emptying(self, parts)
            while emptying.parts:
                if emptying.remaining_bytes >= TURN_BYTES:
                    await self.turn(Way.SEND, emptying.move)
                    waited = True
                elif not emptying.step():
                    await self.wait(Way.SEND)
                    waited = True
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait_for(self, descriptor: int, event: int) -> None:
        """Wait with whoever waits for the same: trio allows one task a descriptor and event."""
        key = (descriptor, event)
        if (waiting := self._waiting.get(key)) is not None:
            await waiting.wait()
            return
        self._waiting[key] = waiting = trio.Event()
        wait = (
            trio.lowlevel.wait_readable if event == select.POLLIN else trio.lowlevel.wait_writable
        )
        try:
            await wait(descriptor)
        finally:
            del self._waiting[key]
            waiting.set()

    def _release_unused(self) -> None:
        """Let go once closed and no thread is there: the number of a descriptor is used again."""
        if not self.closed or self._released:
            return
        if not any(lane.limiter.borrowed_tokens for lane in self._lanes.values()):
            self._released = True
            self.release()


@attrs.define(eq=False)
class _Filling:
    """Fills a buffer."""

    carrier: Carrier
    buffer: memoryview
    filled_bytes: int = 0

    def move(self, ends: float) -> None:
        """Take what comes. What ends the connection is told by the next try."""
        pace = self.carrier.pace(Way.RECEIVE)
        while self.buffer and not self.carrier.closed and time.monotonic() < ends:
            pace.pause()
            try:
                count_bytes = self.carrier.try_take(self.buffer)
            except OSError:
                return
            if count_bytes is None:
                if not self.carrier.poll(Way.RECEIVE, ends):
                    return
                continue
            if not count_bytes:
                return
            self.buffer = self.buffer[count_bytes:]
            self.filled_bytes += count_bytes
            if self.buffer:
                pace.learn(count_bytes)


@attrs.define(eq=False)
class _Emptying:
    """Sends several parts, none of them empty."""

    carrier: Carrier
    parts: list[memoryview]

    @property
    def remaining_bytes(self) -> int:
        return sum(map(len, self.parts))

    def move(self, ends: float) -> None:
        """Give until all is sent or the turn is over."""
        while self.parts and not self.carrier.closed and time.monotonic() < ends:
            if not self.step() and not self.carrier.poll(Way.SEND, ends):
                return

    def step(self) -> bool:
        """Give once; tell whether anything went."""
        count_bytes = self.carrier.try_give(self.parts[0])
        if not count_bytes:
            return False
        self.parts[0] = self.parts[0][count_bytes:]
        if not self.parts[0]:
            del self.parts[0]
        return True


class DescriptorStream(Carrier):
    """A carrier over two descriptors, or one that goes both ways.

    They become its own: it makes them non-blocking, pipes among them as large as can be,
    and closes them.

    :param receiving: readable
    :param sending: writable; of a socket, the same as ``receiving``
    """

    def __init__(self, receiving: int, sending: int) -> None:
        super().__init__()
        self._receiving = receiving
        self._sending = sending
        for descriptor in {receiving, sending}:
            os.set_blocking(descriptor, False)
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                enlarge_pipe(descriptor)

    def take(self, buffer: memoryview) -> int:
        """See :meth:`Carrier.take`."""
        return os.readv(self._receiving, [buffer])

    def give(self, data: memoryview) -> int:
        """See :meth:`Carrier.give`."""
        return os.write(self._sending, data)

    def awaited(self, way: Way) -> tuple[int, int]:
        """See :meth:`Carrier.awaited`."""
        if way is Way.RECEIVE:
            return self._receiving, select.POLLIN
        return self._sending, select.POLLOUT

    def splice_end(self, way: Way) -> int:
        """See :meth:`Carrier.splice_end`."""
        return self.awaited(way)[0]

    def room_bytes(self, way: Way) -> int:
        """See :meth:`Carrier.room_bytes`: what a pipe or a socket holds at most."""
        descriptor, _ = self.awaited(way)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode):
            return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
        if not stat.S_ISSOCK(mode):
            return 0
        with socket.socket(fileno=os.dup(descriptor)) as view:
            return view.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2

    def release(self) -> None:
        """See :meth:`Carrier.release`."""
        for descriptor in {self._receiving, self._sending}:
            os.close(descriptor)
