"""Streams of steps over a link: out of one as ``DATA`` frames, into the other's hands.

:class:`IncomingStream` is the far end as a storage or the driver sees it: its bytes are
whole when ``END`` has come. :class:`OutgoingStream` sends a stream of this side, and can
be told to stop between two frames, when nobody wants the rest.
"""

from __future__ import annotations

import array
import fcntl
import os
import stat
import termios
from collections.abc import Callable

import attrs
import trio

from fsrep_core.errors import FsrepError, InterruptedStreamError
from fsrep_core.runtime.remote.carrier import DescriptorStream
from fsrep_core.runtime.remote.link import Link
from fsrep_core.streams import ByteStream
from fsrep_core.wire import DATA_LIMIT_BYTES, Data, End, Event

__all__ = ["IncomingStream", "OutgoingStream"]

WATCH_SECONDS = 0.1
"""How long a reader may be away before somebody else looks what comes."""


@attrs.define(eq=False)
class IncomingStream(ByteStream):
    """The stream that comes in over a link.

    :param explain: makes the error of a word other than ``DATA`` and ``END``
    """

    link: Link
    _explain: Callable[[Event], FsrepError]
    total_bytes: int = attrs.field(init=False, default=0)
    """How many bytes were taken."""
    whole: bool = attrs.field(init=False, default=False)
    """The maker has vouched for all bytes."""
    error: FsrepError | None = attrs.field(init=False, default=None)
    """Why the stream ended before it was whole."""
    error_told: bool = attrs.field(init=False, default=False)
    """Whoever reads the stream knows the error."""
    _reading: bool = attrs.field(init=False, default=False)
    _watched: trio.Event | None = attrs.field(init=False, default=None)
    """Set when the watch has heard what it waits for."""
    _left: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when a reader goes away, perhaps to come back."""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """See :meth:`~fsrep_core.ByteStream.receive_some`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._watched is not None:
            await self._watched.wait()
        self._reading = True
        try:
            while not self.link.wire.data_remaining_bytes:
                self._raise_error()
                if self.whole:
                    return b""
                await self._hear()
            piece = await self.link.read_data(max_bytes)
        except FsrepError as error:
            self.error, self.error_told = error, True
            raise
        finally:
            self._reading = False
            self._left.set()
        self.total_bytes += len(piece)
        return piece

    async def finish(self) -> None:
        """See :meth:`~fsrep_core.ByteStream.finish`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._raise_error()
        if not self.whole:
            raise InterruptedStreamError(
                f"{self.link.peer_name}: the stream was not read to its end"
            )

    async def watch(self) -> None:
        """Hear what comes while nobody reads; return when the stream has ended.

        Bytes that wait to be read hide what stands behind them.
        """
        while not self.whole and self.error is None:
            if self._reading or self.link.wire.data_remaining_bytes:
                self._left = trio.Event()
                await self._left.wait()
                await trio.sleep(WATCH_SECONDS)
                continue
            self._watched = trio.Event()
            try:
                await self._hear()
            finally:
                self._watched.set()
                self._watched = None

    async def _hear(self) -> None:
        """Hear one word, and note an end of the stream."""
        try:
            match await self.link.hear():
                case Data():
                    pass
                case End():
                    self.whole = True
                case event:
                    self.error = self._explain(event)
        except FsrepError as error:
            self.error = error

    def _raise_error(self) -> None:
        if self.error is not None:
            self.error_told = True
            raise self.error


@attrs.define(eq=False)
class OutgoingStream:
    """Sends one stream of this side over a link."""

    link: Link
    stream: ByteStream
    total_bytes: int = attrs.field(init=False, default=0)
    _stopped: bool = attrs.field(init=False, default=False)
    _taking: trio.CancelScope | None = attrs.field(init=False, default=None)

    def stop(self) -> None:
        """Take no more from the stream. A frame that has begun goes out whole."""
        self._stopped = True
        if self._taking is not None:
            self._taking.cancel()

    async def run(self) -> bool:
        """Send everything, and ``END`` once the stream's maker has vouched for it.

        :returns: whether that was done; ``False`` = it was stopped
        :raises FsrepError: the stream failed, or the link is lost
        """
        limit_bytes = min(self.stream.piece_limit_bytes or DATA_LIMIT_BYTES, DATA_LIMIT_BYTES)
        carrier, source = self.link.stream, self.stream.descriptor
        if isinstance(carrier, DescriptorStream) and source is not None and _is_pipe(source):
            send_piece = self._splice_piece
        else:
            send_piece = self._send_piece
        while not self._stopped and await send_piece(limit_bytes):
            pass
        if not self._stopped:
            with trio.CancelScope() as self._taking:
                await self.stream.finish()
        if self._stopped:
            return False
        await self.link.say(End(self.total_bytes))
        return True

    async def _send_piece(self, limit_bytes: int) -> bool:
        """Send what the stream gives; tell whether there may be more."""
        piece: bytes | bytearray | memoryview = b""
        with trio.CancelScope() as self._taking:
            piece = await self.stream.receive_some(limit_bytes)
        if not piece:
            return False
        self.total_bytes += len(piece)
        await self.link.say_data(piece)
        return True

    async def _splice_piece(self, limit_bytes: int) -> bool:
        """Send what is in the stream's pipe, without a copy; tell whether there may be more."""
        source = self.stream.descriptor
        assert source is not None  # noqa: S101  (run has looked)
        count_bytes = _readable_bytes(source)
        if not count_bytes:
            with trio.CancelScope() as self._taking:
                await trio.lowlevel.wait_readable(source)
            count_bytes = _readable_bytes(source)
        if not count_bytes or self._stopped:
            return False
        count_bytes = min(count_bytes, limit_bytes)
        self.total_bytes += count_bytes
        await self.link.splice_data(source, count_bytes)
        with trio.CancelScope() as self._taking:
            await self.stream.moved(count_bytes)
        return True


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


def _readable_bytes(descriptor: int) -> int:
    """How many bytes can be read at once. After waiting, none means the end."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
