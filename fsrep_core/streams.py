"""The stream of one step: bytes that are whole only if their maker says so.

The end of a pipe or socket proves nothing: a killed process and a cut link end in the
same way as a finished one. A :class:`ByteStream` therefore has two ends: the end of its
bytes, and :meth:`ByteStream.finish`, which returns only when the maker vouches for them.

Three ways lead through the bytes. Everyone can call :meth:`~ByteStream.receive_some`.
Where :attr:`~ByteStream.descriptor` is set, a mover may take bytes from that descriptor
in the kernel instead, and tells of every piece through :meth:`~ByteStream.moved`. And a
stream may know a better way into a descriptor of its consumer than through a buffer:
:meth:`~ByteStream.move_into`. :func:`fsrep_core.pump` picks the best and keeps these
rules, so a storage rarely needs more than that one call.
"""

from __future__ import annotations

import abc

__all__ = ["ByteStream"]


class ByteStream(abc.ABC):
    """What ``send`` opens and ``receive`` consumes.

    Belongs to the context manager that gave it, which closes it; there is no ``close``
    here. One task at a time may use it.
    """

    @property
    def descriptor(self) -> int | None:
        """A non-blocking, readable descriptor with exactly the remaining bytes, or ``None``.

        Reading it ends with end-of-file, after which :meth:`finish` must be called.
        """
        return None

    @property
    def piece_limit_bytes(self) -> int | None:
        """At most this many bytes at a time may be taken; ``None`` = no limit."""
        return None

    @abc.abstractmethod
    async def receive_some(self, max_bytes: int) -> bytes | bytearray | memoryview:
        """Give at least one and at most ``max_bytes`` bytes, or ``b""`` at the end.

        The buffer is valid until the next call. The end is not yet success: call
        :meth:`finish`. After the end, each call gives the end again.

        :raises FsrepError: the maker failed, or the way to it is cut; after that,
            :meth:`finish` raises as well
        :raises trio.Cancelled: no byte is lost that was not returned
        """

    async def move_into(self, target: int, max_bytes: int | None) -> int | None:  # noqa: ARG002  (for those who can)
        """Move bytes into a descriptor by the stream's own means: at least one, or ``0`` = the end.

        ``None`` = it has no means that are better than :meth:`receive_some`, at least not
        now. The end is not yet success: call :meth:`finish`. Cancelled, it may have moved
        bytes that nobody was told of.

        :param target: non-blocking and writable
        :param max_bytes: at most so many; ``None`` = as many as suit
        :raises BrokenPipeError: nobody reads the descriptor any more
        :raises FsrepError: as from :meth:`receive_some`
        """
        return None

    async def moved(self, count_bytes: int) -> None:  # noqa: B027  (optional by design)
        """Hear that ``count_bytes`` were taken from :attr:`descriptor`.

        Wrappers count here, and wait here when they slow the stream down. The plain
        stream has nothing to do.
        """

    @abc.abstractmethod
    async def finish(self) -> None:
        """Return once the maker has vouched that the bytes were all. Idempotent.

        Call it after the end of the bytes and **before** committing what was received.

        :raises InterruptedStreamError: the bytes ended, but the maker did not finish
        :raises FsrepError: the maker failed, with its own reason
        """
