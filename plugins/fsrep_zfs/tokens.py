"""What a resume token means. Pure.

``1-CHECKSUM-SIZE-HEX``: a version, the first word of a Fletcher checksum of the compressed
bytes, the size of the unpacked list, and that list, packed, compressed by zlib, in
hexadecimal (OpenZFS ``lib/libzfs/libzfs_sendrecv.c``, ``zfs_send_resume_token_to_nvlist``).

A token names a snapshot *by its path*, and how it is to be sent. ``zfs send -t`` does what
it says, so a token that came from a peer is believed in nothing: a sender compares all of
it with the request and with its own options.
"""

from __future__ import annotations

import array
import re
import sys
import zlib

import attrs

from fsrep_core import StaleTokenError
from fsrep_zfs.nvlists import NvlistError, unpack_nvlist

__all__ = ["Token", "decode_token"]

SIZE_LIMIT_BYTES = 1 << 20
"""Of what a token says, unpacked."""
LENGTH_LIMIT = 96 << 10
"""It becomes an argument, for which Linux has 128 KiB (``execve(2)``)."""

_TOKEN = re.compile(r"1-(?P<checksum>[0-9a-f]{1,64})-(?P<size>[0-9a-f]{1,16})-(?P<list>[0-9a-f]+)")
_KNOWN = frozenset(
    {
        *("object", "offset", "bytes", "toguid", "toname", "fromguid"),
        *("largeblockok", "embedok", "compressok", "rawok"),
    }
)


@attrs.frozen(kw_only=True)
class Token:
    """What a resume token says."""

    to_guid: str
    to_name: str
    """The snapshot on the sender: ``DATASET@NAME``."""
    from_guid: str | None
    received_bytes: int
    raw: bool
    unknown: frozenset[str]
    """What it says besides: a redaction, a saved partial, or what this code does not know."""


def decode_token(value: str) -> Token:
    """Read a token.

    :raises StaleTokenError: this is none
    """
    try:
        return _decode(value)
    except (ValueError, zlib.error, KeyError, TypeError) as error:
        raise StaleTokenError(
            "the resume token cannot be read",
            hint="discard the partial receive: zfs receive -A",
        ) from error


def _decode(value: str) -> Token:
    match = _TOKEN.fullmatch(value)
    if match is None or len(value) > LENGTH_LIMIT:
        raise NvlistError("is not a token")
    compressed = bytes.fromhex(match["list"])
    if _checksum(compressed) != int(match["checksum"], 16):
        raise NvlistError("its checksum is another")
    size_bytes = int(match["size"], 16)
    if size_bytes > SIZE_LIMIT_BYTES:
        raise NvlistError("is too large")
    unpacking = zlib.decompressobj()
    said = unpack_nvlist(unpacking.decompress(compressed, size_bytes))
    if unpacking.unused_data:  # zeros there would leave the checksum as it is
        raise NvlistError("something follows it")
    from_guid = _number(said.get("fromguid", 0))
    to_name = said["toname"]
    if not isinstance(to_name, str):
        raise NvlistError("names no snapshot")
    return Token(
        to_guid=str(_number(said["toguid"])),
        to_name=to_name,
        from_guid=str(from_guid) if from_guid else None,
        received_bytes=_number(said.get("bytes", 0)),
        raw=bool(said.get("rawok", False)),
        unknown=frozenset(said) - _KNOWN,
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise NvlistError("a number is missing")
    return value


def _checksum(data: bytes) -> int:
    """Give the first word of the Fletcher-4 checksum, which is a sum of small words."""
    words = array.array("I", data[: len(data) - len(data) % 4])
    if sys.byteorder == "big":
        words.byteswap()
    return sum(words) % (1 << 64)
