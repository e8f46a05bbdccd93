"""One command for what several tasks ask for at once.

A ``zfs`` process costs more than what it does: ten holds in one command cost little more
than one. Steps of several filesystems run side by side, so while one command runs, what
others ask for gathers and is done by the next. Nobody waits for a timer, and a step that
is alone waits for nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs
import trio

from fsrep_core import FsrepError

__all__ = ["Batch", "chunks"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ARGUMENTS_LIMIT_BYTES = 96 << 10
"""How long the arguments of one command may be; the kernel allows each 128 KiB, and all
together a quarter of the stack's limit (``execve(2)``)."""


@attrs.define(eq=False)
class _Ticket(Generic[ItemT, ResultT]):
    item: ItemT
    done: bool = False
    result: list[ResultT] = attrs.field(factory=list)
    """The one result, where there is no error."""
    error: FsrepError | None = None


@attrs.define(eq=False)
class Batch(Generic[ItemT, ResultT]):
    """Gathers items, and works on all that have gathered.

    Work must be repeatable: when the task that does it for others is cancelled, one of
    them does it again.
    """

    work: Callable[[Sequence[ItemT]], Awaitable[Mapping[ItemT, ResultT | FsrepError]]]
    """Gives the result, or the error, of each item."""
    _waiting: list[_Ticket[ItemT, ResultT]] = attrs.field(init=False, factory=list)
    _lock: trio.Lock = attrs.field(init=False, factory=trio.Lock)

    async def submit(self, item: ItemT) -> ResultT:
        """Have an item worked on, together with those of other tasks; give its result.

        :raises FsrepError: the item's error, or that of the work as a whole
        """
        ticket: _Ticket[ItemT, ResultT] = _Ticket(item)
        self._waiting.append(ticket)
        try:
            async with self._lock:
                if not ticket.done:
                    await self._work()
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result[0]

    async def _work(self) -> None:
        tickets = list(self._waiting)
        try:
            results = await self.work([each.item for each in tickets])
        except FsrepError as error:
            for ticket in tickets:
                ticket.done, ticket.error = True, copy.copy(error)
        else:
            for ticket in tickets:
                result = results[ticket.item]
                ticket.done = True
                if isinstance(result, FsrepError):
                    ticket.error = result
                else:
                    ticket.result.append(result)
        for ticket in tickets:
            if ticket in self._waiting:
                self._waiting.remove(ticket)


def chunks(groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """Divide arguments among as few commands as their length allows; a group stays together."""
    divided: list[list[str]] = []
    room_bytes = 0
    for group in groups:
        size_bytes = sum(len(each.encode(errors="surrogateescape")) + 1 for each in group)
        if size_bytes > room_bytes or not divided:
            divided.append([])
            room_bytes = ARGUMENTS_LIMIT_BYTES
        divided[-1] += group
        room_bytes -= size_bytes
    return divided
