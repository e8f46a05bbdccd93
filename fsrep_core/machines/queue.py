"""Whose step is next: the oldest first, and nothing before what it needs is there.

A child needs its parent, a clone the snapshot that it was made from. One queue serves one
attempt. A filesystem is in exactly one place: ready, taken by a worker, or waiting; when it
leaves the queue, it leaves for good. Taking and returning cost O(log n).
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fsrep_core.machines.replication import Replication
from fsrep_core.values import Awaited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


__all__ = ["Stranded", "WorkQueue"]

Stranded: TypeAlias = tuple[Replication, Awaited]
"""What will not come to its turn in this attempt, and what it waited for in vain."""


@attrs.define(eq=False, repr=False)
class WorkQueue:
    """The replications of one attempt that still have something to do."""

    _ready: list[tuple[float, str, Replication]] = attrs.field(init=False, factory=list)
    _taken: dict[str, Replication] = attrs.field(init=False, factory=dict)
    _waiting: dict[str, set[Awaited]] = attrs.field(init=False, factory=dict)
    """What each that waits is still without; never empty."""
    _waiters: dict[Awaited, list[Replication]] = attrs.field(init=False, factory=dict)
    """Who waits for each; some of them may have left the queue since."""
    _awaited: dict[str, set[Awaited]] = attrs.field(init=False, factory=dict)
    """The keys of the former, by filesystem; never empty."""

    @classmethod
    def of(cls, replications: Iterable[Replication]) -> tuple[WorkQueue, tuple[Stranded, ...]]:
        """Make the queue of all that can be retried.

        :returns: the queue, and what waits for filesystems that are not in it, or for itself
            in the end; each after the one that it waits for, where that one strands as well
        """
        queue = cls()
        work = {each.filesystem: each for each in replications if each.can_retry}
        for replication in work.values():
            if not replication.waits_for:
                queue._push(replication)
                continue
            queue._waiting[replication.filesystem] = set(replication.waits_for)
            for awaited in replication.waits_for:
                queue._waiters.setdefault(awaited, []).append(replication)
                queue._awaited.setdefault(awaited.filesystem, set()).add(awaited)
        absent = sorted(set(queue._awaited) - set(work))
        stranded = [each for name in absent for each in queue._drop(name)]
        stranded += [each for name in queue._find_circles() for each in queue._drop(name)]
        return queue, tuple(stranded)

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
        """Take back a replication whose step is completed; who waited for that may now run.

        What is completed brings nothing more, so nobody waits for it any longer: the receiver
        will say if something is missing.
        """
        name = replication.filesystem
        del self._taken[name]
        awaited = self._awaited.get(name, set())
        if awaited:
            brought = {Awaited(name), *(Awaited(name, guid) for guid in replication.brought)}
            for each in set(awaited) if replication.completed else awaited & brought:
                self._fulfil(each)
        if not replication.completed:
            self._push(replication)

    def release(self, replication: Replication) -> tuple[Stranded, ...]:
        """Take a replication out for the rest of the attempt.

        :returns: those that wait for it, and those that wait for them, which leave with it;
            each after the one that it waits for
        """
        del self._taken[replication.filesystem]
        return tuple(self._drop(replication.filesystem))

    def _push(self, replication: Replication) -> None:
        date = replication.next_step_date
        entry = (date if date is not None else 0.0, replication.filesystem, replication)
        heapq.heappush(self._ready, entry)

    def _fulfil(self, awaited: Awaited) -> None:
        for waiter in self._forget(awaited):
            missing = self._waiting[waiter.filesystem]
            missing.discard(awaited)
            if not missing:
                del self._waiting[waiter.filesystem]
                self._push(waiter)

    def _drop(self, name: str) -> Iterator[Stranded]:
        leaving = deque([name])
        while leaving:
            awaited = self._awaited.get(leaving.popleft(), set())
            found = [(waiter, each) for each in set(awaited) for waiter in self._forget(each)]
            found.sort(key=lambda each: (each[0].filesystem, each[1].guid or ""))
            for waiter, each in found:
                if self._waiting.pop(waiter.filesystem, None) is not None:
                    leaving.append(waiter.filesystem)
                    yield waiter, each

    def _forget(self, awaited: Awaited) -> list[Replication]:
        """Give those that wait for something, which nobody does any longer after this."""
        others = self._awaited[awaited.filesystem]
        others.discard(awaited)
        if not others:
            del self._awaited[awaited.filesystem]
        return [each for each in self._waiters.pop(awaited) if each.filesystem in self._waiting]

    def _find_circles(self) -> list[str]:
        """Name what waits, in the end, for itself, and what waits for such."""
        missing = {name: set(awaited) for name, awaited in self._waiting.items()}
        reached = [name for _, name, _ in self._ready]
        while reached:
            for awaited in self._awaited.get(reached.pop(), ()):
                for waiter in self._waiters[awaited]:
                    rest = missing.get(waiter.filesystem)
                    if rest is not None:
                        rest.discard(awaited)
                        if not rest:
                            del missing[waiter.filesystem]
                            reached.append(waiter.filesystem)
        return sorted(missing)
