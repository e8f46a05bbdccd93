"""The seam for transports whose connection can do more than ``trio.abc.Stream`` says.

Any ``trio.abc.Stream`` carries the wire. A :class:`Carrier` also fills a buffer that is
used again and again, so that payloads are not allocated piece by piece, and knows why its
connection ended. :class:`DescriptorStream` is the carrier over plain descriptors: pipes of
a child process, standard input and output, a socket. Payloads that come from a pipe go out
through it by ``splice(2)``, without a copy through this process.
"""

from __future__ import annotations

import abc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsrep_core.errors import FsrepError

__all__ = ["Carrier", "DescriptorStream"]

RECEIVE_BYTES = 1 << 16


class Carrier(trio.abc.Stream):
    """A stream that reads into a buffer of the caller's.

    All of ``trio.abc.Stream`` holds. Cancelling a receive must not lose bytes: what was
    taken from the connection is returned, or is still there.
    """

    @abc.abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the start of ``buffer`` with at least one byte.

        :returns: how many bytes; ``0`` = the peer has ended its side
        :raises trio.BrokenResourceError: the connection is broken
        :raises trio.ClosedResourceError: it was closed here
        """

    async def why_it_ended(self) -> FsrepError | None:
        """Say what is behind the end of the connection, where the transport knows.

        Called once, with a deadline, when the connection has ended without a farewell.
        ``None`` = nothing beyond that.
        """
        return None


@attrs.define(eq=False)
class _Direction:
    """One descriptor, used by one task at a time."""

    descriptor: int
    closed: bool = False
    _busy: bool = False

    @contextmanager
    def used(self, what: str) -> Iterator[int]:
        """Give the descriptor to one task; what breaks becomes trio's errors."""
        if self._busy:
            raise trio.BusyResourceError(f"another task is using this stream to {what}")
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        self._busy = True
        try:
            yield self.descriptor
        except OSError as error:
            if self.closed:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._busy = False


class DescriptorStream(Carrier):
    """A carrier over two descriptors, or one that goes both ways.

    They become its own: it makes them non-blocking, and closes them.

    :param receiving: readable
    :param sending: writable; of a socket, the same as ``receiving``
    """

    def __init__(self, receiving: int, sending: int) -> None:
        self._receiving = _Direction(receiving)
        self._sending = _Direction(sending)
        for descriptor in {receiving, sending}:
            os.set_blocking(descriptor, False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``trio.abc.ReceiveStream``."""
        size_bytes = RECEIVE_BYTES if max_bytes is None else max_bytes
        if size_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        buffer = bytearray(size_bytes)
        count_bytes = await self.receive_into(memoryview(buffer))
        return bytes(memoryview(buffer)[:count_bytes])

    async def receive_into(self, buffer: memoryview) -> int:
        """See :class:`Carrier`."""
        await trio.lowlevel.checkpoint()
        with self._receiving.used("receive") as descriptor:
            while True:
                try:
                    return os.readv(descriptor, [buffer])
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(descriptor)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._sending.used("send") as descriptor, memoryview(data).cast("B") as view:
            sent_bytes = 0
            while sent_bytes < len(view):
                try:
                    sent_bytes += os.write(descriptor, view[sent_bytes:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(descriptor)

    async def send_from(self, source: int, count_bytes: int) -> None:
        """Move bytes out of a pipe, in the kernel.

        :param source: a pipe that holds at least ``count_bytes`` bytes
        """
        await trio.lowlevel.checkpoint()
        with self._sending.used("send") as descriptor:
            while count_bytes:
                try:
                    count_bytes -= os.splice(
                        source, descriptor, count_bytes, flags=os.SPLICE_F_NONBLOCK
                    )
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(descriptor)

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        await trio.lowlevel.checkpoint()
        with self._sending.used("send") as descriptor:
            await trio.lowlevel.wait_writable(descriptor)

    def close(self) -> None:
        """Close both directions at once; tasks that use them get ``ClosedResourceError``."""
        if self._receiving.closed:
            return
        self._receiving.closed = self._sending.closed = True
        for descriptor in {self._receiving.descriptor, self._sending.descriptor}:
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)

    async def aclose(self) -> None:
        """See ``trio.abc.AsyncResource``."""
        self.close()
        await trio.lowlevel.checkpoint()
