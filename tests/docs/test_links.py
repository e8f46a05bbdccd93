"""Links of the pages that Sphinx does not build lead somewhere; and so does every picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/README.md"))]


def targets_of(page):
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target and "://" not in target:
                yield target.partition("#")[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    missing = [target for target in targets_of(page) if not (page.parent / target).exists()]

    assert missing == []


def test_the_readme_has_links():
    assert "CONTRIBUTING.md" in set(targets_of(ROOT / "README.md"))
