"""Reads one stream and builds the tree that it carries, in one pass.

The stream comes in the order of the manifest, so the receiver walks its base's manifest
alongside. What the stream does not name is linked from the base; what it names is
written. The new manifest grows in the same pass, and its digest must be the one that the
stream promised at its start: that is the proof that both sides have the same version,
down to the last attribute.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from contextlib import ExitStack
from typing import NamedTuple

from .extents import read_pieces, spans_after
from .failures import Failure, quoted
from .folders import open_directory
from .manifest import Manifest, compare
from .names import check_component, check_target
from .partial import Mark, Partial
from .records import (
    ROOT,
    Entry,
    format_record,
    parse_extents,
    parse_record,
    record_path,
    sort_key,
    unescape,
)
from .stream import parse_promise
from .tar_format import END_MARK, FORMAT, START_MARK
from .tar_read import Member, Source, read_member
from .tar_write import END_BLOCKS, global_header
from .tree import TreeBuilder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .folders import Folder
    from .store import FilesystemStore, StoredVersion

__all__ = ["Promise", "Receiver"]

_SLICE_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16
_PLACES = re.compile(rb"^(?:([^\t\n]*)/)?([^/\t\n]*)\t(.)", re.MULTILINE)
"""Parent, last component and kind of each record, as they are written."""


class Promise(NamedTuple):
    """What the stream says of itself at its start."""

    guid: str
    name: str
    created: float
    entries: int
    manifest: str
    from_guid: str | None
    from_manifest: str | None


class Receiver:
    """One receive, from its first byte to a tree that is complete."""

    promise: Promise

    def __init__(
        self,
        store: FilesystemStore,
        partial: Partial,
        base: StoredVersion | None,
        request: dict[str, Any],
        is_vouched: Callable[[], bool],
    ) -> None:
        self._is_vouched = is_vouched
        self._partial = partial
        self._base = base
        self._request = request
        self._base_folder = f"{store.path}/{base.folder}" if base else ""
        self._old: Manifest | None = None
        self._position = 0
        """How much of the base's manifest has been dealt with."""
        self._pending: list[bytes] = []
        """Pieces of the manifest that are not in its file yet."""
        self._manifest_bytes = 0
        self._entries = 0
        self._hasher = hashlib.sha256()
        self._members = 0
        self._last_key: bytes | None = None
        self._mark = Mark(0, 0, 0, 0)

    def run(self, descriptor: int, mark: Mark | None) -> list[str]:
        """Read the stream to its end and complete the tree.

        :returns: warnings
        :raises Failure: the stream is cut, malformed, or not what it promised
        """
        with ExitStack() as stack:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._partial.manifest, flags, 0o600)
            stack.callback(os.close, self._file)
            base_tree = -1
            if self._base:
                self._old = stack.enter_context(Manifest(f"{self._base_folder}/manifest"))
                base_tree = open_directory(f"{self._base_folder}/tree")
            self._builder = stack.enter_context(
                TreeBuilder(open_directory(self._partial.tree), base_tree, resumed=mark is not None)
            )
            self._source = Source(descriptor, mark.offset if mark else 0, self._before_wait)
            if mark is None:
                self._start()
            else:
                self._take_up(mark)
            self._read_members()
            self._take_from_base(self._old.size if self._old else 0)
            self._builder.finish()
            self._flush_manifest()
            return self._finish()

    def _start(self) -> None:
        comment = _expect_comment(read_member(self._source), START_MARK)
        self._read_promise(comment)
        self._partial.keep("start", global_header(comment))
        self._complete_member()

    def _read_promise(self, comment: bytes) -> None:
        try:
            self.promise = _parse_promise(comment.removeprefix(START_MARK))
        except (ValueError, TypeError) as error:
            raise Failure("storage", f"the stream's start cannot be read: {error}") from error
        found = (self.promise.guid, self.promise.from_guid)
        wanted = (self._request["to_guid"], self._request["from_guid"])
        if found != wanted:
            raise Failure(
                "storage",
                f"the stream carries {found[0]} from {found[1]}, "
                f"and the step is {wanted[0]} from {wanted[1]}",
                hint="the sender answered another request; nothing was used",
            )
        if self._base and self.promise.from_manifest != self._base.manifest_digest:
            raise Failure(
                "storage",
                f"the base @{self._base.name} has one guid but not one content on both sides",
                hint="somebody changed its manifest on one side; destroy it on the receiver",
            )

    def _take_up(self, mark: Mark) -> None:
        """Come again to where an earlier process stopped.

        Everything is met in the same order. Directories are entered again, links that
        were asked for are asked for again, and what was written is there.
        """
        start = self._partial.read("start")
        self._read_promise(START_MARK + start.partition(START_MARK)[2].partition(b"\n")[0])
        os.ftruncate(self._file, mark.manifest)
        path = f"{self._base_folder}/manifest" if self._base else self._partial.manifest
        with (
            Manifest(path, length=mark.base) as old,
            Manifest(self._partial.manifest, length=mark.manifest) as done,
        ):
            for same, before, new in compare(old, done):
                lines = same or (new + b"\n" if new else b"")
                self._hasher.update(lines)
                self._manifest_bytes += len(lines)
                self._entries += lines.count(b"\n")
                if same:
                    self._make_from_base(same)
                elif new:
                    entry = parse_record(new)
                    self._last_key = sort_key(entry.path)
                    if entry.kind == b"d":
                        in_base = bool(before) and parse_record(before).kind == b"d"
                        self._make_directory(entry, in_base=in_base)
        self._position = mark.base
        self._members = mark.members
        self._mark = mark
        if mark.content:
            entry = parse_record(self._partial.record_under_way(mark))
            folder, name = self._place(entry.path)
            descriptor = os.open(
                name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.descriptor
            )
            try:
                self._write_content(descriptor, entry, _stored_bytes(entry), mark.content)
                self._builder.restorer.restore(descriptor, entry)
            finally:
                os.close(descriptor)
            self._add_line(format_record(entry))
            self._last_key = sort_key(entry.path)
            self._members += 1
            self._complete_member()

    def _read_members(self) -> None:
        source = self._source
        while True:
            member = read_member(source)
            if member.entry is not None:
                self._take_entry(member.entry, member.content_bytes)
            elif member.whiteout:
                self._take_whiteout(member.whiteout)
            else:
                break
            self._members += 1
            self._complete_member()
        count = _expect_comment(member, END_MARK).removeprefix(END_MARK)
        if count != b"%d" % (self._members) or source.take(len(END_BLOCKS)) != END_BLOCKS:
            raise Failure("storage", "the stream's end does not fit what came before it")
        source.expect_end()
        self._before_wait()
        if not self._is_vouched():
            raise Failure(
                "interrupted-stream",
                "the whole stream arrived, but its maker did not vouch for it",
                hint="run again: what arrived is kept",
            )

    def _take_entry(self, entry: Entry, content_bytes: int) -> None:
        path, kind = entry.path, entry.kind
        self._check_order(path)
        in_base = False
        old = self._old
        if old:
            self._take_from_base(old.seek(sort_key(path), self._position))
            if self._position < old.size:
                before = old.line_at(self._position)
                if record_path(before) == path:
                    was_directory = before.split(b"\t", 2)[1] == b"d"
                    in_base = was_directory and kind == b"d"
                    replaced = was_directory and not in_base
                    step = old.after_subtree if replaced else old.after
                    self._position = step(self._position)
        if kind == b"d":
            self._make_directory(entry, in_base=in_base)
        else:
            folder, name = self._place(path)
            if kind == b"f":
                self._write_file(folder, name, entry, content_bytes)
            elif kind == b"l":
                self._builder.symlink(folder, name, entry)
            elif kind == b"h":
                check_target(entry.target, path)
                self._builder.hard_link(folder, name, entry)
            else:
                self._builder.fifo(folder, name, entry)
        self._add_line(format_record(entry))

    def _check_order(self, path: bytes) -> None:
        key = sort_key(path)
        if self._last_key is not None and key <= self._last_key:
            raise Failure(
                "storage",
                f"the stream names {quoted(path)!r} twice, or out of order",
                hint="the sender is broken or hostile; nothing of it became visible",
            )
        self._last_key = key

    def _take_whiteout(self, path: bytes) -> None:
        self._check_order(path)
        old = self._old
        if old:
            self._take_from_base(old.seek(sort_key(path), self._position))
            if (
                self._position < old.size
                and path != ROOT
                and record_path(old.line_at(self._position)) == path
            ):
                self._position = old.after_subtree(self._position)
                return
        raise Failure(
            "storage",
            f"the stream removes {quoted(path)!r}, which its base has not",
            hint="the sender is broken or hostile; nothing of it became visible",
        )

    def _take_from_base(self, until: int) -> None:
        """Take over what lies in the base before this place: the stream did not name it."""
        while self._old and self._position < until:
            data = self._old.data
            stop = min(self._position + _SLICE_BYTES, until)
            stop = data.rfind(b"\n", self._position, stop) + 1 or data.find(b"\n", stop) + 1
            lines = data[self._position : stop]
            self._make_from_base(lines)
            self._pending.append(lines)
            self._manifest_bytes += len(lines)
            self._position = stop

    def _make_from_base(self, lines: bytes) -> None:
        # This is the loop of an incremental receive, so it does little: one expression takes
        # the lines apart, and a folder is looked for only when the parent changes.
        builder = self._builder
        current: bytes | None = None
        whole = lines.removesuffix(b"\n").split(b"\n")
        for line, (parent, name, kind) in zip(whole, _PLACES.findall(lines), strict=True):
            if kind == b"d":
                self._make_directory(parse_record(line), in_base=True)
                current = None
                continue
            if parent != current:
                folder, current = builder.enter(unescape(parent)), parent
            builder.link(folder, unescape(name) if b"\\" in name else name, line)

    def _make_directory(self, entry: Entry, *, in_base: bool) -> None:
        if entry.path == ROOT:
            self._builder.root(entry)
            return
        folder, name = self._place(entry.path)
        self._builder.directory(folder, name, entry, in_base=in_base)

    def _place(self, path: bytes) -> tuple[Folder, bytes]:
        parent, _, name = path.rpartition(b"/")
        check_component(name, path)
        return self._builder.enter(parent), name

    def _write_file(self, folder: Folder, name: bytes, entry: Entry, content_bytes: int) -> None:
        restorer = self._builder.restorer
        mode = restorer.visible_mode(entry)
        descriptor = self._builder.file(folder, name, mode)
        try:
            if content_bytes <= _SMALL_BYTES and not entry.extents:
                data = self._source.take_filled(content_bytes)
                if hashlib.sha256(data).hexdigest().encode() != entry.digest:
                    raise _damaged(entry)
                while data:
                    data = data[os.write(descriptor, data) :]
            else:
                # The mark may still speak of the file before, whose record this one replaces.
                self._before_wait()
                self._partial.keep("file", format_record(entry))
                self._write_content(descriptor, entry, content_bytes, 0)
            restorer.restore(descriptor, entry, created_mode=mode)
        finally:
            os.close(descriptor)

    def _write_content(self, descriptor: int, entry: Entry, size: int, done: int) -> None:
        """Write a large or sparse file's content, of which ``done`` bytes are there."""
        hasher = hashlib.sha256()
        spans = parse_extents(entry.extents) or [(0, size)]
        for _, piece in read_pieces(descriptor, spans, done):
            hasher.update(piece)
        start = self._source.offset - done
        pieces = self._source.pieces(size - done)
        rest = b""
        for begin, length in spans_after(spans, done):
            offset, end = begin, begin + length
            while offset < end:
                rest = rest or next(pieces)
                written = os.pwrite(descriptor, rest[: end - offset], offset)
                hasher.update(rest[:written])
                rest = rest[written:]
                offset += written
                done += written
                self._mark = Mark(
                    start + done, self._manifest_bytes, self._position, self._members, done
                )
        if entry.extents:
            os.ftruncate(descriptor, entry.size)
        self._source.skip_padding(size)
        if hasher.hexdigest().encode() != entry.digest:
            raise _damaged(entry)

    def _add_line(self, record: bytes) -> None:
        line = record + b"\n"
        self._pending.append(line)
        self._manifest_bytes += len(line)

    def _complete_member(self) -> None:
        self._mark = Mark(self._source.offset, self._manifest_bytes, self._position, self._members)

    def _before_wait(self) -> None:
        self._flush_manifest()
        if self._mark.offset:
            self._partial.write_mark(self._mark)

    def _flush_manifest(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        self._hasher.update(data)
        self._entries += data.count(b"\n")
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _finish(self) -> list[str]:
        found = (self._hasher.hexdigest(), self._entries)
        if found != (self.promise.manifest, self.promise.entries):
            raise Failure(
                "storage",
                f"what arrived of @{self._request['name']} is not what its sender has: "
                f"the manifest's digest is {found[0]}, promised was {self.promise.manifest}",
                hint="the stream was damaged on the way; run again",
                temporary=True,
            )
        return self._builder.restorer.warnings()


def _parse_promise(text: bytes) -> Promise:
    facts = parse_promise(text)
    promise = Promise(**facts)
    kinds = {"created": int | float, "entries": int, "manifest": str, "name": str}
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind):
            raise TypeError(f"{name!r} is {facts[name]!r}")
    if not math.isfinite(promise.created):
        raise ValueError("'created' is no date")
    return promise


def _stored_bytes(entry: Entry) -> int:
    if not entry.extents:
        return entry.size
    return sum(length for _, length in parse_extents(entry.extents))


def _expect_comment(member: Member, mark: bytes) -> bytes:
    if not member.comment.startswith(mark):
        raise Failure(
            "storage",
            "the stream is no stream of the directory storage, or of another format",
            hint=f"this fsrep reads {FORMAT}",
        )
    return member.comment


def _damaged(entry: Entry) -> Failure:
    return Failure(
        "storage",
        f"the content of {quoted(entry.path)!r} does not have the digest that it was sent with",
        hint="the stream was damaged on the way, or the sender's version was changed",
        temporary=True,
    )
