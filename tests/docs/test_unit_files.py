"""The units of systemd that the pages show can be installed as they stand there.

A service of several commands ends with the first that fails, so each has one.
"""

import configparser
import shlex
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from fsrep_core.ops.cli import cli

ROOT = Path(__file__).parents[2]
UNITS = [
    pytest.param(token.content, id=f"{page.stem}:{token.map[0] + 1}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
    if token.type == "fence" and token.info.strip() == "ini"
]


def parse(unit):
    parser = configparser.ConfigParser(strict=True)  # a key that stands twice is refused
    parser.optionxform = str
    parser.read_string(unit)
    return parser


@pytest.mark.parametrize("unit", UNITS)
def test_a_service_is_one_command_that_fsrep_knows(unit):
    sections = parse(unit)
    if "Service" not in sections:
        assert "Timer" in sections
        return
    program, name, *arguments = shlex.split(sections["Service"]["ExecStart"])

    assert program == "/usr/local/bin/fsrep"
    cli.commands[name].make_context(name, arguments)


def test_a_run_waits_for_the_snapshots_and_not_for_their_success():
    """What systemd calls ``Wants`` and ``After`` says that; ``Requires`` would not."""
    units = [parse(unit.values[0]) for unit in UNITS if unit.id.startswith("run-unattended:")]
    [run] = [
        each for each in units if "fsrep run " in each.get("Service", "ExecStart", fallback="")
    ]

    assert run["Unit"]["Wants"] == run["Unit"]["After"] == "fsrep-snapshot.service"
    assert "Requires" not in run["Unit"]
