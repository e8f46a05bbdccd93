"""The words of every conflict: what is the matter, with which versions, and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core.planning.plan import Conflict, ConflictKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsrep_core.values import Filesystem, Version

__all__ = [
    "base_is_not_cursor",
    "cursor_missing",
    "diverged",
    "find_unreadable",
    "incompatible_formats",
    "initial_forbidden",
    "list_versions",
    "name_taken",
    "no_common_ancestor",
    "no_such_filesystem",
    "nothing_to_send",
    "stale_token",
]

_NAMED = 3
"""How many versions a sentence names before it counts the rest."""


def list_versions(versions: Sequence[Version]) -> str:
    """Name versions in a sentence: all of a few, the ends of many."""
    if len(versions) <= _NAMED:
        return ", ".join(version.relative_name for version in versions)
    hidden = len(versions) - 2
    return f"{versions[0].relative_name}, {hidden} more, {versions[-1].relative_name}"


def no_such_filesystem() -> Conflict:
    """The job names a filesystem that the sender does not have."""
    return Conflict(
        kind=ConflictKind.NO_SUCH_FILESYSTEM,
        message="the sender has no filesystem of this name",
        hint="mount or restore it, correct its name, or take it out of the job",
    )


def find_unreadable(sender: Filesystem, receiver: Filesystem | None) -> Conflict | None:
    """A side cannot say what it has of the filesystem; ``None`` = both can."""
    for side, listed in (("sender", sender), ("receiver", receiver)):
        if listed is not None and listed.problem is not None:
            hint = f"repair it on the {side}, or exclude it with a '!' pattern"
            return Conflict(
                kind=ConflictKind.UNREADABLE,
                message=f"the {side} cannot say what it has: {listed.problem.message}",
                hint=listed.problem.hint or hint,
            )
    return None


def nothing_to_send(bookmarks: Sequence[Version]) -> Conflict:
    """The sender has no snapshot."""
    rest = f", only bookmarks: {list_versions(bookmarks)}" if bookmarks else ""
    return Conflict(
        kind=ConflictKind.NOTHING_TO_SEND,
        message=f"the sender has no snapshot{rest}",
        hint="make one ('fsrep snapshot'), or exclude the filesystem with a '!' pattern",
        versions=tuple(bookmarks),
    )


def initial_forbidden(snapshots: Sequence[Version]) -> Conflict:
    """The receiver has no snapshot, and the policy forbids a first replication."""
    return Conflict(
        kind=ConflictKind.INITIAL_FORBIDDEN,
        message=(
            "the receiver has no snapshot, and the policy initial = 'fail' forbids a first "
            f"replication of {list_versions(snapshots)}"
        ),
        hint="set initial = 'newest' or 'all', or look why the receiver's copy is gone",
        versions=tuple(snapshots),
    )


def no_common_ancestor(
    sender_snapshots: Sequence[Version], receiver_snapshots: Sequence[Version]
) -> Conflict:
    """Both sides have snapshots, but share no version to start from."""
    receiver_names = {version.name for version in receiver_snapshots}
    alike = [version for version in sender_snapshots if version.name in receiver_names]
    rest = (
        f"; {list_versions(alike)} exist by name on both, but with another guid: "
        "they are not the same content"
        if alike
        else ""
    )
    return Conflict(
        kind=ConflictKind.NO_COMMON_ANCESTOR,
        message=(
            f"the sender has {list_versions(sender_snapshots)}, the receiver has "
            f"{list_versions(receiver_snapshots)}, and no version is the same on both{rest}"
        ),
        hint=(
            "replicate to another place, or move the receiver's filesystem away to begin "
            "with a full replication"
        ),
        versions=tuple(receiver_snapshots),
    )


def cursor_missing(receiver_snapshots: Sequence[Version]) -> Conflict:
    """The policy starts from the job's cursor, and there is none."""
    return Conflict(
        kind=ConflictKind.CURSOR_MISSING,
        message=(
            "the policy base = 'cursor' starts from what this job's cursor marks; the sender "
            "has no cursor of this job, but the receiver has "
            f"{list_versions(receiver_snapshots)} already"
        ),
        hint="run once with base = 'newest' if the receiver's copy is this job's",
        versions=tuple(receiver_snapshots),
    )


def base_is_not_cursor(cursor: Version, receiver_snapshots: Sequence[Version]) -> Conflict:
    """The policy starts from the job's cursor, and the receiver lacks what it marks."""
    return Conflict(
        kind=ConflictKind.NO_COMMON_ANCESTOR,
        message=(
            "the policy base = 'cursor' starts from what this job's cursor marks; the receiver "
            f"does not have that version ({cursor.relative_name}), but "
            f"{list_versions(receiver_snapshots)}"
        ),
        hint="run once with base = 'newest' if the receiver's copy is this job's",
        versions=(cursor, *receiver_snapshots),
    )


def diverged(base: Version, newer: Sequence[Version]) -> Conflict:
    """The receiver has snapshots newer than the base."""
    return Conflict(
        kind=ConflictKind.DIVERGED,
        message=(
            f"the receiver has snapshots newer than {base.relative_name}, the newest version "
            f"that both sides have: {list_versions(newer)}"
        ),
        hint=(
            "keep them elsewhere and destroy them, or set diverged = 'rollback' to let the job "
            "destroy them"
        ),
        versions=tuple(newer),
    )


def name_taken(taken: Sequence[Version]) -> Conflict:
    """The receiver has other snapshots under the names of those to be sent."""
    return Conflict(
        kind=ConflictKind.NAME_TAKEN,
        message=(
            f"the receiver has {list_versions(taken)} already, with another guid than the "
            "snapshot of the same name to be sent: the content is not the same"
        ),
        hint="rename or destroy the receiver's snapshot of that name",
        versions=tuple(taken),
    )


def stale_token(why: str) -> Conflict:
    """A partial receive can no longer be completed, and the policy keeps it."""
    return Conflict(
        kind=ConflictKind.STALE_TOKEN,
        message=(
            f"the receiver holds a partial receive that cannot be completed: {why}; the policy "
            "stale_token = 'fail' keeps it, and nothing else can be received beside it"
        ),
        hint="set stale_token = 'discard', or abort the partial receive on the receiver",
    )


def incompatible_formats(sender: Iterable[str], receiver: Iterable[str]) -> Conflict:
    """The two storages share no stream format."""
    return Conflict(
        kind=ConflictKind.INCOMPATIBLE_FORMATS,
        message=(
            "the sender and the receiver share no stream format: the sender makes "
            f"{', '.join(sorted(sender)) or 'none'}, the receiver takes "
            f"{', '.join(sorted(receiver)) or 'none'}"
        ),
        hint="choose a receiver whose storage takes the sender's streams ('fsrep plugins')",
    )
