"""Streams that go wrong on purpose, around a stream that does not.

None of them has a descriptor: whoever reads them sees every piece pass.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import attrs

from fsrep_core.errors import InterruptedStreamError
from fsrep_core.streams import ByteStream

__all__ = ["CutStream", "HookedStream", "PieceStream", "drain"]


async def drain(stream: ByteStream) -> int:
    """Read a stream to its end and have it vouched for; give its size."""
    size_bytes = 0
    while piece := await stream.receive_some(1 << 20):
        size_bytes += len(piece)
    await stream.finish()
    return size_bytes


@attrs.define(eq=False)
class CutStream(ByteStream):
    """Ends after ``at_byte`` bytes, like a pipe whose writer was killed.

    The end of its bytes looks like any other; :meth:`finish` does not vouch for them.
    """

    inner: ByteStream
    at_byte: int
    passed_bytes: int = attrs.field(init=False, default=0)

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give bytes up to the cut."""
        room = min(max_bytes, self.at_byte - self.passed_bytes)
        piece = await self.inner.receive_some(room) if room else b""
        self.passed_bytes += len(piece)
        return piece

    async def finish(self) -> None:
        """Never return."""
        raise InterruptedStreamError(f"the stream was cut at byte {self.at_byte}, on purpose")


@attrs.define(eq=False)
class HookedStream(ByteStream):
    """Calls a function at one byte, or after the last one before it is vouched for.

    :param at_byte: ``None`` = in :meth:`finish`
    """

    inner: ByteStream
    at_byte: int | None
    function: Callable[[], Awaitable[None]]
    passed_bytes: int = attrs.field(init=False, default=0)

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give bytes, and call the function between two of them."""
        if self.at_byte is not None:
            if self.passed_bytes == self.at_byte:
                await self.function()
            elif self.passed_bytes < self.at_byte:
                max_bytes = min(max_bytes, self.at_byte - self.passed_bytes)
        piece = await self.inner.receive_some(max_bytes)
        self.passed_bytes += len(piece)
        return piece

    async def finish(self) -> None:
        """Let the inner stream vouch, then call the function where it is due now."""
        await self.inner.finish()
        if self.at_byte is None:
            await self.function()


@attrs.define(eq=False)
class PieceStream(ByteStream):
    """Gives pieces of all sizes, in one buffer that is overwritten by the next call."""

    inner: ByteStream
    seed: int
    _chance: random.Random = attrs.field(init=False)
    _buffer: bytearray = attrs.field(init=False, factory=lambda: bytearray(1 << 16))
    _count: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311  (repeatable)

    async def receive_some(self, max_bytes: int) -> memoryview:
        """Give a piece; the piece before it becomes nonsense."""
        self._count += 1
        single = self._count % 100 < 50  # noqa: PLR2004  (half of the pieces are single bytes)
        size = 1 if single else self._chance.randint(1, len(self._buffer))
        piece = await self.inner.receive_some(min(max_bytes, size))
        self._buffer[:] = b"\xa5" * len(self._buffer)
        self._buffer[: len(piece)] = piece
        return memoryview(self._buffer)[: len(piece)]

    async def finish(self) -> None:
        """Let the inner stream vouch."""
        await self.inner.finish()
