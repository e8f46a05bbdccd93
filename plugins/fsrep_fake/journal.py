"""What the fake transport was asked and what came of it, call by call.

A call is recorded where it was made. The far end of the wire finds its record, and so its
fault, by what the request says: two calls of one transport that ask for the same at the
same time are as good as one another.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeAlias

import attrs
import trio

from fsrep_core import (
    ConnectivityError,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    FsrepError,
    InventoryRequest,
    Problem,
    ReceiveRequest,
    SendRequest,
)
from fsrep_fake.faults import Fault, Operation, Script, WireFault, find_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Call", "Entry", "Journal", "Request"]

Request: TypeAlias = (
    InventoryRequest
    | SendRequest
    | ReceiveRequest
    | CursorRequest
    | CreateVersionRequest
    | DestroyVersionsRequest
)


@attrs.frozen(kw_only=True)
class Call:
    """One call that has ended. Times are trio's clock."""

    number: int
    """In the order in which the calls began, from 1."""
    operation: Operation
    filesystem: str | None
    """``None`` where the request names none, or several."""
    request: Request
    outcome: str
    """``done``; ``left`` = a stream that was not read to its end; ``cancelled``; or the
    kind of the error (``problem`` says more), or the class of a foreign exception."""
    problem: Problem | None
    fault: Fault | None
    """What the script had for this call, pinned to it: as the only fault of a script, it
    befalls the same call again."""
    moved_bytes: int
    """Of the stream, as far as it was read."""
    started_at: float
    ended_at: float


@attrs.define(eq=False)
class Journal:
    """Counts calls, asks the script about each, and keeps a record of it."""

    script: Script | tuple[Fault | WireFault, ...]
    calls: list[Call] = attrs.field(factory=list)
    """Those that have ended, in the order in which they did."""
    wire_faults: list[WireFault] = attrs.field(factory=list)
    """Those that befell a connection, each as the fault of that one alone."""
    _counts: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    _number: int = 0
    _underway: dict[tuple[Operation, Request], list[Entry]] = attrs.field(factory=dict)
    """The calls whose requests have not been found at the far end."""

    def begin(self, operation: Operation, request: Request) -> Entry:
        """Open the record of a call, which is a context: its end is that of the call."""
        filesystem = getattr(request, "filesystem", None)
        self._number += 1
        self._counts[operation,] += 1
        self._counts[operation, str(filesystem)] += 1
        of_filesystem = self._counts[operation, str(filesystem)]
        fault = find_fault(
            self.script,
            operation,
            filesystem,
            of_operation=self._counts[operation,],
            of_filesystem=of_filesystem,
        )
        if fault is not None:
            fault = attrs.evolve(fault, filesystem=filesystem, occurrence=of_filesystem)
        entry = Entry(self, self._number, operation, filesystem, request, fault)
        self._underway.setdefault((operation, request), []).append(entry)
        return entry

    def find(self, operation: Operation, request: Request) -> Entry:
        """Give the record of the call that a request at the far end belongs to."""
        underway = self._underway.get((operation, request))
        if underway:
            return underway.pop(0)
        # Whoever made the call has gone away meanwhile, and nothing more befalls it.
        return Entry(self, 0, operation, None, request, None)

    def end(self, entry: Entry, call: Call) -> None:
        """Keep what came of a call."""
        underway = self._underway.get((entry.operation, entry.request), [])
        if entry in underway:
            underway.remove(entry)
        if not underway:
            self._underway.pop((entry.operation, entry.request), None)
        self.calls.append(call)


@attrs.define(eq=False)
class Entry:
    """The record of a call that goes on."""

    journal: Journal
    number: int
    operation: Operation
    filesystem: str | None
    request: Request
    fault: Fault | None
    moved_bytes: int = 0
    unfinished: bool = False
    """The call's stream has not been read to its end."""
    failure: FsrepError | None = None
    """What whoever read the call's stream was told."""
    opened: bool = False
    """The caller has the stream: an error that comes now is the caller's own."""
    lost: ConnectivityError | None = None
    """Why the cable of this call was cut."""
    _started_at: float = attrs.field(init=False, factory=trio.current_time)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what goes wrong while the call's stream is read."""
        try:
            with self.explaining():
                yield
        except FsrepError as error:
            self.failure = error
            raise

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Let a connection that was cut for this call say that the script had it so."""
        try:
            yield
        except ConnectivityError as error:
            if self.lost is None or self.lost is error:
                raise
            raise self.lost from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cancelled = _is_cancellation(exc)
        error: BaseException | None = self.failure if self.opened else exc or self.failure
        problem = None
        if cancelled:
            outcome = "cancelled"
        elif isinstance(error, FsrepError):
            outcome = error.kind
            problem = Problem(
                message=error.message,
                temporary=error.temporary,
                local=error.local,
                kind=error.kind,
                hint=error.hint,
            )
        elif error is not None:
            outcome = type(error).__name__
        else:
            outcome = "left" if self.unfinished else "done"
        self.journal.end(
            self,
            Call(
                number=self.number,
                operation=self.operation,
                filesystem=self.filesystem,
                request=self.request,
                outcome=outcome,
                problem=problem,
                fault=self.fault,
                moved_bytes=self.moved_bytes,
                started_at=self._started_at,
                ended_at=trio.current_time(),
            ),
        )


def _is_cancellation(error: BaseException | None) -> bool:
    """Whether it is that trio cancels, perhaps several tasks at once."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
