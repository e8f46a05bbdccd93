"""Counts the bytes of a stream while they move, and tells of them now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.runtime.wrapping import WrappingStream

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["MeteredStream"]


@attrs.define(eq=False, init=False, repr=False)
class MeteredStream(WrappingStream):
    """Counts, and calls back at most once in an interval and once at the end.

    The callback gets the total so far. It is called from within the stream's methods
    when bytes move, so a stream that stands still does not call; :attr:`total_bytes`
    is exact at every moment.

    :param on_progress: must not block; what it raises ends the stream's use
    """

    total_bytes: int
    """How many bytes have moved."""
    _on_progress: Callable[[int], None]
    _interval_seconds: float
    _next_call_time: float
    _ended: bool

    def __init__(
        self,
        inner: ByteStream,
        on_progress: Callable[[int], None],
        *,
        interval_seconds: float = 0.25,
    ) -> None:
        super().__init__(inner)
        self.total_bytes = 0
        self._on_progress = on_progress
        self._interval_seconds = interval_seconds
        self._next_call_time = trio.current_time() + interval_seconds
        self._ended = False

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give what the inner stream gives, counted."""
        piece = await self.inner.receive_some(max_bytes)
        self._count(len(piece))
        return piece

    async def move_into(self, target: int, max_bytes: int | None) -> int | None:
        """Let the inner stream move bytes, and count them."""
        count_bytes = await self.inner.move_into(target, max_bytes)
        if count_bytes:
            self._count(count_bytes)
        return count_bytes

    async def moved(self, count_bytes: int) -> None:
        """Count, then tell the inner stream."""
        self._count(count_bytes)
        await self.inner.moved(count_bytes)

    async def finish(self) -> None:
        """Give the final total, then return once the inner stream has vouched.

        The total is told in either case: the bytes have moved, whatever they are worth.
        """
        if not self._ended:
            self._ended = True
            self._on_progress(self.total_bytes)
        await self.inner.finish()

    def _count(self, count_bytes: int) -> None:
        self.total_bytes += count_bytes
        now = trio.current_time()
        if now >= self._next_call_time:
            self._next_call_time = now + self._interval_seconds
            self._on_progress(self.total_bytes)
