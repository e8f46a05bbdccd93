"""The public names: listed, typed and served from one place each, and only when used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import fsrep_core

TREE = ast.parse(inspect.getsource(fsrep_core))


def typed_names():
    """What the ``TYPE_CHECKING`` block imports: name -> module, relative to the package."""
    [block] = [
        node for node in TREE.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING"
    ]
    return {
        alias.name: node.module.removeprefix("fsrep_core.")
        for node in block.body
        for alias in node.names
    }


def test_all_is_what_is_served():
    assert sorted(fsrep_core.__all__) == fsrep_core.__all__
    assert set(fsrep_core.__all__) == set(fsrep_core._HOME_OF) == set(dir(fsrep_core))


def test_type_checkers_see_the_names_in_the_modules_that_serve_them():
    assert typed_names() == fsrep_core._HOME_OF


@pytest.mark.parametrize("name", fsrep_core.__all__)
def test_name_is_public_where_it_comes_from(name):
    home = importlib.import_module(f"fsrep_core.{fsrep_core._HOME_OF[name]}")

    assert name in home.__all__
    assert getattr(fsrep_core, name) is getattr(home, name)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'fsrep_core' has no attribute 'pumps'"):
        fsrep_core.pumps  # noqa: B018  (looking is what fails)


def modules_after(statement):
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import fsrep_core",
        "from fsrep_core import Version, SendRequest, StorageError",
        "import fsrep_core.planning",
        "import fsrep_core.machines",
    ],
)
def test_words_and_decisions_load_no_machinery(statement):
    """The command line starts fast only while what it does not use stays away."""
    heavy = {"trio", "pluggy", "rich", "structlog", "typer", "cattrs", "prometheus_client"}

    assert modules_after(statement) & heavy == set()
