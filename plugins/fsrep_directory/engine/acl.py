"""POSIX access control lists, between the kernel's bytes and the text that tar carries.

The kernel gives an ACL as the extended attribute ``system.posix_acl_access`` (or
``_default``): a version, then eight bytes for each entry (``linux/posix_acl_xattr.h``).
GNU tar and star carry it as ``SCHILY.acl.access`` in the text form of ``acl(5)``; users
and groups are written as numbers, which mean the same on every host.
"""

from __future__ import annotations

import struct

__all__ = ["ACCESS", "DEFAULT", "PREFIX", "from_text", "to_text"]

PREFIX = b"system.posix_acl_"
ACCESS = PREFIX + b"access"
DEFAULT = PREFIX + b"default"
_VERSION = 2
_NO_ID = 0xFFFFFFFF
_TAGS = {1: b"user", 2: b"user", 4: b"group", 8: b"group", 16: b"mask", 32: b"other"}
_HEADER_BYTES = 4
_ENTRY_BYTES = 8
_ALL = 7
_LETTERS = ((0x72, 4), (0x77, 2), (0x78, 1))
"""``r``, ``w`` and ``x``, with the bit of each."""
_NONE = 0x2D
"""A dash."""
_QUALIFIED = frozenset({2, 8})
_NUMBERS = {
    (b"user", False): 1,
    (b"user", True): 2,
    (b"group", False): 4,
    (b"group", True): 8,
    (b"mask", False): 16,
    (b"other", False): 32,
}


def to_text(value: bytes) -> bytes | None:
    """The text of an ACL; ``None`` if the kernel's bytes mean more than text can say."""
    if len(value) % _ENTRY_BYTES != _HEADER_BYTES or struct.unpack_from("<I", value)[0] != _VERSION:
        return None
    lines = []
    for tag, permissions, number in struct.iter_unpack("<HHI", value[_HEADER_BYTES:]):
        if tag not in _TAGS or permissions > _ALL or (tag in _QUALIFIED) == (number == _NO_ID):
            return None
        letters = bytes(letter if permissions & bit else _NONE for letter, bit in _LETTERS)
        qualifier = b"%d" % number if tag in _QUALIFIED else b""
        lines.append(b"%b:%b:%b" % (_TAGS[tag], qualifier, letters))
    text = b"\n".join(lines)
    return text if from_text(text) == value else None


def from_text(text: bytes) -> bytes:
    """The kernel's bytes of an ACL, in the order in which its text stands.

    :raises ValueError: it is no such text
    """
    entries = [struct.pack("<I", _VERSION)]
    for line in text.split(b"\n"):
        name, qualifier, letters = line.split(b":")
        pairs = tuple(zip(letters, _LETTERS, strict=True))
        if any(found not in {letter, _NONE} for found, (letter, _) in pairs):
            raise ValueError(f"no permissions: {letters!r}")
        if qualifier and not (qualifier.isdigit() and int(qualifier) < _NO_ID):
            raise ValueError(f"no number: {qualifier!r}")
        tag = _NUMBERS.get((name, bool(qualifier)))
        if tag is None:
            raise ValueError(f"no kind of entry: {name!r}")
        permissions = sum(bit for found, (letter, bit) in pairs if found == letter)
        entries.append(struct.pack("<HHI", tag, permissions, int(qualifier or _NO_ID)))
    return b"".join(entries)
