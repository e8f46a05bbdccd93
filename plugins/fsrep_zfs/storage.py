"""The hooks of the storage ``zfs``."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from fsrep_core import (
    Capabilities,
    ConflictError,
    Filesystem,
    FsrepError,
    InvalidRequestError,
    Inventory,
    Problem,
    ResumeToken,
    SizeEstimate,
    StaleTokenError,
    StorageError,
    VersionResult,
    hookimpl,
)
from fsrep_zfs.catalog import Catalog, full_name, gone
from fsrep_zfs.config import Protection, ZfsConfig
from fsrep_zfs.cursors import Cursors
from fsrep_zfs.delegation import allow_commands
from fsrep_zfs.destroying import Destroyer
from fsrep_zfs.guarding import Guard
from fsrep_zfs.names import step_tag
from fsrep_zfs.receiving import Receiver
from fsrep_zfs.sending import Sender
from fsrep_zfs.tokens import decode_token
from fsrep_zfs.tool import ZfsTool
from fsrep_zfs.upkeep import Abstraction, find_abstractions, release_stale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from fsrep_core import (
        ByteStream,
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        InventoryRequest,
        Origin,
        ReceiveRequest,
        ReceiveResponse,
        SendRequest,
        SendResponse,
        Side,
        Version,
    )
    from fsrep_zfs.listing import Dataset

__all__ = ["ZfsStorage"]

FORMAT = "zfs"

_VERSION_NAME = re.compile(r"[A-Za-z0-9_.:-](?:[A-Za-z0-9_.: -]*[A-Za-z0-9_.:-])?")

CAPABILITIES = Capabilities(
    stream_formats=frozenset({FORMAT}),
    resumable=True,
    estimates=True,
    batched=True,
    nests=True,
    bookmarks=True,
    clones=True,
)


@attrs.define(eq=False)
class ZfsStorage:
    """One endpoint over the filesystems and volumes below a dataset."""

    config: ZfsConfig
    _tool: ZfsTool = attrs.field(init=False)
    _catalog: Catalog = attrs.field(init=False)
    _guard: Guard = attrs.field(init=False)
    _cursors: Cursors = attrs.field(init=False)
    _sender: Sender = attrs.field(init=False)
    _receiver: Receiver = attrs.field(init=False)
    _destroyer: Destroyer = attrs.field(init=False)
    _in_use: Counter[tuple[str, str]] = attrs.field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        self._tool = ZfsTool(self.config.command)
        self._catalog = Catalog(self.config.root, self._tool)
        self._guard = Guard(self._tool)
        self._cursors = Cursors(self._tool, self._is_in_use)
        self._sender = Sender(
            config=self.config,
            tool=self._tool,
            catalog=self._catalog,
            guard=self._guard,
            cursors=self._cursors,
            in_use=self._in_use,
        )
        self._destroyer = Destroyer(tool=self._tool, catalog=self._catalog, in_use=self._is_in_use)
        self._receiver = Receiver(
            config=self.config,
            tool=self._tool,
            catalog=self._catalog,
            guard=self._guard,
            destroy=self._destroyer.destroy,
        )

    def _is_in_use(self, dataset: Dataset, guid: str) -> bool:
        return self._in_use[dataset.name, guid] > 0

    # --- looking ---

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List everything below the root: one process, whatever there is."""
        datasets = await self._catalog.look()
        origins = self._catalog.origins(*datasets.values()) if self.config.clones else {}
        return Inventory(
            capabilities=CAPABILITIES,
            filesystems=tuple(
                self._filesystem(dataset, request.job, origins.get(dataset.origin))
                for name, dataset in datasets.items()
                if name != self.config.root
            ),
        )

    def _filesystem(self, dataset: Dataset, job: str, origin: Origin | None) -> Filesystem:
        versions = dataset.versions()
        attributes = {"type": dataset.type}
        if dataset.encrypted:
            attributes["key"] = "loaded" if dataset.key_loaded else "unavailable"
        if dataset.origin is not None:
            attributes["origin"] = dataset.origin
        if dataset.held:
            attributes["held"] = str(len(dataset.held))
        return Filesystem(
            name=dataset.name.removeprefix(f"{self.config.root}/"),
            versions=versions,
            cursor=self._cursors.current(job, dataset),
            resume_token=_resume_token(dataset),
            origin=origin,
            placeholder=dataset.placeholder or (dataset.container and not versions),
            attributes=attributes,
        )

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Ask ``zfs send`` how much it would be."""
        return SizeEstimate(size_bytes=await self._sender.estimate(request))

    # --- sending and receiving ---

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Send a step: full, incremental, from a bookmark, in a batch, or resumed."""
        async with self._sender.send(request) as response:
            yield response

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Receive a step, resumably, and see that it is there."""
        return await self._receiver.receive(request, stream)

    # --- the cursor ---

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Get or move the cursor, a bookmark; what the step held is released then."""
        name = self._catalog.dataset_name(request.filesystem)
        target = request.move_to
        if target is None:
            dataset = await self._catalog.look_at(name)
            return None if dataset is None else self._cursors.current(request.job, dataset)
        attempt = f"moving the cursor of job {request.job!r} on {request.filesystem}"
        found = await self._catalog.find(name, target)
        if found is None:
            raise gone(attempt, target)
        dataset, version = found
        former = self._cursors.current(request.job, dataset)
        async with self._guard.step():
            cursor = await self._cursors.move(request.job, dataset, version, raw=self.config.raw)
            self._release_step(request.job, dataset, former, version)
            return cursor

    def _release_step(
        self, job: str, dataset: Dataset, former: Version | None, confirmed: Version
    ) -> None:
        """Let go of the ends of the step that the receiver has confirmed.

        Who sent may have been another process of fsrep, so where this one does not know
        of holds, those that such a step would have are released, if there are any.
        """
        tag = step_tag(job)
        names = self._guard.take_held(tag, dataset.name)
        if not names and (self._holds_steps or dataset.held):
            guids = {confirmed.guid, *(() if former is None else (former.guid,)), *dataset.held}
            names = [
                full_name(dataset.name, each)
                for guid in guids
                if (each := dataset.snapshots.get(guid)) and each.order <= confirmed.order
            ]
        self._guard.release_later(tag, names)

    @property
    def _holds_steps(self) -> bool:
        protections = {self.config.protect_initial, self.config.protect_incremental}
        return Protection.RESUMABLE in protections

    # --- snapshots and retention ---

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Make a snapshot of each filesystem, all of one instant, in three processes."""
        check_version_name(request.name)
        names = {each: self._catalog.dataset_name(each) for each in request.filesystems}
        datasets = await self._catalog.look()
        problems = {
            each: error
            for each, name in names.items()
            if (error := _obstacle(each, datasets.get(name), request.name)) is not None
        }
        wanted = [each for each in names if each not in problems]
        try:
            if wanted:
                await self._tool.snapshot([f"{names[each]}@{request.name}" for each in wanted])
        except FsrepError as error:
            if len(wanted) == 1:
                problems[wanted[0]] = error
            else:
                problems |= await self._snapshot_each(names, wanted, request.name)
        done = [f"{names[each]}@{request.name}" for each in wanted if each not in problems]
        made = await self._tool.list_snapshots(done, datasets)
        for name in made:
            self._catalog.forget(name)
        return tuple(
            _result(each, request.name, problems.get(each), _newest(made.get(names[each])))
            for each in request.filesystems
        )

    async def _snapshot_each(
        self, names: Mapping[str, str], filesystems: Iterable[str], name: str
    ) -> dict[str, FsrepError]:
        """Make them one after the other: together they were refused, all because of some."""
        problems: dict[str, FsrepError] = {}
        for each in filesystems:
            try:
                await self._tool.snapshot([f"{names[each]}@{name}"])
            except FsrepError as error:
                problems[each] = error
        return problems

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Destroy versions in batches; those in use are kept."""
        name = self._catalog.dataset_name(request.filesystem)
        problems = await self._destroyer.destroy(request.job, name, request.versions)
        return tuple(
            _result(request.filesystem, version.name, problems[version.guid], version)
            for version in request.versions
        )

    # --- for operators: fsrep zfs ---

    def allow_commands(self, side: Side, user: str) -> list[str]:
        """Give the commands that let an unprivileged user work on one side."""
        return allow_commands(self.config, side, user)

    async def abstractions(self, gone_jobs: Iterable[str] = ()) -> list[Abstraction]:
        """List what fsrep has left here; see :func:`~fsrep_zfs.upkeep.find_abstractions`."""
        return await find_abstractions(self._tool, self._catalog, gone_jobs)

    async def release_stale(self, found: Iterable[Abstraction]) -> list[FsrepError]:
        """Remove what is stale of it; give what went wrong."""
        return await release_stale(self._tool, found)


def check_version_name(name: str) -> None:
    """Return if a snapshot can have this name (``zfs-snapshot(8)``).

    :raises InvalidRequestError: it cannot
    """
    if not _VERSION_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} cannot be the name of a snapshot",
            hint="use letters, digits, spaces, '-', '_', '.' and ':'",
        )


def _obstacle(filesystem: str, dataset: Dataset | None, name: str) -> FsrepError | None:
    """Tell why a snapshot cannot be made."""
    attempt = f"making {filesystem}@{name}"
    if dataset is None:
        return StorageError(
            f"{attempt}: there is no such filesystem",
            hint="'zfs list' shows those below the storage's root",
        )
    if any(each.name == name for each in dataset.snapshots.values()):
        return ConflictError(f"{attempt}: the name is taken", hint="choose another name")
    return None


def _newest(dataset: Dataset | None) -> Version | None:
    return next(iter(dataset.snapshots.values()), None) if dataset is not None else None


def _resume_token(dataset: Dataset) -> ResumeToken | None:
    """Give the token of a partial receive; one that cannot be read fits no step."""
    if dataset.token is None:
        return None
    try:
        token = decode_token(dataset.token)
    except StaleTokenError:
        return ResumeToken(value=dataset.token, to_guid="unknown")
    return ResumeToken(
        value=dataset.token,
        to_guid=token.to_guid,
        from_guid=token.from_guid,
        received_bytes=token.received_bytes,
    )


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
