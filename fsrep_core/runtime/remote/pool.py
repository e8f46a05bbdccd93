"""The connections of one client: opened when needed, used again and again, ended politely.

A stream has a connection of its own for as long as it lasts. Calls take turns: a call
uses any connection that is free, and opens one only while there is none but those that
streams hold. So a job starts at most one connection more than it has steps at once.

Each connection has one task here that opens it, sends its heartbeats, listens while
nobody uses it, and closes it. A connection that ends while it is idle leaves the pool
unnoticed; one whose dialogue did not end properly is closed and never used again.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import FsrepError
from fsrep_core.runtime.remote.link import Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Pool", "Use"]


class Use(enum.Enum):
    """What a connection is wanted for."""

    CALL = "call"
    STREAM = "stream"


@attrs.define(eq=False)
class _Member:
    """One connection of the pool."""

    link: Link
    done: trio.Event = attrs.field(init=False, factory=trio.Event)
    """It will not be used again: its task closes it."""
    _listening: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _quiet: trio.Event = attrs.field(init=False, factory=trio.Event)

    def rest(self) -> None:
        """Become idle: :meth:`listen` follows."""
        self._listening, self._quiet = trio.CancelScope(), trio.Event()

    async def listen(self) -> bool:
        """Listen while nobody else does; tell whether the connection has ended."""
        ended = False
        with self._listening:
            try:
                await self.link.hear()
            except FsrepError:
                pass  # it is noted with the link
            else:
                self.link.failure = self.link.lost("the peer ended the connection")
            ended = True
        self._quiet.set()
        return ended

    async def claim(self) -> None:
        """Stop listening, so that somebody else can."""
        self._listening.cancel()
        with trio.CancelScope(shield=True):
            await self._quiet.wait()


@attrs.define(eq=False)
class _Waiter:
    """Somebody who wants a connection."""

    use: Use
    granted: trio.Event = attrs.field(init=False, factory=trio.Event)
    member: _Member | None = attrs.field(init=False, default=None)
    """The connection; ``None`` when granted = go and open one."""


@attrs.define(eq=False)
class Pool:
    """Connections to one peer.

    :param open_link: connects and greets
    :param nursery: where the tasks of the connections run; cancelling it closes them
    :param limit: the most connections at once
    """

    open_link: Callable[[], Awaitable[Link]]
    nursery: trio.Nursery
    limit: int
    _open: int = attrs.field(init=False, default=0)
    """How many there are, with those that are being opened."""
    _streams: int = attrs.field(init=False, default=0)
    """How many of them streams have."""
    _idle: list[_Member] = attrs.field(init=False, factory=list)
    _waiters: deque[_Waiter] = attrs.field(init=False, factory=deque)

    @asynccontextmanager
    async def lease(self, use: Use) -> AsyncIterator[Link]:
        """Give a connection to one user.

        On leaving it goes back if another dialogue can begin on it; otherwise it is closed.

        :raises FsrepError: there is none free and a new one cannot be opened
        """
        member = await self._take(use)
        try:
            yield member.link
        finally:
            self._streams -= use is Use.STREAM
            if member.link.reusable:
                member.rest()
                self._idle.append(member)
                self.nursery.start_soon(self._listen, member)
            else:
                member.done.set()
            self._grant()

    async def part(self) -> None:
        """Say goodbye on the connections that are idle, in bounded time."""
        idle, self._idle = self._idle, []
        async with trio.open_nursery() as nursery:
            for member in idle:
                nursery.start_soon(self._part, member)

    async def _part(self, member: _Member) -> None:
        await member.claim()
        await member.link.part()
        member.done.set()

    async def _take(self, use: Use) -> _Member:
        while True:
            waiter = _Waiter(use)
            self._waiters.append(waiter)
            self._grant()
            if not waiter.granted.is_set():
                try:
                    await waiter.granted.wait()
                except trio.Cancelled:
                    self._withdraw(waiter)
                    raise
            if waiter.member is None:
                return await self._open_one(use)
            await waiter.member.claim()
            if waiter.member.link.reusable:
                return waiter.member
            # It ended at this very moment; there may be another.
            self._streams -= use is Use.STREAM

    def _grant(self) -> None:
        """Let those go on who can, in the order in which they came."""
        for waiter in list(self._waiters):
            if self._idle:
                waiter.member = self._idle.pop()
            elif self._may_open(waiter.use):
                self._open += 1
            else:
                continue
            self._streams += waiter.use is Use.STREAM
            self._waiters.remove(waiter)
            waiter.granted.set()

    def _withdraw(self, waiter: _Waiter) -> None:
        """Let somebody go who was cancelled, perhaps just before something was granted."""
        if not waiter.granted.is_set():
            self._waiters.remove(waiter)
            return
        self._streams -= waiter.use is Use.STREAM
        if waiter.member is None:
            self._open -= 1
        elif waiter.member.link.reusable:
            self._idle.append(waiter.member)
        self._grant()

    def _may_open(self, use: Use) -> bool:
        of_calls = self._open - self._streams
        return self._open < self.limit and (use is Use.STREAM or of_calls == 0)

    async def _open_one(self, use: Use) -> _Member:
        try:
            member: _Member = await self.nursery.start(self._attend)
        except BaseException:
            self._streams -= use is Use.STREAM
            self._grant()
            raise
        return member

    async def _attend(self, task_status: trio.TaskStatus[_Member]) -> None:
        """Open a connection, keep it alive, close it: its only owner, and counted by it alone.

        Whoever asked for it may be cancelled before or after it is open.
        """
        try:
            link = await self.open_link()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_beat, link)
                    member = _Member(link)
                    task_status.started(member)
                    await member.done.wait()
                    nursery.cancel_scope.cancel()
            finally:
                await link.close()
        finally:
            self._open -= 1
            self._grant()

    async def _listen(self, member: _Member) -> None:
        if await member.listen():
            if member in self._idle:
                self._idle.remove(member)
            member.done.set()


async def _beat(link: Link) -> None:
    # Whoever uses the link, or listens to it, notices as well that it has ended.
    with suppress(FsrepError):
        await link.beat()
