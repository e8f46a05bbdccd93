"""How plain tables become options, and what is said when they cannot."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest

from fsrep_core.errors import ConfigError, PluginError
from fsrep_core.quantities import parse_duration, parse_rate, parse_size
from fsrep_core.runtime.options import OptionsError, describe_type, structure_options

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: TC004  (missing at run time is what the test is about)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@attrs.frozen
class Inner:
    depth: int
    label: str = "none"


def _even(_instance: object, _attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError(f"{value} is odd")


@attrs.frozen(kw_only=True)
class Options:
    root: Path
    count: int = attrs.field(default=2, validator=_even)
    share: float = 0.5
    verify: bool = True
    names: tuple[str, ...] = ()
    colour: Colour = Colour.RED
    mode: Literal["fast", "slow"] = "fast"
    limit_bytes: int | None = attrs.field(
        default=None, alias="limit", metadata={"parse": parse_size}
    )
    password: str = attrs.field(default="", repr=False)
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    labels: Mapping[str, int] = attrs.field(factory=dict)
    either: int | str = 0
    shouted: str = attrs.field(default="", converter=str.upper)
    anything: Any = None
    numbers: frozenset[int] = frozenset()
    plain: list[int] = attrs.field(factory=list)


def read(**table: object) -> Options:
    return structure_options(Options, {"root": "/r", **table}, "side.storage")


def mistakes(**table: object) -> list[str]:
    with pytest.raises(OptionsError) as caught:
        read(**table)
    return [str(each) for each in caught.value.mistakes]


def test_every_kind_of_value_is_read_exactly():
    options = read(
        count=4,
        share=1,
        verify=False,
        names=["a", "b"],
        colour="green",
        mode="slow",
        limit="1 KiB",
        inner={"depth": 3},
        many=[{"depth": 1}, {"depth": 2, "label": "x"}],
        labels={"x": 1},
        either="word",
        shouted="quiet",
        anything=[{}],
        numbers=[1, 2, 1],
        plain=[3],
    )

    assert options == Options(
        root=Path("/r"),
        count=4,
        share=1.0,
        verify=False,
        names=("a", "b"),
        colour=Colour.GREEN,
        mode="slow",
        limit=1024,
        inner=Inner(3),
        many=(Inner(1), Inner(2, "x")),
        labels={"x": 1},
        either="word",
        shouted="QUIET",
        anything=[{}],
        numbers=frozenset({1, 2}),
        plain=[3],
    )
    assert isinstance(options.share, float)


def test_values_that_have_the_right_type_already_are_taken():
    options = read(root=Path("/x"), names=("a",), colour=Colour.GREEN, inner=None)

    assert options == Options(root=Path("/x"), names=("a",), colour=Colour.GREEN)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"cuont": 4}, 'side.storage.cuont: unknown key; did you mean "count"?'),
        ({"count": "4"}, 'side.storage.count: expected an integer, not the string "4"'),
        ({"count": True}, "side.storage.count: expected an integer, not true"),
        ({"count": 4.0}, "side.storage.count: expected an integer, not the number 4.0"),
        ({"count": 3}, "side.storage.count: 3 is odd"),
        ({"verify": 1}, "side.storage.verify: expected true or false, not the number 1"),
        ({"share": "all"}, 'side.storage.share: expected a number, not the string "all"'),
        ({"share": float("nan")}, "side.storage.share: expected a number, not the number nan"),
        ({"names": "a"}, 'side.storage.names: expected a list, not the string "a"; write ["a"]'),
        (
            {"names": ["a", 1]},
            "side.storage.names[1]: expected a string, not the number 1",
        ),
        (
            {"colour": "gren"},
            'side.storage.colour: "gren" is not one of red or green; did you mean "green"?',
        ),
        ({"mode": "x"}, 'side.storage.mode: "x" is not one of fast or slow'),
        ({"mode": False}, "side.storage.mode: false is not one of fast or slow"),
        ({"mode": 2}, "side.storage.mode: 2 is not one of fast or slow"),
        ({"colour": []}, "side.storage.colour: a list is not one of red or green"),
        ({"root": 1}, "side.storage.root: expected a path, not the number 1"),
        ({"root": "/a\0b"}, "side.storage.root: a path cannot hold a NUL character"),
        ({"inner": 1}, "side.storage.inner: expected a table, not the number 1"),
        (
            {"inner": {}},
            "side.storage.inner.depth: missing; it is required and takes an integer",
        ),
        (
            {"many": [{"depth": 1}, {"depth": "x"}]},
            'side.storage.many[1].depth: expected an integer, not the string "x"',
        ),
        (
            {"labels": {"x": "1"}},
            'side.storage.labels.x: expected an integer, not the string "1"',
        ),
        ({"labels": []}, "side.storage.labels: expected a table, not a list"),
        (
            {"either": 1.5},
            "side.storage.either: expected an integer or a string, not the number 1.5",
        ),
        (
            {"names": dt.date(2026, 1, 1)},
            "side.storage.names: expected a list, not a date or time",
        ),
    ],
)
def test_a_mistake_names_the_key_and_the_remedy(table, message):
    assert mistakes(**table) == [message]


def test_a_relative_path_is_refused_with_the_reason():
    (message,) = mistakes(root="data")

    assert message.startswith('side.storage.root: "data" is not an absolute path; write it from /')


def test_a_quantity_says_how_to_write_it():
    (as_number,) = mistakes(limit=5)
    (as_nonsense,) = mistakes(limit="5 M")

    assert as_number.startswith(
        "side.storage.limit: expected a size as a string, not the number 5; "
        'a size is a number and a unit, such as "64 MiB"'
    )
    assert as_nonsense.startswith('side.storage.limit: "5 M" is no size that fsrep can read; ')


def test_all_mistakes_are_listed_also_those_of_validators():
    with pytest.raises(ConfigError) as caught:
        structure_options(Options, {"count": 3, "verfy": 1, "colour": 0}, "s")

    assert [each.key for each in caught.value.mistakes] == [
        "s.verfy",
        "s.root",
        "s.colour",
        "s.count",
    ]


def test_a_secret_is_never_repeated():
    (message,) = mistakes(password=123456)

    assert message == "side.storage.password: expected a string"


def test_a_validator_may_compare_fields():
    @attrs.frozen
    class Range:
        low: int = 0
        high: int = attrs.field(default=1)

        @high.validator
        def _check(self, _attribute, value):
            if value < self.low:
                raise ValueError(f"high is {value}, below low, which is {self.low}")

    with pytest.raises(OptionsError, match=r"r\.high: high is 1, below low, which is 2"):
        structure_options(Range, {"low": 2, "high": 1}, "r")
    with pytest.raises(OptionsError) as caught:
        structure_options(Range, {"low": "x", "high": 1}, "r")
    assert [each.key for each in caught.value.mistakes] == ["r.low"]


def test_what_the_whole_class_refuses_is_told_of_the_table():
    @attrs.frozen
    class Pair:
        a: int = 0
        b: int = 0

        def __attrs_post_init__(self):
            if self.a == self.b:
                raise ValueError("a and b must differ")

    with pytest.raises(OptionsError, match=r"^pair: a and b must differ$"):
        structure_options(Pair, {}, "pair")


def test_the_rest_of_a_table_can_be_collected():
    @attrs.frozen
    class Choice:
        name: str
        options: Mapping[str, Any] = attrs.field(metadata={"rest": True})

    assert structure_options(Choice, {"name": "n", "a": 1, "options": 2}, "") == Choice(
        "n", {"a": 1, "options": 2}
    )


def test_a_class_that_no_file_can_hold_is_the_plugins_fault():
    @attrs.frozen
    class Bad:
        value: complex

    @attrs.frozen
    class Unresolved:
        value: Decimal

    with pytest.raises(PluginError, match="complex"):
        structure_options(Bad, {"value": 1}, "bad")
    with pytest.raises(PluginError, match=r"Unresolved.*Decimal"):
        structure_options(Unresolved, {}, "bad")


def test_types_are_described_in_words():
    hints = {field.name: field for field in attrs.fields(Options)}

    def described(name: str) -> str:
        import typing

        return describe_type(hints[name], typing.get_type_hints(Options)[name])

    assert described("root") == "an absolute path"
    assert described("names") == "a list of strings"
    assert described("colour") == '"red" or "green"'
    assert described("limit_bytes") == "size"
    assert described("inner") == "a table"
    assert described("either") == "an integer or a string"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0 B", 0), ("50 MiB", 50 << 20), ("1.5kb", 1500), ("2 TiB", 2 << 40), (" 7 GB ", 7 * 10**9)],
)
def test_sizes(text, size_bytes):
    assert parse_size(text) == size_bytes
    if size_bytes:
        assert parse_rate(f"{text}/s") == size_bytes


@pytest.mark.parametrize("text", ["", "5", "5 M", "MiB", "-5 MiB", "5 MiB/s", "5 MiB x", "1e3 B"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="the units are B, kB, KiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "5", "5 MiB", "5 MiB/m", "5 M/s", "/s"])
def test_what_is_no_rate(text):
    with pytest.raises(ValueError, match='such as "50 MiB/s"'):
        parse_rate(text)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="never finish"):
        parse_rate("0 MiB/s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("1h 30m", 5400), ("1d12h", 129600), ("250ms", 0.25)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 minutes", "-1s", "1h-1m", "1:30"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="the units are ms, s, m, h, d"):
        parse_duration(text)


def test_what_a_converter_or_validator_refuses_is_told_of_its_key():
    def absolute(text):
        if not text.startswith("/"):
            raise ConfigError(f"{text!r} is relative", hint="begin with /")
        return text.rstrip("/")

    def short(_instance, _attribute, value):
        if len(value) > 3:
            raise ConfigError(f"{value!r} is long")

    @attrs.frozen
    class Place:
        root: str = attrs.field(converter=absolute, validator=short)

    assert structure_options(Place, {"root": "/a/"}, "") == Place("/a")
    for raw, message in (
        ("a", "p.root: 'a' is relative; begin with /"),
        ("/abcd", "p.root: '/abcd' is long"),
        (1, "p.root: expected a string, not the number 1"),
    ):
        with pytest.raises(OptionsError) as caught:
            structure_options(Place, {"root": raw}, "p")
        assert [str(each) for each in caught.value.mistakes] == [message]
