"""One connection of the wire over a stream: frames out, events in, heartbeats, deadlines.

A link belongs to one task that opens and closes it (the pool's or the server's). One
task at a time reads; writes may come from several, and each frame goes out whole. Whoever
waits for the peer waits under the deadline of silence, so that a peer that vanished is
noticed, while one that is only slow keeps sending its heartbeats. Nobody reads while what
consumes a stream is slow, and then nothing is concluded from silence.

A write that was cut in the middle leaves the link torn: nothing can be said on it any
more. Reading may be cancelled at any moment.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import ConnectivityError, FsrepError
from fsrep_core.runtime.pump import TURN_SECONDS
from fsrep_core.runtime.remote.carrier import Carrier, Way
from fsrep_core.runtime.remote.frames import Awaited, IncomingFrames, OutgoingFrames
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.wire import (
    DATA_LIMIT_BYTES,
    Bye,
    Connection,
    Data,
    Failure,
    Heartbeat,
    make_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsrep_core.values import Problem
    from fsrep_core.wire import Event

__all__ = ["Link"]

READ_BYTES = 1 << 16
JOIN_BYTES = 1 << 16
"""A payload up to this size is copied behind its header, to be one write."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@attrs.define(eq=False)
class Link:
    """A stream that speaks the wire.

    :param peer_name: how messages call the other side
    """

    stream: trio.abc.Stream
    wire: Connection
    peer_name: str = attrs.field(kw_only=True)
    timing: Timing = attrs.field(kw_only=True)
    torn: bool = attrs.field(init=False, default=False)
    failure: FsrepError | None = attrs.field(init=False, default=None)
    """Why nothing can be done with this link any more, as first seen."""
    _writing: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    _written_time: float = attrs.field(init=False, factory=trio.current_time)
    _turn_ends: float = attrs.field(init=False, default=float("-inf"))
    _buffer: mmap.mmap | None = attrs.field(init=False, default=None, repr=False)

    @property
    def reusable(self) -> bool:
        """Another dialogue can begin here."""
        return self.wire.idle and not self.torn and self.failure is None

    async def greet(self) -> None:
        """Exchange the hellos. A peer that is refused still gets ours, which tells it why.

        :raises WireError: the peer speaks something else, or no common version
        :raises ConnectivityError: the connection ended before that
        """
        failed: FsrepError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_hello)
            try:
                await self._next_event()
            except FsrepError as error:
                failed = error
                # Whoever speaks something else may not take it.
                nursery.cancel_scope.deadline = trio.current_time() + self.timing.farewell_seconds
        if failed is not None:
            raise failed

    async def say(self, event: Event) -> None:
        """Send one frame.

        :raises ConnectivityError: the connection is broken
        """
        async with self._writing:
            await self._write(self.wire.send(event))

    async def say_data(self, piece: bytes | bytearray | memoryview) -> None:
        """Send a piece of the stream, at most :data:`DATA_LIMIT_BYTES`."""
        async with self._writing:
            header = self.wire.send(Data(len(piece)))
            if len(piece) <= JOIN_BYTES:
                await self._write(b"".join((header, piece)))
            elif isinstance(self.stream, Carrier):
                with self._tearing():
                    await self.stream.send_both(header, piece)
            else:
                await self._write(header, piece)
        await self._let_others_run()

    async def send_frames(self, frames: OutgoingFrames) -> None:
        """Send pieces of the stream for a turn, each of them whole."""
        carrier = frames.carrier
        async with self._writing:
            self.wire.said_data(0)  # whether it may be said, before any of it is
            before_bytes = frames.taken_bytes
            await trio.lowlevel.checkpoint_if_cancelled()
            with self._tearing(), carrier.sending():
                await carrier.turn(Way.SEND, frames.move)
                while not frames.between_frames:
                    await carrier.wait(Way.SEND)
                    await carrier.turn(Way.SEND, frames.move)
            self.wire.said_data(frames.taken_bytes - before_bytes)

    async def hear(self) -> Event:
        """Give the next thing that the peer says, apart from heartbeats.

        :raises ConnectivityError: the connection ended, or the peer fell silent
        :raises WireError: what it said may not be said
        """
        while True:
            event = await self._next_event()
            if not isinstance(event, Heartbeat):
                return event

    async def read_data(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give at least one byte of the payload that :class:`Data` announced.

        Valid until the next call.
        """
        piece = self.wire.take_data(max_bytes)
        if piece:
            return piece
        size_bytes = min(max_bytes, self.wire.data_remaining_bytes)
        if isinstance(self.stream, Carrier):
            buffer = self._payload_buffer[:size_bytes]
            read: bytes | bytearray | memoryview = buffer[
                : await self._receive_into(self.stream, buffer)
            ]
        else:
            read = await self._receive(size_bytes)
        self.wire.skip_data(len(read))
        return read

    async def move_data(self, target: int, max_bytes: int | None) -> int | None:
        """Move payloads into a descriptor: that of :class:`Data`, and of others behind it.

        :returns: how many bytes, at least one; ``None`` = they have to be read
        :raises BrokenPipeError: nobody reads the descriptor any more
        """
        if not isinstance(self.stream, Carrier) or self.wire.buffered_bytes:
            return None
        run = self.wire.begin_run()
        frames = IncomingFrames(
            self.stream, run, target, limit_bytes=max_bytes, buffer=self._payload_buffer
        )
        try:
            while True:
                await self._receive_frames(frames)
                if frames.awaits is Awaited.STORAGE:
                    await trio.lowlevel.wait_writable(target)
                elif frames.moved_bytes or frames.over:
                    break
        finally:
            self.wire.end_run(run)
        if frames.failure is not None:
            raise frames.failure
        return frames.moved_bytes

    async def hear_past_data(self) -> Event:
        """Give the next thing that the peer says behind what is left of a stream."""
        while True:
            while self.wire.data_remaining_bytes:
                await self.read_data(DATA_LIMIT_BYTES)
            event = await self.hear()
            if not isinstance(event, Data):
                return event

    async def beat(self) -> None:
        """Say that this side lives, whenever nothing else was said for a while.

        Returns when this side has said its bye: a heartbeat may not follow it.

        :raises ConnectivityError: nobody can hear it any more
        """
        interval = self.timing.heartbeat_interval_seconds
        while True:
            due_time = self._written_time + interval
            if trio.current_time() < due_time:
                await trio.sleep_until(due_time)
            elif self._writing.locked():
                # Something else goes out. If the peer does not take it, a heartbeat
                # behind it would not reach the peer either.
                await trio.sleep(interval)
            else:
                async with self._writing:
                    if self.wire.closed:
                        return
                    await self._write(self.wire.send(Heartbeat()))

    async def part(self) -> None:
        """End an idle link as its client: both sides say bye. In bounded time; never raises."""
        with trio.move_on_after(self.timing.farewell_seconds), suppress(FsrepError):
            await self.say(Bye())
            while not self.wire.peer_closed:
                await self.hear()

    async def leave(self, problem: Problem | None = None) -> None:
        """End a link as its server, which may do so at any time. Bounded; never raises.

        Closing with bytes unread could destroy what was just said, so they are read.
        """
        if self.torn:
            return
        with trio.move_on_after(self.timing.farewell_seconds), suppress(FsrepError):
            await self.say(Bye(problem))
            while True:
                await self._receive(READ_BYTES)

    async def last_words(self) -> FsrepError | None:
        """Read what the peer said before it stopped listening; ``None`` = nothing of note."""
        with trio.move_on_after(self.timing.farewell_seconds), suppress(FsrepError):
            while True:
                event = await self.hear_past_data()
                if isinstance(event, Failure | Bye) and event.problem is not None:
                    return make_error(event.problem)
        return None

    async def close(self) -> None:
        """Close the stream, in bounded time, also when cancelled."""
        with trio.move_on_after(self.timing.farewell_seconds, shield=True), suppress(*_BROKEN):
            await self.stream.aclose()

    def lost(self, message: str) -> ConnectivityError:
        """Make the error of a link that is of no use any more."""
        return ConnectivityError(f"{self.peer_name}: {message}")

    async def _say_hello(self) -> None:
        # If it cannot be sent, reading tells better why.
        with suppress(FsrepError):
            async with self._writing:
                await self._write(self.wire.send(self.wire.hello))

    async def _next_event(self) -> Event:
        try:
            while (event := self.wire.next_event()) is None:
                self.wire.feed(await self._receive(max(1, min(READ_BYTES, self._wanted_bytes))))
        except FsrepError as error:
            self.failure = self.failure or error
            raise
        return event

    @property
    def _payload_buffer(self) -> memoryview:
        if self._buffer is None:
            self._buffer = mmap.mmap(-1, DATA_LIMIT_BYTES)  # page-aligned: copying is faster
        return memoryview(self._buffer)

    @property
    def _wanted_bytes(self) -> int:
        # A carrier moves payloads its own way, so nothing of them is read ahead.
        if isinstance(self.stream, Carrier) and self.wire.peer is not None:
            return self.wire.wanted_bytes
        return READ_BYTES

    async def _receive(self, max_bytes: int) -> bytes | bytearray:
        received: bytes | bytearray = b""
        with self._waiting() as waiting:
            received = await self.stream.receive_some(max_bytes)
        if not received:
            raise await self._silence_or_end(waiting)
        return received

    async def _receive_into(self, carrier: Carrier, buffer: memoryview) -> int:
        count_bytes = 0
        with self._waiting() as waiting:
            count_bytes = await carrier.receive_into(buffer)
        if not count_bytes:
            raise await self._silence_or_end(waiting)
        return count_bytes

    async def _receive_frames(self, frames: IncomingFrames) -> None:
        """Take a turn, and wait for the peer if it has nothing more to give."""
        carrier, alive = frames.carrier, False
        with self._waiting() as waiting:
            with carrier.used(Way.RECEIVE):
                await carrier.turn(Way.RECEIVE, frames.move)
                if frames.awaits is Awaited.CARRIER and not frames.moved_bytes:
                    await carrier.wait(Way.RECEIVE)
            alive = not frames.cut
        if not alive:
            raise await self._silence_or_end(waiting)

    @contextmanager
    def _waiting(self) -> Iterator[trio.CancelScope]:
        """Wait for the peer under the deadline of silence; a broken stream is an ended one."""
        with trio.move_on_after(self.timing.silence_seconds) as scope, suppress(*_BROKEN):
            yield scope

    async def _silence_or_end(self, waiting: trio.CancelScope) -> FsrepError:
        if waiting.cancelled_caught:
            error: FsrepError = self.lost(
                f"no sign of life for {self.timing.silence_seconds:g} seconds"
            )
        else:
            error = await self._why_it_ended() or self.lost("the connection was cut")
        self.failure = self.failure or error
        return error

    async def _why_it_ended(self) -> FsrepError | None:
        if isinstance(self.stream, Carrier):
            with trio.move_on_after(self.timing.abort_seconds):
                return await self.stream.why_it_ended()
        return None

    async def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
        with self._tearing():
            for piece in pieces:
                await self.stream.send_all(piece)

    @contextmanager
    def _tearing(self) -> Iterator[None]:
        """Note that a frame did not go out whole, whatever the reason; then none may follow."""
        if self.torn:
            raise self.lost("the connection was cut in the middle of a frame")
        try:
            yield
        except BaseException as error:
            self.torn = True
            if not isinstance(error, _BROKEN):
                raise
            self.failure = self.failure or self.lost("the connection was cut")
            raise self.lost("the connection was cut") from error
        self._written_time = trio.current_time()

    async def _let_others_run(self) -> None:
        """Between two busy processes nothing ever waits, and yet others must have a turn."""
        if trio.current_time() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = trio.current_time() + TURN_SECONDS
