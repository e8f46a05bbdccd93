"""Writes the stream of one step to a descriptor."""

from __future__ import annotations

import os
from contextlib import ExitStack

from .failures import Failure, from_os_error, quoted
from .folders import open_directory, open_subdirectory
from .manifest import Manifest
from .partial import parse_token
from .records import parse_extents, parse_record
from .store import SNAPSHOT, Root
from .stream import changes, end_of_stream, start_of_stream, stream_identity, stream_size
from .tar_format import padding
from .tar_write import member_header, whiteout_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from .records import Entry
    from .store import FilesystemStore, StoredVersion

__all__ = ["estimate", "resume_offset", "send", "send_ends"]

_FLUSH_BYTES = 1 << 18
_SMALL_BYTES = 1 << 16
_ZEROS = bytes(512)
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def send_ends(
    store: FilesystemStore, request: dict[str, Any]
) -> tuple[StoredVersion | None, StoredVersion]:
    """The base, if any, and the version that a request to send names.

    :raises Failure: one of them is gone
    """
    version = store.need(request["to_guid"], kind=SNAPSHOT)
    from_guid = request.get("from_guid")
    return (store.need(from_guid) if from_guid else None), version


def _manifest_path(store: FilesystemStore, version: StoredVersion) -> str:
    return f"{store.path}/{version.folder}/manifest"


def estimate(request: dict[str, Any]) -> int:
    """Say how many bytes :func:`send` would write for this request."""
    root = Root(request["root"])
    root.exists()
    store = root.filesystem(request["filesystem"])
    base, version = send_ends(store, request)
    try:
        paths = (_manifest_path(store, base) if base else "", _manifest_path(store, version))
        size = stream_size(base, version, paths)
    except FileNotFoundError:
        raise _vanished(store) from None
    return size - resume_offset(request, base, version)


def resume_offset(
    request: dict[str, Any], base: StoredVersion | None, version: StoredVersion
) -> int:
    """Where in the stream the request's token lets it begin; 0 = it cannot be used.

    :raises Failure: the token means something else than the request
    """
    token = request.get("token")
    if token is None:
        return 0
    facts = parse_token(token)
    ends = (facts["to"], facts["from"])
    if ends != (version.guid, base.guid if base else None):
        raise Failure(
            "stale-token",
            f"the resume token completes {ends[0]} from {ends[1]}, "
            f"and the request wants {version.guid} from {base.guid if base else None}",
            hint="discard the partial receive",
        )
    if facts["stream"] != stream_identity(start_of_stream(base, version)):
        return 0
    offset: int = facts["offset"]
    return max(offset, 0)


def send(request: dict[str, Any], output: int) -> None:
    """Write the stream from where the request's token says, or all of it.

    :raises Failure: a version is gone, or does not hold what its manifest says
    :raises BrokenPipeError: nobody reads any more
    """
    root = Root(request["root"])
    root.exists()
    store = root.filesystem(request["filesystem"])
    base, version = send_ends(store, request)
    with ExitStack() as stack:
        stack.enter_context(store.in_use(version))
        old = None
        if base:
            stack.enter_context(store.in_use(base))
            old = stack.enter_context(Manifest(_manifest_path(store, base)))
        new = stack.enter_context(Manifest(_manifest_path(store, version)))
        tree = stack.enter_context(_Tree(f"{store.path}/{version.folder}/tree"))
        writer = _Writer(output, resume_offset(request, base, version))
        writer.write(start_of_stream(base, version))
        count = 0
        for line, gone in changes(old, new):
            count += 1
            if gone:
                writer.write(whiteout_header(gone))
                continue
            entry = parse_record(line)
            header, content = member_header(entry)
            writer.write(header)
            if content:
                _send_content(writer, tree, entry, content)
        writer.write(end_of_stream(count))
        writer.flush()


def _send_content(writer: _Writer, tree: _Tree, entry: Entry, content: int) -> None:
    filled = content + padding(content)
    if writer.skip >= filled:
        writer.skip -= filled
        return
    try:
        descriptor = tree.open(entry.path)
    except OSError as error:
        raise from_os_error(error, "reading a version to send it") from error
    try:
        if content <= _SMALL_BYTES and not entry.extents:
            data = os.read(descriptor, content + 1)
            if len(data) != content:
                raise _damaged(entry)
            writer.write(data)
        else:
            for start, length in parse_extents(entry.extents) or [(0, content)]:
                if writer.copy(descriptor, start, length) != length:
                    raise _damaged(entry)
        writer.write(_ZEROS[: padding(content)])
    finally:
        os.close(descriptor)


class _Writer:
    """Gathers small writes; leaves out the first ``skip`` bytes of what it is given."""

    def __init__(self, output: int, skip: int) -> None:
        self.skip = skip
        self._output = output
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if self.skip:
            skipped = min(self.skip, len(data))
            self.skip -= skipped
            data = data[skipped:]
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        view = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._size = 0
        while view:
            view = view[os.write(self._output, view) :]

    def copy(self, descriptor: int, start: int, length: int) -> int:
        """Move a piece of a file in the kernel.

        :returns: how much of it there was
        """
        skipped = min(self.skip, length)
        self.skip -= skipped
        self.flush()
        done = skipped
        while done < length:
            moved = os.sendfile(self._output, descriptor, start + done, min(length - done, 1 << 30))
            if not moved:
                break
            done += moved
        return done


class _Tree:
    """Opens the files of a version's tree in the order of its manifest. A context manager."""

    def __init__(self, path: str) -> None:
        self._levels = [(b"", open_directory(path))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _path, descriptor in self._levels:
            os.close(descriptor)

    def open(self, path: bytes) -> int:
        parent, _, name = path.rpartition(b"/")
        levels = self._levels
        if levels[-1][0] != parent:
            while levels[-1][0] and not parent.startswith(levels[-1][0] + b"/"):
                if levels[-1][0] == parent:
                    break
                os.close(levels.pop()[1])
            top, descriptor = levels[-1]
            rest = parent[len(top) :].strip(b"/")
            for component in rest.split(b"/") if rest else ():
                descriptor = open_subdirectory(descriptor, component)
                top = top + b"/" + component if top else component
                levels.append((top, descriptor))
        return os.open(name, _READ_FILE, dir_fd=levels[-1][1])


def _damaged(entry: Entry) -> Failure:
    return Failure(
        "storage",
        f"the version's file {quoted(entry.path)!r} has not the size that its manifest says",
        hint="somebody changed the version's tree after it was made; make a new version",
    )


def _vanished(store: FilesystemStore) -> Failure:
    return Failure("version-missing", f"a version of {store.name!r} was destroyed meanwhile")
