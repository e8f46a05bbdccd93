"""Runs of ``DATA`` frames between a carrier and a descriptor, many in one turn of a thread.

Between two frames nothing has to be decided, so the thread goes from one to the next: out
of a storage's pipe into the connection, and out of the connection into a storage's pipe.
Where the kernel can splice the two, payloads do not pass through this process; otherwise
they pass through one buffer.

What does not concern a run ends the turn: the end of the source, another frame than
``DATA``, a side that has to be waited for, somebody who wants to stop.
"""

from __future__ import annotations

import array
import enum
import errno
import fcntl
import mmap
import os
import select
import stat
import termios
import time
from functools import partial

import attrs

from fsrep_core.runtime.remote.carrier import Carrier, Way, becomes_ready
from fsrep_core.wire import DATA_LIMIT_BYTES, HEADER_BYTES, DataRun, FrameKind, encode_header

__all__ = ["Awaited", "IncomingFrames", "OutgoingFrames"]


NOW = 0.0
"""A moment that has passed, for a look without waiting."""


class Awaited(enum.Enum):
    """What a run waits for after a turn."""

    NOTHING = enum.auto()
    CARRIER = enum.auto()
    STORAGE = enum.auto()
    """The descriptor on the other side."""


def is_pipe(descriptor: int) -> bool:
    """Tell whether the kernel can splice this with anything."""
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


@attrs.define(eq=False)
class OutgoingFrames:
    """Sends what a descriptor gives, as frames.

    :param source: non-blocking and readable
    :param limit_bytes: of one frame
    :param single: one frame a turn, for somebody who wants to wait between them
    """

    carrier: Carrier
    source: int
    limit_bytes: int = attrs.field(kw_only=True)
    single: bool = attrs.field(kw_only=True)
    stopped: bool = attrs.field(init=False, default=False)
    """Set by whoever wants no further frame."""
    awaits: Awaited = attrs.field(init=False, default=Awaited.NOTHING)
    at_end: bool = attrs.field(init=False, default=False)
    """The source has given its last byte."""
    taken_bytes: int = attrs.field(init=False, default=0)
    """Payload that has left the source, in all turns."""
    _rest: memoryview = attrs.field(init=False, factory=lambda: memoryview(b""))
    """What of the frame is to be given."""
    _splicing_bytes: int = attrs.field(init=False, default=0)
    """What of the frame is to be spliced behind that."""
    _begun: bool = attrs.field(init=False, default=False)
    _target: int | None = attrs.field(init=False)
    _buffer: memoryview = attrs.field(init=False, factory=lambda: memoryview(b""))

    @_target.default
    def _find_target(self) -> int | None:
        return self.carrier.splice_end(Way.SEND) if is_pipe(self.source) else None

    @property
    def between_frames(self) -> bool:
        """All that was begun has gone out."""
        return not self._rest and not self._splicing_bytes

    def move(self, ends: float) -> None:
        """Send frames until it has to be waited for something. Runs in a thread."""
        self.awaits = Awaited.NOTHING
        self._begun = False
        while not self.carrier.closed:
            if self._rest:
                moved = self._give()
            elif self._splicing_bytes:
                moved = self._splice()
            elif self.stopped or (self._begun and (self.single or time.monotonic() >= ends)):
                return
            elif self._begin():
                continue
            elif self.at_end:
                return
            elif becomes_ready(self.source, select.POLLIN, ends):
                continue
            else:
                self.awaits = Awaited.STORAGE
                return
            if not moved and not self.carrier.poll(Way.SEND, ends):
                self.awaits = Awaited.CARRIER
                return

    def _begin(self) -> bool:
        """Begin a frame with what is there; ``False`` = nothing is."""
        count_bytes = self._announce() if self._target is not None else self._fill()
        self.taken_bytes += count_bytes
        self._begun = self._begun or bool(count_bytes)
        return bool(count_bytes)

    def _announce(self) -> int:
        count_bytes = min(_readable_bytes(self.source), self.limit_bytes)
        if count_bytes:
            self._rest = memoryview(encode_header(FrameKind.DATA, count_bytes))
            self._splicing_bytes = count_bytes
        else:
            ready = becomes_ready(self.source, select.POLLIN, NOW)
            self.at_end = ready and not _readable_bytes(self.source)
        return count_bytes

    def _fill(self) -> int:
        if not self._buffer:
            # The payload begins a page: some processors copy more slowly to any other place.
            room = memoryview(mmap.mmap(-1, mmap.PAGESIZE + self.limit_bytes))
            self._buffer = room[mmap.PAGESIZE - HEADER_BYTES :]
        try:
            count_bytes = os.readv(self.source, [self._buffer[HEADER_BYTES:]])
        except BlockingIOError:
            return 0
        if count_bytes:
            self._buffer[:HEADER_BYTES] = encode_header(FrameKind.DATA, count_bytes)
            self._rest = self._buffer[: HEADER_BYTES + count_bytes]
        else:
            self.at_end = True
        return count_bytes

    def _give(self) -> bool:
        count_bytes = self.carrier.try_give(self._rest)
        if not count_bytes:
            return False
        self._rest = self._rest[count_bytes:]
        return True

    def _splice(self) -> bool:
        pace = self.carrier.pace(Way.SEND)
        pace.pause()
        count_bytes = self.carrier.attempt(Way.SEND, self._splice_once)
        if not count_bytes:
            return False
        self._splicing_bytes -= count_bytes
        if self._splicing_bytes:
            pace.learn(count_bytes)
        return True

    def _splice_once(self) -> int:
        assert self._target is not None  # noqa: S101  (only then is anything to be spliced)
        return os.splice(
            self.source, self._target, self._splicing_bytes, flags=os.SPLICE_F_NONBLOCK
        )


@attrs.define(eq=False)
class IncomingFrames:
    """Moves the payloads of frames into a descriptor.

    :param target: non-blocking and writable
    :param data: where in a payload the connection stands; kept up to date
    :param limit_bytes: how much to move at most, in all turns; ``None`` = no limit
    :param buffer: to use where the kernel cannot splice
    """

    carrier: Carrier
    data: DataRun
    target: int
    limit_bytes: int | None = attrs.field(kw_only=True)
    buffer: memoryview = attrs.field(kw_only=True)
    awaits: Awaited = attrs.field(init=False, default=Awaited.NOTHING)
    moved_bytes: int = attrs.field(init=False, default=0)
    """What has reached the target."""
    cut: bool = attrs.field(init=False, default=False)
    """The connection has ended."""
    failure: OSError | None = attrs.field(init=False, default=None)
    """What was wrong with the target."""
    _source: int | None = attrs.field(init=False)
    _held: memoryview = attrs.field(init=False, factory=lambda: memoryview(b""))
    """What was taken and has not reached the target."""

    @_source.default
    def _find_source(self) -> int | None:
        source = self.carrier.splice_end(Way.RECEIVE)
        spliceable = source is not None and (is_pipe(source) or is_pipe(self.target))
        return source if spliceable else None

    @property
    def over(self) -> bool:
        """Nothing more can be moved by this run."""
        return self.cut or self.data.over or self.failure is not None or self._room_bytes == 0

    @property
    def _room_bytes(self) -> int:
        if self.limit_bytes is None:
            return DATA_LIMIT_BYTES
        return self.limit_bytes - self.moved_bytes - len(self._held)

    def move(self, ends: float) -> None:
        """Move payloads until it has to be waited for something. Runs in a thread."""
        self.awaits = Awaited.NOTHING
        while not self.carrier.closed:
            if self._held:
                self.awaits = self._flush(ends)
            elif self.over or time.monotonic() >= ends:
                return
            elif not self.data.remaining_bytes:
                self.awaits = self._take_header(ends)
            elif self._source is not None:
                self.awaits = self._splice(self._source, ends)
            else:
                self.awaits = self._take(ends)
            if self.awaits is not Awaited.NOTHING:
                return

    def _take_header(self, ends: float) -> Awaited:
        count_bytes = self.carrier.try_take(self.data.header_rest)
        if count_bytes is None:
            return self._poll_carrier(ends)
        self.cut = not count_bytes
        self.data.took_header(count_bytes)
        return Awaited.NOTHING

    def _take(self, ends: float) -> Awaited:
        size_bytes = min(self.data.remaining_bytes, self._room_bytes, len(self.buffer))
        count_bytes = self.carrier.try_take(self.buffer[:size_bytes])
        if count_bytes is None:
            return self._poll_carrier(ends)
        self.cut = not count_bytes
        self.data.took_payload(count_bytes)
        self._held = self.buffer[:count_bytes]
        return Awaited.NOTHING

    def _flush(self, ends: float) -> Awaited:
        try:
            count_bytes = os.write(self.target, self._held)
        except BlockingIOError:
            return self._poll_target(ends)
        except OSError as error:
            self.failure = error
            self._held = memoryview(b"")
            return Awaited.NOTHING
        self._held = self._held[count_bytes:]
        self.moved_bytes += count_bytes
        return Awaited.NOTHING

    def _splice(self, source: int, ends: float) -> Awaited:
        pace = self.carrier.pace(Way.RECEIVE)
        pace.pause()
        size_bytes = min(self.data.remaining_bytes, self._room_bytes)
        try:
            count_bytes = self.carrier.attempt(
                Way.RECEIVE, partial(_splice, source, self.target, size_bytes)
            )
        except _NotSplicedError as refused:
            if refused.error.errno == errno.EINVAL:
                self._source = None  # the kernel will not splice these two
            else:
                self.failure = refused.error
            return Awaited.NOTHING
        if count_bytes is None:
            # By the time that this looks both may be ready; then the next try tells.
            if not becomes_ready(source, select.POLLIN, NOW):
                return self._poll_carrier(ends)
            return self._poll_target(ends)
        self.cut = not count_bytes
        self.moved_bytes += count_bytes
        self.data.took_payload(count_bytes)
        if self.data.remaining_bytes:
            pace.learn(count_bytes)
        return Awaited.NOTHING

    def _poll_carrier(self, ends: float) -> Awaited:
        return Awaited.NOTHING if self.carrier.poll(Way.RECEIVE, ends) else Awaited.CARRIER

    def _poll_target(self, ends: float) -> Awaited:
        ready = becomes_ready(self.target, select.POLLOUT, ends)
        return Awaited.NOTHING if ready else Awaited.STORAGE


class _NotSplicedError(Exception):
    """What was wrong with a target, and not with the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _splice(source: int, target: int, size_bytes: int) -> int:
    try:
        return os.splice(source, target, size_bytes, flags=os.SPLICE_F_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPIPE):
            raise _NotSplicedError(error) from error
        raise


def _readable_bytes(descriptor: int) -> int:
    """How many bytes can be read at once. After waiting, none means the end."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
