"""Bytes to frames and back: a kind, a length, a payload.

A header of eight bytes stands before every payload: the kind (1 byte), three bytes that
are zero, the length of the payload (4 bytes, big endian). Each kind has a limit of
length, which is checked as soon as the header is there and before anything is kept.

The payload of a ``DATA`` frame never has to pass through here: the decoder gives its
header, then whoever reads takes the payload that is buffered already
(:meth:`FrameDecoder.take_data`), moves the rest however the machine does it best, and
says so (:meth:`FrameDecoder.skip_data`). Somebody who moves many of them in one go follows
their headers with a :class:`DataRun`.
"""

from __future__ import annotations

import enum
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from fsrep_core.wire.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DATA_LIMIT_BYTES",
    "HEADER_BYTES",
    "PART_LIMIT_BYTES",
    "PAYLOAD_LIMITS_BYTES",
    "DataRun",
    "Frame",
    "FrameDecoder",
    "FrameKind",
    "encode_frame",
    "encode_header",
]


class FrameKind(enum.IntEnum):
    """What a frame is. The numbers travel and are never given to another kind."""

    REQUEST = 1
    PART = 2
    ANSWER = 3
    ERROR = 4
    OPENED = 5
    DATA = 6
    END = 7
    ABORT = 8
    DONE = 9
    HEARTBEAT = 10
    BYE = 11


_HEADER = struct.Struct(">B3sI")
_RESERVED = bytes(3)

HEADER_BYTES = _HEADER.size
END_BYTES = 8
DATA_LIMIT_BYTES = 1 << 20
"""Bounds how long an early end of a stream has to wait for the frame before it."""
PART_LIMIT_BYTES = 1 << 20
PROBLEM_LIMIT_BYTES = 1 << 18

PAYLOAD_LIMITS_BYTES: Mapping[FrameKind, tuple[int, int]] = MappingProxyType(
    {
        FrameKind.REQUEST: (2, PART_LIMIT_BYTES),
        FrameKind.PART: (2, PART_LIMIT_BYTES),
        FrameKind.ANSWER: (2, PART_LIMIT_BYTES),
        FrameKind.ERROR: (2, PROBLEM_LIMIT_BYTES),
        FrameKind.OPENED: (2, PART_LIMIT_BYTES),
        FrameKind.DATA: (1, DATA_LIMIT_BYTES),
        FrameKind.END: (END_BYTES, END_BYTES),
        FrameKind.ABORT: (2, PROBLEM_LIMIT_BYTES),
        FrameKind.DONE: (0, 0),
        FrameKind.HEARTBEAT: (0, 0),
        FrameKind.BYE: (0, PROBLEM_LIMIT_BYTES),
    }
)
"""The least and the most that a payload of each kind may have."""


@attrs.frozen
class Frame:
    """One frame; the payload of ``DATA`` is not in it."""

    kind: FrameKind
    size_bytes: int
    payload: bytes = b""


def encode_header(kind: FrameKind, size_bytes: int) -> bytes:
    """Give the header of a frame.

    :raises ValueError: the payload would be shorter or longer than its kind allows
    """
    least_bytes, most_bytes = PAYLOAD_LIMITS_BYTES[kind]
    if not least_bytes <= size_bytes <= most_bytes:
        raise ValueError(
            f"a {kind.name} frame has {least_bytes} to {most_bytes} bytes, not {size_bytes}"
        )
    return _HEADER.pack(kind, _RESERVED, size_bytes)


def encode_frame(kind: FrameKind, payload: bytes = b"") -> bytes:
    """Give a whole frame.

    :raises ValueError: the payload is shorter or longer than its kind allows
    """
    return encode_header(kind, len(payload)) + payload


@attrs.define(eq=False)
class DataRun:
    """Follows ``DATA`` frames that another way moves, from within one on to the next.

    Ends at a header of another frame, which goes back to the decoder, also if it is wrong.
    """

    remaining_bytes: int
    """How much is left of the current payload."""
    announced_bytes: int = attrs.field(init=False, default=0)
    """What the headers on the way have announced."""
    over: bool = attrs.field(init=False, default=False)
    """What comes is not ``DATA``."""
    _header: bytearray = attrs.field(init=False, factory=lambda: bytearray(HEADER_BYTES))
    _filled_bytes: int = attrs.field(init=False, default=0)

    @property
    def header_rest(self) -> memoryview:
        """Where what is missing of the next header belongs, once the payload has moved."""
        return memoryview(self._header)[self._filled_bytes :]

    @property
    def unused(self) -> bytes:
        """What was read of a header that did not become part of the run."""
        return bytes(self._header[: self._filled_bytes])

    def took_payload(self, count_bytes: int) -> None:
        """Hear that so much of the payload was moved."""
        if count_bytes > self.remaining_bytes:
            raise RuntimeError("more was moved than is left of the current DATA frame")
        self.remaining_bytes -= count_bytes

    def took_header(self, count_bytes: int) -> None:
        """Hear that so much was put into :attr:`header_rest`."""
        self._filled_bytes += count_bytes
        if self._filled_bytes < HEADER_BYTES:
            return
        number, reserved, size_bytes = _HEADER.unpack(self._header)
        least_bytes, most_bytes = PAYLOAD_LIMITS_BYTES[FrameKind.DATA]
        if (number, reserved) == (FrameKind.DATA, _RESERVED) and (
            least_bytes <= size_bytes <= most_bytes
        ):
            self.remaining_bytes = size_bytes
            self.announced_bytes += size_bytes
            self._filled_bytes = 0
        else:
            self.over = True


@attrs.define(eq=False)
class FrameDecoder:
    """Finds frames in bytes that come in any pieces.

    Holds no more than what it was fed and what the limits allow.
    """

    _buffer: bytearray = attrs.field(init=False, factory=bytearray)
    _header: Frame | None = attrs.field(init=False, default=None)
    data_remaining_bytes: int = attrs.field(init=False, default=0)
    """How much of the current ``DATA`` payload has not been taken or skipped yet."""

    @property
    def buffered_bytes(self) -> int:
        """How much was fed and is not used up."""
        return len(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        """How many more bytes complete what has begun: a header, or a frame after it.

        Whoever reads no more than this at a time has read nothing of a payload that
        another way shall move.
        """
        if self.data_remaining_bytes:
            return max(0, self.data_remaining_bytes - len(self._buffer))
        whole_bytes = self._header.size_bytes if self._header else HEADER_BYTES
        return max(0, whole_bytes - len(self._buffer))

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Give the next frame; ``None`` = more bytes are needed.

        :raises WireError: a header is not as the wire has it
        """
        if self.data_remaining_bytes:
            raise RuntimeError("the payload of the current DATA frame was not taken")
        header = self._header
        if header is None:
            if len(self._buffer) < HEADER_BYTES:
                return None
            header = self._take_header()
        if header.kind is FrameKind.DATA:
            self.data_remaining_bytes = header.size_bytes
            return header
        if len(self._buffer) < header.size_bytes:
            self._header = header
            return None
        self._header = None
        return Frame(header.kind, header.size_bytes, self._take(header.size_bytes))

    def take_data(self, max_bytes: int) -> bytes:
        """Take what is buffered of the current ``DATA`` payload; ``b""`` = nothing."""
        if not self._buffer:
            return b""
        data = self._take(min(max_bytes, self.data_remaining_bytes))
        self.data_remaining_bytes -= len(data)
        return data

    def skip_data(self, count_bytes: int) -> None:
        """Hear that so much of the current payload was moved past this decoder.

        Only what comes after the buffered bytes can have been.
        """
        if count_bytes > self.data_remaining_bytes or self._buffer:
            raise RuntimeError("more was skipped than is left of the current DATA frame")
        self.data_remaining_bytes -= count_bytes

    def begin_run(self) -> DataRun:
        """Leave what comes next, from within a payload, to a run; nothing may be buffered."""
        if self._buffer or not self.data_remaining_bytes:
            raise RuntimeError("a run begins within a payload of which nothing is buffered")
        return DataRun(self.data_remaining_bytes)

    def end_run(self, run: DataRun) -> None:
        """Go on behind a run."""
        self.data_remaining_bytes = run.remaining_bytes
        self._buffer += run.unused

    def _take(self, count_bytes: int) -> bytes:
        with memoryview(self._buffer) as view:
            taken = bytes(view[:count_bytes])
        del self._buffer[:count_bytes]
        return taken

    def _take_header(self) -> Frame:
        number, reserved, size_bytes = _HEADER.unpack(self._take(HEADER_BYTES))
        try:
            kind = FrameKind(number)
        except ValueError:
            raise WireError(
                f"the peer sent a frame of the unknown kind {number}", temporary=True
            ) from None
        if reserved != _RESERVED:
            raise WireError(
                f"the peer sent a {kind.name} frame whose reserved bytes are not zero",
                temporary=True,
            )
        least_bytes, most_bytes = PAYLOAD_LIMITS_BYTES[kind]
        if not least_bytes <= size_bytes <= most_bytes:
            raise WireError(
                f"the peer announced a {kind.name} frame of {size_bytes} bytes; "
                f"it may have {least_bytes} to {most_bytes}",
                temporary=True,
            )
        return Frame(kind, size_bytes)
