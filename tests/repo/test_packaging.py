"""What is built is complete, and what is tested is what was installed."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import fsrep_core

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [ROOT / "fsrep_core", *sorted((ROOT / "plugins").glob("fsrep_*"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from the tree by its own build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [path] = folder.glob("fsrep-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_module_and_no_more(wheel):
    expected = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_wheel_tells_type_checkers_that_every_package_is_typed(wheel):
    typed = {name for name in wheel.namelist() if name.endswith("/py.typed")}

    assert typed == {f"{package.name}/py.typed" for package in PACKAGES}


def test_wheel_carries_the_licence_and_the_entry_points(wheel):
    by_name = {Path(name).name: name for name in wheel.namelist()}
    entry_points = wheel.read(by_name["entry_points.txt"]).decode()

    assert "LICENSE" in by_name
    assert "fsrep = fsrep_core.ops.cli:main" in entry_points
    for package in PACKAGES[1:]:
        assert f"= {package.name}:plugin" in entry_points


def test_tools_know_every_package():
    """A package that a tool does not know is not checked, and nobody would notice."""
    names = {package.name for package in PACKAGES}
    built = {
        Path(path).name
        for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    plugins = names - {"fsrep_core"}
    inside = {
        f"fsrep_core.{path.stem}" for path in PACKAGES[0].glob("[!_]*") if path.name != "py.typed"
    }
    contracts = {each["name"]: each for each in PYPROJECT["tool"]["importlinter"]["contracts"]}

    assert built == names
    assert set(PYPROJECT["tool"]["coverage"]["run"]["source_pkgs"]) == names
    assert set(PYPROJECT["tool"]["importlinter"]["root_packages"]) == names
    assert set(contracts["the core imports no plugin"]["forbidden_modules"]) == plugins
    assert set(contracts["plugins know only public names"]["source_modules"]) == plugins
    assert set(contracts["plugins know only public names"]["forbidden_modules"]) == inside
    assert set(contracts["no plugin knows another"]["modules"]) == plugins


def test_what_is_tested_is_what_was_installed():
    """A tree on the import path would hide what the wheel lacks."""
    installed = importlib.metadata.distribution("fsrep")
    origin = json.loads(installed.read_text("direct_url.json"))
    editable = origin["dir_info"].get("editable", False)
    home = ROOT if editable else Path(installed.locate_file(""))

    assert Path(fsrep_core.__file__).is_relative_to(home)


def test_version_is_the_same_everywhere():
    assert importlib.metadata.version("fsrep") == fsrep_core.__version__
