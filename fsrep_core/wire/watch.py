"""Which frames stand in bytes that pass by, for whoever carries the wire and speaks none.

A :class:`FrameWatch` sees one direction of a connection, from its first byte, in any
pieces. It keeps no more than a header, changes nothing, and believes what it sees: it is
for tests and traces, never for what a peer says.
"""

from __future__ import annotations

import struct

import attrs

from fsrep_core.wire.frames import HEADER_BYTES, FrameKind
from fsrep_core.wire.hello import MAGIC

__all__ = ["FrameWatch", "PassingFrame"]

_LENGTH = struct.Struct(">I")
_HELLO_START_BYTES = len(MAGIC) + _LENGTH.size


@attrs.frozen
class PassingFrame:
    """A frame whose header has passed."""

    kind: str
    """As :class:`~fsrep_core.wire.FrameKind` names it, in small letters; or ``hello``."""
    start_byte: int
    """Where its header begins, from the first byte of the direction."""
    size_bytes: int
    """With its header."""


@attrs.define(eq=False)
class FrameWatch:
    """Finds the frames of one direction of one connection."""

    _passed_bytes: int = attrs.field(init=False, default=0)
    _start: bytearray = attrs.field(init=False, factory=bytearray)
    """What has passed of a header that is not whole."""
    _payload_bytes: int = attrs.field(init=False, default=0)
    """What is still to pass of the payload behind it."""
    _greeted: bool = attrs.field(init=False, default=False)

    def feed(self, data: bytes | bytearray | memoryview) -> list[PassingFrame]:
        """See bytes pass.

        :returns: the frames whose headers became whole with them
        """
        found = []
        at = 0
        while at < len(data):
            skipped_bytes = min(self._payload_bytes, len(data) - at)
            self._payload_bytes -= skipped_bytes
            at += skipped_bytes
            whole_bytes = HEADER_BYTES if self._greeted else _HELLO_START_BYTES
            piece = data[at : at + whole_bytes - len(self._start)]
            self._start += piece
            at += len(piece)
            if len(self._start) == whole_bytes:
                found.append(self._begin(self._passed_bytes + at - whole_bytes))
        self._passed_bytes += len(data)
        return found

    def _begin(self, start_byte: int) -> PassingFrame:
        (self._payload_bytes,) = _LENGTH.unpack_from(self._start, len(self._start) - _LENGTH.size)
        kind = FrameKind(self._start[0]).name.lower() if self._greeted else "hello"
        frame = PassingFrame(kind, start_byte, len(self._start) + self._payload_bytes)
        self._greeted = True
        self._start.clear()
        return frame
