"""Reads the headers of the stream, strictly: what it does not know, it refuses.

The reader believes nothing that a header claims: every length is checked before it is
used, nothing is allocated before the bytes for it have come, padding must be zero, and
digits must be digits. A byte that was altered on the way is found here, by the digest of
a file's content, or by the digest of the manifest.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import NamedTuple

from . import acl
from .extents import EXTENT_LIMIT
from .failures import Failure
from .records import Entry, format_extents, format_xattrs
from .tar_format import (
    BLOCK_BYTES,
    GLOBAL_LIMIT_BYTES,
    PAX_LIMIT_BYTES,
    WHITEOUT_COMMENT,
    WHITEOUT_PREFIX,
    padding,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Member", "Source", "read_member"]

_HEADER = re.compile(
    rb"(.{100})([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0([0-7]{11})\0"
    rb"([0-7]{6})\0 (.)(.{100})ustar\x0000",
    re.DOTALL,
)
"""Name, mode, owner, group, size, time, sum, type and target, as the writer fills them."""
_READ_BYTES = 1 << 18
_KINDS = {b"0": b"f", b"1": b"h", b"2": b"l", b"5": b"d", b"6": b"p"}
_NANOSECONDS = 1_000_000_000
_SIZE_LIMIT = (1 << 63) - 1
_MAP_NUMBER_BYTES = 20
_LONGEST_NUMBER = 19
_FRACTION_DIGITS = 9
_DIGEST_DIGITS = 64
_ADLER_MODULUS = 65_521


class Member(NamedTuple):
    """One member of the stream."""

    entry: Entry | None
    """``None`` = no entry: a whiteout, or a global header."""
    content_bytes: int = 0
    """How many bytes of content follow, without padding."""
    whiteout: bytes = b""
    """The path that is gone."""
    comment: bytes = b""
    """What a global header says."""


class Source:
    """The bytes of the stream as they come, counted.

    :param descriptor: where they come from
    :param offset: how many bytes of the stream came before
    :param before_wait: called each time before more bytes are asked for
    """

    def __init__(self, descriptor: int, offset: int, before_wait: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._before_wait = before_wait
        self._buffer = b""
        self._position = 0
        self._end = offset

    @property
    def offset(self) -> int:
        """How many bytes of the stream were taken, in all."""
        return self._end - len(self._buffer) + self._position

    def take(self, size: int) -> bytes:
        """Exactly this many bytes, which the caller has found sane.

        :raises Failure: the stream ends before
        """
        start, end = self._position, self._position + size
        if end <= len(self._buffer):
            self._position = end
            return self._buffer[start:end]
        parts = [self._buffer[start:]]
        missing = size - len(parts[0])
        self._position = len(self._buffer)
        while missing:
            self._fill()
            part = self._buffer[:missing]
            self._position = len(part)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def pieces(self, size: int) -> Iterator[bytes]:
        """This many bytes, in pieces as they come."""
        while size:
            if self._position == len(self._buffer):
                self._fill()
            piece = self._buffer[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def take_filled(self, size: int) -> bytes:
        """Take this many bytes, and the zero bytes that fill their last block."""
        count = padding(size)
        data = self.take(size + count)
        if data.count(0, size) != count:
            raise _malformed("padding is not zero")
        return data[:size]

    def skip_padding(self, size: int) -> None:
        """Take the zero bytes that fill the last block of ``size`` bytes."""
        count = padding(size)
        if count and self.take(count).count(0) != count:
            raise _malformed("padding is not zero")

    def expect_end(self) -> None:
        """Wait for the end of the stream.

        :raises Failure: there are bytes after it
        """
        if self._position < len(self._buffer) or os.read(self._descriptor, 1):
            raise _malformed("bytes follow its end")

    def _fill(self) -> None:
        self._before_wait()
        self._buffer = os.read(self._descriptor, _READ_BYTES)
        self._position = 0
        self._end += len(self._buffer)
        if not self._buffer:
            raise Failure(
                "interrupted-stream",
                f"the stream ended after {self._end} bytes, before it was whole",
                hint="run again: what arrived is kept",
            )


def read_member(source: Source) -> Member:
    """Read one header, with the pax header and sparse map that belong to it.

    :raises Failure: the stream is malformed, or holds what no directory storage sends
    """
    try:
        return _read_member(source)
    except (ValueError, IndexError) as error:
        raise _malformed(str(error)) from error


def _read_member(source: Source) -> Member:
    name, mode, uid, gid, length, mtime, _, kind, target = _read_header(source)
    pax: dict[bytes, bytes] = {}
    if kind in (b"x", b"g"):
        size = int(length, 8)
        limit = GLOBAL_LIMIT_BYTES if kind == b"g" else PAX_LIMIT_BYTES
        if not 0 < size <= limit:
            raise ValueError(f"a pax header has {size} bytes")
        pax = _parse_pax(source.take_filled(size))
        if kind == b"g":
            comment = pax.pop(b"comment", b"")
            return _unknown(pax) if pax else Member(None, comment=comment)
        name, mode, uid, gid, length, mtime, _, kind, target = _read_header(source)
    if kind not in _KINDS:
        raise ValueError(f"a member has the type {kind!r}, such as devices have")
    path = pax.pop(b"path", None) or name.rstrip(b"\0")
    comment = pax.pop(b"comment", b"")
    size = _number(pax, b"size", length)
    if comment == WHITEOUT_COMMENT:
        parent, slash, last = path.rpartition(b"/")
        if pax or size or kind != b"0" or not last.startswith(WHITEOUT_PREFIX):
            raise ValueError("a whiteout is not as whiteouts are")
        return Member(None, whiteout=parent + slash + last[len(WHITEOUT_PREFIX) :])
    stamp = pax.pop(b"mtime", None)
    entry = Entry(
        path,
        _KINDS[kind],
        int(mode, 8),
        _number(pax, b"uid", uid),
        _number(pax, b"gid", gid),
        int(mtime, 8) * _NANOSECONDS if stamp is None else _timestamp(stamp),
        size,
        target=pax.pop(b"linkpath", b"") or target.rstrip(b"\0"),
    )
    return _entry_member(source, entry, comment, pax)


def _entry_member(source: Source, entry: Entry, comment: bytes, pax: dict[bytes, bytes]) -> Member:
    """Add what stands in an entry's pax header, beside the fields of every header."""
    path, kind, mode, uid, gid, mtime_ns, size, digest, target, extents, _ = entry
    stored = real_size = size
    if kind == b"f":
        digest = comment.removeprefix(b"sha256:")
        if b"GNU.sparse.major" in pax:
            path, real_size = _pop_sparse(pax)
            stored, extents = _read_sparse_map(source, size, real_size)
    elif kind == b"h":
        first, second, third = comment.split(b" ")
        digest = first.removeprefix(b"sha256:")
        real_size = _decimal(second.removeprefix(b"size:"))
        extents = third.removeprefix(b"extents:")
    elif kind == b"d":
        if not path.endswith(b"/"):
            raise ValueError("a directory's name does not end in a slash")
        path = path[:-1]
    if kind != b"f" and size:
        raise ValueError("a member that is no file has content")
    if digest and len(digest) != _DIGEST_DIGITS:
        raise ValueError("a digest has no 64 digits")
    if bool(target) != (kind in (b"h", b"l")) or bool(digest) != (kind in (b"f", b"h")):
        raise ValueError("a member lacks what its type needs")
    xattrs = _pop_xattrs(pax) if pax else b""
    if pax:
        _unknown(pax)
    entry = Entry(path, kind, mode, uid, gid, mtime_ns, real_size, digest, target, extents, xattrs)
    return Member(entry, stored if kind == b"f" else 0)


def _read_header(source: Source) -> tuple[bytes, ...]:
    """Take one header block.

    :returns: its fields, in the order of the expression above
    """
    block = source.take(BLOCK_BYTES)
    found = _HEADER.match(block)
    if found is None:
        raise ValueError("a header is not as the writer of this format fills it")
    fields = found.groups()
    # See the writer. The sum is known up to its modulus, which no damage to a few bytes meets.
    total = zlib.adler32(block[:148]) % 0x10000 + zlib.adler32(block[156:]) % 0x10000 - 2
    if (total + 8 * 0x20 - int(fields[6], 8)) % _ADLER_MODULUS:
        raise ValueError("a header's checksum is wrong")
    return fields


def _parse_pax(body: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position, end = 0, len(body)
    while position < end:
        space = body.index(b" ", position, position + 9)
        length = _decimal(body[position:space])
        stop = position + length
        keyword, equals, value = body[space + 1 : stop - 1].partition(b"=")
        if stop > end or stop <= space or body[stop - 1 : stop] != b"\n" or not equals:
            raise ValueError("a pax record is cut")
        if keyword in records:
            raise ValueError(f"the pax record {keyword!r} is there twice")
        records[keyword] = value
        position = stop
    return records


def _pop_sparse(pax: dict[bytes, bytes]) -> tuple[bytes, int]:
    if (pax.pop(b"GNU.sparse.major"), pax.pop(b"GNU.sparse.minor", b"")) != (b"1", b"0"):
        raise ValueError("a sparse file has another format than 1.0")
    real_size = _decimal(pax.pop(b"GNU.sparse.realsize", b""))
    return pax.pop(b"GNU.sparse.name", b""), real_size


def _read_sparse_map(source: Source, size: int, real_size: int) -> tuple[int, bytes]:
    """Take the map before a sparse file's content.

    :returns: how many bytes of content follow it, and the extents as a record has them
    """
    text, taken = b"", 0

    def number() -> int:
        nonlocal text, taken
        while b"\n" not in text:
            if len(text) > _MAP_NUMBER_BYTES or taken + BLOCK_BYTES > size:
                raise ValueError("a sparse map is cut")
            text += source.take(BLOCK_BYTES)
            taken += BLOCK_BYTES
        digits, _, text = text.partition(b"\n")
        return _decimal(digits)

    count = number()
    if not 0 < count <= EXTENT_LIMIT:
        raise ValueError(f"a sparse map names {count} pieces")
    pieces, end = [], 0
    for _ in range(count):
        offset, length = number(), number()
        if offset < end or offset + length > real_size:
            raise ValueError("a sparse map's pieces overlap or pass its file's end")
        end = offset + length
        pieces.append((offset, length))
    if text.strip(b"\0"):
        raise ValueError("padding is not zero")
    stored = sum(length for _, length in pieces)
    if taken + stored != size:
        raise ValueError("a sparse file's size is not that of its pieces")
    return stored, format_extents(pieces)


def _pop_xattrs(pax: dict[bytes, bytes]) -> bytes:
    found = {}
    for keyword in list(pax):
        if keyword.startswith(b"SCHILY.xattr."):
            name = keyword.removeprefix(b"SCHILY.xattr.").replace(b"%3D", b"=")
            found[name.replace(b"%25", b"%")] = pax.pop(keyword)
        elif keyword in (b"SCHILY.acl.access", b"SCHILY.acl.default"):
            name = acl.PREFIX + keyword.removeprefix(b"SCHILY.acl.")
            found[name] = acl.from_text(pax.pop(keyword))
    return format_xattrs(found) if found else b""


def _number(pax: dict[bytes, bytes], keyword: bytes, field: bytes) -> int:
    text = pax.pop(keyword, None) if pax else None
    return int(field, 8) if text is None else _decimal(text)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER or int(digits) > _SIZE_LIMIT:
        raise ValueError(f"a number is {digits[:20]!r}")
    return int(digits)


def _timestamp(text: bytes) -> int:
    negative = text.startswith(b"-")
    seconds, _, fraction = text.removeprefix(b"-").partition(b".")
    if len(fraction) != _FRACTION_DIGITS:
        raise ValueError(f"a time is {text[:40]!r}")
    value = _decimal(seconds) * _NANOSECONDS + _decimal(fraction)
    return -value if negative else value


def _unknown(pax: dict[bytes, bytes]) -> Member:
    raise ValueError(f"a member has pax records of another kind: {sorted(pax)[:5]}")


def _malformed(why: str) -> Failure:
    return Failure(
        "storage",
        f"the stream is not one that a directory storage sends: {why}",
        hint="nothing of it became visible; if it was damaged on the way, run again",
        temporary=True,
    )
