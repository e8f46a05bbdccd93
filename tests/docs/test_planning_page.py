"""The page on planning says what the planner does."""

import re
from pathlib import Path

import pytest

from fsrep_core.planning import (
    Base,
    ConflictKind,
    Diverged,
    Initial,
    StaleToken,
    Steps,
    select_filesystems,
)

PAGE = (Path(__file__).parents[2] / "docs/explanation/planning.md").read_text(encoding="utf-8")


def rows(heading):
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_conflict_has_a_row_with_a_remedy():
    table = rows("conflict | what is the matter | what you can do")

    assert [words(kind)[0] for kind, _, _ in table] == [kind.value for kind in ConflictKind]
    assert all(matter and remedy for _, matter, remedy in table)


@pytest.mark.parametrize(
    ("option", "choices", "heading"),
    [
        ("steps", Steps, "`steps` | from `a` over `b`, `c` to `d`"),
        ("initial", Initial, "`initial` | what is sent"),
    ],
)
def test_every_choice_has_a_row(option, choices, heading):
    assert [words(row[0])[0] for row in rows(heading)] == [f'"{each.value}"' for each in choices]
    assert f"`{option}` says" in PAGE


@pytest.mark.parametrize("choices", [Diverged, StaleToken, Base])
def test_other_choices_are_named(choices):
    for choice in choices:
        assert f'"{choice.value}"' in PAGE


def test_examples_of_patterns_are_true():
    names = words(PAGE.partition("With the filesystems\n")[2].partition(":")[0])
    examples = rows("patterns | mean")

    assert len(names) == 6
    assert len(examples) == 12
    for patterns, meant in examples:
        assert list(select_filesystems(words(patterns), names)) == words(meant), patterns
