"""What goes into a version, what does not, and how one hears of it."""

import errno
import os
import shutil
import socket
import subprocess

import pytest

from fsrep_directory.engine import create as create_module
from fsrep_directory.engine import taking, walk
from fsrep_directory.engine.failures import Failure

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def inode(laboratory, version, name):
    return os.stat(f"{laboratory.tree('sender', version)}/{name}").st_ino


def read(laboratory, version, name):
    with open(f"{laboratory.tree('sender', version)}/{name}", "rb") as file:
        return file.read()


@pytest.fixture
def no_racy_time(monkeypatch):
    """Every file counts as old, so that its index is trusted."""
    monkeypatch.setattr(walk, "_RACY_NS", -(10**18))


def test_sockets_are_reported(laboratory, monkeypatch):
    monkeypatch.chdir(laboratory.live)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("listening")
        version, warnings = laboratory.create("v1")

    assert warnings == ["the socket 'listening' is not in the version"]
    assert os.listdir(laboratory.tree("sender", version)) == []


@needs_root
def test_devices_are_reported(laboratory):
    os.mknod(f"{laboratory.live}/null", 0o20666, os.makedev(1, 3))
    _, warnings = laboratory.create("v1")

    assert warnings == ["the device 'null' is not in the version"]


def test_many_things_left_out_are_named_in_part_and_counted(laboratory, monkeypatch):
    monkeypatch.chdir(laboratory.live)
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(25)]
    for number, each in enumerate(sockets):
        each.bind(f"s{number}")
        each.close()
    _, warnings = laboratory.create("v1")

    assert len(warnings) == 21
    assert warnings[-1] == "5 more entries were left out"


def test_a_file_that_changes_while_it_is_read_is_named(laboratory, monkeypatch):
    path = laboratory.write("busy", b"1")
    laboratory.write("calm", b"2")
    copied = taking.copy_content

    def copy_and_change(source, target, size, extents):
        result = copied(source, target, size, extents)
        if os.fstat(source).st_ino == os.stat(path).st_ino:
            with open(path, "ab") as file:
                file.write(b"more")
        return result

    monkeypatch.setattr(taking, "copy_content", copy_and_change)
    version, warnings = laboratory.create("v1")
    monkeypatch.undo()

    assert len(warnings) == 1
    assert "'busy'" in warnings[0]
    assert "'calm'" not in warnings[0]
    laboratory.replicate(version)
    laboratory.check(version, live=False)


def test_a_file_that_changes_once_is_read_again(laboratory, monkeypatch):
    path = laboratory.write("busy", b"old")
    copied = taking.copy_content
    changes = [b"new content"]

    def copy_and_change(source, target, size, extents):
        result = copied(source, target, size, extents)
        if changes:
            with open(path, "wb") as file:
                file.write(changes.pop())
        return result

    monkeypatch.setattr(taking, "copy_content", copy_and_change)
    version, warnings = laboratory.create("v1")

    assert warnings == []
    assert read(laboratory, version, "busy") == b"new content"


def test_a_directory_that_changes_while_it_is_walked_is_named(laboratory, monkeypatch):
    laboratory.write("sub/file", b"1")
    copied = taking.copy_content

    def copy_and_add(source, target, size, extents):
        laboratory.write("sub/late", b"2")
        return copied(source, target, size, extents)

    monkeypatch.setattr(taking, "copy_content", copy_and_add)
    _, warnings = laboratory.create("v1")

    assert "'sub'" in warnings[0]


def test_a_change_that_keeps_size_and_time_is_seen(laboratory):
    """The times of a file that was just written prove nothing: it is read again."""
    path = laboratory.write("file", b"one")
    stamp = os.stat(path).st_mtime_ns
    first, _ = laboratory.create("v1")
    with open(path, "r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stamp, stamp))
    second, _ = laboratory.create("v2")

    assert read(laboratory, first, "file") == b"one"
    assert read(laboratory, second, "file") == b"two"


def test_the_index_spares_reading_what_is_old(laboratory, monkeypatch, no_racy_time):
    laboratory.write("file", b"content")
    first, _ = laboratory.create("v1")
    monkeypatch.setattr(taking, "hash_content", None)
    monkeypatch.setattr(taking, "copy_content", None)
    second, _ = laboratory.create("v2")

    assert inode(laboratory, first, "file") == inode(laboratory, second, "file")


def test_the_times_of_a_file_that_was_just_written_are_not_trusted(laboratory, monkeypatch):
    """A change in the same tick of the clock would leave all of them as they are."""
    laboratory.write("file", b"content")
    laboratory.create("v1")
    monkeypatch.setattr(walk, "_RACY_NS", -(10**18))
    laboratory.create("v2")
    keys = []
    for name in ("v1", "v2"):
        with open(f"{laboratory.store('sender').path}/@{name}/index") as file:
            keys.append(file.read().split("\n")[1])

    assert keys[0] == "-"
    assert keys[1].startswith(str(os.stat(f"{laboratory.live}/file").st_ino))


def test_what_is_too_young_to_trust_is_read_and_still_shared(laboratory, monkeypatch):
    laboratory.write("file", b"content")
    first, _ = laboratory.create("v1")
    second, _ = laboratory.create("v2")

    assert inode(laboratory, first, "file") == inode(laboratory, second, "file")


def test_a_file_replaced_by_an_equal_one_keeps_its_version_shared(laboratory, no_racy_time):
    path = laboratory.write("file", b"content")
    stamp = os.stat(path).st_mtime_ns
    first, _ = laboratory.create("v1")
    os.unlink(path)
    laboratory.write("file", b"content")
    os.utime(path, ns=(stamp, stamp))
    second, _ = laboratory.create("v2")

    assert inode(laboratory, first, "file") == inode(laboratory, second, "file")


def test_a_nested_filesystem_is_an_empty_directory_of_its_parent(laboratory):
    laboratory.write("nested/file", b"1")
    laboratory.write("nested-not/file", b"1")
    laboratory.create("n1", "docs/nested")
    version, _ = laboratory.create("v1")

    assert os.listdir(f"{laboratory.tree('sender', version)}/nested") == []
    assert os.listdir(f"{laboratory.tree('sender', version)}/nested-not") == ["file"]


@needs_root
def test_what_is_mounted_below_is_an_empty_directory_and_reported(laboratory):
    point = f"{laboratory.live}/mounted"
    os.mkdir(point)
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        with open(f"{point}/file", "wb"):
            pass
        version, warnings = laboratory.create("v1")
    finally:
        subprocess.run(["umount", point], check=True)

    assert warnings == ["what is mounted at 'mounted' is not in the version"]
    assert os.listdir(f"{laboratory.tree('sender', version)}/mounted") == []


def test_a_store_below_is_never_included(laboratory):
    laboratory.write(".fsrep/inner", b"1")
    laboratory.write("sub/.fsrep/inner", b"1")
    version, warnings = laboratory.create("v1")

    assert len(warnings) == 2
    assert not any(
        name == ".fsrep"
        for _, names, _ in os.walk(laboratory.tree("sender", version))
        for name in names
    )


def test_a_missing_live_tree_is_an_error_that_names_it(laboratory):
    shutil.rmtree(laboratory.live)
    with pytest.raises(Failure, match=r"there is no directory .*docs"):
        laboratory.create("v1")


@pytest.mark.parametrize("place", ["docs", "docs/inner"])
def test_a_live_tree_behind_a_symlink_is_refused(laboratory, tmp_path, place):
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    shutil.rmtree(laboratory.live)
    os.symlink(tmp_path / "elsewhere", laboratory.live)
    with pytest.raises(Failure, match="is no directory"):
        laboratory.create("v1", place)


def test_a_name_that_is_taken_is_a_conflict(laboratory):
    laboratory.create("v1")
    with pytest.raises(Failure) as caught:
        laboratory.create("v1")

    assert caught.value.kind == "conflict"
    assert laboratory.names("sender") == ["@v1"]


@needs_root
def test_who_may_not_read_a_file_makes_no_version_and_hears_which(laboratory, as_nobody):
    for name in ("secret", "open", "closed/file"):
        os.chmod(laboratory.write(name), 0o644)
    os.chmod(f"{laboratory.live}/secret", 0)
    os.chmod(f"{laboratory.live}/closed", 0)
    as_nobody.give(laboratory.path)
    os.chown(f"{laboratory.live}/secret", 0, 0)
    os.chown(f"{laboratory.live}/closed", 0, 0)
    request = {"root": laboratory.root("sender"), "filesystems": ["docs"], "name": "v1"}
    failure = as_nobody(lambda: create_module.create(request))["results"][0]["failure"]

    assert failure["kind"] == "permission-denied"
    assert "'closed', 'secret'" in failure["message"]
    assert "2 entries" in failure["message"]


def test_a_version_that_fails_leaves_nothing(laboratory, monkeypatch):
    laboratory.write("file")

    def fill_up(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(taking, "copy_content", fill_up)
    with pytest.raises(Failure) as caught:
        laboratory.create("v1")

    assert caught.value.kind == "out-of-space"
    assert os.listdir(laboratory.store("sender").path) == ["%lock"]


def test_a_file_with_too_many_links_is_copied(laboratory, monkeypatch, no_racy_time):
    path = laboratory.write("many", b"content")
    os.setxattr(path, "user.key", b"value")
    laboratory.write("few", b"content")
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    link = os.link

    def refuse(source, target, **options):
        if source == b"many":
            raise OSError(errno.EMLINK, "Too many links")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    laboratory.write("new")
    second, _ = laboratory.create("v2")
    laboratory.replicate(second, first)

    laboratory.check(second)
    assert inode(laboratory, first, "many") != inode(laboratory, second, "many")
    assert inode(laboratory, first, "few") == inode(laboratory, second, "few")


@needs_root
@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="needs btrfs-progs")
def test_files_are_cloned_where_the_filesystem_can(laboratory, monkeypatch):
    image, point = f"{laboratory.path}/image", laboratory.root("sender")
    with open(image, "wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    shutil.rmtree(point)
    os.mkdir(point)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        path = laboratory.write("file", os.urandom(300_000))
        laboratory.write("small", b"x")
        with open(laboratory.write("sparse", b""), "r+b") as file:
            file.seek(1 << 20)
            file.write(b"data")
            file.truncate(3 << 20)
        monkeypatch.setattr(taking, "copy_content", None)
        first, _ = laboratory.create("v1")
        with open(path, "r+b") as file:
            file.write(b"changed")
        second, _ = laboratory.create("v2")
        laboratory.replicate(first)
        laboratory.replicate(second, first)
        laboratory.check(second)
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_default_acl_above_the_store_is_not_handed_down(laboratory, some_acl):
    laboratory.write("sub/file")
    for side in ("sender", "receiver"):
        os.setxattr(laboratory.root(side), "system.posix_acl_default", some_acl)
        os.chmod(laboratory.root(side), 0o2777)
    version, _ = laboratory.create("v1")
    laboratory.replicate(version)

    laboratory.check(version)


def test_a_crashed_version_is_cleaned_by_the_next(laboratory):
    laboratory.create("v1")
    path = laboratory.store("sender").path
    os.makedirs(f"{path}/%new-0123/tree/sub")
    os.makedirs(f"{path}/%trash-0123/tree/sub")
    laboratory.create("v2")

    assert sorted(os.listdir(path)) == ["%lock", "@v1", "@v2"]


def test_everything_is_synced_before_the_version_is_visible(laboratory, disk_order):
    laboratory.create("v1")

    [(synced, staging), *rest] = disk_order[-3:]
    assert (synced, staging.partition("-")[0]) == ("all", "%new")
    assert rest == [("rename", "%new", "@v1"), ("one", "docs")]


def test_times_and_sharing_without_an_index(laboratory):
    """Without an index everything is copied, and nothing is lost."""
    laboratory.write("file", b"1")
    first, _ = laboratory.create("v1")
    os.unlink(f"{laboratory.store('sender').path}/@v1/index")
    second, _ = laboratory.create("v2")

    assert inode(laboratory, first, "file") != inode(laboratory, second, "file")
