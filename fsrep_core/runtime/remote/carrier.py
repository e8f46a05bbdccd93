"""The seam for transports whose connection can do more than ``trio.abc.Stream`` says.

Any ``trio.abc.Stream`` carries the wire. A :class:`Carrier` also fills a buffer that is
used again and again, so that payloads are not allocated piece by piece, and knows why its
connection ended. :class:`DescriptorStream` is the carrier over plain descriptors: pipes of
a child process, standard input and output, a socket. Payloads that come from a pipe go out
through it by ``splice(2)``, without a copy through this process.

A peer such as ssh takes and gives some kilobytes at a time. While a large payload flows,
the loop that moves it therefore borrows a thread, a turn at a time, as the pump's does:
a round through trio's loop for each of those pieces would cost more than the moving.
"""

from __future__ import annotations

import abc
import fcntl
import os
import select
import socket
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.runtime.pump import TURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsrep_core.errors import FsrepError

__all__ = ["Carrier", "DescriptorStream"]

RECEIVE_BYTES = 1 << 16

TURN_BYTES = 1 << 16
"""What is smaller than this needs no thread."""

SHORTEST_PAUSE_SECONDS = 0.0001
LONGEST_PAUSE_SECONDS = 0.002
"""Between two pieces of a large payload."""


class Carrier(trio.abc.Stream):
    """A stream that reads into a buffer of the caller's.

    All of ``trio.abc.Stream`` holds. Cancelling a receive must not lose bytes: what was
    taken from the connection is returned, or is still there.
    """

    @abc.abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with at least one byte.

        :returns: how many bytes; ``0`` = the peer has ended its side
        :raises trio.BrokenResourceError: the connection is broken
        :raises trio.ClosedResourceError: it was closed here
        """

    async def send_both(self, header: bytes, payload: bytes | bytearray | memoryview) -> None:
        """Send a header and its large payload, as ``send_all`` would send them joined.

        A carrier for which two sends cost more than one does better than this.
        """
        await self.send_all(header)
        await self.send_all(payload)

    async def why_it_ended(self) -> FsrepError | None:
        """Say what is behind the end of the connection, where the transport knows.

        Called once, with a deadline, when the connection has ended without a farewell.
        ``None`` = nothing beyond that.
        """
        return None


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


def _room_bytes(descriptor: int) -> int:
    """How much the kernel keeps for a pipe or a socket at most."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode):
        return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    if not stat.S_ISSOCK(mode):
        return 0
    with socket.socket(fileno=os.dup(descriptor)) as view:
        return view.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2


@attrs.define(eq=False)
class _Direction:
    """One descriptor, used by one task at a time."""

    descriptor: int
    closed: bool = False
    pace: _Pace = attrs.field(init=False)
    in_thread: bool = False
    """A turn uses the descriptor, which therefore must not be closed yet."""
    _busy: bool = False
    # Of its own, so that it never waits for a thread that waits for these bytes.
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @pace.default
    def _make_pace(self) -> _Pace:
        return _Pace(_room_bytes(self.descriptor))

    @contextmanager
    def used(self, what: str) -> Iterator[int]:
        """Give the descriptor to one task; what breaks becomes trio's errors."""
        if self._busy:
            raise trio.BusyResourceError(f"another task is using this stream to {what}")
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        self._busy = True
        try:
            yield self.descriptor
        except OSError as error:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._busy = False

    async def take_turn(self, move: Callable[[], int]) -> int:
        """Move bytes in a thread until it has none to wait for; give how many.

        Cancelling takes effect after the turn, so that none of them are lost.
        """
        self.in_thread = True
        try:
            moved_bytes = await trio.to_thread.run_sync(self._move_on, move, limiter=self._limiter)
        finally:
            self.in_thread = False
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        return moved_bytes

    def _move_on(self, move: Callable[[], int]) -> int:
        ends = time.monotonic() + TURN_SECONDS
        moved_bytes = 0
        while not self.closed and (count_bytes := move()):
            moved_bytes += count_bytes
            if time.monotonic() >= ends:
                break
        return moved_bytes


class DescriptorStream(Carrier):
    """A carrier over two descriptors, or one that goes both ways.

    They become its own: it makes them non-blocking, and closes them.

    :param receiving: readable
    :param sending: writable; of a socket, the same as ``receiving``
    """

    def __init__(self, receiving: int, sending: int) -> None:
        self._receiving = _Direction(receiving)
        self._sending = _Direction(sending)
        self._closed = False
        for descriptor in {receiving, sending}:
            os.set_blocking(descriptor, False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``trio.abc.ReceiveStream``."""
        size_bytes = RECEIVE_BYTES if max_bytes is None else max_bytes
        if size_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        buffer = bytearray(size_bytes)
        count_bytes = await self.receive_into(memoryview(buffer))
        return bytes(memoryview(buffer)[:count_bytes])

    async def receive_into(self, buffer: memoryview) -> int:
        """See :class:`Carrier`."""
        await trio.lowlevel.checkpoint()
        with self._using(self._receiving, "receive") as descriptor:
            while True:
                try:
                    count_bytes = os.readv(descriptor, [buffer])
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(descriptor)
            if count_bytes and len(buffer) - count_bytes >= TURN_BYTES:
                more = _Filling(descriptor, self._receiving.pace, buffer[count_bytes:])
                with trio.CancelScope(shield=True):  # or the bytes that are here would be lost
                    count_bytes += await self._receiving.take_turn(more.move)
            return count_bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._using(self._sending, "send") as descriptor, memoryview(data).cast("B") as view:
            sent_bytes = 0
            while sent_bytes < len(view):
                try:
                    sent_bytes += os.write(descriptor, view[sent_bytes:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(descriptor)

    async def send_from(self, source: int, count_bytes: int) -> None:
        """Move bytes out of a pipe, in the kernel.

        :param source: a pipe that holds at least ``count_bytes`` bytes
        """
        await trio.lowlevel.checkpoint()
        with self._using(self._sending, "send") as descriptor:
            emptying = _Emptying(source, descriptor, self._sending.pace, count_bytes)
            while emptying.remaining_bytes:
                if not await self._sending.take_turn(emptying.move):
                    await trio.lowlevel.wait_writable(descriptor)

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._using(self._sending, "send") as descriptor:
            await trio.lowlevel.wait_writable(descriptor)

    def close(self) -> None:
        """Close both directions at once; tasks that use them get ``ClosedResourceError``."""
        if self._receiving.closed:
            return
        self._receiving.closed = self._sending.closed = True
        for descriptor in {self._receiving.descriptor, self._sending.descriptor}:
            trio.lowlevel.notify_closing(descriptor)
        self._let_go()

    async def aclose(self) -> None:
        """See ``trio.abc.AsyncResource``."""
        self.close()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _using(self, direction: _Direction, what: str) -> Iterator[int]:
        try:
            with direction.used(what) as descriptor:
                yield descriptor
        finally:
            if direction.closed:
                self._let_go()

    def _let_go(self) -> None:
        """Close the descriptors, once closed and no turn uses them: a number is used again."""
        if self._closed or self._receiving.in_thread or self._sending.in_thread:
            return
        self._closed = True
        for descriptor in {self._receiving.descriptor, self._sending.descriptor}:
            os.close(descriptor)


@attrs.define(eq=False)
class _Filling:
    """Reads what comes into what is left of a buffer."""

    descriptor: int
    pace: _Pace
    buffer: memoryview

    def move(self) -> int:
        """Wait for some bytes and take them; ``0`` = none came, or no more will."""
        if not self.buffer:
            return 0
        self.pace.pause()
        if not _becomes_ready(self.descriptor, select.POLLIN):
            return 0
        try:
            count_bytes = os.readv(self.descriptor, [self.buffer])
        except OSError:  # whoever reads next is told
            return 0
        self.buffer = self.buffer[count_bytes:]
        if self.buffer:
            self.pace.learn(count_bytes)
        return count_bytes


@attrs.define(eq=False)
class _Emptying:
    """Moves a number of bytes out of a pipe."""

    source: int
    descriptor: int
    pace: _Pace
    remaining_bytes: int

    def move(self) -> int:
        """Wait for room and fill it; ``0`` = there was none, or nothing is left to do."""
        if not self.remaining_bytes:
            return 0
        self.pace.pause()
        if not _becomes_ready(self.descriptor, select.POLLOUT):
            return 0
        try:
            count_bytes = os.splice(
                self.source, self.descriptor, self.remaining_bytes, flags=os.SPLICE_F_NONBLOCK
            )
        except BlockingIOError:
            return 0
        self.remaining_bytes -= count_bytes
        if self.remaining_bytes:
            self.pace.learn(count_bytes)
        return count_bytes


def _becomes_ready(descriptor: int, event: int) -> bool:
    """Whether a descriptor is ready within a turn, or is broken, which the next try tells."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(TURN_SECONDS * 1000))
