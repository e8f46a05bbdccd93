"""What holds for every test: where skips are forbidden, a skip is a failure.

CI sets ``FSREP_FORBID_SKIPS=1``, because a machine that lacks what a test needs would
otherwise look like one on which the test passed.
"""

from __future__ import annotations

import os

import pytest

FORBIDDEN = os.environ.get("FSREP_FORBID_SKIPS") == "1"


def forbid_skip(report):
    """Turn a skip into a failure that says what was missing."""
    if FORBIDDEN and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden here (FSREP_FORBID_SKIPS=1), but: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return forbid_skip((yield))
