"""What is believed of a receive, and how staging directories are locked; no btrfs needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import attrs
import pytest

from fsrep_btrfs import staging
from fsrep_btrfs.listing import Subvolume
from fsrep_btrfs.receiving import check_complete
from fsrep_btrfs.staging import Staging, name_received, publish
from fsrep_core import (
    BrokenEndpointError,
    BusyError,
    ConflictError,
    InterruptedStreamError,
    ReceiveRequest,
    StorageError,
    Version,
    VersionKind,
    VersionMissingError,
)

VERSION = Version(VersionKind.SNAPSHOT, "monday", "promised", 1)
FULL = ReceiveRequest(job="job", filesystem="docs", to_version=VERSION)
INCREMENTAL = attrs.evolve(FULL, from_version=attrs.evolve(VERSION, guid="base"))
WHOLE = Subvolume(
    id=256,
    path="x",
    uuid="own",
    received_uuid="promised",
    created_generation=7,
    readonly=True,
)


def test_complete_is_read_only_and_what_was_promised():
    check_complete("receiving", FULL, WHOLE)
    check_complete("receiving", INCREMENTAL, attrs.evolve(WHOLE, parent_uuid="local"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"readonly": False}, InterruptedStreamError),  # the flag is set last
        ({"readonly": False, "received_uuid": None}, InterruptedStreamError),
        ({"received_uuid": None}, InterruptedStreamError),
        ({"received_uuid": "another"}, VersionMissingError),
        ({"parent_uuid": "local"}, BrokenEndpointError),
    ],
)
def test_anything_less_is_not_complete(change, error):
    with pytest.raises(error, match="receiving"):
        check_complete("receiving", FULL, attrs.evolve(WHOLE, **change))


def test_an_incremental_step_that_became_a_full_one_is_refused():
    with pytest.raises(BrokenEndpointError, match="without a base"):
        check_complete("receiving", INCREMENTAL, WHOLE)


def test_one_lock_for_a_filesystem_at_a_time(tmp_path):
    """And nothing is left when it is given back."""
    with Staging.of(tmp_path / "staging", "docs") as mine:
        with pytest.raises(BusyError), Staging.of(tmp_path / "staging", "docs"):
            pass
        with Staging.at(mine.directory) as other:
            assert other is None
        with Staging.of(tmp_path / "staging", "photos"):
            pass
    with Staging.of(tmp_path / "staging", "docs"):
        pass

    assert list((tmp_path / "staging").iterdir()) == []


def test_a_staging_directory_that_is_gone_cannot_be_locked(tmp_path):
    with Staging.at(tmp_path / "none") as found:
        assert found is None


def test_a_lock_on_a_directory_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Whoever had the lock removes the directory as the last thing."""
    directory = tmp_path / "docs"
    directory.mkdir()
    opened = []
    real_open = os.open

    def open_and_lose(path, flags):
        descriptor = real_open(path, flags)
        if not opened:
            directory.rmdir()
        opened.append(path)
        return descriptor

    monkeypatch.setattr(staging.os, "open", open_and_lose)
    with Staging.at(directory) as found:
        assert found is None
    with Staging.at(directory, make=True) as found:
        assert found is not None


def test_what_could_not_be_deleted_stays(tmp_path):
    with Staging.of(tmp_path, "docs") as mine:
        (mine.make_wrapper("monday") / "partial").mkdir()

    assert (mine.directory / "@monday" / "partial").is_dir()


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_stream_makes_one_subvolume(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()

    with pytest.raises(InterruptedStreamError, match=f"made {len(names)} subvolumes"):
        name_received(tmp_path)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.ENOTEMPTY, ConflictError, "something is there"),
        (errno.EEXIST, ConflictError, "something is there"),
        (errno.EXDEV, StorageError, "subvolume of its own"),
        (errno.EROFS, StorageError, "Read-only file system"),
    ],
)
def test_a_version_that_cannot_get_its_place(tmp_path, monkeypatch, number, error, message):
    def refuse(_path, _target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(error, match=message):
        publish(tmp_path / "wrapper", tmp_path / "docs" / "@monday")
