"""The harness of a storage, and what a law has at hand."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fsrep_core.errors import FsrepError
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.testing.laws import Deviations, Law, LawBroken, bounded
from fsrep_core.testing.tampering import drain
from fsrep_core.values import (
    Capabilities,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    Filesystem,
    InventoryRequest,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    Side,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from fsrep_core.streams import ByteStream
    from fsrep_core.values import ReceiveResponse, VersionResult

__all__ = [
    "MAIN",
    "StorageHarness",
    "StorageMaker",
    "StorageTrial",
]

JOB = "kit"
MAIN = "alpha"
"""The filesystem that most laws speak of."""


class StorageHarness(abc.ABC):
    """Two storages of one kind, both empty, and a way to look at them from outside.

    A law changes what the sender's filesystems hold, makes versions through the hooks,
    and compares their content through :meth:`read`, which must not trust the storage.
    """

    sender: object
    """The endpoint with the live filesystems: an instance with all hooks."""
    receiver: object
    """The endpoint that receives: another root, pool or store than the sender's."""

    @abc.abstractmethod
    async def change(self, filesystem: str, seed: int) -> None:
        """Change what one of the sender's filesystems holds; make it if it is not there.

        Each change adds at least 200,000 bytes that do not compress and that follow from
        ``seed``. After the first change of a filesystem, something of what was there
        should be altered, renamed and deleted too, where the storage can express it.
        """

    @abc.abstractmethod
    async def read(self, side: Side, filesystem: str, version: Version) -> object:
        """Give the content of a snapshot, read without the storage's hooks.

        Anything that has ``==``: the bytes, a digest, or what
        :func:`~fsrep_core.testing.read_tree` gives. It is compared between sides and
        between moments.

        :param version: as that side lists it
        """

    def differences(self, expected: object, found: object) -> list[str]:
        """Say how two contents differ; override it to say more than that they do."""
        return [] if expected == found else ["the contents are not equal"]


StorageMaker: TypeAlias = Callable[[], AbstractAsyncContextManager[StorageHarness]]
"""Gives a fresh harness for as long as its context."""


@attrs.define(eq=False)
class StorageTrial:
    """What a law has at hand: a harness, bound endpoints, and the usual ways to ask."""

    law: str
    harness: StorageHarness
    deviations: Deviations
    sender: Endpoint
    receiver: Endpoint
    capabilities: Capabilities
    _seed: int = attrs.field(init=False, default=0)
    _names: int = attrs.field(init=False, default=0)

    @classmethod
    async def begin(
        cls, law: Law[StorageTrial], harness: StorageHarness, deviations: Deviations
    ) -> StorageTrial:
        """Bind both endpoints, and learn what they can do."""
        sender = Endpoint(harness.sender, name="sender of the kit")
        receiver = Endpoint(harness.receiver, name="receiver of the kit")
        inventory = await receiver.inventory(InventoryRequest(job=JOB))
        return cls(law.name, harness, deviations, sender, receiver, inventory.capabilities)

    # --- failing ---

    def broken(self, message: str) -> LawBroken:
        """Make the error that says this law is broken."""
        return LawBroken(self.law, message)

    def require(self, condition: object, message: str) -> None:
        """Break the law unless the condition holds."""
        if not condition:
            raise self.broken(message)

    def bounded(self, what: str) -> AbstractAsyncContextManager[None]:
        """Break the law where the body takes longer than the deviations allow."""
        return bounded(self.law, what, self.deviations.time_limit_seconds)

    # --- looking ---

    async def look(self, side: Side, filesystem: str = MAIN) -> Filesystem | None:
        """One filesystem as its side lists it; ``None`` = it does not."""
        inventory = await self.endpoint(side).inventory(InventoryRequest(job=JOB))
        return {each.name: each for each in inventory.filesystems}.get(filesystem)

    def endpoint(self, side: Side) -> Endpoint:
        """The bound endpoint of a side."""
        return self.sender if side is Side.SENDER else self.receiver

    async def listed(self, side: Side, version: Version, filesystem: str = MAIN) -> Version | None:
        """The snapshot of the same guid as its side lists it; ``None`` = it does not."""
        found = await self.look(side, filesystem)
        versions = found.versions if found else ()
        return next(
            (each for each in versions if each.guid == version.guid and each.kind is version.kind),
            None,
        )

    async def token(self, filesystem: str = MAIN) -> ResumeToken | None:
        """The resume token that the receiver lists."""
        found = await self.look(Side.RECEIVER, filesystem)
        return found.resume_token if found else None

    async def require_absent(self, version: Version, when: str, filesystem: str = MAIN) -> None:
        """Break the law if the receiver lists a version."""
        self.require(
            await self.listed(Side.RECEIVER, version, filesystem) is None,
            f"{filesystem}{version.relative_name} is listed {when}",
        )

    async def require_equal(self, *versions: Version, filesystem: str = MAIN) -> None:
        """Break the law unless both sides hold the same content under the same guids."""
        for version in versions:
            contents = []
            for side in (Side.SENDER, Side.RECEIVER):
                listed = await self.listed(side, version, filesystem)
                if listed is None:
                    raise self.broken(
                        f"the {side.value} does not list {filesystem}{version.relative_name} "
                        f"(guid {version.guid})"
                    )
                contents.append(await self.harness.read(side, filesystem, listed))
            found = self.harness.differences(*contents)
            self.require(
                not found,
                f"{filesystem}{version.relative_name} is not what was sent: {'; '.join(found)}",
            )

    # --- doing ---

    async def snapshot(self, filesystem: str = MAIN, *, change: bool = True) -> Version:
        """Change a filesystem of the sender and make a version of it."""
        if change:
            self._seed += 1
            await self.harness.change(filesystem, self._seed)
        self._names += 1
        (result,) = await self.create((filesystem,), f"kit-{self._names}")
        if result.version is None:
            raise self.broken(f"create_version failed: {result.problem}")
        return result.version

    async def snapshots(self, count: int) -> list[Version]:
        """Make several, each after a change."""
        return [await self.snapshot() for _ in range(count)]

    async def create(self, filesystems: tuple[str, ...], name: str) -> tuple[VersionResult, ...]:
        """Ask the sender for versions."""
        return await self.sender.create_version(
            CreateVersionRequest(job=JOB, filesystems=filesystems, name=name)
        )

    async def destroy(
        self, side: Side, *versions: Version, filesystem: str = MAIN
    ) -> tuple[VersionResult, ...]:
        """Ask a side to destroy versions."""
        return await self.endpoint(side).destroy_versions(
            DestroyVersionsRequest(job=JOB, filesystem=filesystem, versions=versions)
        )

    async def cursor(
        self, move_to: Version | None = None, *, job: str = JOB, filesystem: str = MAIN
    ) -> Version | None:
        """Get or move the sender's cursor."""
        return await self.sender.replication_cursor(
            CursorRequest(job=job, filesystem=filesystem, move_to=move_to)
        )

    async def replicate(  # noqa: PLR0913  (the fields of the two requests)
        self,
        to_version: Version,
        from_version: Version | None = None,
        *,
        filesystem: str = MAIN,
        intermediates: tuple[Version, ...] = (),
        token: ResumeToken | None = None,
        clear: bool = False,
        rollback: tuple[Version, ...] = (),
        tamper: Callable[[ByteStream], ByteStream] = lambda stream: stream,
    ) -> ReceiveResponse:
        """Send and receive one step, as the driver does it.

        :param tamper: puts another stream between the two
        """
        request = SendRequest(
            job=JOB,
            filesystem=filesystem,
            to_version=to_version,
            from_version=from_version,
            intermediates=intermediates,
            resume_token=token,
        )
        async with (
            self.bounded(f"replicating {filesystem}{to_version.relative_name}"),
            self.sender.send(request) as response,
        ):
            if response.stream is None:
                raise self.broken("send gave no stream")
            return await self.receiver.receive(
                ReceiveRequest(
                    job=JOB,
                    filesystem=filesystem,
                    to_version=to_version,
                    from_version=from_version,
                    intermediates=intermediates,
                    resume_token=token if response.resumed else None,
                    clear_resume_token=clear or (token is not None and not response.resumed),
                    rollback=rollback,
                ),
                tamper(response.stream),
            )
        raise AssertionError  # bounded() has raised

    async def converge(self, to_version: Version, from_version: Version | None = None) -> None:
        """Replicate as the next attempt would, whatever was left, and compare."""
        token = await self.token()
        usable = token is not None and token.to_guid == to_version.guid
        await self.replicate(
            to_version,
            from_version,
            token=token if usable else None,
            clear=token is not None and not usable,
        )
        await self.require_equal(to_version)

    @asynccontextmanager
    async def stream(
        self, to_version: Version, from_version: Version | None = None
    ) -> AsyncIterator[ByteStream]:
        """Open a stream of the sender."""
        request = SendRequest(
            job=JOB, filesystem=MAIN, to_version=to_version, from_version=from_version
        )
        async with self.sender.send(request) as response:
            if response.stream is None:
                raise self.broken("send gave no stream")
            yield response.stream

    async def stream_size(self, to_version: Version, from_version: Version | None = None) -> int:
        """Read a stream to its end and tell how long it was."""
        async with (
            self.bounded("reading a stream"),
            self.stream(to_version, from_version) as stream,
        ):
            return await drain(stream)
        raise AssertionError  # bounded() has raised

    async def begin_stream(self, to_version: Version, from_version: Version) -> None:
        """Open a stream, read a little, and leave it."""
        async with (
            self.bounded("opening a stream"),
            self.stream(to_version, from_version) as stream,
        ):
            await stream.receive_some(1)

    async def expect_error(
        self, what: str, call: Callable[[], Awaitable[object]], *kinds: type[FsrepError]
    ) -> FsrepError:
        """Break the law unless a call raises one of these errors, with a message."""
        try:
            await call()
        except kinds as error:
            self.require(error.message.strip(), f"{what}: the error has no message")
            return error
        except FsrepError as error:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise self.broken(
                f"{what}: {type(error).__name__} ({error}) was raised instead of {names}"
            ) from error
        names = " or ".join(kind.__name__ for kind in kinds)
        raise self.broken(f"{what}: it succeeded; {names} was due")
