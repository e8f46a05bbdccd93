"""What ``btrfs`` says when it fails, and what that means. Pure.

One table, first match wins; a message that stands in no row is passed on whole. The
messages are those of btrfs-progs 6.2 to 6.14 (``cmds/send.c``, ``cmds/receive.c``,
``common/send-stream.c``, ``cmds/subvolume.c``) and of sudo.
"""

from __future__ import annotations

import re
import signal

import attrs

from fsrep_core import (
    BusyError,
    ConflictError,
    FsrepError,
    InterruptedStreamError,
    OutOfSpaceError,
    PermissionDeniedError,
    StorageError,
    VersionMissingError,
)

__all__ = ["MEANINGS", "Explanation", "Meaning"]

_PRIVILEGES = (
    "run fsrep as root, or set command = ['sudo', '-n', 'btrfs'] with a rule in sudoers: "
    "the manual of this storage shows it, under Privileges"
)
_REACH = (
    "mount the whole file system (mount -o subvolid=5) and put the storage's root there, so "
    "that all snapshots are below one mount point"
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
    # The kernel answers EPERM also for a subvolume that is being sent, so this stands
    # before permissions.
    _meaning(
        r"send may be in progress|Device or resource busy|Text file busy",
        BusyError,
        "a send that runs now needs it; if none does, the privilege is missing",
    ),
    _meaning(
        r"Could not (set subvolume flags|destroy subvolume/snapshot): Operation not permitted",
        BusyError,
        "a send that runs now needs it; if none does, the privilege is missing",
    ),
    _meaning(
        r"(?m)^sudo: |is not in the sudoers file|not allowed to execute",
        PermissionDeniedError,
        "let sudo run btrfs without a password: the manual of this storage shows the rule",
        local=False,
    ),
    _meaning(
        r"Operation not permitted|Permission denied",
        PermissionDeniedError,
        _PRIVILEGES,
        local=False,
    ),
    _meaning(
        r"No space left on device",
        OutOfSpaceError,
        "free space on the receiver; 'btrfs filesystem usage' tells data from metadata",
    ),
    _meaning(
        r"Disk quota exceeded",
        OutOfSpaceError,
        "raise the quota of the receiver ('btrfs qgroup show')",
    ),
    _meaning(
        r"parent subvol is not reachable|not on mount point|"
        r"unreachable from|changed your default subvolume",
        StorageError,
        _REACH,
    ),
    _meaning(
        r"cannot find parent subvolume|cannot lookup parent subvolume: No such file|"
        r"clone: (cannot find|did not find) source subvol|parent determination failed",
        VersionMissingError,
        "plan again: the base of this step is no longer on the receiver",
    ),
    _meaning(
        r"subvolume \S.* is not read-only",
        VersionMissingError,
        "a snapshot was made writable: make a new snapshot, and plan again",
    ),
    _meaning(
        r"requested version \d+ but kernel supports|send ioctl failed with -71|"
        r"protocol version number too big|Protocol error",
        StorageError,
        "this kernel cannot send compressed data: leave compressed_data out of the sender",
    ),
    _meaning(
        r"stream version \d+ not supported|not compiled in|encryption not supported",
        StorageError,
        "the btrfs program of the receiver is too old or was built without a compression: "
        "leave compressed_data out of the sender, or install a newer btrfs-progs",
    ),
    _meaning(
        r"short read from stream|unexpected EOF in stream|unexpected header|"
        r"empty stream is not considered valid|crc32 mismatch in command|"
        r"invalid tlv in cmd|too large tlv|attribute \d+ requested but not present|"
        r"read from stream failed",
        InterruptedStreamError,
        "the stream was cut or changed on its way; it is sent again from the start",
    ),
    _meaning(
        r"File exists",
        ConflictError,
        "another process writes where fsrep receives: let no other tool use the storage's "
        "private directory",
    ),
    _meaning(
        r"No such file or directory|unable to resolve|Not a Btrfs subvolume|"
        r"not a subvolume|failed to get flags for subvolume .*Invalid argument|"
        r"Subvolume not found",
        VersionMissingError,
        "plan again: a snapshot was destroyed or renamed meanwhile",
    ),
    _meaning(
        r"Read-only file system",
        StorageError,
        "the file system is mounted read-only, or the kernel made it so after an error: "
        "look at the kernel's log",
        local=False,
    ),
    _meaning(
        r"Input/output error|parent transid verify failed|Structure needs cleaning",
        StorageError,
        "the file system is damaged: 'btrfs scrub start' and the kernel's log tell where",
    ),
    _meaning(
        r"[Nn]ot a btrfs filesystem|belong to btrfs mount point|Inappropriate ioctl for device",
        StorageError,
        "the storage's root must be on a mounted btrfs: is the disk mounted?",
        local=False,
    ),
    _meaning(
        r"Cannot allocate memory|Resource temporarily unavailable|Too many open files",
        StorageError,
        "the host is short of memory or processes",
        temporary=True,
    ),
)


@attrs.frozen
class Explanation:
    """Makes the error of a failed ``btrfs`` process."""

    attempt: str
    """What was tried, on what, such as ``"sending docs@monday"``."""

    def __call__(self, status: int, stderr: str) -> FsrepError:
        """See :class:`fsrep_core.runtime.processes.Explain`."""
        said = stderr.strip()
        for meaning in MEANINGS:
            if meaning.pattern.search(said):
                return meaning.error(
                    f"{self.attempt}: {said}",
                    temporary=meaning.temporary,
                    local=meaning.local,
                    hint=meaning.hint,
                )
        why = said or f"btrfs failed with status {status}"
        if status < 0:
            name = signal.Signals(-status).name
            why = f"btrfs was ended by {name}" + (f" and said: {said}" if said else "")
        return StorageError(f"{self.attempt}: {why}", temporary=status < 0)
