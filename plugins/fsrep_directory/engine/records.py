r"""One entry of a tree as one line of bytes: the record of a manifest.

A record holds everything that a version promises of an entry, in one canonical form, so
that two entries are equal exactly if their lines are. Eleven fields, tabs between::

    path kind mode uid gid mtime_ns size digest target extents xattrs

* ``path``: below the root of the tree, ``.`` for the root itself. Any bytes; backslash,
  tab and newline are written as ``\\``, ``\t`` and ``\n``.
* ``kind``: ``f`` file, ``d`` directory, ``l`` symbolic link, ``p`` fifo, ``h`` a further
  name of the file, link or fifo ``target``, which sorts before it. An ``h`` repeats all
  that its first name says, so that its line changes whenever that one does.
* ``mode``: the twelve permission bits, octal. ``mtime_ns`` may be negative.
* ``size`` and ``digest``: of files; the SHA-256 of the content, in hexadecimal. For a
  sparse file it covers the bytes of its extents only; for a further name of a symbolic
  link, the link's text, and of a fifo, nothing.
* ``extents``: of sparse files, ``offset+length`` of each piece that holds data, commas
  between, ended by a piece of no length at ``size`` where the file ends in a hole.
* ``xattrs``: ``name=base64`` by name, commas between; bytes of a name other than letters,
  digits, ``.``, ``_`` and ``-`` are written ``%XX``.

A field that means nothing for a kind is empty, and ``size`` is 0.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

__all__ = [
    "ROOT",
    "Entry",
    "escape",
    "format_extents",
    "format_record",
    "format_xattrs",
    "parse_extents",
    "parse_record",
    "parse_xattrs",
    "record_path",
    "sort_key",
    "unescape",
]

ROOT = b"."
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Entry(NamedTuple):
    """A record, taken apart. Numbers are numbers; the rest stays as it is written."""

    path: bytes
    """Not escaped."""
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    digest: bytes = b""
    target: bytes = b""
    """Not escaped."""
    extents: bytes = b""
    xattrs: bytes = b""


def format_record(entry: Entry) -> bytes:
    """Write an entry as its line, without the newline."""
    path, kind, mode, uid, gid, mtime_ns, size, digest, target, extents, xattrs = entry
    return b"%b\t%b\t%o\t%d\t%d\t%d\t%d\t%b\t%b\t%b\t%b" % (
        escape(path),
        kind,
        mode,
        uid,
        gid,
        mtime_ns,
        size,
        digest,
        escape(target),
        extents,
        xattrs,
    )


def parse_record(line: bytes) -> Entry:
    """Read a line that :func:`format_record` wrote.

    :raises ValueError: it is no such line
    """
    path, kind, mode, uid, gid, mtime_ns, size, digest, target, extents, xattrs = line.split(b"\t")
    return Entry(
        unescape(path),
        kind,
        int(mode, 8),
        int(uid),
        int(gid),
        int(mtime_ns),
        int(size),
        digest,
        unescape(target),
        extents,
        xattrs,
    )


def record_path(line: bytes) -> bytes:
    """The path of a record, not escaped."""
    return unescape(line.partition(b"\t")[0])


def sort_key(path: bytes) -> bytes:
    """What sorts paths as a walk meets them: a directory, all that it holds, the next."""
    return b"" if path == ROOT else path.replace(b"/", b"\0")


def escape(path: bytes) -> bytes:
    """A path as it stands in a record."""
    if b"\\" in path:
        path = path.replace(b"\\", b"\\\\")
    if b"\t" in path:
        path = path.replace(b"\t", b"\\t")
    if b"\n" in path:
        path = path.replace(b"\n", b"\\n")
    return path


def unescape(text: bytes) -> bytes:
    """The path that :func:`escape` wrote."""
    if b"\\" not in text:
        return text
    parts = text.split(b"\\\\")
    return b"\\".join(part.replace(b"\\t", b"\t").replace(b"\\n", b"\n") for part in parts)


def format_extents(extents: list[tuple[int, int]]) -> bytes:
    """Pieces of data as they stand in a record; none for a file that is not sparse."""
    return b",".join(b"%d+%d" % extent for extent in extents)


def parse_extents(text: bytes) -> list[tuple[int, int]]:
    """The pieces that :func:`format_extents` wrote."""
    if not text:
        return []
    pairs = (piece.split(b"+") for piece in text.split(b","))
    return [(int(offset), int(length)) for offset, length in pairs]


def format_xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    """Extended attributes as they stand in a record."""
    return b",".join(
        b"%b=%b" % (_quote(name), binascii.b2a_base64(value, newline=False))
        for name, value in sorted(xattrs.items())
    )


def parse_xattrs(text: bytes) -> dict[bytes, bytes]:
    """The attributes that :func:`format_xattrs` wrote."""
    if not text:
        return {}
    pairs = (piece.partition(b"=") for piece in text.split(b","))
    return {_unquote(name): binascii.a2b_base64(value) for name, _, value in pairs}


def _quote(name: bytes) -> bytes:
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in name)


def _unquote(text: bytes) -> bytes:
    first, *others = text.split(b"%")
    return first + b"".join(binascii.a2b_hex(part[:2]) + part[2:] for part in others)
