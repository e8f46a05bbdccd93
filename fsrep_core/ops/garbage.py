"""When Python looks for cycles among what is not used any more.

Nearly all that a command makes while it starts lives as long as the command: to look there
takes a twentieth of a run that has nothing to do. What goes on for long says when its work
begins.
"""

from __future__ import annotations

import gc

__all__ = ["look_for_garbage", "spare_the_end", "spare_the_start"]

THRESHOLD = 20_000
"""How many new objects make Python look; its own number is 700."""


def spare_the_start() -> None:
    """Look for none until somebody asks for it."""
    gc.disable()
    gc.set_threshold(THRESHOLD)


def look_for_garbage() -> None:
    """Look from now on, and only among what is made from now on."""
    gc.freeze()
    gc.enable()


def spare_the_end() -> None:
    """Keep Python from looking at everything once more when it ends."""
    gc.freeze()
