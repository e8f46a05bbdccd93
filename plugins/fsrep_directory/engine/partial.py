"""A receive that is not complete: what is kept of it, and where it can go on.

``%partial/`` holds the tree so far, the manifest so far, the stream's first bytes
(``start``) and a progress mark. The mark is written each time before the receiver waits
for more bytes: it says how many bytes of the stream have taken effect, how much of the
manifest goes with them, and how much of a file that is under way.

A mark in the page cache outlives the process, not a loss of power. So every mark names
the boot it was made in, and now and then one is made durable together with all that it
speaks of. After another boot only the durable one counts. By then ``file`` may hold the
record of a later file, so the durable mark brings its own.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import NamedTuple

from .failures import Failure
from .removal import remove_tree
from .store import PARTIAL, write_durably, write_private
from .stream import parse_promise, stream_identity
from .tar_format import START_MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import FilesystemStore

__all__ = ["Mark", "Partial", "read_token", "sync_filesystem"]

_MARK_BYTES = 160
_DURABLE_SECONDS = 30.0


class Mark(NamedTuple):
    """How far a receive has come."""

    offset: int
    """Bytes of the stream that have taken effect."""
    manifest: int
    """Bytes of the manifest that stand for them."""
    base: int
    """Bytes of the base's manifest that have been dealt with."""
    members: int
    """Members that are complete."""
    content: int = 0
    """Bytes of content of the file under way, whose record is kept as ``file``; 0 = none."""
    boot: str = ""
    record: str = ""
    """In a durable mark, the record of that file, a character for each byte."""


def boot_id() -> str:
    """What differs from one boot of the host to the next."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().strip().decode()


def sync_filesystem(descriptor: int) -> None:
    """Make everything on the filesystem of ``descriptor`` durable (``syncfs(2)``)."""
    import ctypes  # only here: it takes a third of the time of the engine's start

    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Partial:
    """The folder of a receive that is under way, owned by the holder of the lock."""

    def __init__(self, store: FilesystemStore) -> None:
        self.path = f"{store.path}/{PARTIAL}"
        self.tree = f"{self.path}/tree"
        self.manifest = f"{self.path}/manifest"
        self._boot = boot_id()
        self._mark_file = -1
        self._written: Mark | None = None
        self._durable_at = time.monotonic()

    def exists(self) -> bool:
        """Whether there is anything of an earlier receive."""
        return os.path.lexists(self.path)

    def discard(self) -> None:
        """Remove all of it."""
        for name in ("mark", "durable"):  # without a mark nobody resumes what is half removed
            path = f"{self.path}/{name}"
            if os.path.lexists(path):
                os.unlink(path)
        remove_tree(self.path)

    def begin(self) -> None:
        """Start an empty one."""
        make_staging(self.path)

    def read_mark(self) -> Mark | None:
        """Where it can go on; ``None`` = nowhere."""
        for name in ("mark", "durable"):
            try:
                with open(f"{self.path}/{name}", "rb") as file:
                    mark = Mark(*json.loads(file.read()))
                    os.stat(f"{self.path}/start")
                    if name == "durable" or mark.boot == self._boot:
                        return mark
            except (FileNotFoundError, ValueError, TypeError):
                continue
        return None

    def read(self, name: str) -> bytes:
        """What was kept under this name."""
        with open(f"{self.path}/{name}", "rb") as file:
            return file.read()

    def record_under_way(self, mark: Mark) -> bytes:
        """The record of the file that a mark with content speaks of."""
        return mark.record.encode("latin-1") or self.read("file")

    def keep(self, name: str, content: bytes) -> None:
        """Keep bytes that a mark will speak of."""
        write_private(f"{self.path}/{name}", content)

    def write_mark(self, mark: Mark) -> None:
        """Say how far the receive has come; now and then, durably."""
        mark = mark._replace(boot=self._boot)
        if mark == self._written:
            return
        if self._mark_file < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._mark_file = os.open(f"{self.path}/mark", flags, 0o600)
        content = json.dumps(mark).encode().ljust(_MARK_BYTES)
        # One write of one small piece: a kill leaves the old mark or the new one.
        os.pwrite(self._mark_file, content, 0)
        self._written = mark
        if time.monotonic() - self._durable_at > _DURABLE_SECONDS:
            sync_filesystem(self._mark_file)
            record = self.read("file").decode("latin-1") if mark.content else ""
            durable = json.dumps(mark._replace(record=record)).encode()
            write_durably(f"{self.path}/durable", durable)
            self._durable_at = time.monotonic()

    def sync(self) -> None:
        """Make all of it durable."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the mark's descriptor."""
        if self._mark_file >= 0:
            os.close(self._mark_file)
            self._mark_file = -1


def make_staging(path: str) -> None:
    """Make a folder with an empty ``tree`` that nothing above it leaves a mark on.

    A default ACL, or a set-group-ID bit, of a folder above would otherwise be handed down
    to every entry.
    """
    for folder in (path, f"{path}/tree"):
        os.mkdir(folder, 0o700)
        os.chown(folder, -1, os.getegid())
        os.chmod(folder, 0o700)
        for name in ("system.posix_acl_default", "system.posix_acl_access"):
            with suppress(OSError):  # there is none, or there cannot be one
                os.removexattr(folder, name)


def parse_token(text: str) -> dict[str, Any]:
    """Read a token that :func:`read_token` gave: ``to``, ``from``, ``stream``, ``offset``.

    :raises Failure: it is no such token
    """
    try:
        facts = json.loads(text)
        token = {name: facts[name] for name in ("to", "from", "stream", "offset")}
        token["offset"] = int(token["offset"])
    except (ValueError, TypeError, KeyError):
        raise Failure(
            "stale-token",
            "the resume token is not one that a directory storage made",
            hint="discard the partial receive",
        ) from None
    return token


def read_token(store: FilesystemStore) -> dict[str, Any] | None:
    """The resume token that this filesystem's partial receive gives, if any."""
    partial = Partial(store)
    mark = partial.read_mark()
    if mark is None or not mark.offset:
        return None
    try:
        start = partial.read("start")
        facts = parse_promise(start.partition(START_MARK)[2].partition(b"\n")[0])
    except (FileNotFoundError, ValueError):
        return None
    token = {
        "to": facts["guid"],
        "from": facts["from_guid"],
        "stream": stream_identity(start),
        "offset": mark.offset,
    }
    return {**token, "value": json.dumps(token)}
