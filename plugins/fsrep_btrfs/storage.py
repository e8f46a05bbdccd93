"""The hooks of the storage ``btrfs``."""

from __future__ import annotations

import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_btrfs.config import BtrfsConfig
from fsrep_btrfs.cursors import move_cursor, read_cursor, read_cursors
from fsrep_btrfs.files import make_directories, translated
from fsrep_btrfs.finder import Finder, View, gone
from fsrep_btrfs.layout import PRIVATE, SNAPSHOT, check_version_name
from fsrep_btrfs.receiving import Receiver
from fsrep_btrfs.staging import remove_wrapper
from fsrep_btrfs.tool import BtrfsTool
from fsrep_core import (
    BusyError,
    Capabilities,
    ConflictError,
    FsrepError,
    InvalidRequestError,
    Inventory,
    Problem,
    ReceiveResponse,
    SendResponse,
    SizeEstimate,
    StorageError,
    VersionResult,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

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

__all__ = ["BtrfsStorage"]

PLAIN, COMPRESSED = "btrfs-1", "btrfs-2"
"""The stream formats: protocol 1, and protocol 2 with compressed data."""
COMPRESSED_SINCE = (6, 2)
"""Earlier btrfs-progs lose data when they decompress such a stream (their CHANGES, 6.0.2
and 6.2)."""

DELETE_BATCH = 200
"""How many subvolumes one process deletes."""

REPAIR = (
    "it was received and later made writable, so its received UUID is no longer true, and "
    "each snapshot of it inherits that: make a writable snapshot of it, which has none "
    "(btrfs subvolume snapshot), put that in its place, and make new snapshots of that"
)


@attrs.define(eq=False)
class BtrfsStorage:
    """One endpoint over the subvolumes below a directory of a mounted btrfs."""

    config: BtrfsConfig
    _finder: Finder = attrs.field(init=False)
    _receiver: Receiver = attrs.field(init=False)
    _in_use: Counter[str] = attrs.field(init=False, factory=Counter)
    """Identities that streams are being made of. The kernel protects them, too, but only
    while ``btrfs send`` runs, which can end long before its stream has been read."""

    def __attrs_post_init__(self) -> None:
        self._finder = Finder(self.config, BtrfsTool(self.config.command))
        self._receiver = Receiver(
            area=self._area,
            directory=self._area / PRIVATE / "staging",
            finder=self._finder,
            destroy=self._destroy,
        )

    @property
    def _area(self) -> Path:
        return self.config.root / self.config.snapshots

    @property
    def _cursors(self) -> Path:
        return self._area / PRIVATE / "cursors"

    # --- looking ---

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List all filesystems: three processes, and one for the version of the tools."""
        view = await self._finder.look()
        with translated(f"reading the cursors of job {request.job!r}"):
            cursors = await trio.to_thread.run_sync(read_cursors, self._cursors, request.job)
        return Inventory(
            capabilities=await self._capabilities(),
            filesystems=tuple(
                attrs.evolve(each, cursor=cursors.get(each.name))
                for each in view.arrangement.filesystems()
            ),
        )

    async def _capabilities(self) -> Capabilities:
        version = await self._finder.tool.version()
        formats = {PLAIN, COMPRESSED} if version >= COMPRESSED_SINCE else {PLAIN}
        if self.config.compressed_data:
            if COMPRESSED not in formats:
                raise StorageError(
                    f"compressed_data needs btrfs-progs {COMPRESSED_SINCE[0]}."
                    f"{COMPRESSED_SINCE[1]} or newer; here is {version[0]}.{version[1]}",
                    local=False,
                    hint="install a newer btrfs-progs, or leave compressed_data out",
                )
            formats = {COMPRESSED}
        return Capabilities(stream_formats=frozenset(formats))

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Give no number: btrfs does not know the size of a send before it is done."""
        await self._find_ends(f"estimating {_step(request)}", request)
        return SizeEstimate(size_bytes=None)

    # --- sending ---

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Send a snapshot, in full or from its base, which is named explicitly."""
        attempt = f"sending {_step(request)}"
        if request.intermediates:
            raise InvalidRequestError(f"{attempt}: one btrfs stream carries one snapshot")
        snapshot, parent = await self._find_ends(attempt, request)
        ends = [each.guid for each in (request.to_version, request.from_version) if each]
        self._in_use.update(ends)
        try:
            async with self._finder.tool.send(
                attempt, snapshot, parent=parent, compressed_data=self.config.compressed_data
            ) as stream:
                yield SendResponse(stream=stream)
        finally:
            self._in_use.subtract(ends)

    async def _find_ends(self, attempt: str, request: SendRequest) -> tuple[str, str | None]:
        """Give the paths of the snapshot to send and of its base, where it has one."""
        version = await self._finder.find(request.filesystem, request.to_version.guid)
        if version is None:
            raise gone(attempt, request.to_version)
        view, found = version
        if not found.proven:
            raise StorageError(
                f"{attempt}: its subvolume has a received UUID that a writable one has, too",
                hint=REPAIR,
            )
        base = request.from_version
        return (
            view.path_of(found.subvolume),
            None if base is None else await self._finder.find_base(attempt, base),
        )

    # --- receiving ---

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Receive one snapshot into a private place, check it, and rename it into its own."""
        return ReceiveResponse(version=await self._receiver.receive(request, stream))

    # --- the cursor ---

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Get or move the cursor, a small file that is replaced as a whole."""
        target = request.move_to
        attempt = f"moving the cursor of job {request.job!r} on {request.filesystem}"
        found = None
        if target is not None:
            found = await self._finder.find(request.filesystem, target.guid)
        with translated(attempt):
            if found is not None:
                return await trio.to_thread.run_sync(
                    move_cursor, self._cursors, request.job, request.filesystem, found[1].version
                )
            cursor = await trio.to_thread.run_sync(
                read_cursor, self._cursors, request.job, request.filesystem
            )
        if target is None or (cursor is not None and cursor.guid == target.guid):
            return cursor
        raise gone(attempt, target)

    # --- snapshots and retention ---

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Make a read-only snapshot of each filesystem, one after the other."""
        view = await self._finder.look()
        problems: dict[str, FsrepError] = {}
        for filesystem in request.filesystems:
            try:
                await self._create(view, filesystem, request.name)
            except FsrepError as error:
                problems[filesystem] = error
        made = await self._finder.look()
        return tuple(
            _result(
                filesystem,
                request.name,
                problems.get(filesystem),
                made.at(filesystem, request.name),
            )
            for filesystem in request.filesystems
        )

    async def _create(self, view: View, filesystem: str, name: str) -> None:
        attempt = f"making {filesystem}@{name}"
        check_version_name(name)
        source = view.arrangement.live.get(filesystem)
        if source is None:
            raise StorageError(
                f"{attempt}: there is no writable subvolume of this filesystem",
                hint=f"the filesystems with one are: {', '.join(sorted(view.arrangement.live))}",
            )
        if source.received_uuid is not None:
            raise StorageError(f"{attempt}: the subvolume has a received UUID", hint=REPAIR)
        wrapper = self._area / filesystem / f"@{name}"
        if view.at(filesystem, name) or (wrapper / SNAPSHOT).exists():
            raise ConflictError(f"{attempt}: the name is taken", hint="choose another name")
        try:
            with translated(attempt):
                await trio.to_thread.run_sync(make_directories, wrapper)
            await self._finder.tool.snapshot(view.path_of(source), str(wrapper / SNAPSHOT))
        finally:
            remove_wrapper(wrapper)  # which stays where the snapshot is in it

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Destroy versions, durably; those in use are kept."""
        problems = await self._destroy(request.filesystem, request.versions)
        return tuple(
            _result(request.filesystem, version.name, problems[version.guid], version)
            for version in request.versions
        )

    async def _destroy(
        self, filesystem: str, versions: Sequence[Version]
    ) -> dict[str, FsrepError | None]:
        """Destroy versions, in batches; what survived its batch is tried alone, to learn why."""
        problems: dict[str, FsrepError | None] = {version.guid: None for version in versions}
        for version in versions:
            if self._in_use[version.guid] > 0:
                problems[version.guid] = BusyError(
                    f"destroying {filesystem}{version.relative_name}: it is being sent",
                    hint="it can be destroyed when that is done",
                )
        found = await self._existing(filesystem, problems)
        paths = list(found)
        for start in range(0, len(paths), DELETE_BATCH):
            with contextlib.suppress(FsrepError):
                await self._finder.tool.delete(paths[start : start + DELETE_BATCH], commit=True)
        for path, guid in (await self._existing(filesystem, problems)).items() if found else ():
            try:
                await self._finder.tool.delete([path], commit=True)
            except FsrepError as error:
                problems[guid] = error
        for path, guid in found.items():
            if problems[guid] is None:
                remove_wrapper(Path(path).parent)
        self._finder.forget()
        return problems

    async def _existing(
        self, filesystem: str, problems: Mapping[str, FsrepError | None]
    ) -> dict[str, str]:
        """List which of those without a problem exist now: guids by path."""
        view = await self._finder.look()
        wanted = (guid for guid, problem in problems.items() if problem is None)
        found = (view.arrangement.find(filesystem, guid) for guid in wanted)
        return {
            view.path_of(each.subvolume): each.version.guid for each in found if each is not None
        }


def _result(
    filesystem: str, name: str, error: FsrepError | None, version: Version | None
) -> VersionResult:
    if error is None:
        return VersionResult(filesystem=filesystem, name=name, version=version)
    problem = Problem(
        message=error.message,
        temporary=error.temporary,
        local=error.local,
        kind=error.kind,
        hint=error.hint,
    )
    return VersionResult(filesystem=filesystem, name=name, problem=problem)


def _step(request: SendRequest) -> str:
    return f"{request.filesystem}{request.to_version.relative_name}"
