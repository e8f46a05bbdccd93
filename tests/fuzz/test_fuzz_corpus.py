"""What the fuzzer found worth keeping is read by every run of the tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORPUS = sorted((HERE / "corpus").iterdir())


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("fuzz_wire", HERE / "fuzz_wire.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_kept():
    assert len(CORPUS) > 50


def test_every_input_of_the_corpus_is_read_without_a_crash(harness):
    for path in CORPUS:
        try:
            harness.read_input(path.read_bytes())
        except Exception as error:
            raise AssertionError(f"input {path.name}") from error


def test_the_harness_would_notice_two_ends_that_disagree(harness):
    client, server = harness.greeted(harness.Role.CLIENT), harness.greeted(harness.Role.SERVER)
    client.send(harness.SAYABLE[0])

    with pytest.raises(AssertionError):
        harness.agree(client, server)
