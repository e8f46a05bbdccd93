"""Faults as values: what goes wrong, and where: at an operation, at a frame, or at a byte.

A script is either a list of :class:`Fault` and :class:`WireFault`, or
:class:`SeededFaults`, which decides for each call by itself. All have a ``repr`` that is
Python, so that a failing test prints what repeats it.

A :class:`Fault` befalls a call, whichever connection carries it:

=====================  ==============================================================
``refuse``             the connection is cut before the storage hears of the call
``fail_before``        the storage fails before it has done anything
``stall``              the storage stands still (for ``seconds``, or until cancelled):
                       in a stream from ``at_byte`` on, elsewhere before the call. The
                       connection lives: heartbeats go on
``cut``                the connection is cut at ``at_byte`` of the stream
``trickle``            ``length_bytes`` bytes come one at a time, ``seconds`` apart
``corrupt``            the byte at ``at_byte`` is changed
``fail_in_middle``     the storage's stream fails at ``at_byte``, with an error
``fail_after_commit``  the storage does all it was asked, then the connection is cut
=====================  ==============================================================

A :class:`WireFault` befalls a connection, whatever it carries: a byte of one direction,
counted from the first or from the start of a frame.

=====================  ==============================================================
``cut``                the connection is cut there, in both directions
``stall``              nothing comes through in this direction any more, heartbeats
                       neither (for ``seconds``, or for ever)
``trickle``            as above
``corrupt``            as above: a header, a length, or what is inside of a frame
=====================  ==============================================================
"""

from __future__ import annotations

import random
from typing import Final, Literal, Protocol, TypeAlias, get_args

import attrs

__all__ = [
    "ACTIONS",
    "DIRECTIONS",
    "FRAMES",
    "OPERATIONS",
    "WIRE_ACTIONS",
    "Action",
    "Direction",
    "Fault",
    "FrameName",
    "Operation",
    "Script",
    "SeededFaults",
    "WireAction",
    "WireFault",
    "find_fault",
]

Operation: TypeAlias = Literal[
    "inventory",
    "size_estimate",
    "send",
    "receive",
    "replication_cursor",
    "create_version",
    "destroy_versions",
]
Action: TypeAlias = Literal[
    "refuse",
    "fail_before",
    "stall",
    "cut",
    "trickle",
    "corrupt",
    "fail_in_middle",
    "fail_after_commit",
]
WireAction: TypeAlias = Literal["cut", "stall", "trickle", "corrupt"]
Direction: TypeAlias = Literal["to_server", "to_client"]
FrameName: TypeAlias = Literal[
    "hello",
    "request",
    "part",
    "answer",
    "error",
    "opened",
    "data",
    "end",
    "abort",
    "done",
    "heartbeat",
    "bye",
]
OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
WIRE_ACTIONS: Final[tuple[WireAction, ...]] = get_args(WireAction)
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
FRAMES: Final[tuple[FrameName, ...]] = get_args(FrameName)

_STREAMS: Final[frozenset[Operation]] = frozenset({"send", "receive"})
_COMMITS: Final[frozenset[Operation]] = frozenset(
    {"receive", "replication_cursor", "create_version", "destroy_versions"}
)
ACTIONS: Final[dict[Action, frozenset[Operation]]] = {
    "refuse": frozenset(OPERATIONS),
    "fail_before": frozenset(OPERATIONS),
    "stall": frozenset(OPERATIONS),
    "cut": _STREAMS,
    "trickle": _STREAMS,
    "corrupt": _STREAMS,
    "fail_in_middle": _STREAMS,
    "fail_after_commit": _COMMITS,
}
"""Which operations each action can befall."""

_NEEDS_BYTE: Final[frozenset[Action]] = frozenset({"trickle", "corrupt"})


@attrs.frozen(repr=False)
class Fault:
    """One thing that goes wrong.

    :raises ValueError: the action cannot befall the operation, or a number is negative
    """

    operation: Operation = attrs.field(validator=attrs.validators.in_(OPERATIONS))
    action: Action = attrs.field(validator=attrs.validators.in_(ACTIONS))
    filesystem: str | None = attrs.field(default=None, kw_only=True)
    """Only calls for this one; ``None`` = any."""
    occurrence: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    """Only this call of those that ``operation`` and ``filesystem`` select, counted from
    1; ``None`` = every one."""
    at_byte: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    """After so many bytes of the stream; ``None`` = after the last one, before the stream
    is vouched for. Behind the end, nothing happens."""
    seconds: float | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    """How long a stall lasts (``None`` = until cancelled), or how far apart trickling bytes
    are (``None`` = one second)."""
    length_bytes: int = attrs.field(default=100, kw_only=True, validator=attrs.validators.ge(1))
    """How many bytes trickle before the stream flows again."""
    temporary: bool | None = attrs.field(default=None, kw_only=True)
    """What the error says of itself; ``None`` = what is usual for its class."""
    local: bool | None = attrs.field(default=None, kw_only=True)
    """As with ``temporary``."""

    def __attrs_post_init__(self) -> None:
        if self.operation not in ACTIONS[self.action]:
            possible = ", ".join(
                action for action, operations in ACTIONS.items() if self.operation in operations
            )
            raise ValueError(
                f"{self.action} cannot befall {self.operation}; possible are {possible}"
            )
        if self.action in _NEEDS_BYTE and self.at_byte is None:
            raise ValueError(f"{self.action} needs at_byte")

    def __repr__(self) -> str:
        return _python(self)


@attrs.frozen(repr=False)
class WireFault:
    """One thing that goes wrong with a connection, once.

    :raises ValueError: there is no such action, direction or frame, or a number is negative
    """

    action: WireAction = attrs.field(validator=attrs.validators.in_(WIRE_ACTIONS))
    direction: Direction = attrs.field(validator=attrs.validators.in_(DIRECTIONS))
    """``to_server``: what the client says; the storage is at the server."""
    connection: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    """Only this connection of the transport, counted from 1; ``None`` = every one."""
    frame: FrameName | None = attrs.field(
        default=None,
        kw_only=True,
        validator=attrs.validators.optional(attrs.validators.in_(FRAMES)),
    )
    """At a frame of this kind; ``None`` = at a byte of the direction."""
    occurrence: int = attrs.field(default=1, kw_only=True, validator=attrs.validators.ge(1))
    """Which frame of its kind, counted from 1 on each connection."""
    at_byte: int = attrs.field(default=0, kw_only=True, validator=attrs.validators.ge(0))
    """After so many bytes of the frame, its header included, or of the direction."""
    seconds: float | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    """As with :class:`Fault`; a stall without it never ends."""
    length_bytes: int = attrs.field(default=100, kw_only=True, validator=attrs.validators.ge(1))
    """As with :class:`Fault`."""

    def __repr__(self) -> str:
        return _python(self)


class Script(Protocol):
    """Decides which fault a call meets."""

    def find(
        self, operation: Operation, filesystem: str | None, *, of_operation: int, of_filesystem: int
    ) -> Fault | None:
        """Give the fault of a call; ``None`` = nothing goes wrong.

        :param of_operation: the how many-th call of this operation it is, from 1
        :param of_filesystem: the same among those for this filesystem
        """


@attrs.frozen(repr=False)
class SeededFaults:
    """Lets a share of all calls fail, each in a way that follows from the seed.

    What a call meets depends on its operation, its filesystem and its number among the
    calls with both, and so not on the order in which filesystems are worked on.
    """

    seed: int
    rate: float = attrs.field(
        default=0.1,
        kw_only=True,
        validator=[attrs.validators.ge(0), attrs.validators.le(1)],
    )
    """The share of calls that meet a fault."""
    actions: tuple[Action, ...] = attrs.field(
        default=tuple(action for action in ACTIONS if action != "corrupt"), kw_only=True
    )
    """Not ``corrupt``, unless asked for: not every storage can notice it."""
    operations: tuple[Operation, ...] = attrs.field(default=OPERATIONS, kw_only=True)
    byte_limit: int = attrs.field(default=100_000, kw_only=True, validator=attrs.validators.ge(1))
    """Faults in streams lie before this byte, most of them early."""
    call_limit: int | None = attrs.field(default=None, kw_only=True)
    """Only the first so many calls of an operation for a filesystem; ``None`` = all."""

    def find(
        self, operation: Operation, filesystem: str | None, *, of_operation: int, of_filesystem: int
    ) -> Fault | None:
        """See :class:`Script`."""
        del of_operation  # depends on the order of work
        chance = random.Random(f"{self.seed}/{operation}/{filesystem}/{of_filesystem}")  # noqa: S311  (repeatable)
        possible = [each for each in self.actions if operation in ACTIONS[each]]
        spent = self.call_limit is not None and of_filesystem > self.call_limit
        if chance.random() >= self.rate or spent or operation not in self.operations:
            return None
        if not possible:
            return None
        action = chance.choice(possible)
        at_byte: int | None = int(self.byte_limit ** chance.random()) - 1
        if action not in _NEEDS_BYTE and (operation not in _STREAMS or chance.random() < 1 / 8):
            at_byte = None
        return Fault(
            operation,
            action,
            filesystem=filesystem,
            occurrence=of_filesystem,
            at_byte=at_byte,
            temporary=True,
            local=None if action in {"refuse", "cut"} else chance.random() < 1 / 2,
        )

    def __repr__(self) -> str:
        return _python(self)


def find_fault(
    script: Script | tuple[Fault | WireFault, ...],
    operation: Operation,
    filesystem: str | None,
    *,
    of_operation: int,
    of_filesystem: int,
) -> Fault | None:
    """Give the fault that a call meets, by either kind of script: the first that fits."""
    if not isinstance(script, tuple):
        return script.find(
            operation, filesystem, of_operation=of_operation, of_filesystem=of_filesystem
        )
    for fault in script:
        if isinstance(fault, WireFault):
            continue
        number = of_operation if fault.filesystem is None else of_filesystem
        if (
            fault.operation == operation
            and fault.filesystem in {None, filesystem}
            and fault.occurrence in {None, number}
        ):
            return fault
    return None


def _python(value: Fault | WireFault | SeededFaults) -> str:
    """Write a value as the call that makes it, without the defaults."""
    parts = []
    for field in attrs.fields(type(value)):
        given = getattr(value, field.name)
        if given != field.default:
            parts.append(f"{field.name}={given!r}" if field.kw_only else repr(given))
    return f"{type(value).__name__}({', '.join(parts)})"
