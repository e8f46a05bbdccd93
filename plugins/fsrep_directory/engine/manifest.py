"""A manifest: the records of a whole tree, sorted as a walk meets them, one file.

A version is its manifest; what differs between two versions is what differs between two
sorted files. They are mapped, not loaded: stretches that are equal are compared and
copied as bytes, whatever the number of their lines, and only the lines around a
difference are looked at one by one. Memory does not grow with the tree.
"""

from __future__ import annotations

import hashlib
import mmap
import os

from .failures import Failure
from .records import record_path, sort_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Manifest", "compare", "manifest_digest"]

_FIRST_SPAN_BYTES = 1 << 9
_LAST_SPAN_BYTES = 1 << 20


class Manifest:
    """The manifest file of one version, mapped for reading. A context manager."""

    def __init__(self, path: str, *, length: int | None = None) -> None:
        """Map the file.

        :param length: only its first bytes, a number of whole lines; ``None`` = all
        :raises FileNotFoundError: it is gone
        :raises Failure: it does not end in a whole line
        """
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size if length is None else length
            self.data: mmap.mmap | bytes = b""
            if size:
                self.data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self.size = size
        if size and self.data[size - 1 :] != b"\n":
            raise Failure("storage", f"the manifest {path!r} is damaged: its last line is cut")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not isinstance(self.data, bytes):
            self.data.close()

    def line_at(self, start: int) -> bytes:
        """The line that starts there, without its newline."""
        return self.data[start : self.data.find(b"\n", start)]

    def seek(self, key: bytes, low: int = 0) -> int:
        """Where the first line whose path does not sort before ``key`` starts.

        :param low: the start of a line at which to begin; no line before it is looked at
        """
        data, high = self.data, self.size
        while low < high:
            middle = (low + high) // 2
            start = data.rfind(b"\n", low, middle) + 1 or low
            if sort_key(record_path(self.line_at(start))) < key:
                low = data.find(b"\n", middle) + 1
            else:
                high = start
        return low

    def after(self, start: int) -> int:
        """Where the line after the one that starts at ``start`` starts."""
        return self.data.find(b"\n", start) + 1

    def after_subtree(self, start: int) -> int:
        """Where the first line that is not of the entry at ``start``, or below it, starts."""
        below = sort_key(record_path(self.line_at(start))) + b"\0"
        # No path holds a byte lower than the separator's, so one more is past them all.
        return self.seek(below[:-1] + b"\1", self.after(start))


def manifest_digest(path: str) -> str:
    """The SHA-256 of a manifest file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(old: Manifest, new: Manifest) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Walk two manifests side by side.

    :returns: in order, ``(same, old line, new line)``: either a stretch of whole lines
        that are in both, newlines included, with two empty lines; or nothing and the one
        line, or both lines of one path, that differ
    """
    left, right, span = 0, 0, _FIRST_SPAN_BYTES
    while left < old.size and right < new.size:
        old_line, new_line = old.line_at(left), new.line_at(right)
        if old_line == new_line:
            same = _equal_lines(old, new, left, right, max(span, len(new_line) + 1))
            # Long stretches are found in few large comparisons, short ones in small ones.
            span = min(span * 2, _LAST_SPAN_BYTES) if len(same) > span // 2 else _FIRST_SPAN_BYTES
            left += len(same)
            right += len(same)
            yield same, b"", b""
            continue
        old_key, new_key = sort_key(record_path(old_line)), sort_key(record_path(new_line))
        is_old, is_new = old_key <= new_key, new_key <= old_key
        if is_old:
            left += len(old_line) + 1
        if is_new:
            right += len(new_line) + 1
        yield b"", old_line if is_old else b"", new_line if is_new else b""
    while left < old.size:
        line = old.line_at(left)
        left += len(line) + 1
        yield b"", line, b""
    while right < new.size:
        line = new.line_at(right)
        right += len(line) + 1
        yield b"", b"", line


def _equal_lines(old: Manifest, new: Manifest, left: int, right: int, span: int) -> bytes:
    """The whole lines that are equal from these two places on, within ``span`` bytes."""
    first, second = old.data[left : left + span], new.data[right : right + span]
    if first == second:
        return first[: first.rfind(b"\n") + 1]
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return first[: first.rfind(b"\n", 0, low) + 1]
