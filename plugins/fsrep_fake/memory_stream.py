"""The stream of the memory storage, ``fsrep-memory-1``: headers and bytes.

A stream carries one version or several, oldest first. Each is a header, one line of
JSON, and then the bytes of its changes since the version before it (the base, for the
first one). A header says everything that a careful receiver checks: which guid on top
of which, how many bytes, what the digest of the whole content will be, at which byte it
goes on, and how many versions follow.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import ByteStream, InterruptedStreamError, StorageError
from fsrep_fake.content import Generated, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_fake.content import Content

__all__ = ["FORMAT", "Header", "MemoryStream", "StreamReader", "contents_of", "decode_header"]

FORMAT = "fsrep-memory-1"
_PIECE_BYTES = 256 * 1024
_HEADER_LIMIT_BYTES = 64 * 1024 * 1024


@attrs.frozen(kw_only=True)
class Header:
    """What stands before the bytes of one version."""

    guid: str
    from_guid: str | None
    """The version right before it: ``None`` = its bytes are the whole content."""
    created: float | None
    pieces: tuple[tuple[int, int | None], ...]
    """Size and seed of each change; no seed = its bytes are just bytes."""
    digest: str
    """Of the version's whole content."""
    following: int
    """How many versions come after this one in the same stream."""
    offset: int = 0
    """At which byte of this version the stream goes on."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all changes, also of those before ``offset``."""
        return sum(size_bytes for size_bytes, _ in self.pieces)

    def encode(self) -> bytes:
        """Give the header as it stands in a stream."""
        return json.dumps({"format": FORMAT, **attrs.asdict(self)}).encode() + b"\n"


def decode_header(line: bytes) -> Header:
    """Read one header.

    :raises StorageError: it is none, or of another format
    """
    try:
        fields = json.loads(line)
        found = fields.pop("format")
        if found == FORMAT:
            pieces = tuple((int(size), seed) for size, seed in fields.pop("pieces"))
            return Header(pieces=pieces, **fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"receiving: no header of {FORMAT} stands where one is due: {line[:80]!r}",
            temporary=True,
        ) from error
    raise StorageError(f"receiving: the stream is {found!r}, not {FORMAT}")


class MemoryStream(ByteStream):
    """Gives headers and contents, one after the other, from memory."""

    def __init__(self, parts: Iterable[tuple[Content, int]]) -> None:
        """Take contents, each with the byte at which to begin."""
        self._parts = deque(parts)
        self._closed = False
        self.size_bytes = sum(content.size_bytes - offset for content, offset in self._parts)
        """How many bytes the stream has from here."""

    def close(self) -> None:
        """Forget what was not read; reading on is an error from now on."""
        self._closed = True

    async def receive_some(self, max_bytes: int) -> bytes:
        """Give the next bytes; see :class:`~fsrep_core.ByteStream`."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("the context that gave this stream was left")
        while self._parts:
            content, offset = self._parts[0]
            if offset < content.size_bytes:
                data = content.read(offset, min(max_bytes, _PIECE_BYTES))
                self._parts[0] = content, offset + len(data)
                self.size_bytes -= len(data)
                return data
            self._parts.popleft()
        return b""

    async def finish(self) -> None:
        """Vouch for the bytes, if all were read."""
        await trio.lowlevel.checkpoint()
        if self.size_bytes:
            raise InterruptedStreamError(
                f"sending from memory: {self.size_bytes} bytes were not read"
            )


@attrs.define(eq=False)
class StreamReader:
    """Reads headers and counted bytes from any stream."""

    _stream: ByteStream
    _buffer: bytearray = attrs.field(init=False, factory=bytearray)

    async def read_header(self) -> Header:
        """Read up to the end of a header.

        :raises InterruptedStreamError: the stream ends before it
        :raises StorageError: there is no header
        """
        while (end := self._buffer.find(b"\n")) < 0 and len(self._buffer) < _HEADER_LIMIT_BYTES:
            await self._fill("a header")
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return decode_header(line)

    async def read_some(self, max_bytes: int) -> bytes:
        """Read at least one byte and at most ``max_bytes``.

        :raises InterruptedStreamError: the stream ends here
        """
        if not self._buffer:
            await self._fill(f"{max_bytes} bytes more")
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        return data

    async def read_end(self) -> None:
        """Return once the stream has ended and its maker has vouched for it.

        :raises StorageError: more bytes follow
        :raises FsrepError: the stream's own
        """
        if self._buffer or await self._stream.receive_some(1):
            raise StorageError("receiving: the stream goes on behind its last version")
        await self._stream.finish()

    async def _fill(self, awaited: str) -> None:
        data = await self._stream.receive_some(_PIECE_BYTES)
        if data:
            self._buffer += data
            return
        await self._stream.finish()  # its maker may know why
        raise InterruptedStreamError(f"receiving: the stream ended where {awaited} were due")


def contents_of(header: Header, data: Iterable[bytes | bytearray]) -> tuple[Content, ...]:
    """Give the changes that a header describes; ``data`` holds those without a seed."""
    literals = iter(data)
    return tuple(
        Literal(next(literals)) if seed is None else Generated(seed, size_bytes)
        for size_bytes, seed in header.pieces
    )
