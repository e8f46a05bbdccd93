"""One ssh as the carrier of one connection.

Standard input and output are the connection, in plain pipes, so that payloads are spliced
into them. Standard error is read while ssh runs, for its last words; a task of trio's own
does that, since it belongs to the connection and not to whoever happened to open it. That
task never raises and ends when the stream is closed.

Nobody kills the far side: when ssh ends, for whatever reason, fsrep there reads the end of
its input and stops what it does. Where ssh shares its connection, the process that it leaves
in the background ends that input, is in a session of its own, and is not ours to end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from fsrep_core import ConfigError, ConnectivityError, DescriptorStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fsrep_core import FsrepError

__all__ = ["SshStream", "start_ssh"]

SAID_LIMIT_BYTES = 1 << 15
"""How much of the end of standard error is kept."""

READ_BYTES = 1 << 12

LEAVE_SECONDS = 1.0
"""How long ssh may take to end by itself, once our ends of its pipes are closed."""

KILL_WAIT_SECONDS = 10.0
"""How long a killed ssh is waited for. Only one in uninterruptible sleep takes longer."""

FAR_SIDE_MARK = "fsrep: "
"""What the endpoint there begins its own lines with."""

logger = logging.getLogger(__name__)


async def start_ssh(
    argv: Sequence[str], *, target: str, explain: Callable[[int, str], FsrepError]
) -> SshStream:
    """Start an ssh.

    :param target: how messages call the other host
    :param explain: makes the error of its exit status and standard error
    :raises ConfigError: there is no ssh on this host
    :raises ConnectivityError: it cannot be started now
    """
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=their_input,
            stdout=their_output,
            stderr=subprocess.PIPE,
            # Ctrl-C in a terminal reaches fsrep only, which ends this properly; and
            # without a terminal there is nobody to be asked for a password.
            start_new_session=True,
        )
    except BaseException as error:
        os.close(our_input)
        os.close(our_output)
        if isinstance(error, FileNotFoundError):
            raise ConfigError(
                f"{target}: cannot start {argv[0]!r}: there is no such program",
                hint="install OpenSSH's client, or put its directory into PATH",
            ) from error
        if isinstance(error, OSError):
            raise ConnectivityError(
                f"{target}: cannot start {argv[0]!r}: {error.strerror}"
            ) from error
        raise
    finally:
        os.close(their_input)
        os.close(their_output)
    return SshStream(process, our_input, our_output, target=target, explain=explain)


class SshStream(DescriptorStream):
    """The connection through one ssh, which it ends when it is closed."""

    def __init__(
        self,
        process: trio.Process,
        receiving: int,
        sending: int,
        *,
        target: str,
        explain: Callable[[int, str], FsrepError],
    ) -> None:
        super().__init__(receiving, sending)
        assert process.stderr is not None  # noqa: S101  (started with a pipe)
        self.process = process
        self._target = target
        self._explain = explain
        self._stderr = process.stderr
        self._said = bytearray()
        self._heard_out = trio.Event()
        trio.lowlevel.spawn_system_task(self._hear_stderr)

    async def why_it_ended(self) -> FsrepError | None:
        """See :class:`fsrep_core.Carrier`: what ssh said, and how it ended."""
        status = await self.process.wait()
        with trio.move_on_after(LEAVE_SECONDS):  # something it left running may hold the pipe
            await self._heard_out.wait()
        return self._explain(status, self._said.decode(errors="replace"))

    async def aclose(self) -> None:
        """Close the connection and see ssh end: by itself, or killed; bounded in time."""
        self.close()
        try:
            with trio.move_on_after(LEAVE_SECONDS):
                await self.process.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self._stderr.aclose()
            await self._heard_out.wait()
            with trio.move_on_after(KILL_WAIT_SECONDS):
                await self.process.wait()
                return
        logger.warning(
            "%s: ssh (process %d) was killed and has not ended after %g seconds; the kernel "
            "holds it",
            self._target,
            self.process.pid,
            KILL_WAIT_SECONDS,
        )
        trio.lowlevel.spawn_system_task(self.process.wait)

    async def _hear_stderr(self) -> None:
        """Keep the end of what comes, and pass the far side's own lines to the log."""
        line = bytearray()
        try:
            while piece := await self._stderr.receive_some(READ_BYTES):
                self._said += piece
                del self._said[:-SAID_LIMIT_BYTES]
                *lines, rest = (line + piece).split(b"\n")
                line = rest[-SAID_LIMIT_BYTES:]
                for each in lines:
                    self._log(each.decode(errors="replace").rstrip())
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass
        finally:
            self._heard_out.set()

    def _log(self, line: str) -> None:
        if line.startswith(FAR_SIDE_MARK):
            logger.warning("%s: %s", self._target, line.removeprefix(FAR_SIDE_MARK))
        else:
            logger.debug("%s: ssh: %s", self._target, line)
