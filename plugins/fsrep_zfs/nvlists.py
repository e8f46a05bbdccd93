"""Packed name-value lists, which tokens and packages of streams contain. Pure.

Two packings are in use (OpenZFS ``module/nvpair/nvpair.c``): the memory's own, in tokens,
and XDR, in packages. Both begin with four bytes that say which it is, and go on with a
version, flags, and pairs of a name and a value, until a size of zero. What comes from a
peer is read here, so everything has a limit, and every read is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeAlias

import attrs

__all__ = ["NvList", "NvlistError", "unpack_nvlist"]

NvList: TypeAlias = Mapping[str, object]
"""Names with integers, strings, true, or further lists; other values are ``None``."""

DEPTH_LIMIT = 12
PAIR_LIMIT = 2_000_000

_HEADER = struct.Struct("BBxx")
_NATIVE, _XDR = 0, 1
_LITTLE = 1

_BOOLEAN, _UINT64, _STRING, _NVLIST, _NVLIST_ARRAY, _BOOLEAN_VALUE = 1, 8, 9, 19, 20, 21
_NESTED = frozenset({_NVLIST, _NVLIST_ARRAY})


class NvlistError(ValueError):
    """The bytes are no packed list, or not one that is used here."""


def unpack_nvlist(packed: bytes) -> NvList:
    """Unpack a list.

    :raises NvlistError: these bytes are none
    """
    try:
        packing, endian = _HEADER.unpack_from(packed)
        if packing == _XDR:
            return _XdrReader(packed, offset=_HEADER.size).nvlist(depth=0)
        if packing == _NATIVE:
            return _read_native(packed, "<" if endian == _LITTLE else ">")
    except struct.error as error:
        raise NvlistError(f"breaks off: {error}") from error
    raise NvlistError(f"is packed in an unknown way ({packing})")


def _read_native(packed: bytes, order: str) -> NvList:
    """Read the memory's own packing: pairs of a size that says where the next one is."""
    pair = struct.Struct(f"{order}ihhii")
    offset = _HEADER.size + struct.calcsize(f"{order}iI")
    values: dict[str, object] = {}
    while True:
        (size_bytes,) = struct.unpack_from(f"{order}i", packed, offset)
        if size_bytes == 0:
            return values
        _, name_bytes, _, count, kind = pair.unpack_from(packed, offset)
        name_at, end = offset + pair.size, offset + size_bytes
        value_at = name_at + name_bytes + (-(pair.size + name_bytes) % 8)
        if not (name_bytes > 0 and value_at <= end <= len(packed)):
            raise NvlistError("has a pair of an impossible size")
        if kind in _NESTED:
            raise NvlistError("holds further lists, which no token does")
        name = _text(packed[name_at : name_at + name_bytes])
        values[name] = _native_value(kind, packed[value_at:end], count, order)
        offset = end


def _native_value(kind: int, data: bytes, count: int, order: str) -> object:
    if kind == _UINT64 and count == 1:
        return int(struct.unpack_from(f"{order}Q", data)[0])
    if kind == _STRING:
        return _text(data)
    if kind == _BOOLEAN:
        return True
    if kind == _BOOLEAN_VALUE:
        return bool(struct.unpack_from(f"{order}i", data)[0])
    return None


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="surrogateescape")


@attrs.define(eq=False)
class _XdrReader:
    """Reads the packing that is the same on all hosts: big-endian, padded to four bytes."""

    data: bytes
    offset: int
    pairs: int = 0

    def nvlist(self, depth: int) -> dict[str, object]:
        """Read one list, with those inside it."""
        if depth > DEPTH_LIMIT:
            raise NvlistError("is nested too deep")
        self._numbers("iI")
        values: dict[str, object] = {}
        while True:
            start = self.offset
            packed_bytes, unpacked_bytes = self._numbers("ii")
            if packed_bytes == 0 and unpacked_bytes == 0:
                return values
            end = start + packed_bytes
            self.pairs += 1
            if self.pairs > PAIR_LIMIT or not start < end <= len(self.data):
                raise NvlistError("has a pair of an impossible size")
            name = self._string()
            kind, count = self._numbers("ii")
            if kind in _NESTED:
                values[name] = self._nested(kind, count, depth)
            else:
                values[name] = self._plain(kind)
                self.offset = end

    def _nested(self, kind: int, count: int, depth: int) -> object:
        if kind == _NVLIST:
            return self.nvlist(depth + 1)
        if not 0 <= count <= PAIR_LIMIT:
            raise NvlistError("has an array of an impossible size")
        return [self.nvlist(depth + 1) for _ in range(count)]

    def _plain(self, kind: int) -> object:
        if kind == _UINT64:
            return self._numbers("Q")[0]
        if kind == _STRING:
            return self._string()
        if kind == _BOOLEAN:
            return True
        if kind == _BOOLEAN_VALUE:
            return bool(self._numbers("i")[0])
        return None

    def _numbers(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(f">{layout}", self.data, self.offset)
        self.offset += struct.calcsize(f">{layout}")
        return values

    def _string(self) -> str:
        (size_bytes,) = self._numbers("I")
        end = self.offset + size_bytes
        if end > len(self.data):
            raise NvlistError("has a string that is longer than itself")
        value = self.data[self.offset : end].decode(errors="surrogateescape")
        self.offset = end + (-size_bytes % 4)
        return value
