"""Where a file holds data and where it is a hole, and copying without filling the holes.

A file counts as sparse when it takes fewer blocks than its size needs *and* has a hole
that the kernel can name. The pieces are widened to whole grains, so that two versions of
one file agree although the filesystem allocates as it likes, and a file in more pieces
than a stream may name gets coarser ones.
"""

from __future__ import annotations

import errno
import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EXTENT_LIMIT",
    "copy_content",
    "data_extents",
    "hash_content",
    "read_pieces",
    "spans_after",
]

EXTENT_LIMIT = 65_536
_GRAIN_BYTES = 4096
_BLOCK_BYTES = 512
_BUFFER_BYTES = 1 << 20


def data_extents(descriptor: int, size: int, blocks: int) -> list[tuple[int, int]]:
    """The pieces ``(offset, length)`` that hold data; an empty list = the whole file.

    :param blocks: ``st_blocks``, which spares asking where there can be no hole
    """
    if blocks * _BLOCK_BYTES >= size:
        return []
    grain = _GRAIN_BYTES
    found = list(_probe(descriptor, size, grain))
    while len(found) >= EXTENT_LIMIT:
        grain *= 2
        found = list(_probe(descriptor, size, grain))
    if found == [(0, size)]:
        return []
    if not found or sum(found[-1]) < size:
        found.append((size, 0))
    return found


def _probe(descriptor: int, size: int, grain: int) -> Iterator[tuple[int, int]]:
    start = end = position = 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        position = min(os.lseek(descriptor, data, os.SEEK_HOLE), size)
        first = data - data % grain
        if first > end:
            if end > start:
                yield start, end - start
            start = first
        end = min(position + -position % grain, size)
    if end > start:
        yield start, end - start


def spans_after(spans: list[tuple[int, int]], done: int) -> Iterator[tuple[int, int]]:
    """The spans that are left when the first ``done`` bytes of all are dealt with."""
    for offset, length in spans:
        skipped = min(done, length)
        done -= skipped
        if length > skipped:
            yield offset + skipped, length - skipped


def read_pieces(
    descriptor: int, spans: list[tuple[int, int]], limit: int
) -> Iterator[tuple[int, bytes]]:
    """Read the first ``limit`` bytes of some spans of a file, ``(offset, piece)`` each."""
    for start, length in spans:
        offset, end = start, start + min(length, limit)
        limit -= end - start
        while offset < end:
            piece = os.pread(descriptor, min(end - offset, _BUFFER_BYTES), offset)
            if not piece:
                break
            yield offset, piece
            offset += len(piece)


def hash_content(descriptor: int, size: int, extents: list[tuple[int, int]]) -> tuple[bytes, int]:
    """Read a file's data.

    :returns: its digest, in hexadecimal, and how many bytes there were
    """
    hasher = hashlib.sha256()
    total = 0
    for _, piece in read_pieces(descriptor, extents or [(0, size)], size):
        hasher.update(piece)
        total += len(piece)
    return hasher.hexdigest().encode(), total


def copy_content(
    source: int, target: int, size: int, extents: list[tuple[int, int]]
) -> tuple[bytes, int]:
    """Copy a file's data, and leave its holes holes.

    Reading and writing beats a copy in the kernel here, because the content has to be
    hashed: it would be read once more.

    :returns: the digest of what was copied, in hexadecimal, and how many bytes it was
    """
    hasher = hashlib.sha256()
    total = 0
    for offset, piece in read_pieces(source, extents or [(0, size)], size):
        hasher.update(piece)
        total += len(piece)
        done = 0
        while done < len(piece):
            done += os.pwrite(target, piece[done:] if done else piece, offset + done)
    if extents:
        os.ftruncate(target, size)
    return hasher.hexdigest().encode(), total
