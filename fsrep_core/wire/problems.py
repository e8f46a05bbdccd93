"""Errors on their way back: from the facts that travelled to the class that has them.

What travels is a :class:`~fsrep_core.Problem`: kind, message, the two facts, and the
hint. A kind that this side does not know becomes the root of the errors with the facts
kept, since they are what the driver decides upon.
"""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING

from fsrep_core import errors
from fsrep_core.errors import FsrepError
from fsrep_core.wire.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsrep_core.values import Problem

__all__ = ["make_error"]


def make_error(problem: Problem) -> FsrepError:
    """Give the error that the peer raised, as its own class where that is known."""
    cls = _classes().get(problem.kind, FsrepError)
    return cls(problem.message, temporary=problem.temporary, local=problem.local, hint=problem.hint)


@functools.cache
def _classes() -> Mapping[str, type[FsrepError]]:
    """The classes of the contract by kind; what plugins derive from them is not here."""
    known: list[type[FsrepError]] = [getattr(errors, name) for name in errors.__all__]
    known.append(WireError)
    return MappingProxyType({cls.kind: cls for cls in known})
