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
from fsrep_core.ops.config import in_job, job_label
from fsrep_core.runtime.options import Mistake, OptionsError, structure_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.runtime.registry import Registry

__all__ = ["check_jobs"]

SIDES = ("sender", "receiver")
KINDS = ("transport", "storage")
_OTHER_KIND = {"transport": "storage", "storage": "transport"}


@attrs.frozen
class _Chosen:
    """A plugin of one side, with its options read."""

    name: str
    options: Any


def check_jobs(raw_jobs: Sequence[object], registry: Registry) -> list[Mistake]:
    """List what is wrong between the keys of the jobs and with the plugins they name."""
    mistakes: list[Mistake] = []
    number_of: dict[str, int] = {}
    for number, raw in enumerate(raw_jobs, start=1):
        if not isinstance(raw, Mapping):
            continue  # said by the reader
        label = job_label(raw, number)
        name = raw.get("name")
        if isinstance(name, str):
            first = number_of.setdefault(name, number)
            if first != number:
                mistakes.append(
                    Mistake(
                        f"{label}: name",
                        f"jobs number {first} and {number} have the same name",
                        "give each a name of its own; it names their cursors",
                    )
                )
        mistakes += [in_job(label, mistake) for mistake in _check_job(raw, registry)]
    return mistakes


def _check_job(raw: Mapping[str, object], registry: Registry) -> list[Mistake]:
    mistakes: list[Mistake] = []
    chosen: dict[tuple[str, str], _Chosen] = {}
    for side in SIDES:
        table = raw.get(side)
        if not isinstance(table, Mapping):
            continue
        for kind in KINDS:
            choice = table.get(kind)
            if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
                continue
            try:
                chosen[side, kind] = _choose(registry, kind, choice)
            except OptionsError as exc:
                mistakes += exc.within(f"{side}.{kind}").mistakes
            except PluginError as exc:
                advice = _kind_advice(registry, kind, choice["name"]) or exc.hint
                mistakes.append(Mistake(f"{side}.{kind}.name", exc.message, advice))
    if len(chosen) == len(SIDES) * len(KINDS):
        mistakes += _check_places(chosen)
    return mistakes


def _choose(registry: Registry, kind: str, choice: Mapping[str, Any]) -> _Chosen:
    name = choice["name"]
    options = {key: value for key, value in choice.items() if key != "name"}
    offer = registry.find(kind, name)
    return _Chosen(name, structure_options(offer.config_class, options, ""))


def _kind_advice(registry: Registry, kind: str, name: str) -> str | None:
    """Say when a storage stands where a transport belongs, or the reverse."""
    other = _OTHER_KIND[kind]
    names = [offer.name for offer in registry.offers(kind)]
    for offer in registry.offers(other):
        if offer.name == name:
            return f'"{name}" is a {other}; the {kind}s are {", ".join(names) or "none"}'
    return None


def _check_places(chosen: Mapping[tuple[str, str], _Chosen]) -> list[Mistake]:
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
