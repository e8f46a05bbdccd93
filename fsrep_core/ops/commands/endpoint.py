"""``fsrep endpoint``: serve one client over standard input and output, as ssh starts it.

Two ways, and the command line alone decides which. Without an identity the client says
which storage it wants: whoever can start programs in this account could read and write
its files anyway. With ``--identity``, as a forced command in ``authorized_keys`` has it,
the configuration on this host says everything, and what the client asks for counts for
nothing. What it asked for, and got, stands in the log of this host (:mod:`fsrep_core.ops.audit`).

Standard output belongs to the wire. It is taken away before any plugin is imported, so
that nothing else can ever write there: what is printed goes to standard error.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import ConfigError, ConnectivityError, FsrepError
from fsrep_core.ops.audit import (
    AuditLog,
    client_address,
    open_audit_log,
    served_line,
    visit_line,
)
from fsrep_core.ops.files import find_config, load_identities
from fsrep_core.ops.garbage import look_for_garbage
from fsrep_core.ops.serving import admit_as_asked, find_identity, make_admission
from fsrep_core.ops.signals import interruptible
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.registry import load_plugins
from fsrep_core.runtime.remote.carrier import DescriptorStream
from fsrep_core.runtime.remote.reception import Admitted, Left
from fsrep_core.runtime.remote.server import Admission, Served, Service, serve_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fsrep_core.runtime.remote.server import Admit
    from fsrep_core.values import Problem
    from fsrep_core.wire import Hello

__all__ = ["endpoint"]


def endpoint(config: Path | None, *, identity: str | None, log: Path | None) -> int:
    """Serve until the client says goodbye or is gone; the exit status tells which."""
    if sys.stdin.isatty():
        raise ConfigError(
            "an endpoint speaks with another fsrep, not with people",
            hint="the transport ssh starts it on the other host; to replicate, use fsrep run",
        )
    if identity is None and config is not None:
        raise ConfigError(
            "without an identity, an endpoint reads no configuration",
            hint="add --identity, or leave --config out",
        )
    if identity is None and log is not None:
        raise ConfigError(
            "without an identity, an endpoint keeps no log",
            hint="add --identity, or leave --log out",
        )
    look_for_garbage()
    receiving, sending = take_standard_streams()
    if identity is None:
        return trio.run(serve, receiving, sending, _admit_any, Service())
    visit = _Visit(identity, client_address(os.environ), open_audit_log(log))
    admit = partial(visit.admit, config)
    service = Service(on_served=visit.tell_served)
    return trio.run(visit.attend, partial(serve, receiving, sending, admit, service))


def take_standard_streams() -> tuple[int, int]:
    """Give the two descriptors, and leave harmless ones in their place."""
    receiving, sending = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return receiving, sending


def _admit_any(hello: Hello) -> Admission:
    return admit_as_asked(hello, load_plugins())


@attrs.define(eq=False)
class _Visit:
    """The connection of one identity, as the log hears of it."""

    identity: str
    address: str | None
    log: AuditLog

    def admit(self, config: Path | None, _hello: Hello) -> Admission:
        """Decide what the configuration grants."""
        identity = find_identity(load_identities(find_config(config, os.environ)), self.identity)
        admission = make_admission(identity, load_plugins())
        self.log.write(visit_line(Admitted(identity=self.identity, address=self.address)))
        return admission

    def tell_served(self, served: Served) -> None:
        self.log.write(served_line(served))

    async def attend(self, work: Callable[[], Awaitable[int]]) -> int:
        """Serve, and tell how it ended."""
        began_at = trio.current_time()
        problem: Problem | None = classify(ConnectivityError("the endpoint was stopped"))
        try:
            status = await work()
            problem = None
        except Exception as error:
            problem = classify(error)
            raise
        finally:
            seconds = trio.current_time() - began_at
            left = Left(
                identity=self.identity, address=self.address, seconds=seconds, problem=problem
            )
            self.log.write(visit_line(left))
        return status


async def serve(receiving: int, sending: int, admit: Admit, service: Service) -> int:
    stream = DescriptorStream(receiving, sending)
    failed: FsrepError | None = None
    async with interruptible() as interruption:
        interruption.end_cleanly = service.stopping.set
        try:
            await serve_connection(stream, admit, peer_name="the client", service=service)
        except FsrepError as error:  # raised below, outside the nursery
            failed = error
    if failed is not None:
        raise failed
    return interruption.exit_status or 0
