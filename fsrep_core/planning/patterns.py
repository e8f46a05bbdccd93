"""Which filesystems a job means: globs on the components of a name.

=============  =====================================================================
in a pattern   matches
=============  =====================================================================
``docs``       exactly this filesystem; the ones below it are not meant
``*``          any characters within one component, ``?`` one of them
``[a-c]``      one character of the set, ``[!a-c]`` one that is not in it
``**``         any number of whole components, also none: ``photos/**`` is ``photos``
               and everything below it, ``photos/*/**`` only what is below
``!pattern``   takes away what the pattern matches, and no more
=============  =====================================================================

Patterns are read in order and the last one that matches a name decides, so that an
exception can be made of an exception. With the excludes at the end, where people write
them, the order makes no difference. ``!photos/cache`` leaves ``photos/cache/old`` in:
a pattern means the same filesystems with and without the ``!``, and what is copied
without need harms less than what is silently left out.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, TypeAlias

import attrs

from fsrep_core.errors import InvalidRequestError
from fsrep_core.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Pattern", "Selection", "check_pattern", "parse_pattern", "select", "select_filesystems"]

_MAGIC = frozenset("*?[")
_Component: TypeAlias = re.Pattern[str] | None
"""One component of a pattern; ``None`` is ``**``."""


@attrs.frozen(kw_only=True, repr=False)
class Pattern(Shown):
    """One pattern, ready to match. Made by :func:`parse_pattern`."""

    text: str
    """As it was written."""
    excludes: bool
    literal: str | None
    """The only name that can match; ``None`` = the pattern has wildcards."""
    _components: tuple[_Component, ...] = attrs.field(repr=False)

    def matches(self, name: str) -> bool:
        """Tell whether the pattern, without its ``!``, means this filesystem."""
        if self.literal is not None:
            return name == self.literal
        return _match(self._components, name.split("/"))


@attrs.frozen(kw_only=True, repr=False)
class Selection(Shown):
    """What patterns select from names."""

    names: tuple[str, ...]
    """Sorted."""
    absent: tuple[str, ...]
    """Names that are meant, written without wildcards, and are not among the names. Sorted."""
    idle_patterns: tuple[str, ...]
    """The patterns that matched nothing, or took nothing away: probably mistakes."""


def parse_pattern(text: str) -> Pattern:
    """Understand one pattern.

    :raises InvalidRequestError: it can never mean a filesystem; the hint says why
    """
    excludes = text.startswith("!")
    glob = text[1:] if excludes else text
    components = glob.split("/")
    defect = next(_find_defects(glob, components), None)
    if defect is not None:
        what, hint = defect
        raise InvalidRequestError(f"pattern {text!r} {what}", local=False, hint=hint)
    return Pattern(
        text=text,
        excludes=excludes,
        literal=None if _MAGIC.intersection(glob) else glob,
        components=tuple(
            None if component == "**" else re.compile(fnmatch.translate(component))
            for component in components
        ),
    )


def check_pattern(pattern: str) -> None:
    """Return if the pattern can be used.

    :raises InvalidRequestError: it cannot; the hint says why
    """
    parse_pattern(pattern)


def select(patterns: Iterable[str], names: Iterable[str]) -> Selection:
    """Select by patterns, and tell which of them did nothing.

    :raises InvalidRequestError: a pattern cannot be used
    """
    remaining = sorted(set(names))
    selected: dict[str, bool] = dict.fromkeys(remaining, False)
    absent: set[str] = set()
    idle: list[str] = []
    for pattern in map(parse_pattern, patterns):
        if pattern.literal is not None:
            matched = [pattern.literal] if pattern.literal in selected else []
        else:
            matched = [name for name in remaining if pattern.matches(name)]
        if pattern.excludes:
            matched = [name for name in matched if selected[name]]
        if pattern.excludes:
            absent = {name for name in absent if not pattern.matches(name)}
        elif pattern.literal is not None and not matched:
            absent.add(pattern.literal)
        if not matched:
            idle.append(pattern.text)
        selected.update(dict.fromkeys(matched, not pattern.excludes))
    return Selection(
        names=tuple(name for name, chosen in selected.items() if chosen),
        absent=tuple(sorted(absent)),
        idle_patterns=tuple(idle),
    )


def select_filesystems(patterns: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Give the names that the patterns select, sorted.

    :raises InvalidRequestError: a pattern cannot be used
    """
    return select(patterns, names).names


def _find_defects(glob: str, components: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Tell what is wrong and what to write instead; the first counts."""
    bare = glob.rstrip("/")
    if not glob:
        yield "is empty", "name a filesystem, or '**' for all"
    if glob.startswith("/"):
        yield "is absolute", "names are relative to the storage's root: leave out the first '/'"
    if glob.endswith("/"):
        yield "ends in '/'", f"write {bare!r}, or {bare + '/**'!r} for what is below it too"
    if "" in components:
        yield "has an empty component ('//')", "put one '/' between components"
    if "." in components or ".." in components:
        yield "has a '.' or '..' component", "name the filesystem from the storage's root"
    if any("**" in component and component != "**" for component in components):
        yield "has '**' beside other characters", "'**' stands alone between '/'; within, use '*'"
    if any(_has_unclosed_set(component) for component in components):
        yield "has a '[' that is not closed in its component", "close it; write '[[]' to mean '['"


def _has_unclosed_set(component: str) -> bool:
    """Tell whether a ``[`` lacks its ``]``; a ``]`` that comes first belongs to the set."""
    return re.fullmatch(r"(?:[^\[]|\[!?+\]?+[^\]]*\])*", component, re.DOTALL) is None


def _match(pattern: Sequence[_Component], name: Sequence[str]) -> bool:
    """Match components; a ``**`` that took too few takes one more, the last one first.

    Only the last ``**`` ever needs to give way, which keeps this free of recursion.
    """
    at, place = 0, 0
    retry_at, retry_place = -1, 0
    while place < len(name):
        component = pattern[at] if at < len(pattern) else None
        if at < len(pattern) and component is None:
            retry_at, retry_place = at, place
            at += 1
        elif component is not None and component.match(name[place]):
            at, place = at + 1, place + 1
        elif retry_at >= 0:
            retry_place += 1
            at, place = retry_at + 1, retry_place
        else:
            return False
    return all(component is None for component in pattern[at:])
