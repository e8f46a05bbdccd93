"""Child processes that make, take or answer: started without a shell, always reaped.

A child's end is known by its exit status, never by the end of its output alone. Every
path out of these functions, also cancellation, kills the child, closes our ends of its
pipes, and waits for it, shielded and with a deadline.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from fsrep_core.errors import FsrepError
    from fsrep_core.streams import ByteStream

__all__ = ["Explain", "ProcessOutput", "feed_process", "open_process_stream", "run_process"]


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


@asynccontextmanager
async def open_process_stream(
    argv: Sequence[str],
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[ByteStream]:
    """Start a child and give its standard output as a stream.

    ``finish`` waits for the exit status: zero vouches for the stream, anything else
    raises ``explain(...)``. Leaving the context kills and reaps the child.

    :param env: the whole environment; ``None`` = ours
    :raises StorageError: the program cannot be started
    """
    raise NotImplementedError
    yield


async def feed_process(
    argv: Sequence[str],
    stream: ByteStream,
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> ProcessOutput:
    """Start a child and pump a stream into its standard input, to a whole end.

    The child sees the end of its input only after ``stream.finish()`` has returned; in
    every other case it is killed first. A child that ends early stops the stream at
    once, and its own error is raised, not the broken pipe that echoes it.

    :raises FsrepError: the stream's error, or ``explain(...)`` of the child's failure,
        whichever was the cause
    """
    raise NotImplementedError


async def run_process(
    argv: Sequence[str],
    *,
    explain: Explain,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> ProcessOutput:
    """Run a child to its end and give what it wrote.

    :raises FsrepError: ``explain(...)`` of an exit status other than zero
    """
    raise NotImplementedError
