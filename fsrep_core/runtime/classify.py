"""From an exception to the two facts that decide what follows: temporary, and local.

Whoever raised knows best, so an :class:`~fsrep_core.FsrepError` that states its facts is
believed. Otherwise the chain of causes is walked: a timeout or a reset that somebody
wrapped is still a matter of the connection, temporary and not local to a filesystem.
What nobody classified concerns one filesystem and is permanent, which stops least.

Cancellation is no error and never comes here.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from fsrep_core.errors import ConnectivityError, FsrepError, TimeoutExpiredError
from fsrep_core.values import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["classify", "find_cause"]

_CONNECTIVITY_TYPES = (
    ConnectivityError,
    TimeoutExpiredError,
    ConnectionError,
    TimeoutError,
    EOFError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
_CONNECTIVITY_ERRNOS = frozenset(
    {
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)


def classify(error: BaseException) -> Problem:
    """Give the facts of an error, as machines and reports hold them."""
    cause = find_cause(error)
    if isinstance(cause, FsrepError):
        temporary, local = cause.temporary, cause.local
        if not cause.facts_stated and _is_about_the_connection(cause):
            temporary, local = True, False
        return Problem(
            message=_with_notes(cause, cause.message),
            temporary=temporary,
            local=local,
            kind=cause.kind,
            hint=cause.hint,
        )
    connection = _is_about_the_connection(cause)
    return Problem(
        message=_with_notes(cause, _describe(cause)),
        temporary=connection,
        local=not connection,
        kind=ConnectivityError.kind if connection else "unexpected",
        hint=None if connection else "this is a defect of fsrep or of a plugin: please report it",
    )


def find_cause(error: BaseException) -> BaseException:
    """Choose the one exception of a group that tells why, the first that fsrep knows.

    Errors that happen while others are handled are echoes: of a group, a classified
    error is preferred to an unclassified one, and among equals the first.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, FsrepError)]
    return (known or leaves)[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _is_about_the_connection(error: BaseException) -> bool:
    for each in _causes(error):
        if isinstance(each, _CONNECTIVITY_TYPES):
            return True
        if isinstance(each, OSError) and each.errno in _CONNECTIVITY_ERRNOS:
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, also inside groups; bounded by identity."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        if each.__cause__ is not None:
            waiting.append(each.__cause__)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _with_notes(error: BaseException, message: str) -> str:
    return "; ".join([message, *getattr(error, "__notes__", ())])
