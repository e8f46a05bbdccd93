"""The transport ``local-pipe``: the storage is on this host, in this process.

There is nothing to connect: the endpoint is the storage itself. Where a storage's
stream is the output of a process, its bytes stay in kernel pipes all the way to the
process that takes them; where it is made in Python, a pipe would only add two copies
and is not put between.

The one option is how large those pipes are. Larger means fewer wake-ups, smaller means
that the bytes are still in the processor's cache when they are read, and that more
pipes fit into what the kernel grants an unprivileged user (``pipe(7)``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs

from fsrep_core import ConfigError, Transport, hookimpl, parse_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core import (
        ByteStream,
        EndpointContext,
        EndpointSpec,
        ReceiveRequest,
        ReceiveResponse,
        Registry,
        SendRequest,
        SendResponse,
    )

__all__ = ["LocalPipe", "LocalPipeConfig", "plugin"]


@attrs.frozen(kw_only=True)
class LocalPipeConfig:
    """The options of ``local-pipe``."""

    pipe_size_bytes: int | None = attrs.field(
        default=None,
        alias="pipe_size",
        validator=attrs.validators.optional(attrs.validators.ge(4096)),
        metadata={"parse": parse_size},
    )
    """How large the pipes between processes are, such as ``"256 KiB"``; the kernel rounds
    up to a power of two. Default: the largest that an unprivileged user may have."""


@attrs.define(eq=False)
class LocalPipe(Transport):
    """Opens a storage in this process."""

    config: LocalPipeConfig

    @asynccontextmanager
    async def open_endpoint(self, context: EndpointContext) -> AsyncIterator[object]:
        """Make the storage; it is the endpoint.

        :raises ConfigError: the kernel refuses pipes of the size that the job wants
        """
        storage = context.storage.create()
        if self.config.pipe_size_bytes is None:
            yield storage
        else:
            check_pipe_size(self.config.pipe_size_bytes)
            yield SizedPipes(cast("EndpointSpec", storage), self.config.pipe_size_bytes)


class SizedPipes:
    """A storage whose streams move through pipes of a given size. All else is its own."""

    def __init__(self, storage: EndpointSpec, pipe_size_bytes: int) -> None:
        self._storage = storage
        self._pipe_size_bytes = pipe_size_bytes

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def __dir__(self) -> list[str]:
        # Hooks are found by listing.
        return [*super().__dir__(), *dir(self._storage)]

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Send as the storage does, through a pipe of this size."""
        async with self._storage.send(request) as response:
            self._resize(response.stream)
            yield response

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Receive as the storage does; a process it feeds gets a pipe of the same size."""
        self._resize(stream)
        return await self._storage.receive(request, stream)

    def _resize(self, stream: ByteStream | None) -> None:
        descriptor = None if stream is None else stream.descriptor
        if descriptor is not None:
            # It is no pipe, or holds more than that now, or all pipes of this user
            # together are too large: the stream is as whole through another size.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, self._pipe_size_bytes)


def check_pipe_size(size_bytes: int) -> None:
    """Refuse a size that no pipe of this user can have."""
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, size_bytes)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"local-pipe cannot make pipes of {size_bytes} bytes: {error}",
            hint="lower pipe_size; the limits are in /proc/sys/fs/pipe-max-size and "
            "pipe-user-pages-soft, see pipe(7)",
        ) from error
    finally:
        for end in ends:
            os.close(end)


class LocalPipePlugin:
    """Adds the transport."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """See :meth:`fsrep_core.PluginSpec.register`."""
        registry.add_transport(
            "local-pipe",
            LocalPipe,
            config_class=LocalPipeConfig,
            summary="The storage is on this host; bytes move through kernel pipes.",
        )


plugin = LocalPipePlugin()
