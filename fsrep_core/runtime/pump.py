"""Moves the bytes of a stream into a descriptor, in the kernel where that is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["pump"]


async def pump(stream: ByteStream, descriptor: int) -> int:
    """Move all bytes of ``stream`` into ``descriptor``, then ``await stream.finish()``.

    :param descriptor: non-blocking and writable; stays open, its owner closes it
    :returns: how many bytes were moved
    :raises BrokenPipeError: nobody reads the descriptor any more; its owner knows why
    :raises FsrepError: from the stream
    """
    raise NotImplementedError
