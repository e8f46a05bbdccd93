"""What holds for every test: where skips are forbidden, a skip is a failure.

CI sets ``FSREP_FORBID_SKIPS=1``; the plugin is the kit's, which authors use as well.
How long hypothesis takes for an example says something about the machine, not the code.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fsrep", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fsrep")

pytest_plugins = ["fsrep_core.testing.pytest_plugin"]
