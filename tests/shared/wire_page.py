"""The page of the wire as tests read it: its tables, and its vectors in hexadecimal."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["TEXT", "rows", "vectors"]

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text(encoding="utf-8")


def section(heading):
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def rows(heading, columns):
    """The rows, as lists of cells, of the table whose columns begin so."""
    found = re.search(
        rf"^\| {re.escape(columns)}[^\n]*\n\|[-|]+\|\n((?:\|[^\n]*\n)+)",
        section(heading),
        re.MULTILINE,
    )
    assert found is not None, (heading, columns)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def vectors(heading):
    """The named byte strings of a section, in order; a name may stand there twice."""
    found = re.findall(r"^([^\s`#|][^\n]*)\n((?:  [0-9a-f ]+\n)+)", section(heading), re.MULTILINE)
    return [(name, bytes.fromhex(digits)) for name, digits in found]
