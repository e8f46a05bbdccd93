"""Whose step is next: the oldest first, and nothing before what it needs is there.

A child needs its parent, a clone the snapshot that it was made from. One queue serves one
attempt. A filesystem is in exactly one place: ready, taken by a worker, or waiting; when it
leaves the queue, it leaves for good. Taking and returning cost O(log n).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import attrs

from fsrep_core.machines.replication import Replication
from fsrep_core.values import Awaited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


__all__ = ["WorkQueue"]


@attrs.define(eq=False, repr=False)
class WorkQueue:
    """The replications of one attempt that still have something to do."""

    _ready: list[tuple[float, str, Replication]] = attrs.field(init=False, factory=list)
    _taken: dict[str, Replication] = attrs.field(init=False, factory=dict)
    _waiting: dict[str, set[Awaited]] = attrs.field(init=False, factory=dict)
    """What each that waits is still without; never empty."""
    _waiters: dict[str, list[tuple[Awaited, Replication]]] = attrs.field(init=False, factory=dict)
    """By the filesystem that they wait for. Some may have left the queue since."""

    @classmethod
    def of(cls, replications: Iterable[Replication]) -> tuple[WorkQueue, tuple[Replication, ...]]:
        """Make the queue of all that can be retried.

        :returns: the queue, and the replications that wait for what is not in it and so will
            never come to exist in this attempt; each after what it waits for
        """
        queue = cls()
        work = {each.filesystem: each for each in replications if each.can_retry}
        for replication in work.values():
            if not replication.waits_for:
                queue._push(replication)
                continue
            queue._waiting[replication.filesystem] = set(replication.waits_for)
            for awaited in replication.waits_for:
                waiters = queue._waiters.setdefault(awaited.filesystem, [])
                waiters.append((awaited, replication))
        absent = sorted(set(queue._waiters) - set(work))
        return queue, tuple(each for name in absent for each in queue._drop(name))

    @property
    def active(self) -> tuple[Replication, ...]:
        """Those that workers have taken."""
        return tuple(self._taken.values())

    @property
    def exhausted(self) -> bool:
        """Nothing is ready, taken or waiting."""
        return not (self._ready or self._taken or self._waiting)

    def take(self) -> Replication | None:
        """Hand out the replication whose next step is oldest; ``None`` = none is ready now."""
        if not self._ready:
            return None
        _, _, replication = heapq.heappop(self._ready)
        self._taken[replication.filesystem] = replication
        return replication

    def step_completed(self, replication: Replication) -> None:
        """Take back a replication whose step is completed; who waited for that may now run."""
        del self._taken[replication.filesystem]
        still: list[tuple[Awaited, Replication]] = []
        for awaited, waiter in self._waiters.pop(replication.filesystem, []):
            missing = self._waiting.get(waiter.filesystem)
            if missing is None:
                continue
            if not replication.fulfils(awaited):
                still.append((awaited, waiter))
                continue
            missing.discard(awaited)
            if not missing:
                del self._waiting[waiter.filesystem]
                self._push(waiter)
        if still:
            self._waiters[replication.filesystem] = still
        if not replication.completed:
            self._push(replication)

    def release(self, replication: Replication) -> tuple[Replication, ...]:
        """Take a replication out for the rest of the attempt.

        :returns: those that wait for it, and those that wait for them, which leave with it;
            each after what it waits for
        """
        del self._taken[replication.filesystem]
        return tuple(self._drop(replication.filesystem))

    def _push(self, replication: Replication) -> None:
        date = replication.next_step_date
        entry = (date if date is not None else 0.0, replication.filesystem, replication)
        heapq.heappush(self._ready, entry)

    def _drop(self, name: str) -> Iterator[Replication]:
        leaving = [name]
        while leaving:
            waiters = [each for _, each in self._waiters.pop(leaving.pop(), [])]
            waiters.sort(key=lambda each: each.filesystem)
            for waiter in waiters:
                if self._waiting.pop(waiter.filesystem, None) is not None:
                    leaving.append(waiter.filesystem)
                    yield waiter
