"""Where skips are forbidden, a test that skips fails and says what was missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no such filesystem here")

@pytest.mark.skipif(True, reason="not on this machine")
def test_is_skipped():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_fails_as_expected():
    assert False
"""
SKIPPING_MODULE = """
import pytest

pytest.skip("no such module here", allow_module_level=True)
"""


@pytest.fixture
def run_skipping_tests(tmp_path):
    """Run tests that skip under the repo's own conftest; gives status and output."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_inner.py").write_text(SKIPPING)
    (tmp_path / "test_inner_module.py").write_text(SKIPPING_MODULE)

    def run(forbid):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
            cwd=tmp_path,
            env=os.environ | {"FSREP_FORBID_SKIPS": forbid},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_a_skip_is_a_skip_where_it_may_happen(run_skipping_tests):
    status, output = run_skipping_tests("0")

    assert status == 0
    assert "1 passed, 3 skipped, 1 xfailed" in output


def test_a_skip_fails_where_it_is_forbidden(run_skipping_tests):
    status, output = run_skipping_tests("1")

    assert status == 2
    assert "but: Skipped: no such module here" in output


def test_each_kind_of_skip_says_what_was_missing(run_skipping_tests, tmp_path):
    (tmp_path / "test_inner_module.py").unlink()

    status, output = run_skipping_tests("1")

    assert status == 1
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in output
    assert "but: Skipped: no such filesystem here" in output
    assert "but: Skipped: not on this machine" in output
