"""How a job reaches an endpoint, and how a host lets itself be reached.

A transport is an ``attrs.define(eq=False)`` class made from its own config class. It
opens an endpoint: an object with the hooks of :class:`~fsrep_core.hookspecs.EndpointSpec`.
Its other end, where it has one that ``fsrep serve`` runs, is a :class:`Listener`, made in
the same way: it accepts connections and proves who they are from. What a client is served,
how many there may be, and how long anything may take is decided by who runs it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fsrep_core.shown import Shown
from fsrep_core.values import Side

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = [
    "Caller",
    "EndpointContext",
    "Expiry",
    "Identified",
    "Listener",
    "StorageChoice",
    "Transport",
]


@attrs.frozen(kw_only=True, repr=False)
class Expiry(Shown):
    """Something that a transport needs and that ends some day, such as a certificate."""

    what: str
    """Names it for the operator: for a certificate, its file."""
    expires_at: float
    """When, in seconds since the epoch."""


@attrs.frozen(kw_only=True, repr=False)
class StorageChoice(Shown):
    """The storage that a side of a job names, for the transport to open."""

    name: str
    options: Mapping[str, Any]
    """As configured, before the storage's class has checked them."""
    create: Callable[[], object]
    """Makes the storage **on this host**.

    :raises PluginError: the plugin is missing or broken
    :raises ConfigError: an option is wrong
    """


@attrs.frozen(kw_only=True, repr=False)
class EndpointContext(Shown):
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
        sockets; also when cancelled. What the body raises comes out as it is. Several
        endpoints may be open at once, and none of them knows of another.

        :raises ConfigError: the options cannot be used, whatever the peer says
        :raises PluginError: the storage's plugin is missing or broken
        """

    def expiries(self) -> Sequence[Expiry]:
        """List what this transport needs and what ends some day; the operator is warned.

        May read files, but not connect.

        :raises ConfigError: it cannot be read
        """
        return ()


@attrs.frozen(kw_only=True, repr=False)
class Identified(Shown):
    """A connection whose client has proved who it is."""

    identity: str
    """Which of the ``[[identity]]`` tables is meant. Never what the client merely says."""
    stream: trio.abc.Stream
    """As with :meth:`fsrep_core.StreamTransport.connect`. Whoever got it closes it."""


class Caller(abc.ABC):
    """Somebody who has connected, and who has not yet proved anything."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """Where the connection comes from, for the log, such as ``192.0.2.7:40312``."""

    @abc.abstractmethod
    async def identify(self) -> Identified:
        """Find out who it is, with whatever must be said both ways for that.

        Called exactly once, soon after the caller was welcomed, under a deadline. When it
        raises or is cancelled, also at its first checkpoint, nothing of the connection is
        left.

        :raises FsrepError: the caller could not prove who it is; for the log
        """


class Listener(abc.ABC):
    """Accepts connections, for ``fsrep serve``."""

    @abc.abstractmethod
    async def serve(
        self,
        welcome: Callable[[Caller], None],
        *,
        task_status: trio.TaskStatus[Sequence[str]],
    ) -> None:
        """Accept connections until cancelled.

        Whatever a connection needs that may take long belongs into :meth:`Caller.identify`:
        here, a slow client would hold up all others. Reports to ``task_status``, once
        connections are accepted, on which addresses. When it is cancelled, it accepts no
        more; callers that were welcomed are not its business.

        :param welcome: takes a caller over, at once; does not block and does not raise
        :raises ConfigError: it cannot listen as configured
        """

    def expiries(self) -> Sequence[Expiry]:
        """See :meth:`Transport.expiries`."""
        return ()
