"""Sizes, rates and durations as people write and read them.

Reading is strict, because a wrong guess costs a night: a number without a unit is
refused, and so is a unit with two meanings (``M``). Every refusal is a ``ValueError``
whose text says how to write it.
"""

from __future__ import annotations

import re

__all__ = [
    "format_duration",
    "format_rate",
    "format_size",
    "parse_duration",
    "parse_rate",
    "parse_size",
]

_SIZE_UNITS = {
    "B": 1,
    "kB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "TiB": 1024**4,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIT_BY_FOLDED_NAME = {unit.casefold(): factor for unit, factor in _SIZE_UNITS.items()}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|[smhd])\s*)+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])")


def parse_size(text: str) -> int:
    """Read a size such as ``"50 MiB"`` or ``"1.5 GB"``, in bytes.

    :raises ValueError: it is not one number and one unit
    """
    return _parse_size(text, 'a size is a number and a unit, such as "64 MiB"')


def parse_rate(text: str) -> int:
    """Read a rate such as ``"50 MiB/s"``, in bytes per second.

    :raises ValueError: it is not a size per second, or it is zero
    """
    advice = 'a rate is a size per second, such as "50 MiB/s"'
    size, slash, second = text.partition("/")
    if not slash or second.strip() != "s":
        raise ValueError(advice)
    rate = _parse_size(size, advice)
    if rate == 0:
        raise ValueError(
            "a rate of zero would never finish; leave the key out for an unlimited rate"
        )
    return rate


def _parse_size(text: str, advice: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    factor = _UNIT_BY_FOLDED_NAME.get(match[2].casefold()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{advice}; the units are {', '.join(_SIZE_UNITS)}")
    return round(float(match[1]) * factor)


def parse_duration(text: str) -> float:
    """Read a duration such as ``"90s"``, ``"10m"`` or ``"1h 30m"``, in seconds.

    :raises ValueError: it is not numbers with units
    """
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(
            'a duration is numbers with units, such as "90s" or "1h 30m"; '
            f"the units are {', '.join(_DURATION_UNITS)}"
        )
    parts = _DURATION_PART.findall(text)
    return float(sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts))


def format_size(size_bytes: float) -> str:
    """Write a size with three digits or so: ``1.4 GiB``."""
    value, units = float(size_bytes), ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    for unit in units:
        last = unit == units[-1]
        if abs(value) < 999.5 or last:  # noqa: PLR2004  (999.5 would be rounded to 1000)
            digits = 0 if unit == "B" or abs(value) >= 99.95 else 1  # noqa: PLR2004  (and this to 100)
            return f"{value:.{digits}f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes any value")


def format_rate(bytes_per_second: float) -> str:
    """Write a rate: ``52.1 MiB/s``."""
    return f"{format_size(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """Write a duration with its two leading units: ``1h 30m``, ``2d 4h``, ``0.4s``."""
    if seconds < 10:  # noqa: PLR2004  (below ten seconds a tenth is worth reading)
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_DURATION_UNITS[unit]))
        parts.append((count, unit))
    while parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2] if count)
