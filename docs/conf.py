"""How the pages are built. Every warning is an error: see ``nox -s docs``."""

from __future__ import annotations

import importlib.metadata

project = "fsrep"
author = "The fsrep maintainers"
copyright = f"2026, {author}"  # noqa: A001  (the name that Sphinx reads)
release = importlib.metadata.version("fsrep")
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = "fsrep"
html_static_path = ["_static"]
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
nitpicky = True
