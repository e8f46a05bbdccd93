"""What is imported: a command that needs little starts fast."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import attrs

from fsrep_core.runtime.registry import load_plugins

PROBE = """\
import json, sys
sys.argv = {argv!r}
from fsrep_core.ops.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""

LIBRARIES = {"attr", "prometheus_client", "pluggy", "rich", "structlog", "tomllib", "trio"}
ONLY_WHERE_NEEDED = {
    "fsrep_core.ops.serve_config",
    "fsrep_core.ops.serving",
    "fsrep_core.runtime.processes",
    "fsrep_core.runtime.remote",
    "fsrep_directory.engine.send",
}
"""Not to find out that there is nothing to do."""


def imported_by(cwd, *arguments: str) -> set[str]:
    """Run a command in a fresh interpreter and give the modules that it imported."""
    unmeasured = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROBE.format(argv=["fsrep", *arguments])],
        cwd=cwd,
        env=unmeasured,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(ended.stderr.splitlines()[-1]))


def test_version_imports_next_to_nothing(tmp_path):
    modules = imported_by(tmp_path, "--version")

    assert modules & LIBRARIES == set()
    ours = {name for name in modules if name.startswith("fsrep")}
    assert ours == {"fsrep_core", "fsrep_core.ops", "fsrep_core.ops.cli", "fsrep_core.ops.garbage"}


def test_help_imports_next_to_nothing(tmp_path):
    assert imported_by(tmp_path, "run", "--help") & LIBRARIES == set()


def test_a_run_with_nothing_to_do_imports_only_what_it_uses(fsrep, job):
    fsrep("snapshot", "--name", "one")
    assert fsrep("run").status == 0

    modules = imported_by(job.root, "run")

    assert modules & {"prometheus_client", "rich", "structlog", "asyncio", "http"} == set()
    assert not [name for name in modules if name.startswith(("fsrep_core.testing", "hypothesis"))]
    assert modules & ONLY_WHERE_NEEDED == set()
    assert {name.partition(".")[0] for name in modules if name.startswith("fsrep_")} == {
        "fsrep_core",
        "fsrep_directory",
        "fsrep_local_pipe",
    }


def test_a_run_that_is_not_on_a_terminal_imports_no_bars(fsrep, job):
    fsrep("snapshot", "--name", "one")

    modules = imported_by(job.root, "run")

    assert modules & {"rich.progress", "fsrep_core.ops.bars", "structlog"} == set()


def test_a_plugin_is_imported_when_it_may_be_needed():
    class EntryPoint:
        dist = None

        def __init__(self, name):
            self.name = self.value = name

        def load(self):
            loaded.append(self.name)
            return self

        def register(self, registry):
            registry.add_storage(self.name, object, config_class=Options, summary="s")

    Options = attrs.make_class("Options", [])  # noqa: N806  (a class)
    loaded = []
    registry = load_plugins([EntryPoint("b"), EntryPoint("a"), EntryPoint("c")])

    assert registry.find("storage", "b").plugin == "b"
    assert loaded == ["b"]
    assert [offer.name for offer in registry.offers("storage")] == ["a", "b", "c"]
    assert loaded == ["b", "a", "c"]


def test_the_entry_point_is_this_command_line():
    (entry_point,) = importlib.metadata.entry_points(group="console_scripts", name="fsrep")

    assert entry_point.value == "fsrep_core.ops.cli:main"
