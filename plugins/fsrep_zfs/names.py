"""The names that fsrep writes onto disks, and reads again. Pure.

========================================  =============================================
``DATASET#fsrep_cursor_GUID_HOW_JOB``     a job's cursor: the guid of the snapshot that
                                          the receiver has confirmed, in 16 hexadecimal
                                          digits, and ``plain`` or ``raw``
hold ``fsrep_step_JOB``                   on a sender, on both ends of a step
hold ``fsrep_last_JOB``                   on a receiver, on what was received last
property ``fsrep:made``                   on a receiver, ``placeholder:UUID`` or
                                          ``copy:GUID``: fsrep made this dataset
========================================  =============================================

They never change: what an earlier version of fsrep wrote is found by every later one.

A job's name may hold anything; what a name on disk cannot, is written as ``:`` and two
hexadecimal digits for each byte. A very long one ends in a digest.
"""

from __future__ import annotations

import hashlib
import re
import uuid

import attrs

__all__ = [
    "MADE_PROPERTY",
    "CursorName",
    "cursor_name",
    "last_tag",
    "new_placeholder_mark",
    "parse_cursor_name",
    "parse_tag",
    "step_tag",
]

MADE_PROPERTY = "fsrep:made"
PLACEHOLDER_PREFIX = "placeholder:"
COPY_PREFIX = "copy:"

_CURSOR = re.compile(
    r"fsrep_cursor_(?P<guid>[0-9a-f]{16})_(?P<how>plain|raw)_(?P<job>[\w.:-]+)", re.ASCII
)
_TAG = re.compile(r"fsrep_(?P<kind>step|last)_(?P<job>[\w.:-]+)", re.ASCII)
_PLAIN = re.compile(rb"[A-Za-z0-9._-]")
_JOB_LIMIT = 100
_DIGEST_DIGITS = 16


@attrs.frozen(kw_only=True)
class CursorName:
    """What the name of a cursor says."""

    guid: str
    """As in a :class:`~fsrep_core.Version`: decimal."""
    raw: bool
    """The step that led here was sent raw, of an encrypted dataset."""
    job: str
    """As it stands in names: compare it with :func:`job_word`."""


def job_word(job: str) -> str:
    """Give a job's name as it stands in names on disk: different for different jobs."""
    encoded = job.encode(errors="surrogateescape")
    word = "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f":{byte:02x}" for byte in encoded)
    if len(word) <= _JOB_LIMIT:
        return word
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST_DIGITS]
    return f"{word[: _JOB_LIMIT - _DIGEST_DIGITS - 2]}::{digest}"  # "::" escapes no byte


def cursor_name(job: str, guid: str, *, raw: bool) -> str:
    """Name the bookmark that is the cursor of a job."""
    return f"fsrep_cursor_{int(guid):016x}_{'raw' if raw else 'plain'}_{job_word(job)}"


def parse_cursor_name(name: str) -> CursorName | None:
    """Read the name of a bookmark; ``None`` = it is no cursor of fsrep's."""
    match = _CURSOR.fullmatch(name)
    if match is None:
        return None
    return CursorName(guid=str(int(match["guid"], 16)), raw=match["how"] == "raw", job=match["job"])


def step_tag(job: str) -> str:
    """Name the hold on the ends of a step that is being sent."""
    return f"fsrep_step_{job_word(job)}"


def last_tag(job: str) -> str:
    """Name the hold on what a job has received last."""
    return f"fsrep_last_{job_word(job)}"


def parse_tag(tag: str) -> tuple[str, str] | None:
    """Give kind (``step`` or ``last``) and job of a hold; ``None`` = it is not fsrep's."""
    match = _TAG.fullmatch(tag)
    return (match["kind"], match["job"]) if match else None


def new_placeholder_mark() -> str:
    """Make the value of :data:`MADE_PROPERTY` for one placeholder.

    Each has its own, since children inherit the property: only what differs from the
    parent's is the dataset's own.
    """
    return f"{PLACEHOLDER_PREFIX}{uuid.uuid4()}"


def copy_mark(guid: str) -> str:
    """Make the value of :data:`MADE_PROPERTY` for a dataset that a full stream makes."""
    return f"{COPY_PREFIX}{guid}"
