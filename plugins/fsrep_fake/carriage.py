"""Carries a stream from one task to another, as a connection would.

A task reads the stream at one end and passes its bytes through a bounded channel to
whoever reads the other end. What is read ahead is limited; the end of the bytes and the
word that vouches for them travel apart. Nothing goes wrong here: see
:mod:`fsrep_fake.faulty`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import ByteStream, InterruptedStreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["carry"]

_PIECES_AHEAD = 3


@asynccontextmanager
async def carry(stream: ByteStream, *, buffer_bytes: int) -> AsyncIterator[ByteStream]:
    """Give the other end of a stream, for as long as the context.

    At most ``buffer_bytes`` bytes are read ahead. Leaving the context ends the task
    that carries, and waits for it; an error of the body is raised as it is.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            carriage = _Carriage(stream, max(1, buffer_bytes // (_PIECES_AHEAD + 1)))
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


@attrs.define(eq=False)
class _Carriage(ByteStream):
    """The far end of a stream, and the task that fills it."""

    _stream: ByteStream
    _piece_bytes: int
    _failure: Exception | None = attrs.field(init=False, default=None)
    _failed_in_bytes: bool = attrs.field(init=False, default=False)
    _rest: memoryview = attrs.field(init=False, default=memoryview(b""))
    _into: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _out: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._into, self._out = trio.open_memory_channel[bytes](_PIECES_AHEAD)

    async def run(self) -> None:
        """Carry to the end. An error is raised at the other end, never here."""
        with self._into:
            try:
                while piece := await self._stream.receive_some(self._piece_bytes):
                    await self._into.send(bytes(piece))
            except Exception as error:  # noqa: BLE001  (raised at the other end)
                self._failure = error
                self._failed_in_bytes = True
                return
            try:
                await self._stream.finish()
            except Exception as error:  # noqa: BLE001  (as above)
                self._failure = error

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
            return
        raise InterruptedStreamError("fake transport: the stream was not read to its end")
