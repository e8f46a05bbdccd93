"""The interpreter of every transition table, of machines and of the wire: a lookup.

A table maps each state to the events that it takes, and each of those to the state that
follows. A terminal state is a visible empty row. What is not in the table is illegal:
it raises and changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["IllegalTransitionError", "Table", "advance", "is_terminal"]

StateT = TypeVar("StateT", bound=enum.Enum)
Table = Mapping[StateT, Mapping[type, StateT]]


class IllegalTransitionError(Exception):
    """A machine was told of something that cannot happen in its state: a defect."""


def advance(table: Table[StateT], state: StateT, event: object) -> StateT:
    """Give the state that follows ``state`` when ``event`` happens.

    :raises IllegalTransitionError: the table has no such move
    """
    try:
        return table[state][type(event)]
    except KeyError:
        raise IllegalTransitionError(
            f"{type(state).__name__}.{state.name} cannot take {type(event).__name__}"
        ) from None


def is_terminal(table: Table[StateT], state: StateT) -> bool:
    """Tell whether nothing can happen any more in this state."""
    return not table[state]
