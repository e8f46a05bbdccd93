"""What the memory storage receives: a stream becomes versions, or a partial, or nothing.

The checks come first, then the bytes, then the checks again, since another task may
have changed the filesystem while the bytes came, and then the commit. Nothing awaits
between the last check and the commit.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    ConflictError,
    InvalidRequestError,
    ReceiveRequest,
    StaleTokenError,
    StorageError,
    VersionMissingError,
)
from fsrep_fake.content import NOTHING, Change
from fsrep_fake.memory_send import make_token
from fsrep_fake.memory_stream import StreamReader, contents_of
from fsrep_fake.stores import Mark, MemoryFilesystem, MemoryStore, Partial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsrep_core import ByteStream, Version
    from fsrep_fake.memory_stream import Header

__all__ = ["Receiving", "check_filesystem_name", "destroy", "using"]


def check_filesystem_name(name: str) -> None:
    """Refuse a name that could mean something else on some storage.

    :raises InvalidRequestError: it has a component like ``..``, or a forbidden character
    """
    for component in name.split("/"):
        if component in {"", ".", ".."} or component[0] == "-" or set(component) & set("@#\0"):
            raise InvalidRequestError(f"receiving {name!r}: not a name for a filesystem")


@contextmanager
def using(chain: MemoryFilesystem, *marks: Mark) -> Iterator[None]:
    """Keep versions from being destroyed."""
    guids = [mark.version.guid for mark in marks]
    chain.used.update(guids)
    try:
        yield
    finally:
        chain.used.subtract(guids)


def destroy(chain: MemoryFilesystem, *marks: Mark) -> None:
    """Destroy all of these versions.

    :raises BusyError: a stream uses one of them; none is destroyed
    """
    for mark in marks:
        if chain.used[mark.version.guid] > 0:
            raise BusyError(
                f"destroying {chain.name}{mark.version.relative_name}: a stream uses it",
                hint="try again when the stream has ended",
            )
    for mark in marks:
        chain.remove(mark)


@attrs.define(eq=False)
class Receiving:
    """One receive into a filesystem that no other receive works on."""

    request: ReceiveRequest
    store: MemoryStore
    chain: MemoryFilesystem

    @property
    def _attempt(self) -> str:
        return f"receiving {self.chain.name}{self.request.to_version.relative_name}"

    async def run(self, stream: ByteStream) -> Mark:
        """Receive the request's versions, oldest first, and commit each when it is whole.

        The last one is committed only after ``stream.finish()``. What is left of a
        version that did not become whole is ``chain.partial``.

        :returns: the last version
        :raises FsrepError: as :meth:`~fsrep_core.EndpointSpec.receive` says
        """
        base = self._find_base()
        self._check_conflicts(base)
        self._check_partial()
        reader = StreamReader(stream)
        with using(self.chain, *([base] if base else [])):
            for index, version in enumerate(self.request.intermediates):
                following = len(self.request.intermediates) - index
                partial = await self._receive_version(reader, version, base, following)
                base = self._commit(version, partial, base)
            version = self.request.to_version
            partial = await self._receive_version(reader, version, base, 0)
            await reader.read_end()
            return self._commit(version, partial, base)

    def _find_base(self) -> Mark | None:
        version = self.request.from_version
        base = self.chain.snapshot(version.guid) if version else None
        if version is not None and base is None:
            raise VersionMissingError(
                f"{self._attempt}: its base {version.relative_name} does not exist here",
                hint="plan again",
            )
        return base

    def _check_conflicts(self, base: Mark | None) -> None:
        """Make sure that nothing is newer than the base, and that the names are free."""
        given_up = {version.guid for version in self.request.rollback}
        kept = [mark for mark in self.chain.snapshots if mark.version.guid not in given_up]
        newer = [
            mark.version.relative_name
            for mark in kept
            if base is None or mark.version.order > base.version.order
        ]
        if newer:
            raise ConflictError(
                f"{self._attempt}: {', '.join(newer)} would be lost",
                hint="destroy what is newer, or let the job roll back",
            )
        coming = {
            version.relative_name: version.guid
            for version in (*self.request.intermediates, self.request.to_version)
        }
        for mark in kept:
            guid = mark.version.guid
            if coming.get(mark.version.relative_name, guid) != guid:
                raise ConflictError(
                    f"{self._attempt}: the name {mark.version.relative_name} is taken by "
                    f"another version (guid {guid})",
                    hint="rename or destroy it",
                )

    def _check_partial(self) -> None:
        if self.request.clear_resume_token:
            self.chain.partial = None
        kept = make_token(self.chain.partial) if self.chain.partial else None
        if self.request.resume_token is not None and kept != self.request.resume_token:
            raise StaleTokenError(
                f"{self._attempt}: the resume token is not that of the partial receive here",
                hint="plan again",
            )
        if self.request.resume_token is None and kept is not None:
            raise ConflictError(
                f"{self._attempt}: a partial receive is in the way",
                temporary=True,
                hint="plan again: resume it, or clear its token",
            )

    async def _receive_version(
        self, reader: StreamReader, version: Version, base: Mark | None, following: int
    ) -> Partial:
        header = await reader.read_header()
        promised = version.guid, base.version.guid if base else None, following
        carried = header.guid, header.from_guid, header.following
        if carried != promised:
            raise BrokenEndpointError(
                f"{self._attempt}: the stream carries {carried} where {promised} was "
                "promised (guid, guid of the base, versions that follow)"
            )
        partial = self._begin(header, base)
        await _fill(partial, reader)
        return partial

    def _begin(self, header: Header, base: Mark | None) -> Partial:
        """Begin a version, or take up the partial that the stream goes on from."""
        whole = attrs.evolve(header, offset=0, following=0)  # the same alone and in a batch
        partial = self.chain.partial
        if partial is None:
            change = base.change if base else NOTHING
            partial = Partial(whole, change, change.hasher())
        if (partial.header, partial.offset) != (whole, header.offset):
            raise StaleTokenError(
                f"{self._attempt}: the stream does not go on where the partial receive stands",
                hint="plan again, or discard the partial receive",
            )
        self.chain.partial = partial
        return partial

    def _commit(self, version: Version, partial: Partial, base: Mark | None) -> Mark:
        chain = self.chain
        chain.partial = None
        if partial.hasher.hexdigest() != partial.header.digest:
            raise StorageError(
                f"{self._attempt}: what arrived is not what was sent, and was thrown away",
                temporary=True,
                hint="the way between the two sides damages data",
            )
        self._check_conflicts(base)
        unwanted = (chain.snapshot(each.guid) for each in self.request.rollback)
        destroy(chain, *(mark for mark in unwanted if mark is not None))
        change = partial.base
        for content in contents_of(partial.header, partial.literals):
            change = Change(change, content)
        received = attrs.evolve(
            version, order=self.store.next_order(), created=partial.header.created
        )
        mark = Mark(received, change)
        chain.add(mark)
        chain.live = change
        chain.placeholder = chain.provisional = False
        return mark


async def _fill(partial: Partial, reader: StreamReader) -> None:
    """Read what is left of a version; ``partial`` is right at every checkpoint."""
    start = literal_count = 0
    for size_bytes, seed in partial.header.pieces:
        end = start + size_bytes
        if seed is None:
            literal_count += 1
            if len(partial.literals) < literal_count:
                partial.literals.append(bytearray())
        while partial.offset < end:
            data = await reader.read_some(end - partial.offset)
            partial.offset += len(data)
            partial.hasher.update(data)
            if seed is None:
                partial.literals[literal_count - 1] += data
        start = end
