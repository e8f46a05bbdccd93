"""How a job reaches an endpoint: the base of every transport.

A transport is an ``attrs.define(eq=False)`` class made from its own config class. It
opens an endpoint: an object with the hooks of :class:`~fsrep_core.hookspecs.EndpointSpec`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.values import Side

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["EndpointContext", "StorageChoice", "Transport"]


@attrs.frozen(kw_only=True)
class StorageChoice:
    """The storage that a side of a job names, for the transport to open."""

    name: str
    options: Mapping[str, Any]
    """As configured, before the storage's class has checked them."""
    create: Callable[[], object]
    """Makes the storage **on this host**.

    :raises PluginError: the plugin is missing or broken
    :raises ConfigError: an option is wrong
    """


@attrs.frozen(kw_only=True)
class EndpointContext:
    """What a transport knows of the side that it opens."""

    job: str
    side: Side
    storage: StorageChoice


class Transport(abc.ABC):
    """Opens one side of a job."""

    @abc.abstractmethod
    def open_endpoint(self, context: EndpointContext) -> AbstractAsyncContextManager[object]:
        """Give the endpoint of one side for as long as a run needs it.

        Entering connects, or decides to connect on first use. Leaving ends everything
        that the transport started: tasks, processes, descriptors, sockets; also when
        cancelled. A connection that is lost in between is opened again by the next
        call, so that the driver only has to plan again.

        :raises ConnectivityError: the endpoint cannot be reached
        """
