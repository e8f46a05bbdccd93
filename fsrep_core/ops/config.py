"""What a configuration file says: jobs, each with a sender, a receiver and a policy.

The classes here are the reference: their fields are the keys, and the documentation is
checked against them. Reading is strict (:mod:`fsrep_core.runtime.options`), and every
mistake of a file is found before anything runs. What spans several keys, or needs the
installed plugins, is checked in :mod:`fsrep_core.ops.checks`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from fsrep_core.errors import InvalidRequestError
from fsrep_core.planning.patterns import parse_pattern
from fsrep_core.planning.policy import Base, Diverged, Initial, Policy, StaleToken, Steps
from fsrep_core.quantities import parse_duration, parse_rate
from fsrep_core.runtime.options import Mistake, OptionsError, structure_options
from fsrep_core.shown import Shown

__all__ = [
    "TABLES",
    "JobConfig",
    "PluginChoice",
    "SideConfig",
    "parse_config",
    "read_tables",
    "unknown_tables",
    "within_entry",
]

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""A job names cursors and holds, so its name must suit every storage."""

TABLES = ("job", "identity", "serve")
"""What a file may hold. Jobs are read here, the serving side in :mod:`fsrep_core.ops.serving`
and :mod:`fsrep_core.ops.serve_config`."""

_CONCURRENCY_LIMIT = 64

_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _check_name(_instance: object, _attribute: object, name: str) -> None:
    if not JOB_NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" cannot name a job; use up to 63 letters, digits, ".", "_" and "-", '
            "and begin with a letter or digit"
        )


def _check_filesystems(_instance: object, _attribute: object, patterns: tuple[str, ...]) -> None:
    if not patterns:
        raise ValueError('selects nothing; name filesystems, or write ["**"] for all of them')
    try:
        parsed = [parse_pattern(pattern) for pattern in patterns]
    except InvalidRequestError as exc:
        raise ValueError(f"{exc.message}; {exc.hint}") from exc
    if all(pattern.excludes for pattern in parsed):
        raise ValueError('selects nothing: every pattern begins with "!"; put "**" before them')


def _check_count(_instance: object, _attribute: object, count: int) -> None:
    if not 1 <= count <= _CONCURRENCY_LIMIT:
        raise ValueError(f"{count} is out of range; write 1 to {_CONCURRENCY_LIMIT}")


def _check_positive(_instance: object, _attribute: object, seconds: float) -> None:
    if seconds <= 0:
        raise ValueError('must be longer than zero; write a duration such as "10m"')


def _duration(default: float, key: str, validator: _Validator | None = None) -> Any:  # noqa: ANN401  (attrs gives what the annotation says)
    return attrs.field(
        default=default, alias=key, metadata={"parse": parse_duration}, validator=validator
    )


@attrs.frozen(kw_only=True, repr=False)
class PluginChoice(Shown):
    """A transport or storage by name, and its own options."""

    name: str
    """As ``fsrep plugins`` lists it."""
    options: Mapping[str, Any] = attrs.field(factory=dict, metadata={"rest": True})
    """All other keys of the table; the plugin says which there are."""


@attrs.frozen(kw_only=True, repr=False)
class SideConfig(Shown):
    """One side of a job."""

    transport: PluginChoice
    """How the side is reached."""
    storage: PluginChoice
    """What does the work there."""
    rate_limit_bytes_per_second: int | None = attrs.field(
        default=None, alias="rate_limit", metadata={"parse": parse_rate}
    )
    """The most that this side sends or receives, all its streams together: ``"50 MiB/s"``."""


@attrs.frozen(kw_only=True, repr=False)
class JobConfig(Shown):
    """One job: which filesystems go from where to where, and how."""

    name: str = attrs.field(validator=_check_name)
    """Unique in the file. It also names the job's cursors and holds, so a job that is
    renamed begins without them."""
    filesystems: tuple[str, ...] = attrs.field(validator=_check_filesystems)
    """Patterns on the names below the sender's root: ``*`` and ``?`` within a component,
    ``**`` for any number of components, ``!`` to leave out."""
    sender: SideConfig
    """Where the versions are."""
    receiver: SideConfig
    """Where they shall be."""
    initial: Initial = Policy().initial
    """What a receiver without snapshots gets first."""
    diverged: Diverged = Policy().diverged
    """What happens to a receiver with snapshots newer than the base."""
    stale_token: StaleToken = Policy().stale_token
    """What happens to a partial receive that can no longer be completed."""
    steps: Steps = Policy().steps
    """How the way from the base to the newest snapshot is divided."""
    base: Base = Policy().base
    """Which common version an incremental step may start from."""
    concurrency: int = attrs.field(default=1, validator=_check_count)
    """Steps at once, of different filesystems."""
    estimate_concurrency: int = attrs.field(default=4, validator=_check_count)
    """Size estimates at once."""
    retry_for_seconds: float = _duration(3600.0, "retry_for")
    """How long to try again after the last progress; ``"0s"`` = not at all."""
    progress_timeout_seconds: float = _duration(600.0, "progress_timeout", _check_positive)
    """A step in which nothing moves for so long has failed."""
    call_timeout_seconds: float = _duration(600.0, "call_timeout", _check_positive)
    """How long a side may take to answer a call that moves no data, such as a listing."""

    @property
    def policy(self) -> Policy:
        """The planner's part of the job."""
        return Policy(
            initial=self.initial,
            diverged=self.diverged,
            stale_token=self.stale_token,
            steps=self.steps,
            base=self.base,
        )


def read_tables(text: str) -> dict[str, Any]:
    """Parse the text as TOML.

    :raises OptionsError: it is not TOML; the mistake shows the line
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise OptionsError([_syntax_mistake(text, str(exc))]) from exc


def _syntax_mistake(text: str, message: str) -> Mistake:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    lines = text.splitlines() or [""]
    if match is None:
        return Mistake("", f"not valid TOML: {message}")
    number = int(match[2]) if match[2] else len(lines)
    column = f", column {match[3]}" if match[3] else ""
    shown = lines[min(number, len(lines)) - 1].strip()
    return Mistake(
        f"line {number}{column}",
        f"not valid TOML: {match[1]}",
        f"the line reads: {shown}" if shown else None,
    )


def parse_config(tables: Mapping[str, Any]) -> tuple[list[JobConfig], list[Mistake]]:
    """Read the jobs of a file, as far as they can be read, and list what is wrong.

    :returns: the jobs without mistakes of their own, and the mistakes of all
    """
    mistakes = unknown_tables(tables)
    raw_jobs = tables.get("job", [])
    if not isinstance(raw_jobs, list):
        return [], [
            *mistakes,
            Mistake("job", "jobs are a list of tables", "write [[job]], not [job]"),
        ]
    if not raw_jobs and not mistakes and tables.keys() <= {"job"}:
        mistakes.append(Mistake("", "no job is configured", "write one that begins with [[job]]"))
    jobs: list[JobConfig] = []
    for number, raw in enumerate(raw_jobs, start=1):
        try:
            jobs.append(structure_options(JobConfig, raw, ""))
        except OptionsError as exc:
            mistakes += within_entry("job", raw, number, exc.mistakes)
    return jobs, mistakes


def unknown_tables(tables: Mapping[str, Any]) -> list[Mistake]:
    """List the keys of a file that are none of :data:`TABLES`."""
    return [Mistake(key, "unknown key", _table_advice(key)) for key in tables if key not in TABLES]


def _table_advice(key: str) -> str | None:
    if key in {field.alias for field in attrs.fields(JobConfig)}:
        return "it belongs into a job: put it below a line [[job]]"
    for name in TABLES:
        if name in key:
            return "did you mean [serve]?" if name == "serve" else f"did you mean [[{name}]]?"
    return "a file consists of [[job]] tables, and of [[identity]] tables where it serves"


def within_entry(kind: str, raw: object, number: int, mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Say in which job or identity mistakes stand, also where its name is missing."""
    name = raw.get("name") if isinstance(raw, Mapping) else None
    label = f'{kind} "{name}"' if isinstance(name, str) else f"{kind} number {number}"
    return [
        attrs.evolve(each, key=f"{label}: {each.key}" if each.key else label) for each in mistakes
    ]
