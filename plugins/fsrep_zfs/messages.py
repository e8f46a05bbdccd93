"""What ``zfs`` says when it fails, and what that means. Pure.

One table, first match wins; a message that stands in no row is passed on whole. ``zfs``
breaks long messages into lines, so they are joined before they are looked at. The words
change between versions: each row looks for a short part that has stood for long. They are
those of OpenZFS 0.8 to 2.4 (``lib/libzfs``, ``cmd/zfs/zfs_main.c``) and of sudo.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import attrs

from fsrep_core import (
    BusyError,
    ConflictError,
    FsrepError,
    InterruptedStreamError,
    OutOfSpaceError,
    PermissionDeniedError,
    StaleTokenError,
    StorageError,
    VersionMissingError,
)

__all__ = ["MEANINGS", "Explanation", "Meaning", "explain", "joined", "property_complaints"]

_REPLAN = "plan again: a snapshot was destroyed or renamed meanwhile"
_ABORT = "discard the partial receive on the receiver: zfs receive -A"
_ALLOW = "let the user do it: 'fsrep zfs allow' prints the commands for a job's side"
_CHANGED = (
    "the receiver's filesystem was changed after its last snapshot: 'zfs rollback' to that "
    "snapshot gives it back its state, and override = { readonly = 'on' } keeps it so"
)


@attrs.frozen(kw_only=True)
class Meaning:
    """What a message means."""

    pattern: re.Pattern[str]
    error: type[FsrepError]
    hint: str | None = None
    temporary: bool | None = None
    """``None`` = as the class says."""
    local: bool | None = None


def _meaning(
    pattern: str,
    error: type[FsrepError],
    hint: str | None = None,
    *,
    temporary: bool | None = None,
    local: bool | None = None,
) -> Meaning:
    return Meaning(
        pattern=re.compile(pattern), error=error, hint=hint, temporary=temporary, local=local
    )


MEANINGS = (
    # --- starting zfs at all ---
    _meaning(
        r"(?m)^sudo: |is not in the sudoers file|not allowed to execute",
        PermissionDeniedError,
        "let sudo run zfs without a password, or use 'fsrep zfs allow' instead",
        local=False,
    ),
    _meaning(
        r"ZFS modules? (are not|is not|cannot be) loaded|/dev/zfs|Unable to open /dev/zfs",
        StorageError,
        "load the module (modprobe zfs); in a container, the host has to give /dev/zfs",
        local=False,
    ),
    # --- the pool as a whole ---
    _meaning(
        r"pool I/O is currently suspended",
        StorageError,
        "the pool has lost its disks: 'zpool status' and 'zpool clear'",
        temporary=True,
        local=False,
    ),
    _meaning(
        r"pool is read-only|read-only file system|dataset is read-only",
        StorageError,
        "the pool was imported read-only: import it anew to receive into it",
        local=False,
    ),
    _meaning(
        r"space quota exceeded|quota exceeded",
        OutOfSpaceError,
        "raise the quota, or destroy what is not needed; a partial receive can be resumed then",
    ),
    _meaning(
        r"out of space|No space left on device",
        OutOfSpaceError,
        "free space on the pool. The partial receive takes space, too: " + _ABORT,
    ),
    # --- encryption ---
    _meaning(
        r"IV set guid mismatch|IV set guid missing",
        ConflictError,
        "raw and plain increments were mixed, or the copy was changed: a raw increment needs "
        "a base that was received raw. Replicate to another place, and keep raw as it is",
    ),
    _meaning(
        r"(dataset|inherited) key must be loaded|[Kk]ey must be loaded|key (is )?not loaded|"
        r"encryption key not loaded",
        StorageError,
        "load the key (zfs load-key), or send raw, which needs none (raw = true on the sender)",
        temporary=True,
    ),
    _meaning(
        r"may not be sent with properties without the raw flag",
        StorageError,
        "set raw = true, or properties = false",
    ),
    _meaning(
        r"raw receive on top of existing unencrypted|[Cc]annot perform raw receive|"
        r"overwrite .*encrypt|encryption.*(cannot be|may not be) (set|specified)|"
        r"destination .*is encrypted",
        ConflictError,
        "an encrypted and an unencrypted dataset cannot take each other's place: replicate to "
        "a name that does not exist yet",
    ),
    _meaning(
        r"incompatible embedded data stream feature",
        StorageError,
        "an encrypted receiver cannot take embedded blocks: set embedded = false on the sender",
    ),
    # --- resuming ---
    _meaning(
        r"cannot receive resume stream: destination .*does not exist",
        StaleTokenError,
        "plan again: the partial receive is gone",
        temporary=True,
    ),
    _meaning(
        r"partially-complete state",
        StaleTokenError,
        "a partial receive is kept there: the next run resumes or discards it, or " + _ABORT,
        temporary=True,
    ),
    _meaning(
        r"does not have any resumable receive state",
        VersionMissingError,
        "plan again: the partial receive is gone",
    ),
    _meaning(
        r"resume token is corrupt|invalid resume token|unsupported.*resume token",
        StaleTokenError,
        _ABORT,
    ),
    _meaning(
        r"used in the initial send no longer exists|no longer the same snapshot|"
        r"incremental source 0x[0-9a-f]+ no longer exists|cannot resume send",
        VersionMissingError,
        "plan again: what was being sent is gone, so the partial receive cannot be completed",
    ),
    # --- increments and what is in their way ---
    _meaning(
        r"requires -L \(--large-block\)",
        ConflictError,
        "earlier steps were sent with large blocks: set large_blocks = true again",
    ),
    _meaning(
        r"destination .*has been modified\s+since most recent snapshot",
        ConflictError,
        _CHANGED,
    ),
    _meaning(
        r"most recent snapshot of .* does not\s+match incremental source|"
        r"does not match incremental source",
        ConflictError,
        "the receiver lacks the base of this increment: plan again",
        temporary=True,
    ),
    _meaning(
        r"must specify -F|destination '?.*exists|destination has snapshots|"
        r"destination already exists|(dataset|snapshot) already exists",
        ConflictError,
        "something else has the place on the receiver: rename or destroy it there",
    ),
    _meaning(
        r"local origin for clone .* does not exist",
        ConflictError,
        "a clone is received only where its origin is: replicate that in the same job",
        temporary=True,
    ),
    _meaning(
        r"more recent snapshots? or bookmarks? exist|more recent snapshots",
        ConflictError,
        "newer snapshots or bookmarks than the base are there, which the policy does not give up",
    ),
    _meaning(
        r"not an earlier snapshot from the same fs|incremental source .* is not earlier",
        VersionMissingError,
        "plan again: the base is no longer older than what is to be sent",
    ),
    # --- in use ---
    _meaning(
        r"it's being held|snapshot is held|being held",
        BusyError,
        "'zfs holds' tells by whom; 'fsrep zfs abstractions list' shows those of fsrep",
    ),
    _meaning(
        r"dataset is busy|pool or dataset is busy|target is busy|is busy|Device busy",
        BusyError,
        "a send, a receive, a mount or a hold uses it now",
    ),
    _meaning(
        r"(has|have) dependent clones|has dependents|has children",
        BusyError,
        "something depends on it: 'zfs list -o name,origin' shows clones; promote or destroy them",
        temporary=False,
    ),
    # --- rights ---
    _meaning(
        r"permission denied|Permission denied|Operation not permitted|insufficient privilege",
        PermissionDeniedError,
        _ALLOW,
    ),
    # --- what does not exist (after what says more) ---
    _meaning(
        r"parent .*does not exist|unable to restore to destination",
        StorageError,
        "the parent has to exist on the receiver first",
        temporary=True,
    ),
    _meaning(
        r"parent .*is not a filesystem",
        ConflictError,
        "a volume holds no filesystems: replicate to another place",
    ),
    _meaning(
        r"could not find any snapshots to destroy|dataset does not exist|"
        r"(bookmark|snapshot|filesystem|source).* does not exist|No such process|"
        r"no such (snapshot|dataset|pool)|no such pool",
        VersionMissingError,
        _REPLAN,
    ),
    # --- the stream: echoes of a cause at the other end, so they come last ---
    _meaning(
        r"kernel modules must be upgraded|pool must be upgraded|stream has unsupported feature|"
        r"unsupported version",
        ConflictError,
        "the receiver's ZFS is older than the stream: upgrade it, or send less "
        "(large_blocks, compressed, embedded = false)",
    ),
    _meaning(
        r"checksum mismatch|incomplete stream|failed to read from stream|invalid stream|"
        r"invalid backup stream|signal received|[Bb]roken pipe|Input/output error",
        InterruptedStreamError,
        "the stream was cut or changed on its way; it goes on from where it was",
    ),
    _meaning(
        r"Cannot allocate memory|out of memory|Resource temporarily unavailable|Too many open",
        StorageError,
        "the host is short of memory or processes",
        temporary=True,
    ),
)

_PROGRESS = re.compile(
    r"(?:\d\d:\d\d:\d\d\t[\d-]+\t.*|(?:full|incremental|size)\t.*|resume token contents:|"
    r"nvlist version: \d+|\t\w+ = .*)"
)
"""What ``zfs send -vP`` writes beside its complaints."""

_ADVICE = re.compile(
    r"A resuming stream can be generated|zfs send -t |usage:|For the |For further help|"
    r"no snapshots were created|Partially received snapshot is saved"
)
"""What is not for the reader of a message. It holds the resume token, which no log may."""

_PROPERTY_COMPLAINT = re.compile(
    r"cannot (?:receive|set|inherit) (?P<property>\S+) property on (?P<dataset>.+?): (?P<why>.+)"
)


def joined(stderr: str) -> str:
    """Give what was said without progress, and with lines that belong together as one."""
    lines: list[str] = []
    for line in stderr.splitlines():
        text = line.strip()
        if not text or _PROGRESS.fullmatch(line) or _ADVICE.match(text):
            continue
        if lines and _goes_on(lines[-1], line):
            lines[-1] = f"{lines[-1]} {text}"
        else:
            lines.append(text)
    return "\n".join(lines)


def _goes_on(before: str, line: str) -> bool:
    """Tell whether a line goes on with the one before it, where zfs has wrapped it."""
    starts_anew = re.match(r"(cannot|warning|internal error|Error|usage|sudo|could not)\b", line)
    return starts_anew is None and not before.endswith((".", "!"))


def explain(attempt: str, said: str) -> FsrepError | None:
    """Make the error of a known message; ``None`` = it stands in no row."""
    for meaning in MEANINGS:
        if meaning.pattern.search(said):
            return meaning.error(
                f"{attempt}: {said}",
                temporary=meaning.temporary,
                local=meaning.local,
                hint=meaning.hint,
            )
    return None


@attrs.frozen
class Explanation:
    """Makes the error of a failed ``zfs`` process."""

    attempt: str
    """What was tried, on what, such as ``"sending tank/docs@monday"``."""
    adjust: Callable[[FsrepError], FsrepError] = lambda error: error
    """What this call knows better than the table."""

    def __call__(self, status: int, stderr: str) -> FsrepError:
        """See :class:`fsrep_core.runtime.processes.Explain`."""
        said = joined(stderr)
        known = explain(self.attempt, said)
        if known is not None:
            return self.adjust(known)
        why = said or f"zfs failed with status {status}"
        if status < 0:
            name = signal.Signals(-status).name
            why = f"zfs was ended by {name}" + (f" and said: {said}" if said else "")
        return self.adjust(StorageError(f"{self.attempt}: {why}", temporary=status < 0))


def property_complaints(stderr: str) -> dict[str, str]:
    """Give the properties that a receive could not set, each with the reason.

    ``zfs receive`` goes on without them and ends with status 0.
    """
    matches = map(_PROPERTY_COMPLAINT.match, joined(stderr).splitlines())
    return {match["property"]: match["why"] for match in matches if match}
