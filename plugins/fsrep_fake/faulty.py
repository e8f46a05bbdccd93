"""A stream that goes wrong where its fault says so.

What happens is decided by the byte that is asked for, in the task that asks: it does not
depend on the order in which trio runs tasks, nor does the record of it.
"""

from __future__ import annotations

import math

import attrs
import trio

from fsrep_core import ByteStream, FsrepError, InterruptedStreamError, StorageError
from fsrep_fake.faults import Fault
from fsrep_fake.journal import Entry

__all__ = ["FaultyStream"]

_IN_STREAM = {"cut", "stall", "trickle", "corrupt", "fail_in_middle"}


@attrs.define(eq=False)
class FaultyStream(ByteStream):
    """Passes a stream on, lets a call's fault befall it, and keeps the call's record."""

    _stream: ByteStream
    _entry: Entry
    cut: bool = attrs.field(init=False, default=False)
    """The stream was cut: what comes after is the end, and no vouching."""
    _fault: Fault | None = attrs.field(init=False)
    """What has still to happen."""
    _error: FsrepError | None = attrs.field(init=False, default=None)
    """What :meth:`finish` raises, since the fault has happened."""
    _trickling_bytes: int = attrs.field(init=False, default=0)
    _pause_seconds: float = attrs.field(init=False, default=0.0)
    _damaged: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._entry.unfinished = True
        fault = self._entry.fault
        self._fault = fault if fault is not None and fault.action in _IN_STREAM else None

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """See :class:`~fsrep_core.ByteStream`."""
        with self._entry.noting():
            return await self._receive_some(max_bytes)

    async def finish(self) -> None:
        """See :class:`~fsrep_core.ByteStream`."""
        with self._entry.noting():
            if self._fault is not None and self._fault.at_byte in {None, self._entry.moved_bytes}:
                await self._befall()
            if self._error is not None:
                raise self._error
            await self._stream.finish()
        self._entry.unfinished = False

    async def _receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        if self._fault is not None and self._fault.at_byte is not None:
            if self._fault.at_byte == self._entry.moved_bytes:
                await self._befall()
            elif self._fault.at_byte > self._entry.moved_bytes:
                max_bytes = min(max_bytes, self._fault.at_byte - self._entry.moved_bytes)
        if self.cut:
            return b""
        if self._error is not None:
            raise self._error
        if self._trickling_bytes:
            self._trickling_bytes -= 1
            await trio.sleep(self._pause_seconds)
            max_bytes = 1
        piece = await self._stream.receive_some(max_bytes)
        self._entry.moved_bytes += len(piece)
        if self._damaged and piece:
            self._damaged = False
            return bytes([piece[0] ^ 0xFF]) + bytes(piece[1:])
        return piece

    async def _befall(self) -> None:
        """Let the fault happen, once."""
        fault, self._fault = self._fault, None
        assert fault is not None  # noqa: S101  (the callers have looked)
        where = (
            f"fake transport: {self._entry.operation} {self._entry.filesystem} "
            f"at byte {self._entry.moved_bytes}"
        )
        match fault.action:
            case "cut":
                self.cut = True
                self._error = InterruptedStreamError(
                    f"{where}: the stream was cut, as the script has it",
                    temporary=fault.temporary,
                    local=fault.local,
                )
            case "fail_in_middle":
                self._error = StorageError(
                    f"{where}: failed, as the script has it",
                    temporary=fault.temporary,
                    local=fault.local,
                )
            case "stall":
                await trio.sleep(math.inf if fault.seconds is None else fault.seconds)
            case "trickle":
                self._trickling_bytes = fault.length_bytes
                self._pause_seconds = 1.0 if fault.seconds is None else fault.seconds
            case _:
                self._damaged = True
