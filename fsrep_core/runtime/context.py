"""What a task works on now: job, filesystem, step. Log lines carry it.

The core logs nothing itself. Whoever does, merges :func:`bound` into each line. Tasks
inherit what their parent bound.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["bind", "bound"]

_NOTHING: Mapping[str, str] = MappingProxyType({})
_bound: ContextVar[Mapping[str, str]] = ContextVar("fsrep_context", default=_NOTHING)


@contextmanager
def bind(**names: str) -> Iterator[None]:
    """Add ``names`` to the context of this task and its children while inside."""
    token = _bound.set({**_bound.get(), **names})
    try:
        yield
    finally:
        _bound.reset(token)


def bound() -> Mapping[str, str]:
    """What is bound here: any of ``job``, ``filesystem``, ``step``."""
    return _bound.get()
