"""What the stream of one step holds, in which order: the plan that sender and size share.

The members come in the order of the manifest. An entry that is new or that differs comes
in full. An entry that is gone comes as a whiteout, at its own place in that order, and
stands for all that was below it; nothing stands for what a directory held that became
something else. So a receiver that walks its base alongside knows, at each member, that
everything before it is as it was, and makes the new tree in one pass.

The same two versions give the same bytes, always: a place in the stream is only a number.
"""

from __future__ import annotations

import hashlib
import json

from .manifest import Manifest, compare
from .records import parse_record, record_path
from .tar_format import END_MARK, START_MARK, padding
from .tar_write import END_BLOCKS, global_header, member_header, whiteout_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .store import StoredVersion

__all__ = [
    "changes",
    "end_of_stream",
    "format_promise",
    "parse_promise",
    "start_of_stream",
    "stream_identity",
    "stream_size",
]


def start_of_stream(base: StoredVersion | None, version: StoredVersion) -> bytes:
    """The global header that says what this stream is."""
    facts = {
        "guid": version.guid,
        "name": version.name,
        "created": version.created,
        "entries": version.entries,
        "manifest": version.manifest_digest,
        "from_guid": base.guid if base else None,
        "from_manifest": base.manifest_digest if base else None,
    }
    return global_header(START_MARK + format_promise(facts))


def format_promise(facts: dict[str, Any]) -> bytes:
    """What a stream says of itself, with a checksum: nothing else vouches for all of it."""
    text = json.dumps(facts).encode()
    return text + b" " + hashlib.sha256(text).hexdigest().encode()


def parse_promise(text: bytes) -> dict[str, Any]:
    """Read what :func:`format_promise` wrote.

    :raises ValueError: it was altered, or is nothing of the kind
    """
    facts, _, checksum = text.rpartition(b" ")
    if checksum != hashlib.sha256(facts).hexdigest().encode():
        raise ValueError("its checksum does not fit")
    parsed: dict[str, Any] = json.loads(facts)
    return parsed


def end_of_stream(members: int) -> bytes:
    """What says that the stream is whole, and ends the archive."""
    return global_header(END_MARK + b"%d" % members) + END_BLOCKS


def stream_identity(start: bytes) -> str:
    """What two streams share exactly if all their bytes are the same."""
    return hashlib.sha256(start).hexdigest()


def changes(base: Manifest | None, version: Manifest) -> Iterator[tuple[bytes, bytes]]:
    """The members in their order.

    :returns: ``(record, b"")`` of an entry that comes in full, ``(b"", path)`` of a
        whiteout
    """
    if base is None:
        start = 0
        while start < version.size:
            line = version.line_at(start)
            start += len(line) + 1
            yield line, b""
        return
    gone = b""
    for same, old, new in compare(base, version):
        if same:
            continue
        if old and not (gone and record_path(old).startswith(gone)):
            entry = parse_record(old)
            if not new:
                yield b"", entry.path
            if entry.kind == b"d" and (not new or parse_record(new).kind != b"d"):
                gone = entry.path + b"/"
        if new:
            yield new, b""


def stream_size(base: StoredVersion | None, version: StoredVersion, paths: tuple[str, str]) -> int:
    """How many bytes the stream between two versions has, exactly.

    :param paths: of the manifests of the base (empty without one) and of the version
    """
    size = len(start_of_stream(base, version))
    with Manifest(paths[1]) as new:
        if base is None:
            return size + _members_size(changes(None, new))
        with Manifest(paths[0]) as old:
            return size + _members_size(changes(old, new))


def _members_size(members: Iterator[tuple[bytes, bytes]]) -> int:
    size = count = 0
    for line, gone in members:
        count += 1
        if gone:
            size += len(whiteout_header(gone))
            continue
        header, content = member_header(parse_record(line))
        size += len(header) + content + padding(content)
    return size + len(end_of_stream(count))
