"""The reference page of ssh says what its options are."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import attrs

from fsrep_core.quantities import format_duration
from fsrep_core.runtime.options import describe_type
from fsrep_ssh.config import OURS, SshConfig

PAGE = (Path(__file__).parents[3] / "docs/reference/ssh-transport.md").read_text(encoding="utf-8")


def shown(field):
    if field.default is attrs.NOTHING:
        return "required"
    if field.default is None:
        return "none"
    if "parse" in field.metadata:
        return f'"{format_duration(field.default)}"'
    return f'"{field.default}"' if isinstance(field.default, str) else "[]"


def test_every_option_is_on_the_page():
    hints = typing.get_type_hints(SshConfig)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE)

    assert rows == [
        (field.alias, describe_type(field, hints[field.name]), shown(field))
        for field in attrs.fields(SshConfig)
    ]


def test_what_cannot_be_changed_is_on_the_page():
    assert re.findall(r"`(\w+=\w+)`", PAGE) == [f"{name}={value}" for name, value in OURS.items()]
