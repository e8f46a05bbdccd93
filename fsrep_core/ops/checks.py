"""What must hold between the keys of a job, and with the installed plugins.

These checks read the raw tables where they can, so that a mistake in one key hides none
in another. Nothing here touches a filesystem or opens a connection, except that paths
of this host are resolved to see whether they overlap.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import PluginError
from fsrep_core.ops.config import within_entry
from fsrep_core.runtime.options import Mistake, OptionsError, structure_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.runtime.registry import Registry

__all__ = ["Chosen", "check_choice", "check_jobs", "repeated_names"]

SIDES = ("sender", "receiver")
KINDS = ("transport", "storage")
_OTHER_KIND = {"transport": "storage", "storage": "transport", "listener": "transport"}


@attrs.frozen
class Chosen:
    """A plugin of one side, with its options read."""

    name: str
    options: Any


def check_jobs(raw_jobs: Sequence[object], registry: Registry) -> list[Mistake]:
    """List what is wrong between the keys of the jobs and with the plugins they name."""
    mistakes = repeated_names(
        "job", raw_jobs, "give each a name of its own; it names their cursors"
    )
    for number, raw in enumerate(raw_jobs, start=1):
        if isinstance(raw, Mapping):  # anything else was refused by the reader
            mistakes += within_entry("job", raw, number, _check_job(raw, registry))
    return mistakes


def repeated_names(kind: str, raw_entries: Sequence[object], remedy: str) -> list[Mistake]:
    """List the entries, of one kind, that have the name of an earlier one."""
    mistakes: list[Mistake] = []
    number_of: dict[str, int] = {}
    for number, raw in enumerate(raw_entries, start=1):
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if not isinstance(name, str):
            continue
        first = number_of.setdefault(name, number)
        if first != number:
            plural = "identities" if kind == "identity" else f"{kind}s"
            message = f"{plural} number {first} and {number} have the same name"
            mistakes += within_entry(kind, raw, number, [Mistake("name", message, remedy)])
    return mistakes


def _check_job(raw: Mapping[str, object], registry: Registry) -> list[Mistake]:
    mistakes: list[Mistake] = []
    chosen: dict[tuple[str, str], Chosen] = {}
    for side in SIDES:
        table = raw.get(side)
        if not isinstance(table, Mapping):
            continue
        for kind in KINDS:
            found, wrong = check_choice(registry, kind, table.get(kind), f"{side}.{kind}")
            mistakes += wrong
            if found is not None:
                chosen[side, kind] = found
    if len(chosen) == len(SIDES) * len(KINDS):
        mistakes += _check_places(chosen)
    return mistakes


def check_choice(
    registry: Registry, kind: str, choice: object, where: str
) -> tuple[Chosen | None, list[Mistake]]:
    """Find the plugin that a table names and read its options.

    :param choice: the raw table; one that names nothing was refused by the reader
    :param where: the table's key, for the mistakes
    :returns: the plugin, where nothing is wrong with it, and the mistakes
    """
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        return None, []
    name = choice["name"]
    options = {key: value for key, value in choice.items() if key != "name"}
    try:
        offer = registry.find(kind, name)
        return Chosen(name, structure_options(offer.config_class, options, "")), []
    except OptionsError as exc:
        return None, list(exc.within(where).mistakes)
    except PluginError as exc:
        advice = _kind_advice(registry, kind, name) or exc.hint
        return None, [Mistake(f"{where}.name", exc.message, advice)]


def _kind_advice(registry: Registry, kind: str, name: str) -> str | None:
    """Say when a storage stands where a transport belongs, or the reverse."""
    other = _OTHER_KIND[kind]
    names = [offer.name for offer in registry.offers(kind)]
    for offer in registry.offers(other):
        if offer.name == name:
            return f'"{name}" is a {other}; the {kind}s are {", ".join(names) or "none"}'
    return None


def _check_places(chosen: Mapping[tuple[str, str], Chosen]) -> list[Mistake]:
    """Refuse a receiver that would write into what the sender reads.

    The two sides are on one host when both are on this one, or both are reached in the
    same way. Their places are the options called ``root``.
    """
    transports = [chosen[side, "transport"] for side in SIDES]
    both_here = all(_stays_here(transport.options) for transport in transports)
    if not both_here and transports[0] != transports[1]:
        return []
    sender, receiver = chosen["sender", "storage"], chosen["receiver", "storage"]
    if sender == receiver:
        return [
            Mistake(
                "receiver",
                "is the same as the sender: same transport, same storage, same options",
                "nothing can be replicated onto itself; give the receiver a place of its own",
            )
        ]
    sender_root = getattr(sender.options, "root", None)
    receiver_root = getattr(receiver.options, "root", None)
    if not _overlap(
        sender_root, receiver_root, both_here=both_here, alike=sender.name == receiver.name
    ):
        return []
    return [
        Mistake(
            "receiver.storage.root",
            f'"{receiver_root}" and the sender\'s root "{sender_root}" overlap on one host',
            "choose two roots of which neither contains the other",
        )
    ]


def _stays_here(transport_options: Any) -> bool:  # noqa: ANN401  (any plugin's class)
    """Tell whether a transport ends on this host: one that goes away must be told where."""
    return not any(
        field.init and field.default is attrs.NOTHING
        for field in attrs.fields(type(transport_options))
    )


def _overlap(a: object, b: object, *, both_here: bool, alike: bool) -> bool:
    a, b = _as_path(a), _as_path(b)
    if isinstance(a, Path) and isinstance(b, Path):
        pairs = [(os.path.normpath(a), os.path.normpath(b))]
        if both_here:
            pairs.append((os.path.realpath(a), os.path.realpath(b)))
    elif isinstance(a, str) and isinstance(b, str) and alike:
        pairs = [(a, b)]
    else:
        return False
    return any(_nested(PurePosixPath(one), PurePosixPath(two)) for one, two in pairs)


def _as_path(root: object) -> object:
    """Take a string that is plainly a path as one; others, such as a pool's, stay."""
    return Path(root) if isinstance(root, str) and root.startswith("/") else root


def _nested(one: PurePosixPath, two: PurePosixPath) -> bool:
    return one.is_relative_to(two) or two.is_relative_to(one)
