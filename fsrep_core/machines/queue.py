"""Whose step is next: the oldest first, and no child before its parent exists.

One queue serves one attempt. A filesystem is in exactly one place: ready, taken by a
worker, or waiting for its parent's first step; when it leaves the queue, it leaves for
good. Taking and returning cost O(log n).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import attrs

from fsrep_core.machines.replication import Replication

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["WorkQueue"]


@attrs.define(eq=False, repr=False)
class WorkQueue:
    """The replications of one attempt that still have something to do."""

    _ready: list[tuple[float, str, Replication]] = attrs.field(init=False, factory=list)
    _children: dict[str, list[Replication]] = attrs.field(init=False, factory=dict)
    _taken: dict[str, Replication] = attrs.field(init=False, factory=dict)

    @classmethod
    def of(cls, replications: Iterable[Replication]) -> tuple[WorkQueue, tuple[Replication, ...]]:
        """Make the queue of all that can be retried.

        :returns: the queue, and the replications whose parent is not in it and so will
            never come to exist in this attempt
        """
        queue = cls()
        work = {each.filesystem: each for each in replications if each.can_retry}
        for replication in work.values():
            if replication.waits_for is None:
                queue._push(replication)
            else:
                queue._children.setdefault(replication.waits_for, []).append(replication)
        stranded = [
            child for parent in set(queue._children) - set(work) for child in queue._drop(parent)
        ]
        return queue, tuple(sorted(stranded, key=lambda each: each.filesystem))

    @property
    def active(self) -> tuple[Replication, ...]:
        """Those that workers have taken."""
        return tuple(self._taken.values())

    @property
    def exhausted(self) -> bool:
        """Nothing is ready, taken or waiting."""
        return not (self._ready or self._taken or self._children)

    def take(self) -> Replication | None:
        """Hand out the replication whose next step is oldest; ``None`` = none is ready now."""
        if not self._ready:
            return None
        _, _, replication = heapq.heappop(self._ready)
        self._taken[replication.filesystem] = replication
        return replication

    def step_completed(self, replication: Replication) -> None:
        """Take back a replication whose step is completed; its children may now run."""
        del self._taken[replication.filesystem]
        for child in self._children.pop(replication.filesystem, []):
            self._push(child)
        if not replication.completed:
            self._push(replication)

    def release(self, replication: Replication) -> tuple[Replication, ...]:
        """Take a replication out for the rest of the attempt.

        :returns: its descendants, which leave with it, where it did not come to exist
        """
        del self._taken[replication.filesystem]
        return self._drop(replication.filesystem)

    def _push(self, replication: Replication) -> None:
        date = replication.next_step_date
        entry = (date if date is not None else 0.0, replication.filesystem, replication)
        heapq.heappush(self._ready, entry)

    def _drop(self, parent: str) -> tuple[Replication, ...]:
        dropped: list[Replication] = []
        waiting = self._children.pop(parent, [])
        while waiting:
            child = waiting.pop()
            dropped.append(child)
            waiting.extend(self._children.pop(child.filesystem, []))
        return tuple(sorted(dropped, key=lambda each: each.filesystem))
