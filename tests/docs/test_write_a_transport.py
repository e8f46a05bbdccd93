"""The tutorial ends in exactly the example plugin, and what it types works."""

from __future__ import annotations

import ast
import importlib.util
import os
import pwd
import re
import signal
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import fsrep_core

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorial/write-a-transport.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples/fsrep-unix-socket"
MODULE = "src/fsrep_unix_socket/__init__.py"
SERVER = "the server's terminal"
ME = pwd.getpwuid(os.geteuid()).pw_name
BLOCK = re.compile(
    r"^```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL
)


def load_runner():
    spec = importlib.util.spec_from_file_location(
        "examples", Path(__file__).parent / "test_examples.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


runner = load_runner()


def files_of_the_page():
    """What the page's captions name; pieces of one file follow each other as code does."""
    pieces = {}
    for language, caption, text in BLOCK.findall(PAGE):
        if caption and language != "text":
            pieces.setdefault(caption, []).append(text)
    return {name: "\n\n".join(texts) for name, texts in pieces.items()}


FILES = files_of_the_page()


@pytest.mark.parametrize("name", ["pyproject.toml", MODULE, "tests/test_kit.py"])
def test_the_page_has_the_file(name):
    assert FILES[name] == (EXAMPLE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [MODULE, "tests/test_kit.py"])
def test_the_example_uses_public_names_only(name):
    modules = {
        node.module: {alias.name for alias in node.names}
        for node in ast.walk(ast.parse(FILES[name]))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fsrep_core")
    }

    assert modules.keys() <= {"fsrep_core", "fsrep_core.testing"}
    assert modules.get("fsrep_core", set()) <= set(fsrep_core.__all__)


@pytest.fixture
def folder(tmp_path):
    """What a reader has after installing: the page's files, and the plugin beside fsrep."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("/tmp/try", str(tmp_path)).replace("alice", ME))  # noqa: S108  (not a file)
    (tmp_path / "README.md").touch()
    (tmp_path / MODULE).with_name("py.typed").touch()
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    return tmp_path


def blocks(kind):
    return [text for language, caption, text in BLOCK.findall(PAGE) if kind in (language, caption)]


@contextmanager
def server(folder):
    """Type what stands in the server's terminal, and stay there."""
    [block] = blocks(SERVER)
    [(command, [shown])] = runner.sessions(block)
    words = command.replace("fsrep", f"{sysconfig.get_path('scripts')}/fsrep", 1).split()
    with subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "installed")},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.stderr.readline()
            assert runner.pattern([shown.replace("/tmp/try", str(folder))]).fullmatch(said)  # noqa: S108  (not a file)
            yield
            process.send_signal(signal.SIGINT)  # Ctrl-C
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "operation done" in said
    assert f"identity={ME}" in said


def test_the_sessions_print_what_they_show(folder):
    sessions = [each for block in blocks("console") for each in runner.sessions(block)]
    assert len(sessions) == 7
    with server(folder):
        for command, shown in sessions:
            path = f"export PYTHONPATH={folder}/installed; "
            status, output = runner.run(path + command, folder)

            said = f"$ {command}\n{output}"
            assert status == 0, said
            assert runner.pattern(shown).fullmatch(output), said
