"""The transport ``local-pipe``: the storage is on this host, in this process.

There is nothing to connect: the endpoint is the storage itself. Where its stream is the
output of a process, the bytes stay in kernel pipes all the way to the process that takes
them. Where it is made in Python, it is given as it is: a pipe between two tasks of one
process would add two copies and carry nothing further.

There are no options. The size of the pipes is the only thing to choose, and of 128 KiB to
1 MiB, the largest that the kernel usually allows, larger was faster each time.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from fsrep_core import Transport, hookimpl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core import EndpointContext, Registry

__all__ = ["LocalPipe", "LocalPipeConfig", "plugin"]


@attrs.frozen(kw_only=True)
class LocalPipeConfig:
    """The options of ``local-pipe``: none."""


@attrs.define(eq=False)
class LocalPipe(Transport):
    """Opens a storage in this process."""

    config: LocalPipeConfig

    @asynccontextmanager
    async def open_endpoint(self, context: EndpointContext) -> AsyncIterator[object]:
        """Make the storage; it is the endpoint. See :meth:`fsrep_core.Transport.open_endpoint`."""
        yield context.storage.create()


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
