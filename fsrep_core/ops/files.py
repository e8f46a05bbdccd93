"""Finds and reads the configuration file.

The first of these that exists is read:

1. what ``--config`` names, or else the variable ``FSREP_CONFIG``;
2. ``fsrep.toml`` in the working directory, if it belongs to the user who runs fsrep or
   to root: a stranger's file in a shared directory must not decide what root replicates;
3. ``$XDG_CONFIG_HOME/fsrep/fsrep.toml`` (``~/.config/fsrep/fsrep.toml``);
4. ``/etc/fsrep/fsrep.toml``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.config import JobConfig, parse_config, read_tables, unknown_tables
from fsrep_core.runtime.options import OptionsError
from fsrep_core.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsrep_core.ops.serve_config import ServeConfig  # noqa: TC004  (its import costs time, and a job needs none)
    from fsrep_core.ops.serving import IdentityConfig  # noqa: TC004  (its import costs time, and a job needs none)
    from fsrep_core.runtime.options import Mistake
    from fsrep_core.runtime.registry import Registry

__all__ = ["Config", "ConfigFileError", "find_config", "load_config", "load_identities"]

SYSTEM_CONFIG = Path("/etc/fsrep/fsrep.toml")

SIZE_LIMIT_BYTES = 1024 * 1024
"""More than anyone writes by hand; keeps a wrong path from filling the memory."""


@attrs.frozen(kw_only=True, repr=False)
class Config(Shown):
    """A configuration file in which no mistake was found."""

    jobs: tuple[JobConfig, ...]
    """The ``[[job]]`` tables, in their order."""
    identities: tuple[IdentityConfig, ...]
    """The ``[[identity]]`` tables, in their order: the clients that are served."""
    serve: ServeConfig | None
    """The table ``[serve]``, where there is one."""


class ConfigFileError(ConfigError):
    """What is wrong with a configuration file, a line for each mistake."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(f"{path}: {line}" for line in lines))


def find_config(explicit: Path | None, environment: Mapping[str, str]) -> Path:
    """Decide which file to read.

    :raises ConfigError: there is none, or it belongs to a stranger
    """
    named = explicit or (
        Path(environment["FSREP_CONFIG"]) if environment.get("FSREP_CONFIG") else None
    )
    if named is not None:
        return named
    here = Path("fsrep.toml")
    if here.exists():
        owner = here.stat().st_uid
        if owner not in {os.geteuid(), 0}:
            raise ConfigError(
                f"{here.resolve()} belongs to the user with the number {owner} and is not used",
                hint="name it with --config if you trust it",
            )
        return here
    home = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "/")) / ".config"
    places = [Path(home) / "fsrep" / "fsrep.toml", SYSTEM_CONFIG]
    for place in places:
        if place.exists():
            return place
    raise ConfigError(
        f"no configuration file: looked for ./{here}, {', '.join(map(str, places))}",
        hint='write one with "fsrep init", or name one with --config or FSREP_CONFIG',
    )


def load_config(path: Path, registry: Registry) -> Config:
    """Read a file and check everything that can be checked without running anything.

    :raises ConfigFileError: the file cannot be used; every mistake is listed
    """
    from fsrep_core.ops.checks import check_jobs

    tables = _read_file(path)
    jobs, mistakes = parse_config(tables)
    raw_jobs = tables.get("job")
    if isinstance(raw_jobs, list):
        mistakes += check_jobs(raw_jobs, registry)
    identities, more_mistakes = _read_identities(tables, registry)
    mistakes += more_mistakes
    serve, more_mistakes = _read_serve(tables, registry)
    mistakes += more_mistakes
    if mistakes:
        raise ConfigFileError(path, [str(mistake) for mistake in mistakes])
    return Config(jobs=tuple(jobs), identities=identities, serve=serve)


def _read_identities(
    tables: Mapping[str, Any], registry: Registry
) -> tuple[tuple[IdentityConfig, ...], list[Mistake]]:
    raw_identities = tables.get("identity")
    if raw_identities is None:
        return (), []
    from fsrep_core.ops.serving import check_identities, parse_identities

    identities, mistakes = parse_identities(raw_identities)
    return identities, mistakes + check_identities(raw_identities, registry)


def _read_serve(
    tables: Mapping[str, Any], registry: Registry
) -> tuple[ServeConfig | None, list[Mistake]]:
    raw = tables.get("serve")
    if raw is None:
        return None, []
    from fsrep_core.ops.serve_config import check_serve, parse_serve

    serve, mistakes = parse_serve(raw)
    return serve, mistakes + check_serve(raw, registry)


def load_identities(path: Path) -> tuple[IdentityConfig, ...]:
    """Read the ``[[identity]]`` tables of a file, strictly; its jobs are not looked at.

    The storages' own options are checked when one is opened, so that the plugins of the
    others need not be imported.

    :raises ConfigFileError: the file cannot be used; every mistake is listed
    """
    from fsrep_core.ops.serving import parse_identities

    tables = _read_file(path)
    identities, mistakes = parse_identities(tables.get("identity", []))
    mistakes += unknown_tables(tables)
    if mistakes:
        raise ConfigFileError(path, [str(mistake) for mistake in mistakes])
    return identities


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return read_tables(_read_text(path))
    except OptionsError as exc:
        raise ConfigFileError(path, [str(mistake) for mistake in exc.mistakes]) from exc


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigFileError(
            path, ['there is no such file; write one with "fsrep init", or correct --config']
        ) from exc
    except OSError as exc:
        raise ConfigFileError(
            path, [f"cannot be read: {exc.strerror}; it must be a file that you may read"]
        ) from exc
    if len(content) > SIZE_LIMIT_BYTES:
        raise ConfigFileError(
            path, [f"is larger than {SIZE_LIMIT_BYTES} bytes; this is no configuration of fsrep"]
        )
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigFileError(
            path, [f"line {line}: not valid UTF-8; save the file in that encoding"]
        ) from exc


def read_job_names(path: Path) -> list[str]:
    """Give the job names of a file, as far as they can be read, for completion.

    :raises ConfigFileError: the file cannot be read
    """
    raw_jobs = _read_file(path).get("job", [])
    names = [raw.get("name") for raw in raw_jobs if isinstance(raw, dict)]
    return [name for name in names if isinstance(name, str)]
