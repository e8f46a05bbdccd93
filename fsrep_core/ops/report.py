"""The JSON form of what commands answer.

One document on standard output. ``schema`` names its form and the form's version: a key
is never renamed, removed or given another meaning under the same number; new keys may
come. ``docs/reference/report.md`` lists them, and a test compares it with the classes.

Times are seconds since the epoch, sizes are bytes, ``null`` is "not known".
"""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.reports import RunReport

__all__ = ["SCHEMAS", "document", "print_document", "run_document", "to_json"]

SCHEMAS: Mapping[str, str] = {
    "run": "fsrep.report/1",
    "plan": "fsrep.plan/1",
    "check": "fsrep.check/1",
    "snapshot": "fsrep.snapshot/1",
    "versions": "fsrep.versions/1",
    "plugins": "fsrep.plugins/1",
}
"""The schema of each command's document."""


def to_json(value: object) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Turn attrs values, enums and collections into what JSON holds.

    A field that is kept out of the ``repr`` is kept out here: it may be a secret.
    """
    kind: Any = type(value)
    if attrs.has(kind):
        fields = attrs.fields(kind)
        return {field.name: to_json(getattr(value, field.name)) for field in fields if field.repr}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def document(command: str, **content: object) -> dict[str, Any]:
    """Make the document of a command."""
    return {"schema": SCHEMAS[command], **{key: to_json(item) for key, item in content.items()}}


def run_document(
    reports: Sequence[RunReport], *, exit_status: int, interrupted: bool
) -> dict[str, Any]:
    """Make the document of ``fsrep run``."""
    return document("run", exit_status=exit_status, interrupted=interrupted, jobs=reports)


def print_document(content: Mapping[str, Any]) -> None:
    """Print one document. Characters beyond ASCII are escaped: names may be any bytes."""
    json.dump(content, sys.stdout, indent=2)
    print()  # noqa: T201  (the result of a command)
