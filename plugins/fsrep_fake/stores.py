"""The data behind memory storages: named stores that tests fill and look into.

A store is one host's filesystems. Everything here is plain and synchronous, so that a
test can prepare and inspect it outside of trio. Nothing depends on a clock or on
chance: guids, orders and dates are counted, and each store counts its orders from a
place of its own, so that code which compares orders of two sides is found out.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import attrs

from fsrep_core import Version, VersionKind
from fsrep_fake.content import NOTHING, Change, Content, Generated, Hasher, Literal, changes_since
from fsrep_fake.memory_stream import Header

__all__ = ["MemoryFilesystem", "MemoryStore", "named_store", "reset_stores"]

FIRST_DATE = 1_600_000_000.0
"""The date of the first version of a store; each later one is a second younger."""


@attrs.frozen
class Mark:
    """A version and the last change that it holds."""

    version: Version
    change: Change


@attrs.define(eq=False)
class Partial:
    """What a receive that was cut has left of the version it was receiving."""

    header: Header
    base: Change
    hasher: Hasher = attrs.field(repr=False)
    offset: int = 0
    literals: list[bytearray] = attrs.field(factory=list, repr=False)
    """The bytes of those changes so far that no seed describes."""


@attrs.define(eq=False)
class MemoryFilesystem:
    """One filesystem of a store."""

    name: str
    placeholder: bool = False
    provisional: bool = False
    """Made by a receive that has committed nothing yet: exists only for its partial."""
    live: Change = NOTHING
    """What the next snapshot will hold."""
    marks: dict[str, Mark] = attrs.field(factory=dict)
    """Snapshots and bookmarks by relative name, oldest first."""
    cursors: dict[str, Mark] = attrs.field(factory=dict)
    """By job."""
    partial: Partial | None = None
    receiving: bool = False
    """A receive works on it now."""
    used: Counter[str] = attrs.field(factory=Counter)
    """By guid: how many streams are being made of, or on top of, this version."""
    _snapshots: dict[str, Mark] = attrs.field(factory=dict)

    def add(self, mark: Mark) -> None:
        """Take a new version; its relative name must be free."""
        self.marks[mark.version.relative_name] = mark
        if mark.version.kind is VersionKind.SNAPSHOT:
            self._snapshots[mark.version.guid] = mark

    def remove(self, mark: Mark) -> None:
        """Drop a version, also one that is a job's cursor."""
        for job, cursor in self.cursors.items():
            if cursor is mark:
                del self.cursors[job]
                return
        del self.marks[mark.version.relative_name]
        if mark.version.kind is VersionKind.SNAPSHOT:
            del self._snapshots[mark.version.guid]

    def snapshot(self, guid: str) -> Mark | None:
        """The snapshot of this guid; ``None`` = there is none."""
        return self._snapshots.get(guid)

    @property
    def snapshots(self) -> tuple[Mark, ...]:
        """All snapshots, oldest first."""
        return tuple(self._snapshots.values())

    def find(self, version: Version) -> Mark | None:
        """The same version by kind and guid, a bookmark by its name as well."""
        if version.kind is VersionKind.SNAPSHOT:
            return self._snapshots.get(version.guid)
        names = {mark.version.relative_name: mark for mark in self.cursors.values()}
        mark = self.marks.get(version.relative_name) or names.get(version.relative_name)
        return mark if mark is not None and mark.version.guid == version.guid else None


@attrs.define(eq=False)
class MemoryStore:
    """The filesystems of one host that exists only in this process."""

    name: str
    filesystems: dict[str, MemoryFilesystem] = attrs.field(factory=dict, repr=False)
    _order: int = attrs.field(init=False)
    _count: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._order = 1000 * (1 + _digest(self.name)[0])

    def next_order(self) -> int:
        """Count on: the order of the version that is made now."""
        self._order += 1
        return self._order

    def create(self, filesystem: str, *, placeholder: bool = False) -> MemoryFilesystem:
        """Make an empty filesystem, or give the one that exists."""
        return self.filesystems.setdefault(
            filesystem, MemoryFilesystem(filesystem, placeholder=placeholder)
        )

    def change(self, filesystem: str, content: bytes | Content) -> None:
        """Change what a filesystem holds now; it is made where it does not exist."""
        made = self.create(filesystem)
        if isinstance(content, bytes):
            content = Literal(content)
        made.live = Change(made.live, content)

    def snapshot(
        self,
        filesystem: str,
        name: str | None = None,
        *,
        guid: str | None = None,
        created: float | None = None,
    ) -> Version:
        """Make a snapshot of what a filesystem holds now.

        :param name: ``None`` counts them: ``s1``, ``s2``
        :param guid: ``None`` makes one that no other version has
        :param created: ``None`` = a second after the version before it in this store
        :raises ValueError: the name is taken
        """
        made = self.create(filesystem)
        self._count += 1
        version = Version(
            kind=VersionKind.SNAPSHOT,
            name=f"s{self._count}" if name is None else name,
            guid=_digest(f"{self.name}/{self._count}").hex()[:16] if guid is None else guid,
            order=self.next_order(),
            created=FIRST_DATE + self._count if created is None else created,
        )
        if version.relative_name in made.marks:
            raise ValueError(f"{filesystem}{version.relative_name} exists in {self.name!r}")
        made.placeholder = False
        made.add(Mark(version, made.live))
        return version

    def add_history(
        self, filesystem: str, count: int, *, seed: int = 0, max_bytes: int = 1000
    ) -> tuple[Version, ...]:
        """Make ``count`` snapshots, each after a change of up to ``max_bytes`` bytes."""
        chance = random.Random(f"{seed}/{filesystem}")  # noqa: S311  (test data, repeatable)
        versions = []
        for _ in range(count):
            self.change(filesystem, Generated(chance.getrandbits(32), chance.randint(0, max_bytes)))
            versions.append(self.snapshot(filesystem))
        return tuple(versions)

    def bookmark(self, filesystem: str, version: Version, name: str | None = None) -> Version:
        """Make a bookmark of a snapshot, under the snapshot's name if no other is given.

        :raises KeyError: there is no such snapshot
        """
        mark = self._mark(filesystem, version)
        made = attrs.evolve(
            mark.version,
            kind=VersionKind.BOOKMARK,
            name=mark.version.name if name is None else name,
        )
        self.filesystems[filesystem].add(Mark(made, mark.change))
        return made

    def destroy(self, filesystem: str, version: Version) -> None:
        """Destroy a version at once, whoever uses it.

        :raises KeyError: there is no such version
        """
        self.filesystems[filesystem].remove(self._mark(filesystem, version))

    def rollback(self, filesystem: str, version: Version) -> None:
        """Go back to a snapshot: later versions and changes are lost.

        :raises KeyError: there is no such snapshot
        """
        kept = self._mark(filesystem, version)
        chain = self.filesystems[filesystem]
        for mark in tuple(chain.marks.values()):
            if mark.version.order > kept.version.order:
                chain.remove(mark)
        chain.live = kept.change

    def versions(self, filesystem: str) -> tuple[Version, ...]:
        """The snapshots and bookmarks of a filesystem, oldest first; ``()`` = none."""
        chain = self.filesystems.get(filesystem)
        return tuple(mark.version for mark in chain.marks.values()) if chain else ()

    def digest(self, filesystem: str, version: Version) -> str:
        """Tell the SHA-256 of a snapshot's whole content, to compare it with another's.

        :raises KeyError: there is no such snapshot
        """
        return self._mark(filesystem, version).change.digest

    def read(self, filesystem: str, version: Version) -> bytes:
        """Give the whole content of a snapshot.

        :raises KeyError: there is no such snapshot
        """
        changes = changes_since(NOTHING, self._mark(filesystem, version).change) or ()
        contents = [change.content for change in changes]
        return b"".join(content.read(0, content.size_bytes) for content in contents)

    def _mark(self, filesystem: str, version: Version) -> Mark:
        mark = self.filesystems[filesystem].find(version)
        if mark is None:
            raise KeyError(f"{filesystem}{version.relative_name} (guid {version.guid})")
        return mark


_stores: dict[str, MemoryStore] = {}


def named_store(name: str) -> MemoryStore:
    """The store of this name; it is made, empty, when first asked for."""
    return _stores.setdefault(name, MemoryStore(name))


def reset_stores() -> None:
    """Forget all named stores, so that the next test begins with none."""
    _stores.clear()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
