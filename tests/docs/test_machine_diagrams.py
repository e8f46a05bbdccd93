"""The drawings of the machines are made from the tables, and say all that the tables say."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fsrep_core import machines
from fsrep_core.machines import replication, run, step

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference/machines.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def load_extension():
    path = DOCS / "_ext/machine_diagrams.py"
    spec = importlib.util.spec_from_file_location("machine_diagrams", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


diagrams = load_extension()
each_machine = pytest.mark.parametrize("module", [step, replication, run])


@each_machine
def test_machine_is_on_the_page(module):
    assert f".. machine:: {module.__name__}\n" in PAGE


def test_no_machine_is_forgotten():
    package = Path(machines.__file__).parent
    modules = [f"{machines.__name__}.{path.stem}" for path in package.glob("*.py")]
    with_tables = {
        name for name in modules if hasattr(importlib.import_module(name), "TRANSITIONS")
    }

    assert set(re.findall(r"^\.\. machine:: (\S+)$", PAGE, re.MULTILINE)) == with_tables


@each_machine
def test_every_state_is_drawn_and_explained(module):
    drawing = ET.fromstring(diagrams.draw(module.TRANSITIONS, "title"))  # noqa: S314  (ours)
    drawn = {
        group.get("data-state"): group.find(f"{SVG}text").text
        for group in drawing.iter(f"{SVG}g")
        if group.get("data-state")
    }

    assert drawn == {state.name: state.value for state in module.TRANSITIONS}
    for state in module.TRANSITIONS:
        assert f"\n`{state.value}`\n: " in PAGE


@each_machine
def test_every_move_is_drawn_and_no_other(module):
    drawing = ET.fromstring(diagrams.draw(module.TRANSITIONS, "title"))  # noqa: S314  (ours)
    drawn = [
        (group.get("data-source"), group.get("data-event"), group.get("data-target"))
        for group in drawing.iter(f"{SVG}g")
        if group.get("data-event") and group.find(f"{SVG}text").text == group.get("data-event")
    ]

    assert sorted(drawn) == sorted(
        (state.name, event.__name__, target.name)
        for state, row in module.TRANSITIONS.items()
        for event, target in row.items()
    )


@each_machine
def test_only_terminal_states_have_a_thick_frame(module):
    drawing = ET.fromstring(diagrams.draw(module.TRANSITIONS, "title"))  # noqa: S314  (ours)
    thick = {
        group.get("data-state")
        for group in drawing.iter(f"{SVG}g")
        if group.get("data-state") and group.find(f"{SVG}rect").get("stroke-width") == "3"
    }

    assert thick == {state.name for state, row in module.TRANSITIONS.items() if not row}


@each_machine
def test_lines_never_lie_on_each_other(module):
    drawing = diagrams.draw(module.TRANSITIONS, "title")
    verticals = [
        (float(x), *sorted((float(start), float(end))))
        for start, x, end in re.findall(r'd="M\S+ ([-\d.]+)H([-\d.]+)V([-\d.]+)H', drawing)
    ]
    ends = re.findall(r'd="M(\S+) ([-\d.]+)H', drawing)

    assert len(verticals) == len(diagrams.list_moves(module.TRANSITIONS))
    assert len(set(ends)) == len(ends)
    for at, (x, low, high) in enumerate(verticals):
        for other_x, other_low, other_high in verticals[at + 1 :]:
            assert x != other_x or high < other_low or low > other_high


@each_machine
def test_table_has_a_row_for_every_move_and_every_end(module):
    text = "\n".join(diagrams._write_table(module.TRANSITIONS))

    for move in diagrams.list_moves(module.TRANSITIONS):
        row = (
            f"   * - ``{move.source.value}``\n     - ``{move.event.__name__}``\n"
            f"     - ``{move.target.value}``\n     - "
        )
        meaning = text.partition(row)[2].partition("\n")[0]
        assert meaning.endswith("."), move
    assert text.count("The end.") == sum(not row for row in module.TRANSITIONS.values())
