"""Starts the engine, and turns its failures into the errors of the contract."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsrep_core
from fsrep_core import FsrepError, Problem, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsrep_directory.engine.failures import Failure

__all__ = ["engine_command", "error_of", "explain", "problem_of"]

_PACKAGE = str(Path(__file__).parent)
# Isolated and without site-packages: the start takes 30 ms, and nothing of the
# environment or of the working directory can change what is imported. It makes millions of
# small values and no cycles, so nothing is to be looked for among them.
_BOOT = (
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv.pop(1)); "
    "from engine.main import main; sys.exit(main(sys.argv[1:]))"
)
_KINDS: dict[str, type[FsrepError]] = {
    each.kind: each
    for each in (
        fsrep_core.BusyError,
        fsrep_core.ConflictError,
        fsrep_core.InterruptedStreamError,
        fsrep_core.InvalidRequestError,
        fsrep_core.OutOfSpaceError,
        fsrep_core.PermissionDeniedError,
        fsrep_core.StaleTokenError,
        fsrep_core.StorageError,
        fsrep_core.VersionMissingError,
    )
}


def engine_command(command: str, *arguments: str) -> list[str]:
    """The argument list that starts the engine for one command."""
    return [sys.executable, "-I", "-S", "-c", _BOOT, _PACKAGE, command, *arguments]


def explain(status: int, stderr: str) -> FsrepError:
    """Give the error that the engine ended with."""
    *_, last = stderr.strip().splitlines() or [""]
    try:
        return error_of(json.loads(last))
    except (ValueError, KeyError, TypeError):
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return StorageError(
            f"the engine of the directory storage {ended}: {last or 'it said nothing'}",
            temporary=status < 0,
            hint="report this with the log" if status >= 0 else "run again",
        )


def error_of(facts: Mapping[str, Any] | Failure) -> FsrepError:
    """Give the error that a failure of the engine means."""
    known = facts if not isinstance(facts, Exception) else facts.facts()
    return _KINDS[known["kind"]](
        known["message"],
        hint=known["hint"],
        temporary=known["temporary"],
        local=known["local"],
    )


def problem_of(facts: Mapping[str, Any]) -> Problem:
    """Give the same as a value that stands in a result."""
    error = error_of(facts)
    return Problem(
        message=error.message,
        temporary=error.temporary,
        local=error.local,
        kind=error.kind,
        hint=error.hint,
    )
