"""For suites on pytest: where ``FSREP_FORBID_SKIPS=1`` is set, a skip is a failure.

A machine that lacks what a test needs would otherwise look like one on which the test
passed. Opt in, in the topmost ``conftest.py``::

    pytest_plugins = ["fsrep_core.testing.pytest_plugin"]
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ReportT = TypeVar("ReportT", pytest.TestReport, pytest.CollectReport)


def forbid_skip(report: ReportT) -> ReportT:
    """Turn a skip into a failure that says what was missing, where skips are forbidden."""
    forbidden = os.environ.get("FSREP_FORBID_SKIPS") == "1"
    if forbidden and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden here (FSREP_FORBID_SKIPS=1), but: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at each phase of each test."""
    return forbid_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at each module and folder that is collected."""
    return forbid_skip((yield))
