"""What contributors and CI run: ``nox`` for all that a laptop can do, ``nox -l`` for the list.

Tests run against the wheel as a user would install it, never against the tree:
``PYTHONSAFEPATH`` keeps the working directory out of the import path. The first Python
of a run also takes the long tests (``proof``) and measures coverage.
"""

from __future__ import annotations

import shutil
import sys
import tokenize
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
SLOWEST = ["--durations=10", "--durations-min=5"]
SPREAD = ["-n", "auto", "--dist", "worksteal", *SLOWEST]
CORE_COVERAGE_PERCENT = 95
ANYWHERE = "not btrfs and not zfs and not hosts"
"""The tests that need no filesystem of their own."""

GUEST_SECONDS = 7200
"""What all tests on ZFS may take in a guest that is only emulated."""

EXAMPLE = Path("examples/fsrep-unix-socket")
EXAMPLE_LINES_LIMIT = 80

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
    """Types of packages, benchmarks and this file, and of plugins as strangers write them."""
    session.install(".", *group("types"))
    session.run("mypy", *(f"--package={package}" for package in [*PACKAGES, "bench"]))
    session.run("mypy", "noxfile.py")
    with session.chdir("tests/typing"):
        session.run("mypy", "--config-file=mypy.ini", ".")
    with session.chdir(EXAMPLE):
        session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests that need no filesystem of their own; arguments go to pytest."""
    session.install(".", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs, env=INSTALLED_ONLY)
        return
    if measured:
        session.run("pytest", *SPREAD, "-m", f"not proof and {ANYWHERE}", env=INSTALLED_ONLY)
        return

    measured.append(session)
    measure = ["coverage", "run", "-m", "pytest", *SPREAD, "-m", f"not proof and {ANYWHERE}"]
    session.run("coverage", "erase")
    session.run(*measure, env=INSTALLED_ONLY)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--omit=*/fsrep_core/*")
    core = ["--include=*/fsrep_core/*", f"--fail-under={CORE_COVERAGE_PERCENT}"]
    session.run("coverage", "report", *core)
    session.run("pytest", *SPREAD, "-m", f"proof and {ANYWHERE}", env=INSTALLED_ONLY)


@nox.session
def kit(session: nox.Session) -> None:
    """Install a stranger's transport beside fsrep, as wheels, and run its tests there."""
    lines = sum(map(code_lines, (EXAMPLE / "src").rglob("*.py")))
    session.log(f"{EXAMPLE}: {lines} lines of code, of at most {EXAMPLE_LINES_LIMIT}")
    if lines > EXAMPLE_LINES_LIMIT:
        session.error("a transport must be easier to write")

    scratch = Path(session.create_tmp()).resolve()
    shutil.rmtree(scratch)  # nothing of an earlier run may be installed or tested
    session.run(
        "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={scratch}", ".", f"./{EXAMPLE}"
    )
    example = nox.project.load_toml(EXAMPLE / "pyproject.toml")
    wheels = [str(path) for path in scratch.glob("*.whl")]
    session.install(*wheels, *nox.project.dependency_groups(example, "test"))

    shutil.copy(EXAMPLE / "pyproject.toml", scratch)
    shutil.copytree(EXAMPLE / "tests", scratch / "tests")
    with session.chdir(scratch):
        session.run("pytest", "-W", "error", *session.posargs, env=INSTALLED_ONLY)


def code_lines(path: Path) -> int:
    """Count the lines of a module that are neither blank nor comment nor docstring."""
    layout = {tokenize.ENCODING, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.NL}
    lines: set[int] = set()
    begins = True
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in {tokenize.NEWLINE, tokenize.ENDMARKER}:
                begins = True
            elif token.type not in layout:
                if not (begins and token.type == tokenize.STRING):
                    lines.update(range(token.start[0], token.end[0] + 1))
                begins = False
    return len(lines)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, where a warning is an error; the tests run their examples."""
    session.install(".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "docs", "docs/_build/html")


@nox.session
def changelog(session: nox.Session) -> None:
    """Show how the fragments in ``changelog.d`` will read; changes nothing."""
    session.install(*group("changelog"))
    session.run("towncrier", "build", "--draft", "--version", "NEXT")


@nox.session
def btrfs(session: nox.Session) -> None:
    """Tests on real btrfs filesystems: needs root, btrfs-progs and loop devices."""
    session.install(".", *group("test"))
    session.run("pytest", "-m", "btrfs", *session.posargs, env=INSTALLED_ONLY)


@nox.session
def hosts(session: nox.Session) -> None:
    """Tests between hosts made of network namespaces: needs root, iproute2 and an sshd."""
    session.install(".", *group("test"))
    posargs = session.posargs or [*SPREAD, "-n", "4"]  # they wait for much of their time
    session.run("pytest", "-m", "hosts", *posargs, env=INSTALLED_ONLY)


@nox.session
def zfs(session: nox.Session) -> None:
    """Tests on real OpenZFS: on this kernel's, or in guests (``tests/zfs_guest/setup``)."""
    session.install(".", *group("test"))
    chosen = session.posargs or [*SLOWEST, "tests/plugins/zfs"]
    pytest = ["pytest", "-m", "zfs", *chosen]
    # Compiles here, in seconds, what a guest would compile in minutes.
    session.run(
        *pytest, "--collect-only", "-q", env=INSTALLED_ONLY | {"PYTHONDONTWRITEBYTECODE": ""}
    )
    guests = "1" if session.posargs else "2"
    guest = ["tests/zfs_guest/run", "--guests", guests, "--seconds", str(GUEST_SECONDS)]
    session.run(*guest, *pytest, env=INSTALLED_ONLY, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the wire, guided by coverage; arguments go to libFuzzer, such as ``-runs=10000000``."""
    session.install(".", *group("fuzz"))
    found = session.create_tmp()
    bounds = session.posargs or ["-runs=100000"]
    limits = ["-max_len=256", "-timeout=10", "-rss_limit_mb=512"]
    options = [*bounds, *limits, "-print_final_stats=1"]
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
