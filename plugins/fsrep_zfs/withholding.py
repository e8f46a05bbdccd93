"""Gives a stream to ``zfs receive`` so that its end is the commit, and nothing before it.

``zfs receive`` commits as soon as it has read the stream's last record; it does not wait
for the end of its input. So the last records are held back until the maker of the stream
has vouched for all of it. If it does not, or if fsrep is killed, ``zfs receive`` sees a
stream that breaks off, and keeps a partial that can be resumed.

A stream ends with one ``END`` record, a package with that of its last snapshot and one of
its own.
"""

from __future__ import annotations

import attrs

from fsrep_core import ByteStream, InterruptedStreamError
from fsrep_zfs.headers import RECORD_BYTES, StreamHeader, read_header

__all__ = ["WithheldStream"]

WITHHELD_BYTES = 2 * RECORD_BYTES
PIECE_BYTES = 1 << 20


@attrs.define(eq=False)
class WithheldStream(ByteStream):
    """A stream whose last records come only after it was vouched for."""

    inner: ByteStream
    attempt: str
    """What is being done, for messages."""
    _buffer: bytearray = attrs.field(init=False, factory=bytearray, repr=False)
    _kept: bytes = attrs.field(init=False, default=b"", repr=False)
    """What was read and not yet given: at first the header, later the end."""
    _vouched: bool = attrs.field(init=False, default=False)

    async def peek(self) -> StreamHeader:
        """Tell what comes. Call it once, before anything else.

        :raises InterruptedStreamError: the stream ends before it has said it
        :raises FsrepError: it is no stream of ZFS, or its maker failed
        """
        header, self._kept = await read_header(self._read_exactly, self.attempt)
        return header

    async def receive_some(self, max_bytes: int) -> memoryview:
        """See :meth:`~fsrep_core.ByteStream.receive_some`."""
        while not self._vouched:
            size_bytes = min(max_bytes, PIECE_BYTES)
            if len(self._kept) > WITHHELD_BYTES:
                piece: bytes | bytearray | memoryview = b""
            else:
                piece = await self.inner.receive_some(size_bytes)
                if not piece:
                    await self.inner.finish()
                    self._vouched = True
                    break
            given = self._push(piece, size_bytes)
            if given:
                return given
        given = memoryview(self._kept)[:max_bytes]
        self._kept = self._kept[max_bytes:]
        return given

    def _push(self, piece: bytes | bytearray | memoryview, max_bytes: int) -> memoryview:
        """Put a piece behind what is kept, and give what need not be kept any more."""
        kept, size_bytes = self._kept, len(self._kept) + len(piece)
        if len(self._buffer) < size_bytes:
            self._buffer = bytearray(max(size_bytes, PIECE_BYTES + WITHHELD_BYTES))
        self._buffer[: len(kept)] = kept
        self._buffer[len(kept) : size_bytes] = piece
        given_bytes = max(0, min(size_bytes - WITHHELD_BYTES, max_bytes))
        whole = memoryview(self._buffer)
        self._kept = bytes(whole[given_bytes:size_bytes])
        return whole[:given_bytes]

    async def finish(self) -> None:
        """See :meth:`~fsrep_core.ByteStream.finish`."""
        if not self._vouched:
            await self.inner.finish()

    async def _read_exactly(self, size_bytes: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size_bytes:
            piece = await self.inner.receive_some(min(size_bytes - len(pieces), PIECE_BYTES))
            if not piece:
                await self.inner.finish()
                raise InterruptedStreamError(f"{self.attempt}: the stream ended within its header")
            pieces += piece
        return bytes(pieces)
