"""The errors that cross the contract, and the facts that each one carries.

Whoever raises an error knows two things that nobody after it can know:

* **temporary**: would the same call, repeated later, have a chance?
* **local**: does it concern this one filesystem, so that the others may go on?

The two are independent. The code that raises decides them; the driver decides what
follows (:mod:`fsrep_core.runtime.driver`). Each class below sets the usual answer, and
an instance may say otherwise.

A message says what was attempted, on what, and what happened; ``hint`` says what to do
next. Neither holds a secret: both reach logs, reports and the peer.

Cancellation is not an error and has no class here: ``trio.Cancelled`` passes through.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BrokenEndpointError",
    "BusyError",
    "ConfigError",
    "ConflictError",
    "ConnectivityError",
    "FsrepError",
    "InterruptedStreamError",
    "InvalidRequestError",
    "OutOfSpaceError",
    "PermissionDeniedError",
    "PluginError",
    "StaleTokenError",
    "StorageError",
    "TimeoutExpiredError",
    "VersionMissingError",
]


class FsrepError(Exception):
    """The root of every error that fsrep raises on purpose.

    :param message: what was attempted, on what, what happened
    :param temporary: would a repetition have a chance; ``None`` takes the class's answer
    :param local: does it concern one filesystem only; ``None`` takes the class's answer
    :param hint: what the operator can do next
    """

    temporary: bool = False
    local: bool = False
    kind: ClassVar[str] = "error"
    """The name under which the class travels and is reported; never reused."""

    def __init__(
        self,
        message: str,
        *,
        temporary: bool | None = None,
        local: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts_stated = temporary is not None or local is not None
        if temporary is not None:
            self.temporary = temporary
        if local is not None:
            self.local = local


class ConfigError(FsrepError):
    """The configuration cannot be used. Nothing has run."""

    kind = "config"


class PluginError(FsrepError):
    """A plugin cannot be imported, found, or lacks part of the contract."""

    kind = "plugin"


class BrokenEndpointError(FsrepError):
    """An endpoint answered against the contract: a defect of its plugin."""

    local = True
    kind = "broken-endpoint"


class InvalidRequestError(FsrepError):
    """A request that no state of the storage could satisfy, such as a name with ``..``."""

    local = True
    kind = "invalid-request"


class ConnectivityError(FsrepError):
    """The way to an endpoint is cut: reset, refused, unreachable, unexpected end."""

    temporary = True
    kind = "connectivity"


class TimeoutExpiredError(FsrepError):
    """A deadline passed: nothing moved, or no answer came."""

    temporary = True
    kind = "timeout"


class InterruptedStreamError(FsrepError):
    """A stream ended before its maker said that it was whole."""

    temporary = True
    local = True
    kind = "interrupted-stream"


class StorageError(FsrepError):
    """A storage could not do what was asked, for a reason with no class of its own."""

    local = True
    kind = "storage"


class BusyError(StorageError):
    """Something else uses the filesystem or version now."""

    temporary = True
    kind = "busy"


class OutOfSpaceError(StorageError):
    """No room, or a quota is spent."""

    temporary = True
    kind = "out-of-space"


class PermissionDeniedError(StorageError):
    """The operating system or the serving side forbids it."""

    kind = "permission-denied"


class VersionMissingError(StorageError):
    """A version that the plan was made with is gone: a reason to plan again."""

    temporary = True
    kind = "version-missing"


class StaleTokenError(StorageError):
    """A resume token can no longer be honoured, or does not mean what the request means."""

    kind = "stale-token"


class ConflictError(StorageError):
    """The receiver's state forbids the step: it has diverged, or the name is taken."""

    kind = "conflict"
