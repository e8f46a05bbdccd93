"""A stream around a stream: the base of what counts or slows bytes as they pass."""

from __future__ import annotations

import attrs

from fsrep_core.streams import ByteStream

__all__ = ["WrappingStream"]


@attrs.define(eq=False)
class WrappingStream(ByteStream):
    """Passes everything on; a subclass adds to :meth:`receive_some` and :meth:`moved`.

    The two are the two ways through the same bytes, so whatever is added to one has to
    be added to the other. A subclass that changes bytes cannot let them be taken from
    the descriptor, and so is none of these.
    """

    inner: ByteStream

    @property
    def descriptor(self) -> int | None:
        """The inner stream's."""
        return self.inner.descriptor

    @property
    def piece_limit_bytes(self) -> int | None:
        """The inner stream's."""
        return self.inner.piece_limit_bytes

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give what the inner stream gives."""
        return await self.inner.receive_some(max_bytes)

    async def moved(self, count_bytes: int) -> None:
        """Tell the inner stream."""
        await self.inner.moved(count_bytes)

    async def finish(self) -> None:
        """Return once the inner stream has vouched."""
        await self.inner.finish()
