"""What the pages show is what happens: their examples run, in the order of the page.

* A ``console`` block is a session: ``$`` begins a command, ``>`` goes on with it, and the
  rest is what it prints. ``…`` stands for any text, and on a line of its own for any
  lines. Every command of a page starts in the same, at first empty, folder and has to
  succeed.
* A ``python`` block is run, or compared with what it shows where it has prompts; the
  blocks of a page share their names.
* A ``toml`` block with a job has to be a configuration without mistakes.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import attrs
import pytest
from markdown_it import MarkdownIt

from fsrep_core.ops.files import load_config
from fsrep_core.runtime.registry import load_plugins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ANY_LINES, ANY_TEXT = "…", "…"


@attrs.frozen(kw_only=True)
class Block:
    """One fenced block of a page."""

    place: str
    language: str
    text: str


def blocks_of(page):
    return [
        Block(
            place=f"{page.relative_to(ROOT)}:{token.map[0] + 1}",
            language=token.info.strip(),
            text=token.content,
        )
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        if token.type == "fence"
    ]


def pages_with(language):
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if any(block.language == language for block in blocks_of(page))
    ]


def sessions(text):
    """Split a console block into (command, what it prints)."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0].append(line[2:])
        else:
            found[-1][1].append(line)
    return [("\n".join(command), shown) for command, shown in found]


def pattern(shown):
    """Turn shown lines into a pattern for the whole output."""
    parts = []
    for line in shown:
        if line.strip() == ANY_LINES:
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(map(re.escape, line.rstrip().split(ANY_TEXT))) + r" *\n")
    return re.compile("".join(parts))


def run(command, folder):
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        env={
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "TZ": "UTC",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("page", pages_with("console"))
def test_console_sessions_print_what_they_show(page, tmp_path):
    for block in blocks_of(page):
        if block.language != "console":
            continue
        for command, shown in sessions(block.text):
            status, output = run(command, tmp_path)

            said = f"{block.place}\n$ {command}\n{output}"
            assert status == 0, f"{said}\nended with {status}"
            assert pattern(shown).fullmatch(output), f"{said}\nis not what is shown:\n" + "\n".join(
                shown
            )


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page):
    names = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language != "python":
            continue
        if ">>> " not in block.text:
            exec(compile(block.text, block.place, "exec"), names)  # noqa: S102  (our own pages)
            continue
        example = doctest.DocTestParser().get_doctest(block.text, names, block.place, None, 0)
        said = []
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
            example, out=said.append, clear_globs=False
        )
        names.update(example.globs)

        assert results.failed == 0, "".join(said)


@pytest.mark.parametrize("page", pages_with("toml"))
def test_jobs_are_without_mistakes(page, tmp_path):
    registry = load_plugins()
    for block in blocks_of(page):
        if block.language == "toml" and "[[job]]" in block.text:
            path = tmp_path / "fsrep.toml"
            path.write_text(block.text)

            assert load_config(path, registry).jobs, block.place


SHOWN = """\
$ cat > greeting <<END
> hello
> END
$ cat greeting
hello
$ printf 'a 17 s\\nb\\nc\\n'
a … s
…
c
$ printf 'x\\n'
x
…
"""


def test_sessions_are_split_and_compared(tmp_path):
    """The comparison itself: it must accept what is shown, and nothing else."""
    for command, shown in sessions(SHOWN):
        assert pattern(shown).fullmatch(run(command, tmp_path)[1])

    assert not pattern(["hello"]).fullmatch("hello\nworld\n")
    assert not pattern(["hello", "world"]).fullmatch("hello\n")
    assert not pattern(["a … c"]).fullmatch("a b\nc\n")
    assert not pattern(["1.5 s"]).fullmatch("1x5 s\n")
