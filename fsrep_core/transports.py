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

        Entering only prepares: the first call of a hook connects, and a call after a
        lost connection connects again. So a peer that cannot be reached is met by the
        driver, which tries again, and never ends a job before it has begun. Leaving
        ends everything that the transport started: tasks, processes, descriptors,
        sockets; also when cancelled.

        :raises ConfigError: the options cannot be used, whatever the peer says
        :raises PluginError: the storage's plugin is missing or broken
        """
