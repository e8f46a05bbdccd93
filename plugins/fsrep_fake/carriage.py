"""Carries a stream from one task to another, and lets it go wrong on the way.

A task reads the stream at one end and passes its bytes through a bounded channel to
whoever reads the other end, as a connection would: what is read ahead is limited, and
the end of the bytes and the word that vouches for them travel apart.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import ByteStream, FsrepError, InterruptedStreamError, StorageError
from fsrep_fake.faults import Fault
from fsrep_fake.journal import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Carriage", "carry"]

_PIECES_AHEAD = 3
_IN_STREAM = {"cut", "stall", "trickle", "corrupt", "fail_in_middle"}


@asynccontextmanager
async def carry(stream: ByteStream, entry: Entry, *, buffer_bytes: int) -> AsyncIterator[Carriage]:
    """Give the other end of a stream, for as long as the context.

    At most ``buffer_bytes`` bytes are read ahead. Leaving the context ends the task
    that carries, and waits for it; an error of the body is raised as it is.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            carriage = Carriage(stream, entry, max(1, buffer_bytes // (_PIECES_AHEAD + 1)))
            nursery.start_soon(carriage.run)
            try:
                yield carriage
            except BaseException as error:  # noqa: BLE001  (raised again, outside the nursery)
                body_error = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup:  # only that the carrier was cancelled, from outside
        if body_error is None:
            raise
    if body_error is not None:
        try:
            raise body_error
        finally:
            del body_error  # it refers to this frame, which would keep both alive


class _CutError(Exception):
    """The stream ends here, and nobody says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault


@attrs.define(eq=False)
class Carriage(ByteStream):
    """The far end of a stream, and the task that fills it."""

    _stream: ByteStream
    _entry: Entry
    _piece_bytes: int
    cut: bool = attrs.field(init=False, default=False)
    """The fault of this name has happened."""
    _moved_bytes: int = attrs.field(init=False, default=0)
    _fault: Fault | None = attrs.field(init=False)
    """What has still to happen."""
    _trickling_bytes: int = attrs.field(init=False, default=0)
    _pause_seconds: float = attrs.field(init=False, default=0.0)
    _damaged: bool = attrs.field(init=False, default=False)
    _failure: Exception | None = attrs.field(init=False, default=None)
    _failed_in_bytes: bool = attrs.field(init=False, default=False)
    _rest: memoryview = attrs.field(init=False, default=memoryview(b""))
    _into: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _out: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._into, self._out = trio.open_memory_channel[bytes](_PIECES_AHEAD)
        self._entry.unfinished = True
        fault = self._entry.fault
        self._fault = fault if fault is not None and fault.action in _IN_STREAM else None

    # --- the task ---

    async def run(self) -> None:
        """Carry to the end. What goes wrong is told at the other end, never raised here."""
        with self._into:
            try:
                while piece := await self._stream.receive_some(self._piece_bytes):
                    await self._pass_on(bytes(piece))
                if self._fault is not None and self._fault.at_byte in {None, self._moved_bytes}:
                    await self._befall(self._fault)
            except _CutError as cut:
                self.cut = True
                self._failure = InterruptedStreamError(
                    f"{self._where}: the stream was cut, as the script has it",
                    temporary=cut.fault.temporary,
                    local=cut.fault.local,
                )
            except Exception as error:  # noqa: BLE001  (raised at the other end)
                self._failure = error
                self._failed_in_bytes = True
            else:
                try:
                    await self._stream.finish()
                except Exception as error:  # noqa: BLE001  (raised at the other end)
                    self._failure = error
            if isinstance(self._failure, FsrepError):
                self._entry.failure = self._failure

    async def _pass_on(self, data: bytes) -> None:
        while data:
            fault = self._fault
            room = len(data)
            if fault is not None and fault.at_byte is not None:
                if fault.at_byte == self._moved_bytes:
                    await self._befall(fault)
                else:
                    room = fault.at_byte - self._moved_bytes
            if self._trickling_bytes:
                self._trickling_bytes -= 1
                await trio.sleep(self._pause_seconds)
                room = 1
            part, data = data[:room], data[room:]
            if self._damaged:
                self._damaged = False
                part = bytes([part[0] ^ 0xFF]) + part[1:]
            await self._into.send(part)
            self._moved_bytes += len(part)
            self._entry.moved_bytes = self._moved_bytes

    async def _befall(self, fault: Fault) -> None:
        self._fault = None
        match fault.action:
            case "cut":
                raise _CutError(fault)
            case "fail_in_middle":
                raise StorageError(
                    f"{self._where}: failed at byte {self._moved_bytes}, as the script has it",
                    temporary=fault.temporary,
                    local=fault.local,
                )
            case "stall":
                await trio.sleep(math.inf if fault.seconds is None else fault.seconds)
            case "trickle":
                self._trickling_bytes = fault.length_bytes
                self._pause_seconds = 1.0 if fault.seconds is None else fault.seconds
            case "corrupt":
                self._damaged = True

    @property
    def _where(self) -> str:
        return f"fake transport: {self._entry.operation} {self._entry.filesystem}"

    # --- the far end ---

    async def receive_some(self, max_bytes: int) -> memoryview:
        """See :class:`~fsrep_core.ByteStream`."""
        if self._rest:
            await trio.lowlevel.checkpoint()
        else:
            try:
                self._rest = memoryview(await self._out.receive())
            except trio.EndOfChannel:
                if self._failure is not None and self._failed_in_bytes:
                    raise self._failure from None
        part, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return part

    async def finish(self) -> None:
        """See :class:`~fsrep_core.ByteStream`."""
        try:
            self._rest = self._rest or memoryview(await self._out.receive())
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            self._entry.unfinished = False
            return
        raise InterruptedStreamError(f"{self._where}: the stream was not read to its end")
