"""A stream around a stream: the base of what counts or slows bytes as they pass."""

from __future__ import annotations

import abc

import attrs

from fsrep_core.streams import ByteStream

__all__ = ["WrappingStream"]


@attrs.define(eq=False, repr=False)
class WrappingStream(ByteStream):
    """Passes on all but the bytes: a subclass does that, by every way that leads through them.

    Whatever it adds to :meth:`~fsrep_core.ByteStream.receive_some` it adds to
    :meth:`moved`, and to :meth:`~fsrep_core.ByteStream.move_into` if it passes that on. It
    cannot change bytes, since a mover may take them from the descriptor.
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

    @abc.abstractmethod
    async def moved(self, count_bytes: int) -> None:
        """Hear that bytes were taken, and tell the inner stream."""

    async def finish(self) -> None:
        """Return once the inner stream has vouched."""
        await self.inner.finish()
