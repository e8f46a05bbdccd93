"""The page of the kit holds every public name and every law, in its own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fsrep_core.testing
import fsrep_fake
from fsrep_core.testing import STORAGE_LAWS, TRANSPORT_LAWS

DOCS = Path(__file__).parents[2] / "docs"
KIT = (DOCS / "reference/kit.md").read_text(encoding="utf-8")
FAKE = (DOCS / "how-to/test-with-the-fake.md").read_text(encoding="utf-8")


def rows(book):
    return [
        f"| `{law.name}` | {law.summary}{f' Needs `{law.needs}`.' if law.needs else ''} |"
        for law in book.values()
    ]


@pytest.mark.parametrize(
    ("heading", "book"),
    [("### The laws of storages", STORAGE_LAWS), ("### The laws of transports", TRANSPORT_LAWS)],
)
def test_the_page_lists_the_laws(heading, book):
    section = KIT.split(heading, 1)[1].split("\n## ", 1)[0]

    assert [line for line in section.splitlines() if line.startswith("| `")] == rows(book)


@pytest.mark.parametrize(
    ("page", "package"), [(KIT, fsrep_core.testing), (FAKE, fsrep_fake)], ids=["kit", "fake"]
)
def test_the_page_documents_the_public_names(page, package):
    documented = re.findall(r"\.\. (?:auto(?:class|exception|function)|py:data):: (\w+)", page)

    assert sorted(documented) == sorted(set(package.__all__) - {"plugin"})
