"""The reference pages say what the classes and commands say, no more and no less."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import attrs
import click
import pytest

from fsrep_core import reports, values
from fsrep_core.ops import config, serve_config, serving
from fsrep_core.ops.cli import cli
from fsrep_core.ops.commands.check import Finding
from fsrep_core.ops.commands.versions import Comparison
from fsrep_core.ops.metrics import METRICS
from fsrep_core.ops.report import SCHEMAS
from fsrep_core.planning.plan import Conflict
from fsrep_core.quantities import format_duration
from fsrep_core.runtime.options import describe_type
from fsrep_core.runtime.registry import PluginStatus, load_plugins
from fsrep_directory.storage import DirectoryConfig
from fsrep_tls.config import TlsConfig, TlsListenerConfig

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
COMMANDS = (DOCS / "reference/command-line.md").read_text(encoding="utf-8")
REPORT = (DOCS / "reference/report.md").read_text(encoding="utf-8")
MONITOR = (DOCS / "how-to/monitor.md").read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """Give what stands below a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}$", page, re.MULTILINE)
    assert match, f"there is no section {heading!r}"
    level = len(match[1])
    rest = page[match.end() :]
    end = re.search(rf"^#{{1,{level}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> dict[str, list[str]]:
    """Read all tables of a text: the first cell without backticks to the others."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| \n"))]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {first.strip("`"): others for first, *others in cells}


# --- the configuration --------------------------------------------------------------------


def default_of(field) -> str:
    """Write a default as the page does."""
    default = field.default
    if default is attrs.NOTHING:
        return "required"
    if default is None:
        return "none"
    parse = field.metadata.get("parse")
    if parse is not None:
        return f'"{format_duration(default)}"'
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, int) else f'"{default.value}"'


@pytest.mark.parametrize(
    ("heading", "config_class"),
    [
        ("`[[job]]`", config.JobConfig),
        ("`[[identity]]`", serving.IdentityConfig),
        ("`[serve]`", serve_config.ServeConfig),
        ("storage `directory`", DirectoryConfig),
        ("transport `tls`", TlsConfig),
        ("listener `tls`", TlsListenerConfig),
    ],
)
def test_every_key_type_and_default_is_documented(heading, config_class):
    check_keys(rows(section(CONFIGURATION, heading)), config_class)


def test_the_keys_of_a_side_and_of_a_choice_are_documented():
    found = rows(section(CONFIGURATION, "`[job.sender]` and `[job.receiver]`"))
    name = {"name": found.pop("name")}

    check_keys(found, config.SideConfig)
    check_keys(name, config.PluginChoice)


def check_keys(found, config_class):
    hints = typing.get_type_hints(config_class)
    fields = [
        field
        for field in attrs.fields(config_class)
        if field.init and not field.metadata.get("rest")
    ]
    expected = {
        field.alias: [describe_type(field, hints[field.name]), default_of(field)]
        for field in fields
    }

    assert {key: cells[:2] for key, cells in found.items()} == expected


def test_every_table_of_a_file_is_documented():
    assert re.findall(r"^## `\[\[?(\w+)\]\]?`$", CONFIGURATION, re.MULTILINE) == list(config.TABLES)


def test_local_pipe_has_no_options():
    offer = load_plugins().find("transport", "local-pipe")

    assert attrs.fields(offer.config_class) == ()


# --- the command line ---------------------------------------------------------------------


def parameters(command: click.Command) -> list[str]:
    """List options and arguments as the page does."""
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            found.append(parameter.make_metavar(click.Context(command)))
        else:
            value = (
                "" if parameter.is_flag else f" {parameter.make_metavar(click.Context(command))}"
            )
            found.append(", ".join(parameter.opts) + value)
    return found


def all_commands(group: click.Group = cli, before: str = "") -> dict[str, click.Command]:
    """Give every command by what is typed, in the order of the help."""
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= all_commands(command, f"{before}{name} ")
        else:
            found[f"{before}{name}"] = command
    return found


@pytest.mark.parametrize("name", sorted(all_commands()))
def test_every_option_is_documented(name):
    command = all_commands()[name]

    documented = list(rows(section(COMMANDS, f"fsrep {name}")))

    assert [key.replace("\\|", "|") for key in documented] == parameters(command)


def test_every_command_is_documented_and_no_other():
    headings = re.findall(r"^## fsrep (.+)$", COMMANDS, re.MULTILINE)

    assert headings == list(all_commands())
    assert "`--version`" in COMMANDS


# --- documents ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value_class",
    [
        reports.RunReport,
        reports.ReplicationReport,
        reports.StepReport,
        values.Version,
        values.Problem,
        values.VersionResult,
        Conflict,
        Comparison,
        Finding,
        PluginStatus,
    ],
)
def test_every_field_of_a_document_is_documented(value_class):
    documented = rows(section(REPORT, value_class.__name__))

    assert list(documented) == [field.name for field in attrs.fields(value_class) if field.repr]


@pytest.mark.parametrize(("command", "schema"), SCHEMAS.items())
def test_every_document_has_its_schema(fsrep, job, command, schema):
    documented = rows(section(REPORT, f"fsrep {command}"))
    document = fsrep(command, "--json").document

    assert document["schema"] == schema
    assert f"`{schema}`" in documented["schema"][0] or schema in documented["schema"][0]
    assert list(documented)[: len(document)] == list(document)


def test_the_keys_inside_documents_are_documented(fsrep, job):
    fsrep("snapshot")

    for command in ("plan", "check", "snapshot", "versions"):
        described = section(REPORT, f"fsrep {command}")
        for entry in fsrep(command, "--json").document["jobs"]:
            for key in entry:
                assert f"`{key}`" in described, (command, key)
    plan = fsrep("plan", "--json").document["jobs"][0]["filesystems"][0]
    described = rows(section(REPORT, "fsrep plan"))
    assert plan.keys() | plan["steps"][0].keys() <= described.keys()
    offer = fsrep("plugins", "--json").document["offers"][0]
    assert offer.keys() <= rows(section(REPORT, "fsrep plugins")).keys()


# --- metrics ------------------------------------------------------------------------------


def test_every_metric_is_documented():
    documented = rows(section(MONITOR, "Every metric"))

    assert list(documented) == list(METRICS)
    for name, (labels, _) in documented.items():
        assert tuple(re.findall(r"`(\w+)`", labels)) == METRICS[name].labels
