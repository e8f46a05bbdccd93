"""The contract of an endpoint, hook by hook, and the hooks of plugins and observers.

A **storage** implements the endpoint hooks for filesystems on this host. A
**transport** carries them to a storage elsewhere, so that every transport works with
every storage. Each side of a job is one instance of one class with these methods,
marked with :data:`hookimpl`.

All endpoint hooks may be called from several tasks at once, for different filesystems;
for one filesystem the driver makes one call at a time, except that ``size_estimate``
may run beside anything. Every hook may be cancelled at any moment; what that leaves
behind is said with each. Errors are :class:`~fsrep_core.FsrepError`; whoever raises
decides ``temporary`` and ``local``. An endpoint raises :class:`~fsrep_core.ConnectivityError`
when the way to it is cut, whatever the hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from fsrep_core.events import Event
    from fsrep_core.runtime.registry import Registry
    from fsrep_core.streams import ByteStream
    from fsrep_core.values import (
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        Inventory,
        InventoryRequest,
        ReceiveRequest,
        ReceiveResponse,
        SendRequest,
        SendResponse,
        SizeEstimate,
        Version,
        VersionResult,
    )

__all__ = ["EndpointSpec", "ObserverSpec", "PluginSpec", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("fsrep")
hookimpl = pluggy.HookimplMarker("fsrep")
"""Marks a method as the implementation of the hook of the same name."""


class EndpointSpec:
    """What answers for one side of a job. Every hook here is required."""

    @hookspec(firstresult=True)
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """List all filesystems in scope with versions, cursor and resume tokens.

        In as few processes or round trips as the storage allows: a run with nothing to
        do calls nothing else. Versions that are not complete are never listed. An empty
        storage is an empty inventory. A root that does not exist is an error on either
        side, unless the operator let the storage make it: it usually means a disk that
        is not mounted.

        A filesystem in scope that cannot be read is never left out, because a plan
        without it would lie: it is listed with its ``problem``, and the others go on.

        :raises FsrepError: the storage cannot be listed at all

        Changes nothing. Cancelling it leaves nothing behind.
        """

    @hookspec(firstresult=True)
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Say how many bytes ``send`` would give for this request, without sending.

        An unknown size is an answer (``size_bytes=None``). Changes nothing.

        :raises VersionMissingError: a version of the request is gone
        :raises FsrepError: concerns this filesystem only, unless it says otherwise
        """

    @hookspec(firstresult=True)
    def send(self, request: SendRequest) -> AbstractAsyncContextManager[SendResponse]:
        """Open the stream of one step.

        Leaving the context ends whatever makes the stream and waits until it is gone:
        in every case, also when cancelled, also when the stream was not read to its
        end. After that no process, descriptor or task of it is left. The same request
        gives the same content again.

        A response without a stream is a defect of the endpoint and reported as such.
        ``resumed`` tells whether the request's token was used.

        :raises VersionMissingError: a version of the request is gone
        :raises StaleTokenError: the token means something else than the request, or cannot
            be gone on from; unless that is temporary, the job's ``stale_token`` decides
        :raises FsrepError: from entering the context or from the stream
        """

    @hookspec(firstresult=True)
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Consume a stream and commit the version that it carries.

        Returns only once the version with the guid of ``request.to_version`` exists,
        durably, and is listed by ``inventory``. In every other outcome, an error or
        cancellation or the end of the process, nothing but a resumable partial is left,
        which is never listed as a version.

        ``await stream.finish()`` stands between the last byte and the commit. An early
        error is raised at once, without draining the stream. Only versions named in
        ``request.rollback`` may be destroyed. If the version exists already, the call
        succeeds without changing anything.

        :raises ConflictError: the receiver's state forbids the step
        :raises BusyError: another receive works on this filesystem
        :raises OutOfSpaceError: no room; the partial is kept where it can be resumed
        :raises InterruptedStreamError: the stream ended before its maker vouched for it
        """

    @hookspec(firstresult=True)
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Get the cursor of a job on one filesystem, or move it forward.

        The cursor is the sender's mark of the last version that the receiver confirmed.
        Moving makes the new mark before it removes the old one, so that there is a
        valid cursor at every moment; repeating a move changes nothing. It never moves
        back: a cursor newer than ``move_to`` stays, and is what is returned. A cursor
        that is missing is ``None``, not an error. The mark survives the snapshot.

        :returns: the cursor after the call, with the guid of the version it marks
        :raises VersionMissingError: ``move_to`` does not exist any more
        """

    @hookspec(firstresult=True)
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Make a snapshot of each filesystem, of one instant where the storage can.

        One result for each filesystem, in the order of the request; what fails for one
        stands in its result and does not stop the others.

        :raises FsrepError: nothing could be done for any
        """

    @hookspec(firstresult=True)
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Destroy exactly the versions named, in as few calls as the storage allows.

        One result for each version, in the order of the request. A version that is gone
        already counts as destroyed. A version in use is kept, with a busy problem.
        Versions are matched by guid: a new one of the same name is not touched.
        """


class PluginSpec:
    """What a distribution offers through the entry-point group ``fsrep``."""

    @hookspec
    def register(self, registry: Registry) -> None:
        """Add named storages and transports to ``registry``; do nothing else.

        Called once per process. An error here disables the plugin by name, and only
        jobs that select it are affected.
        """


class ObserverSpec:
    """What may listen to a run."""

    @hookspec
    def observe(self, event: Event) -> None:
        """Hear one event (:data:`fsrep_core.Event`). Must not block and must not raise.

        An exception is logged and the observer is not called again.
        """
