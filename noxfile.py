"""What contributors and CI run: ``nox`` for all that a laptop can do, ``nox -l`` for the list.

Tests run against the wheel as a user would install it, never against the tree:
``PYTHONSAFEPATH`` keeps the working directory out of the import path. The first Python
of a run also takes the long tests (``proof``) and measures coverage.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # CI runs on what the machine has
nox.options.sessions = ["lint", "types", "tests", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES = [Path(path).name for path in WHEEL["packages"]]

SUPPORTED = ["3.11", "3.12", "3.13"]
RUNS_NOX = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = SUPPORTED if RUNS_NOX in SUPPORTED else [*SUPPORTED, RUNS_NOX]

INSTALLED_ONLY = {"PYTHONSAFEPATH": "1"}
SPREAD = ["-n", "auto", "--dist", "worksteal", "--durations=10", "--durations-min=5"]
CORE_COVERAGE_PERCENT = 95

measured: list[nox.Session] = []


def group(name: str) -> tuple[str, ...]:
    """Give the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, and which module may import which."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": "plugins"})


@nox.session
def types(session: nox.Session) -> None:
    """Types of every package, of this file, and of a plugin as a stranger writes it."""
    session.install(".", *group("types"))
    session.run("mypy", *(f"--package={package}" for package in PACKAGES))
    session.run("mypy", "noxfile.py")
    with session.chdir("tests/typing"):
        session.run("mypy", "--config-file=mypy.ini", ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests that need no filesystem of their own; arguments go to pytest."""
    session.install(".", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs, env=INSTALLED_ONLY)
        return
    if measured:
        session.run("pytest", *SPREAD, "-m", "not proof and not btrfs", env=INSTALLED_ONLY)
        return

    measured.append(session)
    measure = ["coverage", "run", "-m", "pytest", *SPREAD, "-m", "not proof and not btrfs"]
    session.run("coverage", "erase")
    session.run(*measure, env=INSTALLED_ONLY)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--omit=*/fsrep_core/*")
    core = ["--include=*/fsrep_core/*", f"--fail-under={CORE_COVERAGE_PERCENT}"]
    session.run("coverage", "report", *core)
    session.run("pytest", *SPREAD, "-m", "proof and not btrfs", env=INSTALLED_ONLY)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, where a warning is an error; the tests run their examples."""
    session.install(".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "docs", "docs/_build/html")


@nox.session
def changelog(session: nox.Session) -> None:
    """Show how the fragments in ``changelog.d`` will read; changes nothing."""
    session.install(*group("changelog"))
    session.run("towncrier", "build", "--draft", "--version", PROJECT["project"]["version"])


@nox.session
def btrfs(session: nox.Session) -> None:
    """Tests on real btrfs filesystems: needs root, btrfs-progs and loop devices."""
    session.install(".", *group("test"))
    session.run("pytest", "-m", "btrfs", *session.posargs, env=INSTALLED_ONLY)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the wire, guided by coverage; arguments go to libFuzzer, such as ``-runs=10000000``."""
    session.install(".", *group("fuzz"))
    found = session.create_tmp()
    bounds = session.posargs or ["-runs=100000"]
    options = [*bounds, "-max_len=256", "-print_final_stats=1"]
    corpora = [found, "tests/fuzz/corpus"]  # new inputs go to the first
    session.run("python", "tests/fuzz/fuzz_wire.py", *options, *corpora, env=INSTALLED_ONLY)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside what a user would pick instead; arguments: names, ``--quick``."""
    session.install(".")
    names = [each for each in session.posargs if not each.startswith("-")]
    options = [each for each in session.posargs if each.startswith("-")]
    every = sorted(path.stem for path in Path("bench").glob("[!_]*.py"))
    for name in names or every:
        session.run("python", "-m", "bench", name.replace("_", "-"), "--json", *options)
