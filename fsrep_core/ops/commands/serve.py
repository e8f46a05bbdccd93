"""``fsrep serve``: serve the clients of the configuration, until a signal ends it.

The first signal stops it gracefully: no new connection is accepted, operations that go on
may finish for as long as the configuration says, and what is cut after that goes on where
it was when its client tries again. The second signal cuts it at once.

Meanwhile the log warns of the server's own certificates before they end, at the start and
then once a day, and a metrics file tells when that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import ConfigError, FsrepError, PermissionDeniedError
from fsrep_core.ops.audit import served_line, visit_line
from fsrep_core.ops.expiries import expiry_warnings, watch_expiries
from fsrep_core.ops.garbage import look_for_garbage
from fsrep_core.ops.logs import Line, LogListener
from fsrep_core.ops.metrics import MetricsListener
from fsrep_core.ops.serve_config import ServeConfig, make_listeners
from fsrep_core.ops.serving import make_admission
from fsrep_core.ops.session import open_session
from fsrep_core.ops.signals import Interruption, interruptible
from fsrep_core.runtime.remote.reception import Admitted, Left, Limits, Reception
from fsrep_core.runtime.remote.server import Admission, Served, Service
from fsrep_core.transports import Expiry, Listener

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["serve"]

EXIT_CUT = 1
"""Something had to be cut after the time that a stop may take."""


@attrs.define(eq=False)
class _Server:
    """What is served, and where."""

    config: ServeConfig
    listeners: Sequence[Listener]
    admissions: dict[str, Admission]
    log: LogListener
    metrics: MetricsListener | None

    async def run(self) -> int:
        """Serve until a signal; the exit status says whether everything could finish.

        :raises ConfigError: it cannot listen as configured
        """
        failed: FsrepError | None = None
        finished = False
        async with interruptible() as interruption:
            try:
                finished = await self._serve(interruption)
            except FsrepError as error:  # raised below, outside the nursery
                failed = error
        if failed is not None:
            raise failed
        self.log.write(Line("info", "stopped", {"finished": finished}))
        return 0 if finished else interruption.exit_status or EXIT_CUT

    async def _serve(self, interruption: Interruption) -> bool:
        """Serve until a signal; tell whether everything that went on could finish."""
        service = Service(on_served=self._tell_served)
        failed: FsrepError | None = None
        async with trio.open_nursery() as serving:
            accepting = trio.CancelScope()
            interruption.end_cleanly = partial(self._stop, service, accepting, serving)
            try:
                await self._accept(accepting, self._reception(serving, service))
            except FsrepError as error:  # raised below, outside the nursery
                failed = error
        if failed is not None:
            raise failed
        return not serving.cancel_scope.cancelled_caught

    async def _accept(self, accepting: trio.CancelScope, reception: Reception) -> None:
        """Accept connections, at all listeners, until cancelled."""
        failed: FsrepError | None = None
        with accepting:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(watch_expiries, self._expiries, self._tell_expiries)
                    for listener in self.listeners:
                        for address in await nursery.start(listener.serve, reception.welcome):
                            self.log.write(Line("info", "listening", {"address": address}))
                except FsrepError as error:  # raised below, outside the nursery
                    failed = error
                    nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed

    def _reception(self, serving: trio.Nursery, service: Service) -> Reception:
        return Reception(
            serving,
            self._admission_of,
            limits=Limits(
                connections=self.config.connections,
                handshakes=self.config.handshakes,
                handshake_seconds=self.config.handshake_timeout_seconds,
            ),
            service=service,
            tell=self._tell_visit,
        )

    def _stop(self, service: Service, accepting: trio.CancelScope, serving: trio.Nursery) -> None:
        self.log.write(Line("info", "stopping"))
        accepting.cancel()
        service.stopping.set()
        serving.cancel_scope.deadline = trio.current_time() + self.config.stop_timeout_seconds

    def _admission_of(self, identity: str) -> Admission:
        admission = self.admissions.get(identity)
        if admission is None:
            raise PermissionDeniedError(
                f'this server does not know "{identity}"',
                local=False,
                hint="write an [[identity]] of that name into its configuration",
            )
        return admission

    def _expiries(self) -> tuple[Expiry, ...]:
        """List what the listeners need and what ends some day; some may need the same."""
        return tuple(
            dict.fromkeys(each for listener in self.listeners for each in listener.expiries())
        )

    def _tell_expiries(self, expiries: tuple[Expiry, ...]) -> None:
        for warning in expiry_warnings(expiries):
            self.log.write(Line("warning", warning))
        if self.metrics is not None:
            self.metrics.write_server(expiries)

    def _tell_visit(self, visit: Admitted | Left) -> None:
        self.log.write(visit_line(visit))

    def _tell_served(self, served: Served) -> None:
        self.log.write(served_line(served))


def serve(
    config_path: Path | None, *, metrics_file: Path | None, log_format: str, log_level: str
) -> int:
    """Serve until a signal; give the exit status."""
    session = open_session(config_path, (), jobs_needed=False)
    if session.serve is None:
        raise ConfigError(
            f"{session.config_path}: there is no table [serve]",
            hint="it says where to listen, in a [[serve.listener]]",
        )
    if not session.identities:
        raise ConfigError(
            f"{session.config_path}: nobody is served",
            hint="write one or more tables that begin with [[identity]]",
        )
    log = LogListener(log_format, log_level)
    listeners = make_listeners(session.serve, session.registry)
    admissions = {each.name: make_admission(each, session.registry) for each in session.identities}
    metrics = None if metrics_file is None else MetricsListener(metrics_file)
    server = _Server(session.serve, listeners, admissions, log, metrics)
    look_for_garbage()
    return trio.run(server.run)
