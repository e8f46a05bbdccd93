"""Every message that btrfs was seen to print leads to the right decision."""

from __future__ import annotations

import pytest

from fsrep_btrfs.messages import MEANINGS, Explanation

EPERM = "Operation not permitted"

DESTROY = (
    f"ERROR: Could not destroy subvolume/snapshot: {EPERM}\n"
    "WARNING: deletion failed with EPERM, you don't have permissions or "
    "send may be in progress"
)

# The message as recorded, then the kind of error, whether it is temporary, and local.
MESSAGES = [
    (DESTROY, ("busy", True, True)),
    (f"ERROR: Could not set subvolume flags: {EPERM}", ("busy", True, True)),
    ("sudo: a password is required", ("permission-denied", False, False)),
    ("backup is not in the sudoers file.", ("permission-denied", False, False)),
    (f"ERROR: can't perform the search: {EPERM}", ("permission-denied", False, False)),
    (f"ERROR: Could not search B-tree: {EPERM}", ("permission-denied", False, False)),
    (
        f"ERROR: failed to determine mount point for /mnt/x: {EPERM}",
        ("permission-denied", False, False),
    ),
    (
        "ERROR: writing to f failed: No space left on device",
        ("out-of-space", True, True),
    ),
    ("ERROR: writing to f failed: Disk quota exceeded", ("out-of-space", True, True)),
    ("ERROR: not on mount point: /mnt/pool", ("storage", False, True)),
    (
        "ERROR: parent subvol is not reachable from inside the root subvol",
        ("storage", False, True),
    ),
    ("ERROR: cannot find parent subvolume", ("version-missing", True, True)),
    (
        "ERROR: snapshot: cannot find parent subvolume 7fa1d792-f12f-4142-b0d0-0167fe4c7a07",
        ("version-missing", True, True),
    ),
    ("ERROR: clone: did not find source subvol", ("version-missing", True, True)),
    ("ERROR: parent determination failed for 262", ("version-missing", True, True)),
    ("ERROR: subvolume /mnt/pool/docs is not read-only", ("version-missing", True, True)),
    ("ERROR: parent subvolume /mnt/x is not read-only", ("version-missing", True, True)),
    ("ERROR: realpath nope failed: No such file or directory", ("version-missing", True, True)),
    ("ERROR: unable to resolve nope", ("version-missing", True, True)),
    ("ERROR: Not a Btrfs subvolume: Invalid argument", ("version-missing", True, True)),
    ("ERROR: Could not statfs: No such file or directory", ("version-missing", True, True)),
    ("ERROR: send ioctl failed with -71: Protocol error", ("storage", False, True)),
    (
        "ERROR: requested version 2 but kernel supports only 1",
        ("storage", False, True),
    ),
    ("ERROR: stream version 3 not supported, please use newer version", ("storage", False, True)),
    (
        "ERROR: short read from stream: expected 20480 read 9000",
        ("interrupted-stream", True, True),
    ),
    ("ERROR: unexpected EOF in stream", ("interrupted-stream", True, True)),
    ("ERROR: unexpected header", ("interrupted-stream", True, True)),
    ("ERROR: empty stream is not considered valid", ("interrupted-stream", True, True)),
    ("ERROR: crc32 mismatch in command", ("interrupted-stream", True, True)),
    ("ERROR: creating subvolume s1 failed: File exists", ("conflict", False, True)),
    (
        "ERROR: creating subvolume s1 failed: Read-only file system",
        ("storage", False, False),
    ),
    ("ERROR: not a btrfs filesystem: /mnt", ("storage", False, False)),
    ("ERROR: /mnt doesn't belong to btrfs mount point", ("storage", False, False)),
    ("ERROR: send ioctl failed with -5: Input/output error", ("storage", False, True)),
    ("ERROR: failed to fork: Cannot allocate memory", ("storage", True, True)),
]


@pytest.mark.parametrize(("said", "expected"), MESSAGES)
def test_known_messages(said, expected):
    """The message is passed on, with what to do about it."""
    error = Explanation("receiving docs@monday")(1, f"{said}\n")

    assert (error.kind, error.temporary, error.local) == expected
    assert error.message == f"receiving docs@monday: {said}"
    assert error.hint


def test_every_row_of_the_table_has_a_message():
    """A row that nothing reaches would be a guess, or is hidden by an earlier one."""
    reached = {
        next(number for number, row in enumerate(MEANINGS) if row.pattern.search(said))
        for said, _ in MESSAGES
    }

    assert reached == set(range(len(MEANINGS)))


def test_an_unknown_message_is_passed_on_whole():
    said = "ERROR: something new\nover two lines"

    error = Explanation("sending docs@monday")(3, f"\n{said}\n")

    assert error.message == f"sending docs@monday: {said}"
    assert (error.kind, error.temporary, error.local) == ("storage", False, True)


def test_a_failure_without_a_message():
    assert Explanation("sending x@y")(3, "").message == "sending x@y: btrfs failed with status 3"


def test_a_killed_program():
    """That can go better the next time."""
    error = Explanation("sending x@y")(-9, "")
    talkative = Explanation("sending x@y")(-15, "ERROR: something new")

    assert error.message == "sending x@y: btrfs was ended by SIGKILL"
    assert error.temporary
    assert talkative.message == (
        "sending x@y: btrfs was ended by SIGTERM and said: ERROR: something new"
    )
