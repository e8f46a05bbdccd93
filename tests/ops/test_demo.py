"""The demonstration verifies what it shows, and fails where it should."""

from __future__ import annotations

import os
import random

import pytest

from fsrep_core.ops import demo_tree
from fsrep_core.ops.commands import demo as demo_command
from fsrep_core.ops.demo_tree import DemoTree
from fsrep_core.testing.trees import read_tree


@pytest.fixture
def small(monkeypatch):
    """Make the tree small; it keeps everything that is special in it."""
    monkeypatch.setattr(demo_tree, "LARGE_BYTES", 50_000)
    monkeypatch.setattr(demo_tree, "DIRECTORIES", 50)
    monkeypatch.setattr(demo_tree, "FILES_PER_DIRECTORY", 4)


def test_the_demonstration_ends_well(fsrep, small, tmp_path):
    place = tmp_path / "shown"

    ended = fsrep("demo", "--into", place)

    left = "socket" if "not here: a device" in ended.out else "character device, socket"
    assert ended.status == 0
    assert ended.out.count(f"compared, all equal; left out, as reported: {left}\n") == 4
    assert ended.out.count("warning: the socket 'special-socket' is not in the version\n") == 4
    assert "demo: nothing to do; 1 filesystem up to date\n" in ended.out
    assert (place / "fsrep.toml").exists()
    assert fsrep("versions", "-c", place / "fsrep.toml").status == 0


def test_a_temporary_place_disappears(fsrep, small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert fsrep("demo").status == 0
    assert list(tmp_path.iterdir()) == []
    assert fsrep("demo", "--keep").status == 0
    assert [path.name[:11] for path in tmp_path.iterdir()] == ["fsrep-demo-"]


def test_a_difference_fails_the_demonstration(fsrep, small, tmp_path, monkeypatch):
    place = tmp_path / "shown"
    run = demo_command.run

    def run_and_tamper(*arguments):
        status = run(*arguments)
        victim = place / "receiver/.fsrep/home/@monday/tree/modes/0600"
        if victim.exists():
            victim.chmod(0o640)
        return status

    monkeypatch.setattr(demo_command, "run", run_and_tamper)

    ended = fsrep("demo", "--into", place)

    assert ended.status == 1
    assert "DIFFERENT: modes/0600: mode differs: 0600 and 0640\n" in ended.out
    assert "@tuesday" not in ended.out


def test_a_command_that_fails_ends_the_demonstration(fsrep, small, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_command, "run", lambda *_: 130)

    ended = fsrep("demo", "--into", tmp_path / "shown")

    assert ended.status == 130
    assert "The demonstration failed" in ended.out


def test_a_place_that_cannot_be_used(fsrep, tmp_path, monkeypatch):
    exists = fsrep("demo", "--into", tmp_path)
    monkeypatch.setattr(demo_command, "NEEDED_BYTES", 1 << 60)
    no_room = fsrep("demo", "--into", tmp_path / "shown")

    assert exists.status == no_room.status == 2
    assert "takes a directory that does not exist yet" in exists.err
    assert "needs 1024 PiB" in no_room.err


def test_the_real_tree_is_as_large_as_it_says():
    files = demo_tree.DIRECTORIES * demo_tree.FILES_PER_DIRECTORY

    assert files >= 2000
    assert demo_tree.LARGE_FILES * demo_tree.LARGE_BYTES >= 200_000_000


def test_the_tree_has_everything_and_can_be_made_again(small, tmp_path):
    trees = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made = DemoTree(tmp_path / name, random.Random(1))
        made.build()
        for change in (made.change_files, made.remove_and_rename, made.turn_back):
            change()
        trees.append(read_tree(tmp_path / name))

    first, second = trees
    assert first.keys() == second.keys()
    assert all(first[path].content == second[path].content for path in first)
    device = set() if any("a device" in what for what in made.left_out) else {"character device"}
    assert {entry.type for entry in first.values()} == {
        *device,
        "directory",
        "fifo",
        "file",
        "socket",
        "symlink",
    }
    if not any("owners" in what for what in made.left_out):
        owners = {first[name].ownership for name in (b"owners", b"owners/file", b"owners/link")}
        assert owners == set(demo_tree.STRANGERS)
    assert any(entry.links for entry in first.values())
    assert any(entry.holes for entry in first.values())
    assert max(len(path.rpartition(b"/")[2]) for path in first) == 255
    if not made.left_out:
        names = {name for entry in first.values() for name, _ in entry.xattrs}
        assert {"user.origin", "system.posix_acl_access"} <= names


def test_what_cannot_be_made_is_told(small, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    for name in ("setxattr", "mknod", "chown"):
        monkeypatch.setattr(os, name, refuse)
    made = DemoTree(tmp_path, random.Random(1))
    made.build()
    for change in (made.change_files, made.remove_and_rename, made.turn_back):
        change()

    assert made.left_out == [
        "extended attributes (Operation not supported)",
        "access control lists (Operation not supported)",
        "a device (Operation not supported)",
        "owners other than you (Operation not supported)",
    ]
