"""What ``zfs`` says is understood, and what it never said before is passed on whole."""

from __future__ import annotations

import pytest

from fsrep_core import (
    BusyError,
    ConflictError,
    InterruptedStreamError,
    OutOfSpaceError,
    PermissionDeniedError,
    StaleTokenError,
    StorageError,
    VersionMissingError,
)
from fsrep_zfs.messages import Explanation, joined, property_complaints

explain = Explanation("receiving docs@monday")

KNOWN = [
    # text, class, temporary, local
    (
        (
            "cannot receive incremental stream: destination b/x has been modified\n"
            "since most recent snapshot"
        ),
        ConflictError,
        False,
        True,
    ),
    (
        (
            "cannot receive incremental stream: most recent snapshot of b/x does not\n"
            "match incremental source"
        ),
        ConflictError,
        True,
        True,
    ),
    (
        (
            "cannot receive new filesystem stream: destination 'b/x' exists\n"
            "must specify -F to overwrite it"
        ),
        ConflictError,
        False,
        True,
    ),
    (
        (
            "cannot receive new filesystem stream: destination has snapshots (eg. b/x@a)\n"
            "must destroy them to overwrite it"
        ),
        ConflictError,
        False,
        True,
    ),
    ("cannot restore to b/x@n: destination already exists", ConflictError, False, True),
    (
        (
            "cannot receive resume stream: destination b/x contains partially-complete state from "
            '"zfs receive -s".'
        ),
        StaleTokenError,
        True,
        True,
    ),
    (
        "cannot receive resume stream: destination 'b/x' does not exist",
        StaleTokenError,
        True,
        True,
    ),
    (
        "cannot open 'b/large_blocks': dataset does not exist",
        VersionMissingError,
        True,
        True,
    ),
    (
        "cannot resume send: 'a/x@s' used in the initial send no longer exists",
        VersionMissingError,
        True,
        True,
    ),
    (
        "cannot resume send: 'a/x@s' is no longer the same snapshot used in the initial send",
        VersionMissingError,
        True,
        True,
    ),
    (
        "cannot resume send: incremental source 0x1234abcd no longer exists",
        VersionMissingError,
        True,
        True,
    ),
    ("cannot resume send: resume token is corrupt (invalid format)", StaleTokenError, False, True),
    ("cannot receive incremental stream: dataset is busy", BusyError, True, True),
    (
        "cannot destroy snapshot b/x@a: it's being held. Run 'zfs holds -r b/x@a' to see holders.",
        BusyError,
        True,
        True,
    ),
    (
        (
            "cannot destroy 'b/x@a': snapshot has dependent clones\n"
            "use '-R' to destroy the following datasets:\nb/clone"
        ),
        BusyError,
        False,
        True,
    ),
    (
        (
            "cannot receive incremental stream: IV set guid mismatch. See the 'zfs receive' man "
            "page section\n discussing the limitations of raw encrypted send streams."
        ),
        ConflictError,
        False,
        True,
    ),
    (
        "cannot receive incremental stream: inherited key must be loaded",
        StorageError,
        True,
        True,
    ),
    (
        "warning: cannot send 'a/x@s': dataset key must be loaded",
        StorageError,
        True,
        True,
    ),
    (
        (
            "cannot receive new filesystem stream: cannot perform raw receive on top of existing "
            "unencrypted dataset"
        ),
        ConflictError,
        False,
        True,
    ),
    (
        (
            "cannot send a/x@s: encrypted dataset a/x may not be sent with properties without the "
            "raw flag"
        ),
        StorageError,
        False,
        True,
    ),
    (
        "cannot receive: incompatible embedded data stream feature with encrypted receive.",
        StorageError,
        False,
        True,
    ),
    (
        (
            "cannot receive incremental stream: incremental send stream requires -L\n"
            "(--large-block), to match previous receive."
        ),
        ConflictError,
        False,
        True,
    ),
    ("cannot receive new filesystem stream: out of space", OutOfSpaceError, True, True),
    (
        "cannot receive new filesystem stream: destination b/x space quota exceeded.",
        OutOfSpaceError,
        True,
        True,
    ),
    ("cannot receive new filesystem stream: permission denied", PermissionDeniedError, False, True),
    (
        (
            "cannot open 'b/no': dataset does not exist\n"
            "cannot receive new filesystem stream: unable to restore to destination"
        ),
        StorageError,
        True,
        True,
    ),
    ("cannot create 'b/v/x': parent 'b/v' is not a filesystem", ConflictError, False, True),
    ("cannot open 'a/x@gone': dataset does not exist", VersionMissingError, True, True),
    ("warning: cannot send 'a/x@c': No such process", VersionMissingError, True, True),
    (
        "could not find any snapshots to destroy; check snapshot names.",
        VersionMissingError,
        True,
        True,
    ),
    ("local origin for clone b/c@1 does not exist", ConflictError, True, True),
    (
        (
            "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\n"
            "Partially received snapshot is saved."
        ),
        InterruptedStreamError,
        True,
        True,
    ),
    ("cannot receive: failed to read from stream", InterruptedStreamError, True, True),
    ("warning: cannot send 'a/x@s': signal received", InterruptedStreamError, True, True),
    ("cannot list: pool I/O is currently suspended", StorageError, True, False),
    ("cannot receive new filesystem stream: pool is read-only", StorageError, False, False),
    (
        "The ZFS modules are not loaded.\nTry running 'modprobe zfs' as root to load them.",
        StorageError,
        False,
        False,
    ),
    ("sudo: a password is required", PermissionDeniedError, False, False),
    (
        "cannot receive: pool must be upgraded to receive this stream.",
        ConflictError,
        False,
        True,
    ),
]


@pytest.mark.parametrize(("text", "kind", "temporary", "local"), KNOWN)
def test_a_known_message_is_understood(text, kind, temporary, local):
    error = explain(1, f"{text}\n")

    assert type(error) is kind
    assert (error.temporary, error.local) == (temporary, local)
    assert error.hint
    assert "receiving docs@monday: " in error.message


def test_a_message_that_nobody_knows_is_passed_on_whole():
    error = explain(1, "cannot frobnicate: the flux is inverted\n")

    assert type(error) is StorageError
    assert "cannot frobnicate: the flux is inverted" in error.message
    assert not error.temporary


def test_silence_is_told_with_its_status():
    assert "status 3" in explain(3, "").message


def test_a_killed_child_may_do_better_the_next_time():
    error = explain(-9, "")

    assert "SIGKILL" in error.message
    assert error.temporary


def test_wrapped_lines_are_joined_and_others_are_not():
    said = (
        "cannot receive incremental stream: destination b/x has been modified\n"
        "since most recent snapshot\n"
        "cannot open 'b/y': dataset does not exist\n"
    )

    assert joined(said).splitlines() == [
        (
            "cannot receive incremental stream: destination b/x has been modified since most "
            "recent snapshot"
        ),
        "cannot open 'b/y': dataset does not exist",
    ]


def test_a_resume_token_stands_in_no_message():
    said = (
        "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\n"
        "Partially received snapshot is saved.\n"
        "A resuming stream can be generated on the sending system by running:\n"
        "    zfs send -t 1-9f56ce4eb-b0-789c636064\n"
    )

    assert "789c" not in explain(1, said).message


def test_progress_is_no_complaint():
    said = (
        "full\ta/x@s\t6316784\nsize\t6316784\n12:00:01\t1024\ta/x@s\n"
        "resume token contents:\nnvlist version: 0\n\tobject = 0x2\n\ttoname = a/x@s\n"
        "warning: cannot send 'a/x@s': Input/output error\n"
    )

    assert joined(said) == "warning: cannot send 'a/x@s': Input/output error"


def test_properties_that_were_not_set_are_told():
    said = (
        "cannot receive canmount property on b/x: permission denied\n"
        "cannot receive readonly property on b/x y: permission denied\n"
    )

    assert property_complaints(said) == {
        "canmount": "permission denied",
        "readonly": "permission denied",
    }
    assert not property_complaints("cannot mount 'b/x': failed to create mountpoint")
