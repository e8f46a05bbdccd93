"""``fsrep zfs``: what an operator needs around the storage ``zfs``.

The core knows no plugin. These commands ask the configured storage itself, through the
few methods that :class:`ZfsTools` names, and refuse one that does not have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.serving import find_identity
from fsrep_core.ops.session import Session, open_session
from fsrep_core.ops.words import visible
from fsrep_core.runtime.options import structure_options
from fsrep_core.values import Side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from fsrep_core.errors import FsrepError
    from fsrep_core.ops.config import PluginChoice

__all__ = ["allow", "list_abstractions", "release_stale"]

STORAGE = "zfs"
LOCAL = "local-pipe"


class Abstraction(Protocol):
    """Something that fsrep has left on a pool."""

    kind: str
    name: str
    job: str | None
    stale: bool
    tag: str | None


class ZfsTools(Protocol):
    """What these commands ask of the storage."""

    def allow_commands(self, side: Side, user: str) -> Sequence[str]:
        """Give the commands that let a user work on one side."""

    async def abstractions(self, gone_jobs: Iterable[str] = ()) -> Sequence[Abstraction]:
        """List what fsrep has left."""

    async def release_stale(self, found: Iterable[Abstraction]) -> Sequence[FsrepError]:
        """Remove what is stale of it; give what went wrong."""


@attrs.frozen(kw_only=True)
class _Place:
    """A storage of the configuration, and what it is there."""

    label: str
    options: object
    tools: ZfsTools


def allow(side: Side, job: str | None, identity: str | None, user: str, config: Path | None) -> int:
    """Print the commands that let an unprivileged user work on one side."""
    session = open_session(config, [job] if job else [], jobs_needed=False)
    if (job is None) is (identity is None):
        raise ConfigError(
            "name a job or an identity", hint="fsrep zfs allow sender --job NAME --user USER"
        )
    if identity is not None:
        choice = find_identity(session.identities, identity).storage
        place = _place(session, f'identity "{identity}"', choice)
    else:
        choice = getattr(session.jobs[0], side.value).storage
        place = _place(session, f'job "{job}", {side.value}', choice)
    for command in place.tools.allow_commands(side, user):
        print(command)  # noqa: T201  (the result of the command)
    return 0


def list_abstractions(job: str | None, identity: str | None, config: Path | None) -> int:
    """Print what fsrep has left on the pools of this host."""
    places = _local_places(open_session(config, [], jobs_needed=False), job, identity)

    async def look() -> list[Sequence[Abstraction]]:
        return [await each.tools.abstractions() for each in places]

    for place, listing in zip(places, _run(look), strict=True):
        for each in listing:
            rest = " (stale)" if each.stale else ""
            _say(f"{place.label}: {each.kind} {each.name}{_of(each)}{rest}")
        if not listing:
            _say(f"{place.label}: nothing")
    return 0


def release_stale(
    job: str | None, identity: str | None, gone: Sequence[str], config: Path | None
) -> int:
    """Remove what nobody needs any more; the exit status is 1 if something stays."""
    places = _local_places(open_session(config, [], jobs_needed=False), job, identity)

    async def release() -> list[tuple[Sequence[Abstraction], Sequence[FsrepError]]]:
        outcomes: list[tuple[Sequence[Abstraction], Sequence[FsrepError]]] = []
        for place in places:
            found = [each for each in await place.tools.abstractions(gone) if each.stale]
            outcomes.append((found, await place.tools.release_stale(found)))
        return outcomes

    failed = False
    for place, (found, errors) in zip(places, _run(release), strict=True):
        for each in found:
            _say(f"{place.label}: {each.kind} {each.name}{_of(each)}")
        for error in errors:
            _say(f"{place.label}: {error}")
        failed = failed or bool(errors)
    return 1 if failed else 0


def _local_places(session: Session, job: str | None, identity: str | None) -> list[_Place]:
    """Give the storages ``zfs`` that work on this host, each root once.

    :raises ConfigError: there is none, or none of that name
    """
    chosen: list[tuple[str, PluginChoice]] = []
    for each in session.jobs if identity is None else ():
        if job is not None and each.name != job:
            continue
        for side in Side:
            config = getattr(each, side.value)
            if config.transport.name == LOCAL and config.storage.name == STORAGE:
                chosen.append((f"{each.name}, {side.value}", config.storage))
    if identity is not None:
        chosen.append((identity, find_identity(session.identities, identity).storage))
    elif job is None:
        chosen += [
            (each.name, each.storage) for each in session.identities if each.storage.name == STORAGE
        ]
    places = [_place(session, label, choice) for label, choice in chosen]
    if not places:
        raise ConfigError(
            f"{session.config_path}: no storage zfs works on this host"
            + (f' for the job "{job}"' if job else ""),
            hint="what is reached by another transport than local-pipe is listed on its own host",
        )
    roots: dict[object, _Place] = {}
    for place in places:
        roots.setdefault(getattr(place.options, "root", place.label), place)
    return list(roots.values())


def _place(session: Session, label: str, choice: PluginChoice) -> _Place:
    if choice.name != STORAGE:
        raise ConfigError(
            f"{label}: the storage is {choice.name}, not {STORAGE}",
            hint="these commands are about ZFS",
        )
    offer = session.registry.find("storage", choice.name)
    options = structure_options(offer.config_class, choice.options, label)
    tools: Any = offer.create(options)
    return _Place(label=label, options=options, tools=tools)


def _run(work: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401  (what the work gives)
    import trio

    return trio.run(work)


def _of(abstraction: Abstraction) -> str:
    return f" of job {abstraction.job}" if abstraction.job is not None else ""


def _say(text: str) -> None:
    print(visible(text))  # noqa: T201  (the result of the command)
