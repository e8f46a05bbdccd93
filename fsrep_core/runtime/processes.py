"""Child processes that make, take or answer: started without a shell, always reaped.

A child's end is known by its exit status, never by the end of its output alone. Every
path out of these functions, also cancellation, kills the child, closes our ends of its
pipes, and waits for it, shielded and with a deadline.

Each child leads a group of its own. A terminal's Ctrl-C therefore reaches only fsrep,
which decides what becomes of its children; and killing a child kills what it started.
If fsrep itself is killed (SIGKILL), nobody kills them: a child that makes a stream ends
with SIGPIPE, but **a child that takes one sees an ordinary end of its input**. A storage
must not let such a child's own success be the commit, unless the stream's format marks
its end.

A child's standard error is read while it runs and kept up to its first and last
:data:`STDERR_PART_BYTES`, so that a chatty child neither blocks nor fills the memory.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import functools
import logging
import os
import signal
import subprocess
import termios
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs
import trio

from fsrep_core.errors import FsrepError, StorageError
from fsrep_core.runtime.pump import PIECE_BYTES, pump
from fsrep_core.streams import ByteStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Mapping, Sequence

__all__ = ["Explain", "ProcessOutput", "feed_process", "open_process_stream", "run_process"]

STDERR_PART_BYTES = 16 << 10
"""How much of the start, and how much of the end, of standard error is kept."""

STDOUT_LIMIT_BYTES = 1 << 30
"""The most that a child may answer on standard output: several million versions."""

READ_BYTES = 1 << 16

KILL_WAIT_SECONDS = 10.0
"""How long a killed child is waited for. Only one in uninterruptible sleep takes longer."""

EXIT_WAIT_SECONDS = 10.0
"""How long a child that stopped reading may take to say why, by its exit status."""

_SCARCE = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

logger = logging.getLogger(__name__)


class Explain(Protocol):
    """Turns a child's failure into a typed error: its storage knows the messages."""

    def __call__(self, status: int, stderr: str) -> FsrepError:
        """Give the error for this exit status (negative = signal) and standard error."""


@attrs.frozen(kw_only=True)
class ProcessOutput:
    """What a child that succeeded wrote."""

    stdout: bytes
    stderr: str
    """Decoded; bounded to its first and last part."""
    status: int = 0
    """The exit status: zero, or one that was to be tolerated."""


@asynccontextmanager
async def open_process_stream(
    argv: Sequence[str],
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
    on_stderr: Callable[[bytes], None] | None = None,
) -> AsyncIterator[ByteStream]:
    """Start a child and give its standard output as a stream.

    ``finish`` waits for the exit status: zero vouches for the stream, anything else
    raises ``explain(...)``. Leaving the context kills and reaps the child.

    :param env: the whole environment; ``None`` = ours
    :param on_stderr: hears what comes on standard error, piece by piece as it comes, and
        ``b""`` at its end; must neither block nor raise
    :raises StorageError: the program cannot be started
    """
    async with _started(
        argv, explain=explain, env=env, stdin=subprocess.DEVNULL, on_stderr=on_stderr
    ) as child:
        enlarge_pipe(child.stdout.fileno())
        yield _ProcessStream(child=child)


async def feed_process(  # noqa: PLR0913  (what its callers say of a child and its stream)
    argv: Sequence[str],
    stream: ByteStream,
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    keeps_partial: bool = False,
) -> ProcessOutput:
    """Start a child and pump a stream into its standard input, to a whole end.

    The child sees the end of its input only after ``stream.finish()`` has returned; in
    every other case it is killed first. A child that ends early stops the stream at
    once, and its own error is raised, not the broken pipe that echoes it.

    :param keeps_partial: the stream's format marks its end, and the child keeps what it
        has taken of one that breaks off. When the stream fails, such a child gets the end
        of its input and some time to take what is in the pipe, before it is killed
    :raises FsrepError: the stream's error, or ``explain(...)`` of the child's failure,
        whichever was the cause
    """
    async with _started(
        argv, explain=explain, env=env, stdin=subprocess.PIPE, pass_fds=pass_fds
    ) as child:
        enlarge_pipe(child.stdin.fileno())
        child.nursery.start_soon(child.collect_stdout)
        stopped_reading = False
        broken_off: FsrepError | None = None
        with trio.CancelScope() as feeding:
            child.nursery.start_soon(child.cancel_when_failed, feeding)
            try:
                await pump(stream, child.stdin.fileno())
            except BrokenPipeError:
                stopped_reading = True
            except FsrepError as error:
                if not keeps_partial:
                    raise
                broken_off = error
        if broken_off is not None:
            try:
                await child.end_of_partial()
                raise broken_off
            finally:
                del broken_off  # it refers to this frame, which would keep both alive
        if stopped_reading:
            raise await child.why_it_stopped_reading()
        child.stdin.close()
        return await child.output()


async def run_process(
    argv: Sequence[str],
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    tolerate: Container[int] = (),
) -> ProcessOutput:
    """Run a child to its end and give what it wrote.

    :param tolerate: exit statuses that are an answer as well: of a child that did a part
        of what it was asked for, and says on standard error what it could not do
    :raises FsrepError: ``explain(...)`` of any other exit status than these and zero
    """
    async with _started(
        argv, explain=explain, env=env, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL
    ) as child:
        child.nursery.start_soon(child.collect_stdout)
        if stdin:
            child.nursery.start_soon(child.write_stdin, stdin)
        return await child.output(tolerate)


def enlarge_pipe(descriptor: int) -> None:
    """Make a pipe as large as the kernel allows.

    It forbids when the pipes of this user take too much already (``pipe(7)``,
    ``pipe-user-pages-soft``). A small pipe is slower and as correct.
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, largest_pipe_bytes())


@functools.cache
def largest_pipe_bytes() -> int:
    """The largest pipe that an unprivileged process may have (``pipe(7)``)."""
    try:
        return int(Path("/proc/sys/fs/pipe-max-size").read_text())
    except (OSError, ValueError):
        return 1 << 20


@attrs.define(eq=False)
class _Ends:
    """The first and the last part of something long."""

    head: bytearray = attrs.field(factory=bytearray)
    tail: bytearray = attrs.field(factory=bytearray)
    left_out_bytes: int = 0

    def add(self, piece: bytes) -> None:
        room_bytes = STDERR_PART_BYTES - len(self.head)
        self.head += piece[:room_bytes]
        self.tail += piece[room_bytes:]
        excess_bytes = len(self.tail) - STDERR_PART_BYTES
        if excess_bytes > 0:
            del self.tail[:excess_bytes]
            self.left_out_bytes += excess_bytes

    def text(self) -> str:
        gap = f"\n[{self.left_out_bytes} bytes left out]\n" if self.left_out_bytes else ""
        head, tail = (bytes(part).decode(errors="replace") for part in (self.head, self.tail))
        return head + gap + tail


@attrs.define(eq=False)
class _Whole:
    """All of an answer, up to a limit."""

    pieces: list[bytes] = attrs.field(factory=list)
    size_bytes: int = 0

    def add(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        if self.size_bytes <= STDOUT_LIMIT_BYTES:
            self.pieces.append(piece)


@attrs.define(eq=False, kw_only=True)
class _Child:
    """One running child, with the tasks that attend to it.

    Its tasks never raise: what they found is asked for.
    """

    process: trio.Process
    program: str
    explain: Explain
    nursery: trio.Nursery
    complaint: _Ends = attrs.field(factory=_Ends)
    """What came on standard error."""
    answer: _Whole = attrs.field(factory=_Whole)
    """What came on standard output, where it is collected."""
    on_stderr: Callable[[bytes], None] | None = None

    @property
    def stdin(self) -> trio.lowlevel.FdStream:
        return cast("trio.lowlevel.FdStream", self.process.stdin)

    @property
    def stdout(self) -> trio.lowlevel.FdStream:
        return cast("trio.lowlevel.FdStream", self.process.stdout)

    @property
    def stderr(self) -> trio.lowlevel.FdStream:
        return cast("trio.lowlevel.FdStream", self.process.stderr)

    async def collect_stderr(self) -> None:
        await _collect(self.stderr.fileno(), self.hear)
        if self.on_stderr is not None:
            self.on_stderr(b"")

    def hear(self, piece: bytes) -> None:
        self.complaint.add(piece)
        if self.on_stderr is not None:
            self.on_stderr(piece)

    async def collect_stdout(self) -> None:
        await _collect(self.stdout.fileno(), self.answer.add)

    async def write_stdin(self, data: bytes) -> None:
        # A child need not read what it is given; its exit status says how it fared.
        with contextlib.suppress(trio.BrokenResourceError):
            await self.stdin.send_all(data)
        self.stdin.close()

    async def cancel_when_failed(self, scope: trio.CancelScope) -> None:
        if await self.process.wait() != 0:
            scope.cancel()

    async def vouch(self, tolerate: Container[int] = ()) -> int:
        """Wait for the exit status, and raise unless it is zero or to be tolerated."""
        status = await self.process.wait()
        if status != 0 and status not in tolerate:
            raise self.failure(status)
        return status

    def failure(self, status: int) -> FsrepError:
        _drain(self.stderr.fileno(), self.hear)
        return self.explain(status, self.complaint.text())

    async def output(self, tolerate: Container[int] = ()) -> ProcessOutput:
        status = await self.vouch(tolerate)
        _drain(self.stdout.fileno(), self.answer.add)
        _drain(self.stderr.fileno(), self.hear)
        if self.answer.size_bytes > STDOUT_LIMIT_BYTES:
            raise StorageError(
                f"{self.program!r} answered with {self.answer.size_bytes} bytes, more than "
                f"the limit of {STDOUT_LIMIT_BYTES}",
                hint="narrow what the job asks for",
            )
        return ProcessOutput(
            stdout=b"".join(self.answer.pieces), stderr=self.complaint.text(), status=status
        )

    async def end_of_partial(self) -> None:
        """Let the child take what is in the pipe, and end."""
        self.stdin.close()
        with trio.move_on_after(EXIT_WAIT_SECONDS):
            await self.process.wait()

    async def why_it_stopped_reading(self) -> FsrepError:
        with trio.move_on_after(EXIT_WAIT_SECONDS):
            status = await self.process.wait()
            if status != 0:
                return self.failure(status)
            return StorageError(f"{self.program!r} ended before it had read the whole stream")
        return StorageError(
            f"{self.program!r} closed its input before the stream ended, and goes on running"
        )


@attrs.define(eq=False, kw_only=True)
class _ProcessStream(ByteStream):
    """The standard output of a child."""

    child: _Child
    _buffer: bytearray = attrs.field(init=False, factory=bytearray, repr=False)

    @property
    def descriptor(self) -> int:
        return self.child.stdout.fileno()

    async def receive_some(self, max_bytes: int) -> memoryview:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._buffer:
            self._buffer = bytearray(PIECE_BYTES)
        buffer = memoryview(self._buffer)[:max_bytes]
        while True:
            try:
                return buffer[: os.readv(self.descriptor, [buffer])]
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.descriptor)

    async def finish(self) -> None:
        await self.child.vouch()


@asynccontextmanager
async def _started(  # noqa: PLR0913  (what its three callers say of a child)
    argv: Sequence[str],
    *,
    explain: Explain,
    env: Mapping[str, str] | None,
    stdin: int,
    pass_fds: Sequence[int] = (),
    on_stderr: Callable[[bytes], None] | None = None,
) -> AsyncIterator[_Child]:
    """Start a child for as long as the context; its error is the body's, never a group."""
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            pass_fds=pass_fds,
            **_apart_from_us(),
        )
    except OSError as error:
        raise _cannot_start(argv[0], error) from error
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            child = _Child(
                process=process,
                program=argv[0],
                explain=explain,
                nursery=nursery,
                on_stderr=on_stderr,
            )
            nursery.start_soon(child.collect_stderr)
            try:
                yield child
            except BaseException as error:  # noqa: BLE001  (raised again, outside the nursery)
                body_error = error
            nursery.cancel_scope.cancel()
    finally:
        await _end(process, argv[0])
    if body_error is not None:
        try:
            raise body_error
        finally:
            del body_error  # it refers to this frame, which would keep both alive


async def _end(process: trio.Process, program: str) -> None:
    """Kill a child and what it started, close our ends of its pipes, wait for it.

    The order matters: a child that the kernel holds in a write ends only when the pipe
    is closed, and so can only be waited for after that.
    """
    if process.poll() is None:
        # A child of another user cannot be killed; closing its pipes ends it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            cast("trio.lowlevel.FdStream", pipe).close()
    with trio.move_on_after(KILL_WAIT_SECONDS, shield=True):
        await process.wait()
        return
    logger.warning(
        "process %d (%s) was killed and has not ended after %g seconds; "
        "the kernel holds it, look at its wait channel and the kernel's log",
        process.pid,
        program,
        KILL_WAIT_SECONDS,
    )
    trio.lowlevel.spawn_system_task(process.wait)


def _apart_from_us() -> dict[str, Any]:
    """How to start a child in a group of its own.

    Where there is a terminal, the group is also a session without one: a child that asks
    for a password then fails at once, where otherwise the terminal would stop it, and the
    job would hang. Elsewhere a session would only cost: Linux schedules each by itself
    (``sched(7)``, autogroup), and pipes between sessions were a quarter slower under load.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return {"process_group": 0}
    return {"start_new_session": True}


def _cannot_start(program: str, error: OSError) -> StorageError:
    """What the operator can do about a program that cannot be started."""
    if isinstance(error, FileNotFoundError):
        hint = f"install {program!r}, or put its directory into PATH"
    elif isinstance(error, PermissionError):
        hint = f"make {program!r} executable for the user that runs fsrep"
    elif error.errno in _SCARCE:
        hint = "raise the limits on processes, descriptors or memory, or lower the concurrency"
    else:
        hint = None
    return StorageError(
        f"cannot start {program!r}: {error.strerror}",
        temporary=error.errno in _SCARCE,
        local=False,
        hint=hint,
    )


async def _collect(descriptor: int, add: Callable[[bytes], None]) -> None:
    """Read a pipe to its end."""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        try:
            piece = os.read(descriptor, READ_BYTES)
        except BlockingIOError:  # _drain was quicker
            continue
        if not piece:
            return
        add(piece)


def _drain(descriptor: int, add: Callable[[bytes], None]) -> None:
    """Read what is in a pipe now.

    After a child's exit that is all it wrote. Its end is not waited for: something
    that the child left running may hold the pipe open.
    """
    waiting_bytes = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting_bytes)
    remaining_bytes = waiting_bytes[0]
    while remaining_bytes > 0:
        piece = os.read(descriptor, remaining_bytes)
        remaining_bytes -= len(piece)
        add(piece)
