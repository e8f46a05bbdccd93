"""Draws state machines from their transition tables, so that a page cannot differ from them.

The directive ``machine`` takes a module with a ``TRANSITIONS`` table
(:mod:`fsrep_core.table`) and puts a drawing and a table of every move on the page. The
drawing is an SVG made here: states stand in a column in the table's order, moves that
lead down run along its right side, moves that lead up along its left. A thick frame is
a terminal state. Text takes its colour from the page.
"""

from __future__ import annotations

import enum
import importlib
import inspect
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import attrs
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sphinx.application import Sphinx

    from fsrep_core.table import Table

__all__ = ["MachineDirective", "Move", "draw", "list_moves", "setup"]

PORT_PX = 22
"""Between two lines that leave or enter the same side of a state."""
LANE_PX = 16
"""Between two lines that run beside each other."""
GAP_PX = 30
LETTER_PX = 7.3
FONT = "font-family:ui-monospace,monospace;font-size:12px;fill:currentColor;stroke:none"


@attrs.frozen
class Move:
    """One cell of a table: the state, the event that it takes, the state that follows."""

    source: enum.Enum
    event: type
    target: enum.Enum


@attrs.define
class _Line:
    """A move on its way to be drawn."""

    move: Move
    top: int
    bottom: int
    leaves_px: float = 0
    enters_px: float = 0
    lane: int = 0


def list_moves(table: Table[enum.Enum]) -> list[Move]:
    """Give every move of a table, in its order."""
    return [
        Move(source, event, target)
        for source, row in table.items()
        for event, target in row.items()
    ]


def draw(table: Table[enum.Enum], title: str) -> str:
    """Draw a table as an SVG element. Every move carries its words as ``data-`` attributes."""
    states = list(table)
    place = {state: at for at, state in enumerate(states)}
    lines = [
        _Line(move, *sorted((place[move.source], place[move.target]))) for move in list_moves(table)
    ]
    right = [line for line in lines if place[line.move.target] >= place[line.move.source]]
    left = [line for line in lines if place[line.move.target] < place[line.move.source]]
    tops, heights = _place_ports(states, right, left)
    widest = max(len(state.value) for state in states) * LETTER_PX + 32
    margins = [_reach(side) for side in (left, right)]

    root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    width, height = margins[0] + widest + margins[1], tops[-1] + heights[-1] + 2
    root.set("viewBox", f"{-margins[0]:g} 0 {width:g} {height:g}")
    root.set("style", f"width:{width:g}px;max-width:100%;stroke:currentColor;fill:none")
    ET.SubElement(root, "title").text = title
    for state, top, tall in zip(states, tops, heights, strict=True):
        _draw_state(root, state, top, tall, widest, terminal=not table[state])
    for line in right:
        _draw_line(root, line, edge=widest, first_lane=widest + _word_px(right))
    for line in left:
        _draw_line(root, line, edge=0, first_lane=-_word_px(left))
    return ET.tostring(root, encoding="unicode")


def _place_ports(
    states: Sequence[enum.Enum], right: Sequence[_Line], left: Sequence[_Line]
) -> tuple[list[float], list[float]]:
    """Give each state the height that its lines need, and each line its two ends."""
    tops, heights, top = [], [], 2.0
    for state in states:
        counts = [_assign_ports(state, side, top) for side in (right, left)]
        tall = PORT_PX * max(1, *counts) + 12
        tops.append(top)
        heights.append(tall)
        top += tall + GAP_PX
    for side in (right, left):
        _choose_lanes(side)
    return tops, heights


def _assign_ports(state: enum.Enum, side: Sequence[_Line], top: float) -> int:
    """Put what enters above what leaves where lines run down, below where they run up."""
    count = 0
    for line in sorted(side, key=lambda line: line.bottom - line.top, reverse=True):
        if line.move.target is state and line.move.source is not state:
            line.enters_px = top + 6 + PORT_PX * (count + 0.5)
            count += 1
    for line in side:
        if line.move.source is state:
            line.leaves_px = top + 6 + PORT_PX * (count + 0.5)
            count += 1
            if line.move.target is state:
                line.enters_px = top + 6 + PORT_PX * (count + 0.5)
                count += 1
    return count


def _choose_lanes(side: Sequence[_Line]) -> None:
    """Let lines that run beside each other keep apart, the short ones inside."""
    placed: list[_Line] = []
    for line in sorted(side, key=lambda line: abs(line.enters_px - line.leaves_px)):
        low, high = sorted((line.leaves_px, line.enters_px))
        busy = {
            other.lane
            for other in placed
            if low <= max(other.leaves_px, other.enters_px)
            and high >= min(other.leaves_px, other.enters_px)
        }
        line.lane = next(lane for lane in range(len(placed) + 1) if lane not in busy)
        placed.append(line)


def _word_px(side: Sequence[_Line]) -> float:
    return max(len(line.move.event.__name__) for line in side) * LETTER_PX + 20


def _reach(side: Sequence[_Line]) -> float:
    if not side:
        return 2.0
    return _word_px(side) + LANE_PX * (1 + max(line.lane for line in side))


def _draw_state(  # noqa: PLR0913  (a rectangle and its word have this many parts)
    root: ET.Element, state: enum.Enum, top: float, tall: float, wide: float, *, terminal: bool
) -> None:
    group = ET.SubElement(root, "g", {"data-state": state.name})
    frame = {"x": "1", "y": f"{top:g}", "width": f"{wide - 2:g}", "height": f"{tall:g}"}
    ET.SubElement(group, "rect", frame, rx="6", **{"stroke-width": "3" if terminal else "1"})
    middle = {"x": f"{wide / 2:g}", "y": f"{top + tall / 2 + 4:g}", "text-anchor": "middle"}
    ET.SubElement(group, "text", middle, style=FONT).text = state.value


def _draw_line(root: ET.Element, line: _Line, *, edge: float, first_lane: float) -> None:
    outwards = 1 if first_lane > edge else -1
    move = line.move
    words = {
        "data-source": move.source.name,
        "data-event": move.event.__name__,
        "data-target": move.target.name,
    }
    group = ET.SubElement(root, "g", words)
    lane = first_lane + outwards * LANE_PX * line.lane
    tip = edge + outwards * 2
    path = f"M{edge:g} {line.leaves_px:g}H{lane:g}V{line.enters_px:g}H{tip:g}"
    arrow = f"m{outwards * 7} -4l{outwards * -7} 4l{outwards * 7} 4"
    ET.SubElement(group, "path", d=path + arrow)
    start = {
        "x": f"{edge + outwards * 10:g}",
        "y": f"{line.leaves_px - 4:g}",
        "text-anchor": "start" if outwards > 0 else "end",
    }
    ET.SubElement(group, "text", start, style=FONT).text = move.event.__name__


def _write_table(table: Table[enum.Enum]) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "")
    yield from ("   * - in", "     - when", "     - then", "     - which means")
    for state, row in table.items():
        for event, target in row.items():
            meaning = " ".join((inspect.getdoc(event) or "").partition("\n\n")[0].split())
            yield f"   * - ``{state.value}``"
            yield f"     - ``{event.__name__}``"
            yield f"     - ``{target.value}``"
            yield f"     - {meaning}"
        if not row:
            yield from (f"   * - ``{state.value}``", "     - ", "     - ", "     - The end.")


class MachineDirective(SphinxDirective):
    """``.. machine:: MODULE`` shows the ``TRANSITIONS`` of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the drawing and the table."""
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(str(inspect.getsourcefile(module)))
        name = self.arguments[0].rpartition(".")[2]
        drawing = draw(module.TRANSITIONS, f"The states of a {name} and the moves between them")
        table = self.parse_text_to_nodes("\n".join(_write_table(module.TRANSITIONS)))
        return [nodes.raw("", f"<p>{drawing}</p>", format="html"), *table]


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know the directive."""
    app.add_directive("machine", MachineDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
