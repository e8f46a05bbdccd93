"""The two facts of an error, however deep it is wrapped."""

from __future__ import annotations

import errno
import itertools

import pytest
import trio

from fsrep_core import (
    BusyError,
    ConnectivityError,
    InterruptedStreamError,
    StorageError,
    TimeoutExpiredError,
)
from fsrep_core.runtime.classify import classify, find_cause


def wrapped(*errors):
    """Raise each error from the next, as ``raise ... from ...`` would."""
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "temporary", "local"),
    [
        (StorageError("x"), False, True),
        (BusyError("x"), True, True),
        (ConnectivityError("x"), True, False),
        (TimeoutExpiredError("x"), True, False),
        (TimeoutExpiredError("x", temporary=True, local=True), True, True),
        (wrapped(StorageError("x"), TimeoutError("y")), True, False),
        (wrapped(StorageError("x"), ValueError("y"), BrokenPipeError("z")), True, False),
        (wrapped(StorageError("x"), ExceptionGroup("g", [EOFError()])), True, False),
        (wrapped(StorageError("x", temporary=False), TimeoutError("y")), False, True),
        (wrapped(StorageError("x", local=True), ConnectionResetError("y")), False, True),
        (wrapped(StorageError("x"), ValueError("y")), False, True),
        (OSError(errno.ENETUNREACH, "unreachable"), True, False),
        (OSError(errno.ENOSPC, "full"), False, True),
        (ValueError("a defect"), False, True),
        (trio.ClosedResourceError(), True, False),
        (ExceptionGroup("g", [ValueError("echo"), BusyError("the cause")]), True, True),
    ],
    ids=repr,
)
def test_facts(error, temporary, local):
    problem = classify(error)

    assert (problem.temporary, problem.local) == (temporary, local)


def test_what_was_handled_meanwhile_is_no_cause():
    """Only ``from`` tells a cause; an error while handling a reset is another matter."""
    error = StorageError("x")
    error.__context__ = ConnectionResetError("y")

    assert not classify(error).temporary


def test_a_chain_in_a_circle_ends():
    error = StorageError("x")
    error.__cause__ = ValueError("y")
    error.__cause__.__cause__ = error

    assert classify(error).local


def test_message_hint_kind_and_notes_are_kept():
    error = InterruptedStreamError("cut", hint="look at the link")
    error.add_note("while sending a@b")

    problem = classify(error)

    assert problem.message == "cut; while sending a@b"
    assert problem.hint == "look at the link"
    assert problem.kind == "interrupted-stream"


def test_a_foreign_exception_is_named():
    assert classify(KeyError("x")).message == "KeyError: 'x'"
    assert classify(trio.TooSlowError()).message == "TooSlowError"
    assert "report it" in classify(KeyError("x")).hint


def test_the_cause_of_a_group_is_what_fsrep_knows():
    known = StorageError("disk full")
    inner = ExceptionGroup("inner", [known])

    assert find_cause(ExceptionGroup("outer", [BrokenPipeError(), inner])) is known
    assert isinstance(find_cause(ExceptionGroup("outer", [EOFError(), KeyError()])), EOFError)
