"""The storage ``memory``: every hook of the contract, over data of this process.

It keeps the contract to the letter, so that a driver or transport which is wrong meets
the same refusals here as with a real filesystem. It needs no clock, thread or file,
and every hook passes a checkpoint, so that it can be cancelled and interleaved.

Like ZFS, a batched stream commits each of its versions as soon as that one is whole;
what is then left of a cut stream is a partial of the version after it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import (
    BusyError,
    Capabilities,
    ConflictError,
    Filesystem,
    FsrepError,
    InvalidRequestError,
    Inventory,
    Problem,
    ReceiveResponse,
    SendResponse,
    SizeEstimate,
    StorageError,
    VersionKind,
    VersionMissingError,
    VersionResult,
    hookimpl,
)
from fsrep_fake.memory_receive import Receiving, check_filesystem_name, destroy, using
from fsrep_fake.memory_send import make_token, open_stream
from fsrep_fake.memory_stream import FORMAT
from fsrep_fake.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core import (
        ByteStream,
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        InventoryRequest,
        ReceiveRequest,
        SendRequest,
        Version,
    )
    from fsrep_fake.memory_send import Opened
    from fsrep_fake.stores import MemoryFilesystem

__all__ = ["MemoryStorage"]


@attrs.define(eq=False)
class MemoryStorage:
    """One endpoint over a store. Several may share one, also as both sides of a job."""

    store: MemoryStore
    resumable: bool = attrs.field(default=True, kw_only=True)
    estimates: bool = attrs.field(default=True, kw_only=True)
    batched: bool = attrs.field(default=True, kw_only=True)
    bookmarks: bool = attrs.field(default=True, kw_only=True)
    nests: bool = attrs.field(default=False, kw_only=True)

    @property
    def capabilities(self) -> Capabilities:
        """What this endpoint can do, as :meth:`inventory` tells it."""
        return Capabilities(
            stream_formats=frozenset({FORMAT}),
            resumable=self.resumable,
            estimates=self.estimates,
            batched=self.batched,
            nests=self.nests,
            bookmarks=self.bookmarks,
        )

    # --- looking ---

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List every filesystem of the store."""
        await trio.lowlevel.checkpoint()
        return Inventory(
            capabilities=self.capabilities,
            filesystems=tuple(
                self._describe(chain, request.job)
                for _, chain in sorted(self.store.filesystems.items())
                if not (chain.provisional and chain.receiving)
            ),
        )

    def _describe(self, chain: MemoryFilesystem, job: str) -> Filesystem:
        marks = [*chain.marks.values()]
        if self.bookmarks:
            marks += chain.cursors.values()
        cursor = chain.cursors.get(job)
        partial = None if chain.receiving else chain.partial
        return Filesystem(
            name=chain.name,
            versions=tuple(mark.version for mark in marks),
            cursor=cursor.version if cursor else None,
            resume_token=make_token(partial) if partial else None,
            placeholder=chain.placeholder,
        )

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Tell the exact size, headers included."""
        await trio.lowlevel.checkpoint()
        size_bytes = self._open(request).stream.size_bytes
        return SizeEstimate(size_bytes=size_bytes if self.estimates else None)

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Get or move a cursor, which is a bookmark of the job."""
        await trio.lowlevel.checkpoint()
        chain = self.store.filesystems.get(request.filesystem)
        cursor = chain.cursors.get(request.job) if chain else None
        target = request.move_to
        if target is None or (cursor and cursor.version.guid == target.guid):
            return cursor.version if cursor else None
        mark = chain.find(target) if chain else None
        if chain is None or mark is None:
            raise VersionMissingError(
                f"moving the cursor of job {request.job!r} to "
                f"{request.filesystem}{target.relative_name}: it does not exist",
                hint="plan again",
            )
        if cursor and cursor.version.order > mark.version.order:
            return cursor.version
        moved = attrs.evolve(mark.version, kind=VersionKind.BOOKMARK, name=f"cursor-{request.job}")
        chain.cursors[request.job] = attrs.evolve(mark, version=moved)
        return moved

    # --- snapshots and retention ---

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Snapshot each filesystem; all of one instant, since nothing runs in between."""
        await trio.lowlevel.checkpoint()
        return tuple(
            self._create_version(filesystem, request.name) for filesystem in request.filesystems
        )

    def _create_version(self, filesystem: str, name: str) -> VersionResult:
        attempt = f"making {filesystem}@{name}"
        problem: FsrepError | None = None
        chain = self.store.filesystems.get(filesystem)
        if not name or set(name) & set("@#/\0"):
            problem = InvalidRequestError(f"{attempt}: not a name for a version")
        elif chain is None:
            problem = StorageError(f"{attempt}: there is no such filesystem")
        elif f"@{name}" in chain.marks:
            problem = ConflictError(f"{attempt}: the name is taken", hint="choose another")
        if problem is not None:
            return VersionResult(filesystem=filesystem, name=name, problem=_facts(problem))
        version = self.store.snapshot(filesystem, name)
        return VersionResult(filesystem=filesystem, name=name, version=version)

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Destroy versions, except those that a stream is being made of."""
        await trio.lowlevel.checkpoint()
        chain = self.store.filesystems.get(request.filesystem)
        return tuple(
            self._destroy_version(chain, request.filesystem, version)
            for version in request.versions
        )

    def _destroy_version(
        self, chain: MemoryFilesystem | None, filesystem: str, version: Version
    ) -> VersionResult:
        mark = chain.find(version) if chain else None
        if chain is not None and mark is not None:
            try:
                destroy(chain, mark)
            except BusyError as error:
                return VersionResult(
                    filesystem=filesystem, name=version.name, problem=_facts(error)
                )
        return VersionResult(filesystem=filesystem, name=version.name, version=version)

    # --- replicating ---

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Open a stream; the versions at its ends cannot be destroyed meanwhile."""
        await trio.lowlevel.checkpoint()
        opened = self._open(request)
        with using(self.store.filesystems[request.filesystem], *opened.ends):
            try:
                yield SendResponse(
                    stream=opened.stream,
                    resumed=self.resumable and request.resume_token is not None,
                    size_bytes=opened.stream.size_bytes if self.estimates else None,
                )
            finally:
                opened.stream.close()

    def _open(self, request: SendRequest) -> Opened:
        if request.intermediates and not self.batched:
            raise InvalidRequestError(
                f"sending {request.filesystem}: this storage sends one version at a time"
            )
        chain = self.store.filesystems.get(request.filesystem)
        return open_stream(request, chain, from_token=self.resumable)

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Receive one version or several, each committed when it is whole."""
        await trio.lowlevel.checkpoint()
        name = request.filesystem
        check_filesystem_name(name)
        chain = self.store.filesystems.get(name)
        present = chain.snapshot(request.to_version.guid) if chain else None
        if present is not None:
            return ReceiveResponse(version=present.version)
        if chain is not None and chain.receiving:
            raise BusyError(f"receiving {name}: another receive works on it")
        self._check_parent(name)
        if chain is None:
            chain = self.store.create(name)
            chain.provisional = True
        chain.receiving = True
        try:
            mark = await Receiving(request, self.store, chain).run(stream)
        finally:
            chain.receiving = False
            if chain.partial is not None and not (self.resumable and chain.partial.offset):
                chain.partial = None
            if chain.provisional and chain.partial is None:
                del self.store.filesystems[name]
        return ReceiveResponse(version=mark.version)

    def _check_parent(self, name: str) -> None:
        parent, _, _ = name.rpartition("/")
        if not self.nests or not parent:
            return
        chain = self.store.filesystems.get(parent)
        if chain is None or chain.provisional:
            raise ConflictError(
                f"receiving {name}: its parent {parent} does not exist",
                hint="replicate the parent first",
            )


def _facts(error: FsrepError) -> Problem:
    return Problem(
        message=error.message,
        temporary=error.temporary,
        local=error.local,
        kind=error.kind,
        hint=error.hint,
    )
