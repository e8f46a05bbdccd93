"""Values show themselves as those do whose ``repr`` attrs wrote."""

from __future__ import annotations

import attrs

from fsrep_core import ResumeToken, Version, VersionKind
from fsrep_core.shown import Shown

FIELDS = {
    "name": attrs.field(type=str),
    "count": attrs.field(default=3),
    "secret": attrs.field(default="hush", repr=False),
}


def test_a_value_shows_what_attrs_would_have_shown():
    ours = attrs.make_class("Value", FIELDS, bases=(Shown,), repr=False, slots=True)
    theirs = attrs.make_class("Value", FIELDS, slots=True)

    assert repr(ours("a'b")) == repr(theirs("a'b")) == """Value(name="a'b", count=3)"""


def test_values_within_values_are_shown():
    version = Version(VersionKind.SNAPSHOT, "one", guid="7", order=1, created=0)

    assert "name='one', guid='7'" in repr([version])
    assert repr(version).startswith("Version(kind=<VersionKind.SNAPSHOT: ")


def test_what_a_token_says_stays_out():
    token = ResumeToken(value="1-abcdef", to_guid="7", received_bytes=5)

    assert "abcdef" not in repr(token)
    assert "received_bytes=5" in repr(token)
