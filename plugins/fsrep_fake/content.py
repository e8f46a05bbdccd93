"""What a filesystem in memory holds: a history of changes, each of them some bytes.

The content of a version is the bytes of all changes up to it, one after the other. A
change knows the change before it, so that versions share what they have in common, and
an incremental stream is the changes after its base: it is useless on any other base,
as with a real filesystem.
"""

from __future__ import annotations

import functools
import hashlib
import random
from typing import Protocol, TypeAlias

import attrs

__all__ = ["NOTHING", "Change", "Content", "Generated", "Hasher", "Literal", "changes_since"]

_BLOCK_BYTES = 64 * 1024
_STAMP_BYTES = 8


@attrs.frozen
class Literal:
    """Bytes that are kept as they are."""

    data: bytes = attrs.field(converter=bytes, repr=lambda data: f"<{len(data)} bytes>")

    @property
    def size_bytes(self) -> int:
        """How many bytes these are."""
        return len(self.data)

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Give the bytes from ``offset``, at most ``max_bytes``; ``b""`` behind the end."""
        return self.data[offset : offset + max_bytes]


@attrs.frozen
class Generated:
    """Bytes that follow from a seed: any amount of them costs no memory.

    Equal seeds give equal bytes, and a shorter content is the beginning of a longer one.
    """

    seed: int
    size_bytes: int = attrs.field(validator=attrs.validators.ge(0))

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Give the bytes from ``offset``, at most ``max_bytes``; ``b""`` behind the end."""
        end = min(offset + max_bytes, self.size_bytes)
        block = _block(self.seed, min(self.size_bytes, _BLOCK_BYTES).bit_length())
        parts = []
        while offset < end:
            number, start = divmod(offset, _BLOCK_BYTES)
            stop = min(_BLOCK_BYTES, start + end - offset)
            part = block[start:stop]
            if number and start < _STAMP_BYTES:  # no two blocks are equal
                part = number.to_bytes(_STAMP_BYTES)[start:stop] + part[_STAMP_BYTES - start :]
            parts.append(part)
            offset += stop - start
        return b"".join(parts)


Content: TypeAlias = Literal | Generated


@functools.lru_cache(maxsize=256)
def _block(seed: int, size_bits: int) -> bytes:
    """Give no more bytes than a small content needs; fewer are the beginning of more."""
    return random.Random(seed).randbytes(4 << size_bits)  # noqa: S311  (test data, repeatable)


class Hasher(Protocol):
    """A hash object of :mod:`hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def copy(self) -> Hasher:
        """Give another one that has seen the same."""

    def hexdigest(self) -> str:
        """Tell the digest of all bytes so far."""


@attrs.define(eq=False)
class Change:
    """Some content, after all the changes before it. Never changed once it is made."""

    before: Change | None = attrs.field(repr=False)
    content: Content
    seen: Hasher | None = attrs.field(init=False, repr=False, default=None)
    """Kept by :meth:`hasher`, when first asked for: much content is never read."""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes of this change and of all before it."""
        return self.hasher().hexdigest()

    def hasher(self) -> Hasher:
        """Give a hash object of its own that has seen all bytes up to here."""
        unseen = []
        change: Change | None = self
        while change is not None and change.seen is None:
            unseen.append(change)
            change = change.before
        hasher: Hasher = hashlib.sha256()
        if change is not None and change.seen is not None:
            hasher = change.seen.copy()
        for each in reversed(unseen):  # not recursive: a history may be long
            for offset in range(0, each.content.size_bytes, _BLOCK_BYTES):
                hasher.update(each.content.read(offset, _BLOCK_BYTES))
            each.seen = hasher.copy()
        return hasher


NOTHING = Change(None, Literal(b""))
"""Where every history begins."""


def changes_since(base: Change, last: Change) -> tuple[Change, ...] | None:
    """Give the changes after ``base`` up to ``last``, oldest first.

    :returns: ``None`` where ``base`` is not among the changes before ``last``
    """
    found = []
    change: Change | None = last
    while change is not None and change is not base:
        found.append(change)
        change = change.before
    return None if change is None else tuple(reversed(found))
