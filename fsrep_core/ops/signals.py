"""SIGINT and SIGTERM: the first asks for a clean end, the second for the quickest one.

A third meets the default of the operating system again, for the case that even the
cancelled work hangs, as in a call into a filesystem whose server is gone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Interruption", "interruptible"]

EXIT_STATUS_BASE = 128
"""A shell's way to say that a signal ended a command: this plus its number."""


@attrs.define(eq=False)
class Interruption:
    """Which signal came, and what is to be done about it."""

    number: int | None = None
    """The first signal; ``None`` = none came."""
    end_cleanly: Callable[[], None] | None = None
    """Called on the first signal."""

    @property
    def exit_status(self) -> int | None:
        """The exit status that tells of the signal; ``None`` = none came."""
        return None if self.number is None else EXIT_STATUS_BASE + self.number


@asynccontextmanager
async def interruptible() -> AsyncIterator[Interruption]:
    """Listen for the two signals while inside.

    The first calls ``end_cleanly``, or cancels what is inside where nothing is set
    there. The second cancels what is inside. Leaving by a signal raises nothing.
    """
    interruption = Interruption()
    async with trio.open_nursery() as nursery:
        await nursery.start(_listen, interruption, nursery.cancel_scope)
        yield interruption
        nursery.cancel_scope.cancel()


async def _listen(
    interruption: Interruption,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if interruption.number is None and interruption.end_cleanly is not None:
                interruption.number = number
                _say(f"{name}: ending cleanly; once more to end at once")
                interruption.end_cleanly()
            else:
                interruption.number = interruption.number or number
                _say(f"{name}: ending at once")
                scope.cancel()
                return


def _say(text: str) -> None:
    print(f"fsrep: {text}", file=sys.stderr)  # noqa: T201  (for the person at the terminal)
