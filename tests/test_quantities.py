"""How sizes, rates and durations are written for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core.quantities import format_duration, format_rate, format_size, parse_size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102348, "99.9 KiB"),
        (102399, "100 KiB"),
        (1 << 20, "1.0 MiB"),
        (1023 << 30, "1.0 TiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes_are_short(size_bytes, text):
    assert format_size(size_bytes) == text


def test_a_rate_is_a_size_per_second():
    assert format_rate(52.1 * 1024**2) == "52.1 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "0s"),
        (2.0, "2s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3661, "1h 1m"),
        (86400 * 2 + 4 * 3600 + 59, "2d 4h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=2**49))
def test_what_is_written_can_be_read_and_is_near(size_bytes):
    read = parse_size(format_size(size_bytes))

    assert abs(read - size_bytes) <= size_bytes * 0.06
