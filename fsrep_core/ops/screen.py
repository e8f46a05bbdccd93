"""Tables for people, on standard output: plain where it is no terminal.

rich draws them; it is imported only when there is a table to draw.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fsrep_core.ops.words import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

__all__ = ["print_table", "terminal"]

_UNBOUNDED_COLUMNS = 10_000
"""Where nothing limits the width, no cell is wrapped or cut."""

_STYLES = {
    "replicated": "green",
    "failed": "bold red",
    "interrupted": "yellow",
    "not finished": "yellow",
}
"""Words that say how something went, and how they look on a terminal with colours."""


def terminal(*, stderr: bool = False) -> Console:
    """Give the console of a standard stream; ``NO_COLOR`` and ``TERM`` are respected."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() else _UNBOUNDED_COLUMNS,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()
) -> None:
    """Print rows below column titles.

    :param right: the columns whose cells are aligned to the right
    """
    from rich.table import Table
    from rich.text import Text

    right = set(right)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell), style=_STYLES.get(cell, "")) for cell in row))
    console = terminal()
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())  # noqa: T201  (the result of a command)
