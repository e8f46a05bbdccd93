"""What a serving side writes down of its clients: a line per connection and operation.

``fsrep serve`` writes them into its log. An endpoint that ssh starts for an identity has no
log: its standard error goes to the client, who is the last to be trusted with it. So it
writes to the system's log, as sshd itself and its sftp-server do, or to a file, which may
be rotated while it is written.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.logs import LEVELS, Line, problem_fields
from fsrep_core.runtime.remote.reception import Admitted, Left

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsrep_core.runtime.remote.server import Served

__all__ = ["SYSLOG", "AuditLog", "client_address", "open_audit_log", "served_line", "visit_line"]

SYSLOG = "syslog"
"""What the command line calls the system's log."""

_SYSLOG_SOCKET = "/dev/log"


def visit_line(visit: Admitted | Left) -> Line:
    """Say that a connection has begun or ended."""
    fields: dict[str, Any] = {"identity": visit.identity, "address": visit.address}
    if isinstance(visit, Admitted):
        return Line("info", "connection opened", fields)
    fields["seconds"] = round(visit.seconds, 3)
    if visit.problem is None:
        return Line("info", "connection closed", fields)
    return Line("warning", "connection failed", fields | problem_fields(visit.problem))


def served_line(served: Served) -> Line:
    """Say what came of an operation."""
    fields: dict[str, Any] = {
        "identity": served.identity,
        "operation": served.operation,
        "filesystem": served.filesystem,
        "seconds": round(served.seconds, 3),
    }
    if served.operation in {"send", "receive"}:
        fields["bytes"] = served.stream_bytes
    if served.problem is None:
        return Line("info", "operation done", fields)
    return Line("warning", "operation failed", fields | problem_fields(served.problem))


@attrs.define(eq=False)
class AuditLog:
    """Where an endpoint writes its lines. What cannot be written there stops nothing."""

    _logger: logging.Logger

    def write(self, line: Line) -> None:
        """Write a line: what happened, and ``key=value`` for each fact that is known."""
        self._logger.log(LEVELS[line.level], "%s", _text_of(line))


def open_audit_log(where: Path | None) -> AuditLog:
    """Open the log of an endpoint.

    :param where: a file, or ``syslog``; ``None`` = the system's log, if there is one
    :raises ConfigError: it cannot be written
    """
    logger = logging.getLogger("fsrep.endpoint")
    logger.propagate = False  # its other lines, and those of plugins, are for standard error
    logger.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a full disk is no reason to serve nobody
    try:
        logger.addHandler(
            _system_log() if where is None or str(where) == SYSLOG else _log_file(where)
        )
    except OSError as error:
        if where is not None:
            raise ConfigError(
                f"the endpoint's log cannot be written: {where}: {error.strerror or error}",
                hint="name a file whose folder exists, and that this account may write to",
            ) from error
        logger.addHandler(logging.NullHandler())
    return AuditLog(logger)


def client_address(environment: Mapping[str, str]) -> str | None:
    """Give the address of the client as sshd tells it, such as ``192.0.2.7:40312``."""
    told = environment.get("SSH_CONNECTION", "").split()
    if len(told) < 2:  # noqa: PLR2004  (an address and a port)
        return None
    host, port = told[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _system_log() -> logging.Handler:
    from logging.handlers import SysLogHandler

    Path(_SYSLOG_SOCKET).stat()  # the handler itself would not complain
    handler = SysLogHandler(_SYSLOG_SOCKET, SysLogHandler.LOG_AUTH)
    handler.ident = f"fsrep[{os.getpid()}]: "
    handler.append_nul = False
    return handler


def _log_file(path: Path) -> logging.Handler:
    from logging.handlers import WatchedFileHandler

    handler = WatchedFileHandler(path, encoding="utf-8")
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ fsrep[%(process)d]: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


def _text_of(line: Line) -> str:
    facts = {"level": line.level, **line.fields}
    known = (f"{key}={_value_of(value)}" for key, value in facts.items() if value is not None)
    return " ".join((line.message, *known))


def _value_of(value: object) -> str:
    """One word, whatever a peer has said: what is none is quoted, and pure ASCII."""
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\') and text
    return text if plain else json.dumps(text)
