"""What a law is, who may deviate from it, and how one is checked.

A law is one rule of the contract with a name. It is checked on a fresh harness, in
bounded time, and nothing may be left behind: no task, no child process, no descriptor.
A law that cannot apply (it speaks of resuming, and the storage does not resume) is left
out and named as such, with the reason. A law that a plugin cannot keep is declared with the
reason; such a declaration is itself checked, so that none outlives its reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from fsrep_core.testing.leaks import find_leaks, open_resources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

__all__ = ["Deviations", "Law", "LawBook", "LawBroken", "Verdict", "bounded", "check_laws"]

TrialT = TypeVar("TrialT")
HarnessT = TypeVar("HarnessT")


class LawBroken(AssertionError):  # noqa: N818  (it is what a failure says: this law, broken)
    """A plugin does not keep a law.

    :param law: the law's name
    :param message: what was done, what was due, what came instead
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(f"{law}: {message}")
        self.law = law
        self.message = message


@attrs.frozen(kw_only=True)
class Deviations:
    """What a plugin does not keep, declared as a value.

    What a storage says in its :class:`~fsrep_core.Capabilities` needs no word here.
    """

    unkept: Mapping[str, str] = attrs.field(factory=dict)
    """Names of laws, each with the reason. A law that is declared so and kept after all is
    reported as broken: the declaration has to go."""
    time_limit_seconds: float = 30.0
    """What *bounded time* means, for each thing that a law does."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What was found, where no law is broken."""

    kept: tuple[str, ...]
    not_applicable: Mapping[str, str]
    """Laws that were not checked, with the reason."""


@attrs.frozen
class Law(Generic[TrialT]):
    """One rule, with the function that checks it."""

    name: str
    summary: str
    """A sentence: the first line of the function's docstring."""
    needs: str | None
    """The capability, of the plugin or its harness, without which the law does not apply."""
    check: Callable[[TrialT], Awaitable[None]]


class LawBook(dict[str, Law[TrialT]]):
    """Laws by name, in the order in which they are checked."""

    def law(
        self, *, needs: str | None = None
    ) -> Callable[[Callable[[TrialT], Awaitable[None]]], Callable[[TrialT], Awaitable[None]]]:
        """Add a function as a law under its own name."""

        def add(
            function: Callable[[TrialT], Awaitable[None]],
        ) -> Callable[[TrialT], Awaitable[None]]:
            name = function.__name__
            summary = (function.__doc__ or "").strip().splitlines()[0]
            self[name] = Law(name, summary, needs, function)
            return function

        return add


async def check_laws(  # noqa: PLR0913  (what a check is made of; each is named)
    book: LawBook[TrialT],
    maker: Callable[[], AbstractAsyncContextManager[HarnessT]],
    *,
    begin: Callable[[Law[TrialT], HarnessT], Awaitable[TrialT]],
    lacks: Callable[[TrialT, str], str | None],
    deviations: Deviations,
    laws: Iterable[str] | None,
) -> Verdict:
    """Check laws one by one, each on a harness of its own.

    :param lacks: says why there is not what a law needs; ``None`` = there is
    :raises LawBroken: the first that is broken
    :raises ValueError: a name is not that of a law
    """
    wanted = tuple(book) if laws is None else tuple(laws)
    unknown = sorted({*wanted, *deviations.unkept} - set(book))
    if unknown:
        raise ValueError(f"there is no law named {', '.join(unknown)}")
    kept = []
    not_applicable = {}
    for name in wanted:
        law = book[name]
        before = open_resources()
        async with maker() as harness:
            reason = await _check_law(law, harness, begin, lacks, deviations)
        leaks = await find_leaks(before)
        if leaks and name not in deviations.unkept:
            raise LawBroken(name, f"when all was closed, this was left: {', '.join(leaks)}")
        if reason is None:
            kept.append(name)
        else:
            not_applicable[name] = reason
    return Verdict(kept=tuple(kept), not_applicable=not_applicable)


async def _check_law(
    law: Law[TrialT],
    harness: HarnessT,
    begin: Callable[[Law[TrialT], HarnessT], Awaitable[TrialT]],
    lacks: Callable[[TrialT, str], str | None],
    deviations: Deviations,
) -> str | None:
    """Check one law; give the reason why it was not checked, or ``None``."""
    excuse = deviations.unkept.get(law.name)
    try:
        trial = await begin(law, harness)
        if law.needs is not None and (reason := lacks(trial, law.needs)) is not None:
            return reason
        await law.check(trial)
    except LawBroken:
        if excuse is None:
            raise
        return excuse
    except Exception as error:
        if excuse is None:
            raise LawBroken(law.name, f"this was raised: {_describe(error)}") from error
        return excuse
    if excuse is not None:
        raise LawBroken(law.name, f"it is kept, but declared as unkept: {excuse}")
    return None


def _describe(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_describe(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


@asynccontextmanager
async def bounded(law: str, what: str, limit_seconds: float) -> AsyncIterator[None]:
    """Let a law fail where what it does takes too long, also where that cannot be cancelled.

    :raises LawBroken: the limit was passed
    """
    started_at = trio.current_time()
    with trio.move_on_after(limit_seconds) as scope:
        yield
    if scope.cancelled_caught or trio.current_time() - started_at > limit_seconds:
        raise LawBroken(law, f"{what} took more than {limit_seconds:g} seconds")
