"""How the pages are built. Every warning is an error: see ``nox -s docs``."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "fsrep"
author = "The fsrep maintainers"
copyright = f"2026, {author}"  # noqa: A001  (the name that Sphinx reads)
release = importlib.metadata.version("fsrep")
version = ".".join(release.split(".")[:2])

extensions = ["machine_diagrams", "myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "fsrep"
html_static_path = ["_static"]
html_copy_source = False

autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"

nitpicky = True
nitpick_ignore_regex = [
    # What other projects document; their inventories lie on the network.
    ("py:.*", r"(abc|attrs|collections|contextlib|enum|importlib|os|pluggy|pytest)\..+"),
    ("py:.*", r"(trio|typing)\..+"),
    ("py:class", r"(AbstractAsyncContextManager|Event|Path|[A-Z][a-z]*T)"),
    # Internals have no page; public docstrings may still say where something is decided.
    ("py:.*", r"fsrep_core\.(machines|ops|planning|runtime|wire)(\..+)?"),
    ("py:.*", r"(fsrep_core\.testing\.laws|fsrep_fake\.(content|journal|stores))\..+"),
]
