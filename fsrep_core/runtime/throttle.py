"""Slows streams to a rate, smoothly, however the bytes move.

One :class:`RateLimit` may serve many streams, which then share its rate: a job's limit
holds for a side, not for each of its concurrent steps. It keeps one number, the moment
at which the bytes that have passed are paid for. Whoever wants more waits for it first.
"""

from __future__ import annotations

import attrs
import trio

from fsrep_core.runtime.pump import PIECE_BYTES
from fsrep_core.runtime.wrapping import WrappingStream

__all__ = ["RateLimit", "ThrottledStream"]

PIECE_SECONDS = 0.05
"""How long one piece lasts at the rate: small enough to look even."""

LATENESS_SECONDS = 0.1
"""Up to this much is made up for, as timers oversleep. More was a rest, and is lost."""


@attrs.define(eq=False, repr=False)
class RateLimit:
    """A rate in bytes per second, on trio's clock.

    :param bytes_per_second: at least 1
    """

    bytes_per_second: float = attrs.field(validator=attrs.validators.ge(1))
    _paid_time: float = attrs.field(init=False, default=float("-inf"))

    @property
    def piece_bytes(self) -> int:
        """How many bytes to take at once, for an even flow."""
        return max(1, min(PIECE_BYTES, int(self.bytes_per_second * PIECE_SECONDS)))

    def charge(self, count_bytes: int) -> None:
        """Note that bytes have passed."""
        now = trio.current_time()
        start_time = now if now - self._paid_time > LATENESS_SECONDS else self._paid_time
        self._paid_time = start_time + count_bytes / self.bytes_per_second

    async def wait(self) -> None:
        """Return when all bytes that have passed are paid for."""
        if self._paid_time > trio.current_time():
            await trio.sleep_until(self._paid_time)


@attrs.define(eq=False, repr=False)
class ThrottledStream(WrappingStream):
    """A stream that keeps to a rate limit."""

    rate_limit: RateLimit

    @property
    def piece_limit_bytes(self) -> int:
        """The limit's piece, or the inner stream's if that is smaller."""
        return min(self.inner.piece_limit_bytes or PIECE_BYTES, self.rate_limit.piece_bytes)

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Wait for the rate, then give what the inner stream gives.

        It waits before it receives, so that cancelling it loses nothing.
        """
        await self.rate_limit.wait()
        piece = await self.inner.receive_some(min(max_bytes, self.piece_limit_bytes))
        self.rate_limit.charge(len(piece))
        return piece

    async def move_into(self, target: int, max_bytes: int | None) -> int | None:
        """Wait for the rate, then let the inner stream move a piece."""
        await self.rate_limit.wait()
        limit_bytes = self.piece_limit_bytes
        count_bytes = await self.inner.move_into(
            target, limit_bytes if max_bytes is None else min(max_bytes, limit_bytes)
        )
        if count_bytes:
            self.rate_limit.charge(count_bytes)
        return count_bytes

    async def moved(self, count_bytes: int) -> None:
        """Tell the inner stream, then wait until more may move."""
        await self.inner.moved(count_bytes)
        self.rate_limit.charge(count_bytes)
        await self.rate_limit.wait()
