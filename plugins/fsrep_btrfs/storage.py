"""The hooks of the storage ``btrfs``.

What is on the file system is listed once for an inventory and remembered; a step then
needs no listing of its own. That is safe because nothing is believed that is not checked
where it counts: a snapshot that was replaced under its name makes a stream with another
UUID, and what arrives is committed only if it is read-only and has exactly the identity
that was promised, and both programs ended well. A version that is not remembered is
looked for once more before it counts as missing.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import trio

from fsrep_btrfs.config import BtrfsConfig
from fsrep_btrfs.cursors import move_cursor, read_cursor, read_cursors
from fsrep_btrfs.files import make_directories, translated
from fsrep_btrfs.layout import (
    PRIVATE,
    SNAPSHOT,
    Arrangement,
    Found,
    Places,
    arrange,
    check_filesystem,
    check_version_name,
)
from fsrep_btrfs.listing import Mount, Subvolume, find_mount, relative_to
from fsrep_btrfs.staging import (
    Staging,
    name_received,
    prepare,
    publish,
    read_mark,
    remove_wrapper,
    staging_directories,
)
from fsrep_btrfs.tool import BtrfsTool
from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    Capabilities,
    ConflictError,
    FsrepError,
    InterruptedStreamError,
    InvalidRequestError,
    Inventory,
    Problem,
    ReceiveResponse,
    SendResponse,
    SizeEstimate,
    StorageError,
    Version,
    VersionKind,
    VersionMissingError,
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
    )

__all__ = ["BtrfsStorage"]

PLAIN, COMPRESSED = "btrfs-1", "btrfs-2"
"""The stream formats: protocol 1, and protocol 2 with compressed data."""
COMPRESSED_SINCE = (6, 2)
"""Earlier btrfs-progs lose data when they decompress such a stream (their CHANGES, 6.0.2
and 6.2)."""

CLEANUP_SECONDS = 30.0
"""How long deleting a partial receive may take after a cancellation."""

DELETE_BATCH = 200
"""How many subvolumes one process deletes."""

REPAIR = (
    "it was received and later made writable, so its received UUID is no longer true, and "
    "each snapshot of it inherits that: make a writable snapshot of it, which has none "
    "(btrfs subvolume snapshot), put that in its place, and make new snapshots of that"
)

logger = logging.getLogger(__name__)


@attrs.frozen
class _View:
    """What one listing showed."""

    mount: Mount
    places: Places
    arrangement: Arrangement

    def path_of(self, subvolume: Subvolume) -> str:
        """Give the absolute path; only what is reachable is ever arranged."""
        return cast("str", self.mount.path_of(subvolume.path))

    def at(self, filesystem: str, name: str) -> Version | None:
        """Give the version of this name."""
        versions = self.arrangement.versions.get(filesystem, {}).values()
        return next((each.version for each in versions if each.version.name == name), None)


@attrs.define(eq=False)
class BtrfsStorage:
    """One endpoint over the subvolumes below a directory of a mounted btrfs."""

    config: BtrfsConfig
    _tool: BtrfsTool = attrs.field(init=False)
    _view: _View | None = attrs.field(init=False, default=None)
    _swept: bool = attrs.field(init=False, default=False)
    _in_use: Counter[str] = attrs.field(init=False, factory=Counter)
    """Identities that streams are being made of. The kernel protects them, too, but only
    while ``btrfs send`` runs, which can end long before its stream has been read."""

    def __attrs_post_init__(self) -> None:
        self._tool = BtrfsTool(self.config.command)

    # --- looking ---

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List all filesystems: three processes, and one for the version of the tools."""
        view = await self._look()
        cursors = await trio.to_thread.run_sync(read_cursors, self._cursors, request.job)
        return Inventory(
            capabilities=await self._capabilities(),
            filesystems=tuple(
                attrs.evolve(each, cursor=cursors.get(each.name))
                for each in view.arrangement.filesystems()
            ),
        )

    async def _capabilities(self) -> Capabilities:
        version = await self._tool.version()
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

    async def _look(self) -> _View:
        """List what is there now, and remember it."""
        root = self.config.root
        mount = await trio.to_thread.run_sync(_find_mount, root)
        places = Places(
            root=mount.tree_path_of(str(root.resolve())),
            snapshots=self.config.snapshots.strip("/"),
            subvolumes=self.config.subvolumes,
            also=self.config.also,
        )
        self._view = _View(
            mount=mount,
            places=places,
            arrangement=arrange(
                await self._tool.list(str(root)),
                places,
                reachable=lambda path: mount.path_of(path) is not None,
                marked_filesystem=lambda path: read_mark(mount.path_of(path) or ""),
            ),
        )
        return self._view

    async def _known(self) -> _View:
        return self._view or await self._look()

    async def _find(self, filesystem: str, guid: str) -> tuple[_View, Found] | None:
        """Find a version; look again before it counts as missing."""
        remembered = self._view
        if remembered is not None:
            found = remembered.arrangement.find(filesystem, guid)
            if found is not None:
                return remembered, found
        view = await self._look()
        found = view.arrangement.find(filesystem, guid)
        return None if found is None else (view, found)

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
            async with self._tool.send(
                attempt, snapshot, parent=parent, compressed_data=self.config.compressed_data
            ) as stream:
                yield SendResponse(stream=stream)
        finally:
            self._in_use.subtract(ends)

    async def _find_ends(self, attempt: str, request: SendRequest) -> tuple[str, str | None]:
        """Give the paths of the snapshot to send and of its base, where it has one."""
        version = await self._find(request.filesystem, request.to_version.guid)
        if version is None:
            raise _gone(attempt, request.to_version)
        view, found = version
        if not found.proven:
            raise StorageError(
                f"{attempt}: its subvolume has a received UUID that a writable one has, too",
                hint=REPAIR,
            )
        base = request.from_version
        return (
            view.path_of(found.subvolume),
            None if base is None else await self._find_base(attempt, base),
        )

    async def _find_base(self, attempt: str, base: Version) -> str:
        """Find a read-only subvolume with the identity of the base, wherever it lies."""
        view = await self._known()
        subvolume = view.arrangement.readonly.get(base.guid)
        if subvolume is None:
            view = await self._look()
            subvolume = view.arrangement.readonly.get(base.guid)
        if subvolume is None:
            raise _gone(attempt, base)
        return view.path_of(subvolume)

    # --- receiving ---

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Receive one snapshot into a private place, check it, and rename it into its own."""
        attempt = f"receiving {_step(request)}"
        check_filesystem(request.filesystem)
        check_version_name(request.to_version.name)
        if request.intermediates or request.resume_token is not None:
            raise InvalidRequestError(
                f"{attempt}: one btrfs stream carries one whole snapshot, from its start"
            )
        view = await self._known()
        present = view.arrangement.find(request.filesystem, request.to_version.guid)
        if present is not None and await trio.Path(view.path_of(present.subvolume)).is_dir():
            return ReceiveResponse(version=present.version)
        if request.from_version is not None:
            await self._find_base(attempt, request.from_version)
        _check_free(attempt, view, request)
        await self._sweep()
        with translated(attempt), Staging.of(self._staging, request.filesystem) as staging:
            await self._clear(staging)
            await self._check_base(attempt, request)
            try:
                subvolume = await self._receive(attempt, request, stream, staging)
            finally:
                with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                    await self._clear_if_possible(staging)
        return ReceiveResponse(version=_remember(view, request, subvolume))

    async def _check_base(self, attempt: str, request: ReceiveRequest) -> None:
        """Refuse while something else has the identity of the base and is not proven whole.

        ``btrfs receive`` finds the base by its received UUID, anywhere on the file system,
        and takes the oldest that it finds. That must not be what another storage's receive
        has not published yet: after a crash it may be empty.
        """
        base = request.from_version
        if base is None or base.guid not in (await self._known()).arrangement.unready:
            return
        unready = (await self._look()).arrangement.unready.get(base.guid)
        if unready is not None:
            raise BusyError(
                f"{attempt}: {unready} on the same file system has the identity of the base "
                f"{base.relative_name}, and is not known to be whole",
                hint="another receive makes it; if none runs, the next run of the job whose "
                "storage has that directory deletes it, or delete that subvolume yourself",
            )

    async def _receive(
        self, attempt: str, request: ReceiveRequest, stream: ByteStream, staging: Staging
    ) -> Subvolume:
        wrapper = staging.make_wrapper(request.to_version.name)
        await self._tool.receive(attempt, stream, str(wrapper), lock=staging.lock)
        received = name_received(wrapper)
        await trio.to_thread.run_sync(prepare, wrapper, request.filesystem)
        subvolume = await self._tool.show(str(received))
        check_complete(attempt, request, subvolume)
        if request.rollback:
            await self._roll_back(attempt, request)
        target = self._wrapper(request.filesystem, request.to_version.name)
        await trio.to_thread.run_sync(publish, wrapper, target)
        return subvolume

    async def _roll_back(self, attempt: str, request: ReceiveRequest) -> None:
        """Destroy what the policy gives up: last, so that a failed receive destroys nothing."""
        problems = await self._destroy(request.filesystem, request.rollback)
        for problem in problems.values():
            if problem is not None:
                raise StorageError(
                    f"{attempt}: a version that it replaces cannot be destroyed: {problem.message}",
                    temporary=problem.temporary,
                    hint=problem.hint,
                )

    async def _sweep(self) -> None:
        """Once, delete what receives of other filesystems left behind when they were killed."""
        if self._swept:
            return
        self._swept = True
        for directory in staging_directories(self._staging):
            with Staging.at(directory) as staging:
                if staging is not None:
                    await self._clear_if_possible(staging)

    async def _clear(self, staging: Staging) -> None:
        """Delete everything in a staging directory; the lock says that it is dead."""
        for wrapper in staging.wrappers():
            partials = [str(path) for path in wrapper.iterdir()]
            if partials:
                await self._tool.delete(partials, commit=False)
            wrapper.rmdir()

    async def _clear_if_possible(self, staging: Staging) -> None:
        try:
            await self._clear(staging)
        except (FsrepError, OSError) as error:
            logger.warning(
                "a partial receive in %s cannot be deleted now, the next receive tries again: %s",
                staging.directory,
                error,
            )

    # --- the cursor ---

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Get or move the cursor, a small file that is replaced as a whole."""
        target = request.move_to
        found = None
        if target is not None:
            found = await self._find(request.filesystem, target.guid)
        if found is not None:
            with translated(f"moving the cursor of job {request.job!r} on {request.filesystem}"):
                return await trio.to_thread.run_sync(
                    move_cursor, self._cursors, request.job, request.filesystem, found[1].version
                )
        cursor = await trio.to_thread.run_sync(
            read_cursor, self._cursors, request.job, request.filesystem
        )
        if target is None or (cursor is not None and cursor.guid == target.guid):
            return cursor
        raise _gone(f"moving the cursor of job {request.job!r} on {request.filesystem}", target)

    # --- snapshots and retention ---

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Make a read-only snapshot of each filesystem, one after the other."""
        view = await self._look()
        problems: dict[str, FsrepError] = {}
        for filesystem in request.filesystems:
            try:
                await self._create(view, filesystem, request.name)
            except FsrepError as error:
                problems[filesystem] = error
        made = await self._look()
        return tuple(
            _result(
                filesystem,
                request.name,
                problems.get(filesystem),
                made.at(filesystem, request.name),
            )
            for filesystem in request.filesystems
        )

    async def _create(self, view: _View, filesystem: str, name: str) -> None:
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
        wrapper = self._wrapper(filesystem, name)
        if view.at(filesystem, name) or (wrapper / SNAPSHOT).exists():
            raise ConflictError(f"{attempt}: the name is taken", hint="choose another name")
        with translated(attempt):
            await trio.to_thread.run_sync(make_directories, wrapper)
        try:
            await self._tool.snapshot(view.path_of(source), str(wrapper / SNAPSHOT))
        except FsrepError:
            remove_wrapper(wrapper)
            raise

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
                await self._tool.delete(paths[start : start + DELETE_BATCH], commit=True)
        for path, guid in (await self._existing(filesystem, problems)).items() if found else ():
            try:
                await self._tool.delete([path], commit=True)
            except FsrepError as error:
                problems[guid] = error
        for path, guid in found.items():
            if problems[guid] is None:
                remove_wrapper(Path(path).parent)
        self._view = None
        return problems

    async def _existing(
        self, filesystem: str, problems: Mapping[str, FsrepError | None]
    ) -> dict[str, str]:
        """List which of those without a problem exist now: guids by path."""
        view = await self._look()
        wanted = (guid for guid, problem in problems.items() if problem is None)
        found = (view.arrangement.find(filesystem, guid) for guid in wanted)
        return {
            view.path_of(each.subvolume): each.version.guid for each in found if each is not None
        }

    # --- places ---

    @property
    def _area(self) -> Path:
        return self.config.root / self.config.snapshots

    @property
    def _staging(self) -> Path:
        return self._area / PRIVATE / "staging"

    @property
    def _cursors(self) -> Path:
        return self._area / PRIVATE / "cursors"

    def _wrapper(self, filesystem: str, name: str) -> Path:
        return self._area / filesystem / f"@{name}"


def check_complete(attempt: str, request: ReceiveRequest, subvolume: Subvolume) -> None:
    """Return if what was received is the version that was promised, and whole.

    The program sets the received UUID first and the read-only flag second, so only both
    together prove that it came to its end.

    :raises InterruptedStreamError: the receive did not come to its end
    :raises VersionMissingError: it is another version
    """
    promised = request.to_version.guid
    if not subvolume.readonly or subvolume.received_uuid is None:
        raise InterruptedStreamError(
            f"{attempt}: the receive ended without an error, but its subvolume is not complete "
            f"(read-only: {subvolume.readonly}, received UUID: {subvolume.received_uuid})"
        )
    if subvolume.received_uuid != promised:
        raise VersionMissingError(
            f"{attempt}: {subvolume.received_uuid} arrived instead of {promised}",
            hint="plan again: the snapshot was replaced by another of the same name",
        )
    if (subvolume.parent_uuid is None) is not (request.from_version is None):
        raise BrokenEndpointError(
            f"{attempt}: a stream {'without' if subvolume.parent_uuid is None else 'with'} a base "
            "arrived, against the request"
        )


def _check_free(attempt: str, view: _View, request: ReceiveRequest) -> None:
    """Refuse before anything moves what could not be put into its place in the end."""
    given_up = {version.guid for version in request.rollback}
    for guid, found in view.arrangement.versions.get(request.filesystem, {}).items():
        if found.version.name == request.to_version.name and guid not in given_up:
            raise ConflictError(
                f"{attempt}: there is another version of that name, {guid}",
                hint="rename or destroy it",
            )
    place = view.places.wrapper(request.filesystem, request.to_version.name)
    for name, live in view.arrangement.live.items():
        if live.path != view.places.root and relative_to(place, live.path) is not None:
            raise ConflictError(
                f"{attempt}: its place would be inside the writable subvolume of {name}",
                hint="set the option snapshots to a directory outside of it",
            )


def _remember(view: _View, request: ReceiveRequest, subvolume: Subvolume) -> Version:
    """Add what was received to what is known, as the next listing will show it."""
    name = request.to_version.name
    version = Version(
        kind=VersionKind.SNAPSHOT,
        name=name,
        guid=request.to_version.guid,
        order=subvolume.created_generation,
        created=subvolume.created if subvolume.parent_uuid is not None else None,
    )
    place = f"{view.places.wrapper(request.filesystem, name)}/{SNAPSHOT}"
    view.arrangement.add(
        Found(
            filesystem=request.filesystem,
            version=version,
            subvolume=attrs.evolve(subvolume, path=place),
            proven=True,
        )
    )
    return version


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


def _step(request: SendRequest | ReceiveRequest) -> str:
    return f"{request.filesystem}{request.to_version.relative_name}"


def _gone(attempt: str, version: Version) -> VersionMissingError:
    return VersionMissingError(
        f"{attempt}: {version.relative_name} (UUID {version.guid}) does not exist as a read-only "
        "subvolume below the mount point",
        hint="plan again",
    )


def _find_mount(root: Path) -> Mount:
    """Find the mount of the root.

    :raises StorageError: the root is missing, or not on btrfs
    """
    try:
        resolved = root.resolve(strict=True)
    except OSError as error:
        raise StorageError(
            f"the storage's root {root} cannot be reached: {error.strerror}",
            local=False,
            hint="is the disk mounted? fsrep does not make the root",
        ) from error
    mount = find_mount(
        Path("/proc/self/mountinfo").read_text(errors="surrogateescape"), str(resolved)
    )
    if mount.type != "btrfs":
        raise StorageError(
            f"the storage's root {root} is on {mount.type} ({mount.source} at {mount.point}), "
            "not on btrfs",
            local=False,
            hint="is the disk mounted?",
        )
    return mount
