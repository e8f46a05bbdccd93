"""Makes a directory tree with everything in it that a replication can get wrong.

Seeded, so that a tree can be made again. What a filesystem does not support, such as
extended attributes, is left out and told.
"""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DemoTree"]

LARGE_FILES = 8
LARGE_BYTES = 25_000_000
DIRECTORIES = 100
FILES_PER_DIRECTORY = 20
SPARSE_BYTES = 64 * 1024 * 1024
LONGEST_NAME_BYTES = 255
STRANGERS = ((1234, 5678), (65534, 65534))
"""Users and groups, by number, who are given something where that is allowed."""
PAST = 1_000_000_000
"""A moment in 2001, so that modification times are seen to be kept."""

ODD_NAMES = (
    b"not \xff\xfe utf-8",
    b"line\nbreak",
    b" leading and trailing ",
    b"-rf",
    b"quote'\"`$HOME\\",
    b"#hash@at%percent",
    b".wh.looks-like-a-whiteout",
    "combining u\u0308 and composed \u00fc".encode(),
)


@attrs.define(eq=False)
class DemoTree:
    """A tree below ``root`` and the changes that are made to it."""

    root: Path
    randomness: random.Random
    left_out: list[str] = attrs.field(init=False, factory=list)
    """What this filesystem or user cannot make, and why."""

    def build(self) -> None:
        """Make the tree: more than 2,000 entries and 200 MB."""
        for number in range(LARGE_FILES):
            self._write(f"large/film-{number}.bin", LARGE_BYTES)
        for number in range(DIRECTORIES):
            self._fill(f"papers/{number // 10}/{number:03d}")
        self._make_modes()
        self._make_links()
        self._make_sparse()
        self._make_names()
        self._try("extended attributes", self._make_attributes)
        self._try("access control lists", self._make_access_lists)
        self._try("a named pipe", lambda: os.mkfifo(self.root / "special-pipe"))
        self._try("a socket", self._make_socket)
        self._try("a device", self._make_device)
        self._try("owners other than you", self._make_owners)

    def change_files(self) -> None:
        """Create, change in place, append, truncate, touch, and change modes."""
        self._fill("papers/new")
        with (self.root / "large/film-0.bin").open("r+b") as file:
            file.seek(LARGE_BYTES // 2)
            file.write(self.randomness.randbytes(4096))
        with (self.root / "papers/1/010/00.txt").open("ab") as file:
            file.write(b"one more line\n")
        os.truncate(self.root / "papers/1/010/01.txt", 10)
        os.utime(self.root / "papers/1/010/02.txt", (PAST, PAST + 1))
        (self.root / "papers/1/010/03.txt").chmod(0o400)
        with suppress(OSError):  # whoever may not give files away has none to give on
            os.chown(self.root / "owners/file", *STRANGERS[1])
        with (self.root / "sparse.img").open("r+b") as file:
            file.seek(SPARSE_BYTES // 4)
            file.write(b"an island in the hole")

    def remove_and_rename(self) -> None:
        """Delete, rename, relink, and put a file where a directory was."""
        for path in (self.root / "papers/2/020").iterdir():
            path.unlink()
        (self.root / "papers/2/020").rmdir()
        (self.root / "large/film-1.bin").unlink()
        (self.root / "large/film-2.bin").rename(self.root / "large/renamed.bin")
        (self.root / "papers/3").rename(self.root / "papers/three")
        (self.root / "links/to-file").unlink()
        (self.root / "links/to-file").symlink_to("../large/renamed.bin")
        (self.root / "links/second-name").unlink()
        self._remove_tree("papers/4/040")
        self._write("papers/4/040", 5000)

    def turn_back(self) -> None:
        """Put a directory where the file is, and rename things once more."""
        (self.root / "papers/4/040").unlink()
        self._fill("papers/4/040")
        (self.root / "papers/three").rename(self.root / "papers/3")
        os.link(self.root / "large/renamed.bin", self.root / "links/hard-to-renamed")
        (self.root / "empty/yet-another").mkdir()

    # Parts

    def _write(self, name: str, size_bytes: int) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.randomness.randbytes(size_bytes))
        return path

    def _fill(self, name: str) -> None:
        for number in range(FILES_PER_DIRECTORY):
            path = self._write(f"{name}/{number:02d}.txt", self.randomness.randrange(16_384))
            moment = PAST + self.randomness.random() * 1e8
            os.utime(path, (moment, moment))

    def _remove_tree(self, name: str) -> None:
        for path in (self.root / name).iterdir():
            path.unlink()
        (self.root / name).rmdir()

    def _make_modes(self) -> None:
        for mode in (0o400, 0o600, 0o640, 0o755, 0o777, 0o4755, 0o2755):
            self._write(f"modes/{mode:04o}", 100).chmod(mode)
        (self.root / "modes/sticky").mkdir()
        (self.root / "modes/sticky").chmod(0o1777)
        (self.root / "empty/nested/deeply").mkdir(parents=True)

    def _make_links(self) -> None:
        first = self._write("links/first-name", 10_000)
        os.link(first, self.root / "links/second-name")
        (self.root / "elsewhere").mkdir()
        os.link(first, self.root / "elsewhere/third-name")
        (self.root / "links/to-file").symlink_to("first-name")
        (self.root / "links/to-directory").symlink_to("../papers")
        (self.root / "links/to-nothing").symlink_to("/no/such/place")
        (self.root / "links/out-of-the-tree").symlink_to("../../../etc/hostname")

    def _make_sparse(self) -> None:
        with (self.root / "sparse.img").open("wb") as file:
            file.write(b"beginning")
            file.seek(SPARSE_BYTES - 4096)
            file.write(b"end")
            file.truncate(SPARSE_BYTES)

    def _make_names(self) -> None:
        folder = os.fsencode(self.root / "names")
        os.mkdir(folder)  # noqa: PTH102  (names are bytes)
        long_name = "long-".ljust(LONGEST_NAME_BYTES, "x").encode()
        for name in (*ODD_NAMES, long_name):
            with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123  (as above)
                file.write(name)
        deep = Path("names") / "/".join(["d" * 100] * 10)
        self._write(str(deep / "far-down.txt"), 10)

    def _make_attributes(self) -> None:
        path = self._write("attributes/marked", 100)
        os.setxattr(path, "user.origin", b"a demonstration")
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(self.root / "attributes", "user.of-a-directory", b"yes")

    def _make_access_lists(self) -> None:
        path = self._write("attributes/shared", 100)
        os.setxattr(path, "system.posix_acl_access", _access_list())

    def _make_socket(self) -> None:
        # By a relative name: the whole path may be too long for a socket's address.
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.chdir(self.root)
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("special-socket")
        finally:
            os.fchdir(before)
            os.close(before)

    def _make_device(self) -> None:
        os.mknod(self.root / "special-device", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    def _make_owners(self) -> None:
        folder = self._write("owners/file", 100).parent
        (folder / "link").symlink_to("file")
        for path, (user, group) in zip((folder / "file", folder / "link"), STRANGERS, strict=True):
            os.chown(path, user, group, follow_symlinks=False)
        os.chown(folder, *STRANGERS[0])

    def _try(self, what: str, make: Callable[[], object]) -> None:
        try:
            make()
        except OSError as exc:
            self.left_out.append(f"{what} ({exc.strerror})")

    def count(self) -> tuple[int, int]:
        """Give the number of entries and the bytes in files, holes not counted."""
        entries = size_bytes = 0
        seen: set[int] = set()
        for folder, names, files in os.walk(os.fsencode(self.root)):
            for name in (*names, *files):
                entries += 1
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (names are bytes)
                if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
                    seen.add(status.st_ino)
                    size_bytes += min(status.st_size, status.st_blocks * 512)
        return entries, size_bytes


def _access_list() -> bytes:
    """Give an ACL as the kernel keeps it (``linux/posix_acl_xattr.h``): ``nobody`` may read."""
    version, undefined = 2, 0xFFFFFFFF
    user_owner, user, group_owner, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    read, read_write, nobody = 4, 6, 65534
    entries = [
        (user_owner, read_write, undefined),
        (user, read, nobody),
        (group_owner, read, undefined),
        (mask, read, undefined),
        (other, 0, undefined),
    ]
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
