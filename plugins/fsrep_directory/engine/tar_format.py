"""Words that the writer and the reader of the stream share: blocks, marks, limits.

The stream is a pax interchange tar (POSIX.1-2008, ``pax``), with GNU's sparse format 1.0
and star's ``SCHILY.`` records, all of which GNU tar restores. What only fsrep knows
stands in ``comment`` records, which every reader must ignore:

* in the global header at the start: who this stream is;
* with a file: the digest of its content; with a hard link: all that its file says,
  because a link has no content to say it with;
* with a whiteout: that it is one. A real file whose name starts with ``.wh.`` has no such
  comment, so the two cannot be confused;
* in the global header at the end: how many members there were.
"""

from __future__ import annotations

__all__ = [
    "BLOCK_BYTES",
    "END_MARK",
    "FORMAT",
    "GLOBAL_LIMIT_BYTES",
    "PAX_LIMIT_BYTES",
    "START_MARK",
    "WHITEOUT_COMMENT",
    "WHITEOUT_PREFIX",
    "padding",
]

FORMAT = "fsrep-directory-1"
BLOCK_BYTES = 512
START_MARK = FORMAT.encode() + b" "
END_MARK = FORMAT.encode() + b" end "
WHITEOUT_PREFIX = b".wh."
WHITEOUT_COMMENT = b"whiteout"
GLOBAL_LIMIT_BYTES = 1 << 16
PAX_LIMIT_BYTES = 1 << 24
"""Of one member's pax header: many extended attributes of 64 KiB each."""


def padding(size: int) -> int:
    """How many zero bytes fill the last block of this many bytes."""
    return -size % BLOCK_BYTES
