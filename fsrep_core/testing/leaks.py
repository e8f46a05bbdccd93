"""Finds what was left behind: descriptors, child processes, trio tasks.

Linux only: it reads ``/proc``.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["Resources", "find_leaks", "no_leaks", "open_resources"]

_TURNS = 5


@attrs.frozen
class Resources:
    """What this process holds at one moment."""

    descriptors: frozenset[tuple[int, str]]
    """Number, and what it refers to."""
    children: frozenset[int]
    """Process ids, also of those that have ended and were not waited for."""
    tasks: frozenset[trio.lowlevel.Task]


def open_resources() -> Resources:
    """Look at what this process holds now. Call it in a trio task."""
    return Resources(frozenset(_descriptors()), frozenset(_children()), frozenset(_tasks()))


async def find_leaks(before: Resources) -> list[str]:
    """Name what is held now and was not held before; ``[]`` = nothing.

    Tasks that are about to end get some turns to do so. A task in place of one of the same
    name that has ended since is none: whoever keeps a connection for later may begin to
    listen to it anew.
    """
    for _ in range(_TURNS):
        await trio.lowlevel.checkpoint()
    now = open_resources()
    descriptors = sorted(now.descriptors - before.descriptors)
    ended = Counter(task.name for task in before.tasks - now.tasks)
    begun = Counter(task.name for task in now.tasks - before.tasks)
    return [
        *(f"descriptor {number} ({what})" for number, what in descriptors),
        *(f"child process {pid}" for pid in sorted(now.children - before.children)),
        *sorted(f"task {name}" for name in (begun - ended).elements()),
    ]


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raise an ``AssertionError`` where the body leaves something behind."""
    before = open_resources()
    yield
    leaks = await find_leaks(before)
    if leaks:
        raise AssertionError(f"this was left behind: {', '.join(leaks)}")


def _descriptors() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the one that lists this directory
            continue
        if not target.endswith(f"/{os.getpid()}/fd"):
            yield int(entry.name), target


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text()
        except FileNotFoundError:  # a thread that has just ended
            continue
        yield from map(int, children.split())


def _tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    pending = [root] if root else []
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)
