"""What holds for every test: where skips are forbidden, a skip is a failure.

CI sets ``FSREP_FORBID_SKIPS=1``; the plugin is the kit's, which authors use as well.
"""

from __future__ import annotations

pytest_plugins = ["fsrep_core.testing.pytest_plugin"]
