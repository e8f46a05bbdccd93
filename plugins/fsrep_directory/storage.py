"""Answers the hooks of an endpoint for directory trees under one root.

What reads or writes a tree is done by the engine in a child process. What only looks at
the store, compares two manifests or moves a cursor is done in a thread: it takes less than
the start of a process, or may be left to itself. What only moves bytes is imported when
some move: a run that finds nothing to do is over before.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

import fsrep_core
from fsrep_core import (
    ByteStream,
    Capabilities,
    ConfigError,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    Filesystem,
    InterruptedStreamError,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    ResumeToken,
    SendRequest,
    SendResponse,
    SizeEstimate,
    Version,
    VersionKind,
    VersionResult,
    hookimpl,
)
from fsrep_directory.engine.cursor import move_cursor, read_cursor
from fsrep_directory.engine.failures import Failure, from_os_error
from fsrep_directory.engine.inventory import inventory
from fsrep_directory.engine.store import Root, StoredVersion
from fsrep_directory.engine.tar_format import FORMAT
from fsrep_directory.launch import engine_command, error_of, explain, problem_of
from fsrep_directory.vouching import VouchedStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fsrep_core import ProcessOutput

__all__ = ["DirectoryConfig", "DirectoryStorage"]

_T = TypeVar("_T")

CAPABILITIES = Capabilities(
    stream_formats=frozenset({FORMAT}),
    resumable=True,
    estimates=True,
    bookmarks=True,
)


def _check_root(_: object, __: object, value: str) -> None:
    if not Path(value).is_absolute():
        raise ConfigError(
            f"root = {value!r} is not an absolute path",
            hint="write the path from the first slash on",
        )


@attrs.frozen(kw_only=True)
class DirectoryConfig:
    """The options of the directory storage."""

    root: str = attrs.field(converter=os.path.normpath, validator=_check_root)
    """The directory that holds the filesystems; their versions are kept in its ``.fsrep``."""
    create_root: bool = False
    """Make the root when something is received and it does not exist. Leave it off where
    the root is a mount point: what is not mounted must not be filled."""


@attrs.define(eq=False)
class DirectoryStorage:
    """An endpoint for the directory trees under one root."""

    config: DirectoryConfig

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List what the store has, without looking at any tree."""
        config = self.config
        listed = await self._in_thread(
            lambda: inventory(
                config.root, request.job, request.patterns, may_lack=config.create_root
            )
        )
        return Inventory(
            capabilities=CAPABILITIES,
            filesystems=tuple(
                Filesystem(
                    name=each.name,
                    versions=tuple(_version(version) for version in each.versions),
                    cursor=_version(each.cursor) if each.cursor else None,
                    resume_token=_token(each.token) if each.token else None,
                    attributes={"type": "directory"},
                    problem=problem_of(each.failure.facts()) if each.failure else None,
                )
                for each in listed
            ),
        )

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Add up what the two manifests say: the answer is exact."""
        from fsrep_directory.engine.send import estimate

        # It changes nothing, so a thread that is left to itself does no harm.
        facts = self._send_request(request)
        size_bytes = await self._in_thread(lambda: estimate(facts), abandon_on_cancel=True)
        return SizeEstimate(size_bytes=size_bytes)

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Let the engine write the stream."""
        facts = self._send_request(request)
        with ExitStack() as stack:
            # Held here, not only by the engine, which takes a moment to start.
            resumed = await self._in_thread(lambda: _hold_versions(facts, stack))
            if not resumed:
                facts["token"] = None
            argv = engine_command("send", json.dumps(facts))
            async with fsrep_core.open_process_stream(argv, explain=explain) as stream:
                yield SendResponse(stream=stream, resumed=resumed)

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Let the engine read the stream and commit it."""
        there = await self._in_thread(
            lambda: _find_received(self.config.root, request.filesystem, request.to_version.guid)
        )
        if there is not None:
            return ReceiveResponse(version=_version(there))
        await self._in_thread(self._need_root)
        facts = {
            "root": self.config.root,
            "filesystem": request.filesystem,
            "name": request.to_version.name,
            "to_guid": request.to_version.guid,
            "from_guid": request.from_version.guid if request.from_version else None,
            "token": request.resume_token.value if request.resume_token else None,
            "clear": request.clear_resume_token,
            "rollback": [each.guid for each in request.rollback],
        }
        output = await self._feed(facts, stream)
        answer = json.loads(output.stdout)
        return ReceiveResponse(
            version=_version(StoredVersion(**answer["version"])),
            warnings=tuple(answer["warnings"]),
        )

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Read the job's bookmark, or make a newer one and then remove the old one."""
        facts = {
            "root": self.config.root,
            "filesystem": request.filesystem,
            "job": request.job,
        }
        if request.move_to is None:
            cursor = await self._in_thread(lambda: read_cursor(facts))
        else:
            facts["guid"] = request.move_to.guid
            cursor = await self._in_thread(lambda: move_cursor(facts))
        return _version(cursor) if cursor else None

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Let the engine walk each live tree."""
        answer = await self._ask(
            "create",
            {
                "root": self.config.root,
                "filesystems": request.filesystems,
                "name": request.name,
            },
        )
        return tuple(
            VersionResult(
                filesystem=filesystem,
                name=request.name,
                version=_version(StoredVersion(**result["version"]))
                if "version" in result
                else None,
                problem=problem_of(result["failure"]) if "failure" in result else None,
                warnings=tuple(result.get("warnings", ())),
            )
            for filesystem, result in zip(request.filesystems, answer["results"], strict=True)
        )

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Let the engine take each version away, matched by kind and guid."""
        versions = [{"kind": each.kind.value, "guid": each.guid} for each in request.versions]
        answer = await self._ask(
            "destroy",
            {
                "root": self.config.root,
                "filesystem": request.filesystem,
                "versions": versions,
            },
        )
        return tuple(
            VersionResult(
                filesystem=request.filesystem,
                name=version.name,
                version=None if "failure" in result else version,
                problem=problem_of(result["failure"]) if "failure" in result else None,
            )
            for version, result in zip(request.versions, answer["results"], strict=True)
        )

    async def _feed(self, facts: dict[str, Any], stream: ByteStream) -> ProcessOutput:
        # An argument could not hold every list of versions; a file in memory can.
        with (
            os.fdopen(os.memfd_create("fsrep-request"), "w+b") as file,
            VouchedStream(stream) as vouched,
        ):
            file.write(json.dumps(facts).encode())
            file.seek(0)
            descriptors = (file.fileno(), vouched.voucher)
            argv = engine_command("receive", *(str(each) for each in descriptors))
            try:
                return await fsrep_core.feed_process(
                    argv, vouched, explain=explain, pass_fds=descriptors
                )
            except InterruptedStreamError:
                # The engine noticed the end; the stream knows why it came.
                if vouched.error is not None:
                    raise vouched.error from None
                raise

    def _send_request(self, request: SendRequest) -> dict[str, Any]:
        return {
            "root": self.config.root,
            "filesystem": request.filesystem,
            "to_guid": request.to_version.guid,
            "from_guid": request.from_version.guid if request.from_version else None,
            "token": request.resume_token.value if request.resume_token else None,
        }

    def _need_root(self) -> None:
        if self.config.create_root:
            Path(self.config.root).mkdir(parents=True, exist_ok=True)
        elif not Path(self.config.root).is_dir():
            raise Failure(
                "storage",
                f"the root {self.config.root!r} is no directory",
                hint="create it, mount what should be there, or set create_root = true",
                local=False,
            )

    async def _ask(self, command: str, request: dict[str, Any]) -> dict[str, Any]:
        output = await fsrep_core.run_process(
            engine_command(command), explain=explain, stdin=json.dumps(request).encode()
        )
        answer: dict[str, Any] = json.loads(output.stdout)
        return answer

    async def _in_thread(
        self, function: Callable[[], _T], *, abandon_on_cancel: bool = False
    ) -> _T:
        try:
            return await trio.to_thread.run_sync(function, abandon_on_cancel=abandon_on_cancel)
        except Failure as failure:
            raise error_of(failure.facts()) from None
        except OSError as error:
            attempted = f"reading the store of {self.config.root!r} failed"
            raise error_of(from_os_error(error, attempted).facts()) from error


def _hold_versions(facts: dict[str, Any], stack: ExitStack) -> bool:
    """Keep the versions of a send from being destroyed.

    :returns: whether the sender can go on from the request's token
    """
    from fsrep_directory.engine.send import resume_offset, send_ends

    root = Root(facts["root"])
    root.exists()
    store = root.filesystem(facts["filesystem"])
    base, version = send_ends(store, facts)
    for each in (base, version):
        if each is not None:
            stack.enter_context(store.in_use(each))
    return resume_offset(facts, base, version) > 0


def _find_received(root_path: str, filesystem: str, guid: str) -> StoredVersion | None:
    root = Root(root_path)
    store = root.filesystem(filesystem)
    return store.find(guid, kind="snapshot") if root.exists() else None


def _version(stored: StoredVersion) -> Version:
    return Version(
        kind=VersionKind(stored.kind),
        name=stored.name,
        guid=stored.guid,
        order=stored.order,
        created=stored.created,
    )


def _token(facts: dict[str, Any]) -> ResumeToken:
    return ResumeToken(
        value=facts["value"],
        to_guid=facts["to"],
        from_guid=facts["from"],
        received_bytes=facts["offset"],
    )
