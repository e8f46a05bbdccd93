"""A cursor is there at every moment, survives everything, and belongs to one job."""

from __future__ import annotations

import logging
import os

import attrs
import pytest

from fsrep_btrfs.cursors import move_cursor, read_cursor, read_cursors
from fsrep_btrfs.files import slug, translated
from fsrep_core import Version, VersionKind


def version(order, name="monday"):
    return Version(
        kind=VersionKind.SNAPSHOT, name=name, guid=f"guid-{order}", order=order, created=1.5 * order
    )


def marked(order, name="monday"):
    return attrs.evolve(version(order, name), kind=VersionKind.BOOKMARK)


def test_a_missing_cursor_is_an_answer(tmp_path):
    assert read_cursor(tmp_path / "none", "job", "docs") is None
    assert read_cursors(tmp_path / "none", "job") == {}


def test_a_cursor_is_kept_for_each_job_and_filesystem(tmp_path):
    awkward = "a/b c/" + "ü" * 300
    for filesystem, order in (("docs", 1), (awkward, 2)):
        assert move_cursor(tmp_path, "job", filesystem, version(order)) == marked(order)
    move_cursor(tmp_path, "other", "docs", version(3))

    assert read_cursors(tmp_path, "job") == {"docs": marked(1), awkward: marked(2)}
    assert read_cursor(tmp_path, "job", awkward) == marked(2)
    assert read_cursors(tmp_path, "other") == {"docs": marked(3)}


def test_a_cursor_moves_forward_only(tmp_path):
    """And a move that is repeated writes nothing."""
    move_cursor(tmp_path, "job", "docs", version(2))
    (path,) = (tmp_path / slug("job")).iterdir()
    before = path.stat()

    assert move_cursor(tmp_path, "job", "docs", version(2, "renamed")) == marked(2)
    assert move_cursor(tmp_path, "job", "docs", version(1)) == marked(2)
    assert path.stat() == before
    assert move_cursor(tmp_path, "job", "docs", version(3)) == marked(3)
    assert read_cursor(tmp_path, "job", "docs") == marked(3)


def test_the_new_cursor_is_whole_before_the_old_one_goes(tmp_path, monkeypatch):
    """Whatever call is the last before a crash, a whole cursor can be read."""
    move_cursor(tmp_path, "job", "docs", version(1))
    (path,) = (tmp_path / slug("job")).iterdir()
    calls = []
    sync, rename = os.fsync, type(path).rename

    def seen(name, call):
        def wrapper(*arguments):
            assert read_cursor(tmp_path, "job", "docs") in {marked(1), marked(2)}
            calls.append(name)
            return call(*arguments)

        return wrapper

    monkeypatch.setattr(os, "fsync", seen("sync", sync))
    monkeypatch.setattr(type(path), "rename", seen("rename", rename))
    move_cursor(tmp_path, "job", "docs", version(2))

    assert calls == ["sync", "rename"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_a_crash_left_of_a_new_cursor_is_ignored(tmp_path):
    move_cursor(tmp_path, "job", "docs", version(1))
    (path,) = (tmp_path / slug("job")).iterdir()
    path.with_suffix(".new").write_bytes(b'{"job": "jo')

    assert read_cursors(tmp_path, "job") == {"docs": marked(1)}
    move_cursor(tmp_path, "job", "docs", version(2))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"created": 1', b"\xff\xfe"])
def test_a_damaged_cursor_counts_as_missing_and_is_reported(tmp_path, caplog, content):
    move_cursor(tmp_path, "job", "docs", version(1))
    (path,) = (tmp_path / slug("job")).iterdir()
    path.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        assert read_cursors(tmp_path, "job") == {}
    assert str(path) in caplog.text
    assert move_cursor(tmp_path, "job", "docs", version(2)) == marked(2)


def test_names_of_files_are_bounded_readable_and_distinct():
    names = ["docs", "docs/a", "docs%2Fa", "x" * 300, "x" * 301, "\udcff", "..", "a b"]
    slugs = [slug(name) for name in names]

    assert len(set(slugs)) == len(names)
    assert all(len(each) <= 200 and "/" not in each and each.strip(".") for each in slugs)
    assert slug("docs/a").startswith("docs%2Fa.")


@pytest.mark.parametrize(
    ("number", "kind"), [(13, "permission-denied"), (28, "out-of-space"), (30, "storage")]
)
def test_errors_of_the_file_system_are_typed(number, kind):
    with (
        pytest.raises(Exception, match="moving the cursor: ") as caught,
        translated("moving the cursor"),
    ):
        raise OSError(number, os.strerror(number))

    assert caught.value.kind == kind
