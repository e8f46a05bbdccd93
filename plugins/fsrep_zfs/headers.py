"""What the first records of a stream say of it. Pure.

Each record has 312 bytes: a type, the size of what follows it, and a union (OpenZFS
``include/sys/zfs_ioctl.h``, ``dmu_replay_record``). A stream begins with ``BEGIN``, which
tells what snapshot it makes and of which base. A package (``zfs send -I`` or ``-p``) has a
``BEGIN`` of its own around it, followed by a packed list of what is inside, and an ``END``.

fsrep looks at them before ``zfs receive`` does, for three reasons: the properties to set
depend on whether a volume comes; another snapshot than the one that was promised is
refused before anything has changed; and a package that speaks of more than one dataset
never gets near a receive that may overwrite.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from fsrep_core import BrokenEndpointError
from fsrep_zfs.nvlists import NvlistError, unpack_nvlist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RECORD_BYTES", "StreamHeader", "read_header"]

RECORD_BYTES = 312
PAYLOAD_LIMIT_BYTES = 1 << 28
"""The list of a package; it names every snapshot of the dataset."""

_MAGIC = 0x2F5BACBAC
_BEGIN = 0
_PACKAGE = 2
_VOLUME = 3
_RAW = 1 << 24

_FIELDS = "IIQQQIIQQ256s"
"""Type, payload size, magic, version and features, creation time, type of the dataset,
flags, guids of the snapshot and of its base, name."""


@attrs.frozen(kw_only=True)
class StreamHeader:
    """What a stream says of itself."""

    to_guid: str
    """Of the first snapshot in it."""
    to_name: str
    """Without the dataset."""
    from_guid: str | None
    volume: bool
    raw: bool
    package: bool


@attrs.frozen(kw_only=True)
class _Begin:
    payload_bytes: int
    features: int
    kind: int
    dataset_type: int
    to_guid: int
    from_guid: int
    name: str


async def read_header(
    read: Callable[[int], Awaitable[bytes]], attempt: str
) -> tuple[StreamHeader, bytes]:
    """Read as much of a stream as tells what it is.

    :param read: gives exactly so many bytes, or raises
    :returns: the header, and all bytes that were read
    :raises BrokenEndpointError: this is no stream of ZFS, or it carries more than it may
    """
    head = await read(RECORD_BYTES)
    begin = _begin(head, attempt)
    package = begin.kind == _PACKAGE
    if package:
        contents = await read(_checked_size(begin, attempt))
        _check_contents(contents, attempt)
        head += contents + await read(RECORD_BYTES)
        inner = await read(RECORD_BYTES)
        head += inner
        begin = _begin(inner, attempt)
    return StreamHeader(
        to_guid=str(begin.to_guid),
        to_name=begin.name.partition("@")[2],
        from_guid=str(begin.from_guid) if begin.from_guid else None,
        volume=begin.dataset_type == _VOLUME,
        raw=bool(begin.features & _RAW),
        package=package,
    ), head


def _begin(record: bytes, attempt: str) -> _Begin:
    for order in "<>":
        kind, payload, magic, info, _, dataset_type, _, to_guid, from_guid, name = (
            struct.unpack_from(order + _FIELDS, record)
        )
        if kind == _BEGIN and magic == _MAGIC:
            return _Begin(
                payload_bytes=payload,
                features=(info >> 2) & ((1 << 30) - 1),
                kind=info & 3,
                dataset_type=dataset_type,
                to_guid=to_guid,
                from_guid=from_guid,
                name=name.partition(b"\0")[0].decode(errors="surrogateescape"),
            )
    raise BrokenEndpointError(
        f"{attempt}: what arrives is no stream of zfs send",
        hint="the sender's storage has to be zfs, and its command has to print nothing else",
    )


def _checked_size(begin: _Begin, attempt: str) -> int:
    if begin.payload_bytes > PAYLOAD_LIMIT_BYTES:
        raise BrokenEndpointError(
            f"{attempt}: the stream announces a list of {begin.payload_bytes} bytes"
        )
    return begin.payload_bytes


def _check_contents(packed: bytes, attempt: str) -> None:
    """Refuse a package of several datasets: a receive that overwrites would destroy others.

    One without a list (``-I`` alone) says nothing of any dataset.
    """
    if not packed:
        return
    try:
        contents = unpack_nvlist(packed)
    except NvlistError as error:
        raise BrokenEndpointError(
            f"{attempt}: the stream's list of contents cannot be read: it {error}"
        ) from error
    filesystems = contents.get("fss")
    single = isinstance(filesystems, dict) and len(filesystems) == 1
    if not (single and contents.get("not_recursive")):
        raise BrokenEndpointError(
            f"{attempt}: the stream is a package of several datasets, and one was asked for"
        )
