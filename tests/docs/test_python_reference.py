"""The page of public names holds each name that ``fsrep_core`` serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fsrep_core

PAGES = Path(__file__).parents[2] / "docs/reference"
DOCUMENTED = {
    name
    for page in ("python.md", "hooks.md", "events.md")
    for name in re.findall(
        r"(?:auto(?:class|exception|function|data)|py:data):: ([\w.]+)",
        (PAGES / page).read_text(encoding="utf-8"),
    )
}


@pytest.mark.parametrize("name", fsrep_core.__all__)
def test_public_name_is_documented(name):
    assert name in DOCUMENTED


def test_what_is_documented_exists():
    assert {name for name in DOCUMENTED if "." not in name} - set(fsrep_core.__all__) == set()
