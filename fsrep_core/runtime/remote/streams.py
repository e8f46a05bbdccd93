"""Streams of steps over a link: out of one as ``DATA`` frames, into the other's hands.

:class:`IncomingStream` is the far end as a storage or the driver sees it: its bytes are
whole when ``END`` has come. :class:`OutgoingStream` sends a stream of this side, and can
be told to stop between two frames, when nobody wants the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from fsrep_core.errors import FsrepError, InterruptedStreamError
from fsrep_core.runtime.remote.carrier import Carrier
from fsrep_core.runtime.remote.frames import Awaited, OutgoingFrames
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
        piece: bytes | bytearray | memoryview = b""
        with self._read():
            if await self._more():
                piece = await self.link.read_data(max_bytes)
        self.total_bytes += len(piece)
        return piece

    async def move_into(self, target: int, max_bytes: int | None) -> int | None:
        """See :meth:`~fsrep_core.ByteStream.move_into`: in the kernel, or with one copy."""
        count_bytes: int | None = 0
        with self._read():
            if await self._more():
                count_bytes = await self.link.move_data(target, max_bytes)
        self.total_bytes += count_bytes or 0
        return count_bytes

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

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Note that somebody reads, and of what goes wrong that they know."""
        self._reading = True
        try:
            yield
        except FsrepError as error:
            self.error, self.error_told = error, True
            raise
        finally:
            self._reading = False
            self._left.set()

    async def _more(self) -> bool:
        """Tell whether there is a payload to take, now that the peer was heard."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._watched is not None:
            await self._watched.wait()
        while not self.link.wire.data_remaining_bytes:
            self._raise_error()
            if self.whole:
                return False
            await self._hear()
        return True

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
    _frames: OutgoingFrames | None = attrs.field(init=False, default=None)
    _taking: trio.CancelScope | None = attrs.field(init=False, default=None)

    def stop(self) -> None:
        """Take no more from the stream. A frame that has begun goes out whole."""
        self._stopped = True
        if self._frames is not None:
            self._frames.stopped = True
        if self._taking is not None:
            self._taking.cancel()

    async def run(self) -> bool:
        """Send everything, and ``END`` once the stream's maker has vouched for it.

        :returns: whether that was done; ``False`` = it was stopped
        :raises FsrepError: the stream failed, or the link is lost
        """
        carrier, source = self.link.stream, self.stream.descriptor
        if isinstance(carrier, Carrier) and source is not None:
            await self._send_frames(carrier, source)
        else:
            await self._send_pieces()
        if not self._stopped:
            with trio.CancelScope() as self._taking:
                await self.stream.finish()
        if self._stopped:
            return False
        await self.link.say(End(self.total_bytes))
        return True

    async def _send_pieces(self) -> None:
        """Send what the stream gives."""
        limit_bytes = self._limit_bytes
        while not self._stopped:
            piece: bytes | bytearray | memoryview = b""
            with trio.CancelScope() as self._taking:
                piece = await self.stream.receive_some(limit_bytes)
            if not piece:
                return
            self.total_bytes += len(piece)
            await self.link.say_data(piece)

    async def _send_frames(self, carrier: Carrier, source: int) -> None:
        """Send what the stream's descriptor gives."""
        self._frames = frames = OutgoingFrames(
            carrier,
            source,
            limit_bytes=self._limit_bytes,
            single=self.stream.piece_limit_bytes is not None,
        )
        frames.stopped = self._stopped
        while not frames.at_end:
            await self.link.send_frames(frames)
            count_bytes = frames.taken_bytes - self.total_bytes
            self.total_bytes = frames.taken_bytes
            if self._stopped:
                return
            with trio.CancelScope() as self._taking:
                if count_bytes:
                    await self.stream.moved(count_bytes)
                if frames.awaits is Awaited.STORAGE:
                    await trio.lowlevel.wait_readable(source)

    @property
    def _limit_bytes(self) -> int:
        return min(self.stream.piece_limit_bytes or DATA_LIMIT_BYTES, DATA_LIMIT_BYTES)
