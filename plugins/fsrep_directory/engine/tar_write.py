"""Writes the headers of the stream: the same entry always gives the same bytes."""

from __future__ import annotations

import zlib

from . import acl
from .failures import Failure, quoted
from .records import Entry, parse_extents, parse_xattrs
from .tar_format import (
    BLOCK_BYTES,
    PAX_LIMIT_BYTES,
    WHITEOUT_COMMENT,
    WHITEOUT_PREFIX,
    padding,
)

__all__ = ["END_BLOCKS", "global_header", "member_header", "sparse_map", "whiteout_header"]

END_BLOCKS = bytes(2 * BLOCK_BYTES)
_TYPES = {b"f": b"0", b"h": b"1", b"l": b"2", b"d": b"5", b"p": b"6"}
_NAME_BYTES = 100
_ID_LIMIT = 0o7777777
_SIZE_LIMIT = 0o77777777777
_NANOSECONDS = 1_000_000_000
_MAGIC_TO_END = b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
_PAX_HEADERS: dict[int, bytes] = {}


def global_header(comment: bytes) -> bytes:
    """A global pax header that holds one comment."""
    body = _pax_record(b"comment", comment)
    return _block(b"pax_global_header", 0o644, 0, 0, len(body), 0, b"g", b"") + _filled(body)


def whiteout_header(path: bytes) -> bytes:
    """The member that says: the base's entry at this path, and all below it, is gone."""
    parent, slash, name = path.rpartition(b"/")
    pax = _pax_record(b"comment", WHITEOUT_COMMENT)
    return _member(parent + slash + WHITEOUT_PREFIX + name, b"0", 0, 0, 0, 0, 0, b"", pax)


def member_header(entry: Entry) -> tuple[bytes, int]:
    """All that stands before an entry's content.

    :returns: the bytes, and how many bytes of content follow them, without padding
    :raises Failure: its extended attributes are more than the stream can carry
    """
    path, kind, mode, uid, gid, mtime_ns, size, digest, target, extents, xattrs = entry
    pax = b""
    name = path
    before = b""
    stored = 0
    if kind == b"f":
        stored = size
        pax = _pax_record(b"comment", b"sha256:" + digest)
        if extents:
            pieces = parse_extents(extents)
            before = sparse_map(pieces)
            stored = sum(length for _, length in pieces)
            pax += (
                b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
                + _pax_record(b"GNU.sparse.name", path)
                + _pax_record(b"GNU.sparse.realsize", b"%d" % size)
            )
            name = b"GNUSparseFile.0/" + path.rpartition(b"/")[2]
    elif kind == b"h":
        facts = b"sha256:%b size:%d extents:%b" % (digest, size, extents)
        pax = _pax_record(b"comment", facts)
    elif kind == b"d":
        name = path + b"/"
    if xattrs:
        pax += b"".join(_pax_record(*_xattr(*item)) for item in parse_xattrs(xattrs).items())
    header = _member(
        name, _TYPES[kind], mode, uid, gid, len(before) + stored, mtime_ns, target, pax
    )
    return header + before, stored


def sparse_map(pieces: list[tuple[int, int]]) -> bytes:
    """The map that GNU's sparse format 1.0 puts before the content, in whole blocks."""
    numbers = b"".join(b"%d\n%d\n" % piece for piece in pieces)
    return _filled(b"%d\n%b" % (len(pieces), numbers))


def _xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name in (acl.ACCESS, acl.DEFAULT):
        text = acl.to_text(value)
        if text is not None:
            return b"SCHILY.acl." + name.removeprefix(acl.PREFIX), text
    # GNU tar writes the two bytes that it could not read back in a keyword like this.
    keyword = name.replace(b"%", b"%25").replace(b"=", b"%3D")
    return b"SCHILY.xattr." + keyword, value


def _member(  # noqa: C901, PLR0913, PLR0917  (the fields of a header, each with its own limit)
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime_ns: int,
    target: bytes,
    pax: bytes,
) -> bytes:
    seconds, fraction = divmod(mtime_ns, _NANOSECONDS)
    if fraction or not 0 <= seconds <= _SIZE_LIMIT:
        pax += _pax_record(b"mtime", _timestamp(mtime_ns))
        seconds = min(max(seconds, 0), _SIZE_LIMIT)
    if len(name) > _NAME_BYTES:
        pax += _pax_record(b"path", name)
        name = name[:_NAME_BYTES]
    if len(target) > _NAME_BYTES:
        pax += _pax_record(b"linkpath", target)
        target = target[:_NAME_BYTES]
    if uid > _ID_LIMIT:
        pax += _pax_record(b"uid", b"%d" % uid)
        uid = 0
    if gid > _ID_LIMIT:
        pax += _pax_record(b"gid", b"%d" % gid)
        gid = 0
    if size > _SIZE_LIMIT:
        pax += _pax_record(b"size", b"%d" % size)
        size = 0
    block = _block(name, mode, uid, gid, size, seconds, kind, target)
    if not pax:
        return block
    if len(pax) > PAX_LIMIT_BYTES:
        raise Failure(
            "storage",
            f"the extended attributes of {quoted(name)!r} take {len(pax)} bytes, "
            f"more than the {PAX_LIMIT_BYTES} that a stream carries",
        )
    header = _PAX_HEADERS.get(len(pax))
    if header is None:
        header = _block(b"PaxHeaders/entry", 0o644, 0, 0, len(pax), 0, b"x", b"")
        if len(pax) <= BLOCK_BYTES:
            _PAX_HEADERS[len(pax)] = header
    return header + _filled(pax) + block


def _block(  # noqa: PLR0913, PLR0917  (the fields of a header)
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, target: bytes
) -> bytes:
    """One ustar header block."""
    start = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(_NAME_BYTES, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    end = kind + target.ljust(_NAME_BYTES, b"\0") + _MAGIC_TO_END
    # The low half of Adler-32 is the sum of the bytes, plus one: no header reaches the
    # modulus, since its names have at most 200 bytes. Eight spaces stand for the sum.
    checksum = (zlib.adler32(start) & 0xFFFF) + (zlib.adler32(end) & 0xFFFF) - 2 + 8 * 0x20
    return b"%b%06o\0 %b" % (start, checksum, end)


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    """One record: its own length, in decimal and counting itself, then keyword and value."""
    length = len(keyword) + len(value) + 3
    digits = len(str(length))
    if len(str(length + digits)) > digits:
        digits += 1
    return b"%d %b=%b\n" % (length + digits, keyword, value)


def _timestamp(mtime_ns: int) -> bytes:
    seconds, fraction = divmod(abs(mtime_ns), _NANOSECONDS)
    return b"%b%d.%09d" % (b"-" if mtime_ns < 0 else b"", seconds, fraction)


def _filled(data: bytes) -> bytes:
    return data + bytes(padding(len(data)))
