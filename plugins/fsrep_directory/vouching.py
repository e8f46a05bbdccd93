"""Lets the engine keep all that came of a stream that broke, and commit only a whole one.

A child whose stream breaks is killed, and what stood in its pipe is lost with it. The
engine can do better: its stream says where it ends, so that an early end of input tells
it to stop and to keep what it has. :class:`VouchedStream` therefore shows the engine an
end where the stream broke, and keeps the error. The stream's own end is no proof that
its maker finished, though: the engine commits only after a byte on a second pipe, which
is written when, and only when, the maker has vouched.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import attrs

from fsrep_core import ByteStream, FsrepError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["VouchedStream"]


@attrs.define(eq=False)
class VouchedStream(ByteStream):
    """A stream for the engine. A context manager, which owns the voucher's pipe."""

    _inner: ByteStream
    error: FsrepError | None = None
    """Why the stream broke."""
    voucher: int = attrs.field(init=False, default=-1)
    """The descriptor that the engine reads."""
    _writer: int = attrs.field(init=False, default=-1)

    def __enter__(self) -> Self:
        self.voucher, self._writer = os.pipe()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._refuse()
        os.close(self.voucher)

    @property
    def descriptor(self) -> int | None:
        """That of the stream."""
        return self._inner.descriptor

    @property
    def piece_limit_bytes(self) -> int | None:
        """That of the stream."""
        return self._inner.piece_limit_bytes

    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give what the stream gives; an end where it breaks."""
        try:
            return await self._inner.receive_some(max_bytes)
        except FsrepError as error:
            self.error = error
            return b""

    async def moved(self, count_bytes: int) -> None:
        """Tell the stream."""
        await self._inner.moved(count_bytes)

    async def finish(self) -> None:
        """Let the engine commit if the stream is whole; otherwise let it stop."""
        if self._writer < 0:
            return
        if self.error is None:
            try:
                await self._inner.finish()
            except FsrepError as error:
                self.error = error
            else:
                os.write(self._writer, b"+")
        self._refuse()

    def _refuse(self) -> None:
        """Close the pipe: what has not been written will not come."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
