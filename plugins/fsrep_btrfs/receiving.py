"""Receives one version: into a private place, checked there, then renamed into its own.

At every moment, and so after every crash, the version is either not there at all or
there whole: what arrives is published only if it is read-only and has exactly the
identity that was promised, both programs ended well, and all of it is on the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from fsrep_btrfs.files import translated
from fsrep_btrfs.finder import Finder, View
from fsrep_btrfs.layout import SNAPSHOT, Found, check_filesystem, check_version_name
from fsrep_btrfs.listing import Subvolume, relative_to
from fsrep_btrfs.staging import Staging, name_received, prepare, publish, staging_directories
from fsrep_btrfs.writeback import written_back
from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    ConflictError,
    FsrepError,
    InterruptedStreamError,
    InvalidRequestError,
    StorageError,
    Version,
    VersionKind,
    VersionMissingError,
)

if TYPE_CHECKING:
    from fsrep_core import ByteStream, ReceiveRequest

__all__ = ["Receiver", "check_complete"]

CLEANUP_SECONDS = 30.0
"""How long deleting a partial receive may take after a cancellation."""

Destroy: TypeAlias = Callable[[str, Sequence[Version]], Awaitable[Mapping[str, FsrepError | None]]]

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Receiver:
    """Receives versions for one storage."""

    area: Path
    """Where versions are put."""
    directory: Path
    """Where the staging directories are."""
    finder: Finder
    destroy: Destroy
    """Destroys versions of a filesystem and tells the problem of each, by identity."""
    _swept: bool = attrs.field(init=False, default=False)

    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> Version:
        """Consume a stream and give the version that it became.

        :raises FsrepError: as the hook ``receive``
        """
        attempt = f"receiving {request.filesystem}{request.to_version.relative_name}"
        check_filesystem(request.filesystem)
        check_version_name(request.to_version.name)
        if request.intermediates or request.resume_token is not None:
            raise InvalidRequestError(
                f"{attempt}: one btrfs stream carries one whole snapshot, from its start"
            )
        present = await self._find_present(request)
        if present is not None:
            return present
        if request.from_version is not None:
            await self.finder.find_base(attempt, request.from_version)
        view = await self.finder.known()
        _check_free(attempt, view, request)
        with translated(attempt):
            await self._sweep()
            with Staging.of(self.directory, request.filesystem) as staging:
                await self._clear(staging)
                await self._check_base(attempt, request)
                try:
                    subvolume = await self._receive(attempt, request, stream, staging)
                finally:
                    with trio.move_on_after(CLEANUP_SECONDS, shield=True):
                        await self._clear_if_possible(staging)
        received = _found(view, request, subvolume)
        self.finder.remember(received)
        return received.version

    async def _find_present(self, request: ReceiveRequest) -> Version | None:
        """Give the version if it exists already; believe that only after a fresh look."""
        wanted = (request.filesystem, request.to_version.guid)
        if (await self.finder.known()).arrangement.find(*wanted) is None:
            return None
        found = (await self.finder.look()).arrangement.find(*wanted)
        return found.version if found is not None else None

    async def _check_base(self, attempt: str, request: ReceiveRequest) -> None:
        """Refuse while something else has the identity of the base and is not proven whole.

        ``btrfs receive`` finds the base by its received UUID, anywhere on the file system,
        and takes the oldest that it finds. That must not be what another storage's receive
        has not published yet: after a crash it may be empty.
        """
        base = request.from_version
        if base is None or base.guid not in (await self.finder.known()).arrangement.unready:
            return
        unready = (await self.finder.look()).arrangement.unready.get(base.guid)
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
        tool = self.finder.tool
        await written_back(
            wrapper, partial(tool.receive, attempt, stream, str(wrapper), lock=staging.lock)
        )
        received = name_received(wrapper)
        await trio.to_thread.run_sync(prepare, wrapper, request.filesystem)
        subvolume = await tool.show(str(received))
        check_complete(attempt, request, subvolume)
        if request.rollback:
            await self._roll_back(attempt, request)
        target = self.area / request.filesystem / f"@{request.to_version.name}"
        await trio.to_thread.run_sync(publish, wrapper, target)
        return subvolume

    async def _roll_back(self, attempt: str, request: ReceiveRequest) -> None:
        """Destroy what the policy gives up: last, so that a failed receive destroys nothing."""
        problems = await self.destroy(request.filesystem, request.rollback)
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
        for directory in staging_directories(self.directory):
            with Staging.at(directory) as staging:
                if staging is not None:
                    await self._clear_if_possible(staging)

    async def _clear(self, staging: Staging) -> None:
        """Delete everything in a staging directory; the lock says that it is dead."""
        for wrapper in staging.wrappers():
            partials = [str(path) for path in wrapper.iterdir()]
            if partials:
                await self.finder.tool.delete(partials, commit=False)
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


def _check_free(attempt: str, view: View, request: ReceiveRequest) -> None:
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


def _found(view: View, request: ReceiveRequest, subvolume: Subvolume) -> Found:
    """Describe what was received as the next listing will."""
    name = request.to_version.name
    return Found(
        filesystem=request.filesystem,
        version=Version(
            kind=VersionKind.SNAPSHOT,
            name=name,
            guid=request.to_version.guid,
            order=subvolume.created_generation,
            created=subvolume.created if subvolume.parent_uuid is not None else None,
        ),
        subvolume=attrs.evolve(
            subvolume, path=f"{view.places.wrapper(request.filesystem, name)}/{SNAPSHOT}"
        ),
        proven=True,
    )
