"""Random trees, changed in random ways, arrive as they are: seen by an independent reader."""

import contextlib
import itertools
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsrep_directory.engine.failures import Failure
from fsrep_directory.engine.removal import remove_tree

NAMES = (b"a", b"b", b"a.b", b"new\nline", b"tab\t\\", b"\xff", b".wh.a", b"-x", b"n" * 130)
# Five entries that are more than a mode, as the kernel gives them (posix_acl_xattr.h).
SOME_ACL = bytes.fromhex(
    "02000000 0100 0600 ffffffff 0200 0400 d2040000 0400 0400 ffffffff"
    "0800 0700 4d000000 1000 0700 ffffffff 2000 0000 ffffffff"
)


def open_at_once(path, flags):
    """Refuse a FIFO that an earlier step has left there, instead of waiting for its reader."""
    return os.open(path, flags | os.O_NONBLOCK)


def write(path, size, seed):
    with open(path, "wb", opener=open_at_once) as file:
        file.write(bytes([seed % 251]) * size)


def sparse(path, size, seed):
    with open(path, "wb", opener=open_at_once) as file:
        for at in range(seed % 4):
            file.seek(at * 200_000 + seed % 5000)
            file.write(b"data" * (seed % 300))
        file.truncate(max(file.tell(), size * 100))


def directory(path, size, seed):
    os.mkdir(path, 0o700 + seed % 0o100)


def symlink(path, size, seed):
    os.symlink(b"../" * (size % 60) + b"target%d" % seed, path)


def fifo(path, size, seed):
    os.mkfifo(path)


def delete(path, size, seed):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def mode(path, size, seed):
    if not os.path.islink(path):
        os.chmod(path, seed % 0o10000)


def owner(path, size, seed):
    os.chown(path, seed, size * 3000, follow_symlinks=False)


def times(path, size, seed):
    stamp = (seed - 500) * 10**9 + size
    os.utime(path, ns=(stamp, stamp), follow_symlinks=False)


def xattr(path, size, seed):
    os.setxattr(path, b"user.k=%d%%" % (seed % 3), bytes([seed % 256]) * (size % 300))


def access_acl(path, size, seed):
    os.setxattr(path, "system.posix_acl_access", SOME_ACL)


def default_acl(path, size, seed):
    os.setxattr(path, "system.posix_acl_default", SOME_ACL)


MAKERS = (write, write, sparse, directory, directory, symlink, fifo)
CHANGERS = (delete, delete, mode, owner, times, xattr, access_acl, default_acl)

path_parts = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
numbers = st.integers(0, 1000)
actions = st.one_of(
    st.tuples(st.sampled_from(MAKERS + CHANGERS), path_parts, numbers, numbers),
    st.tuples(st.sampled_from(("link", "rename")), path_parts, path_parts),
)
histories = st.lists(st.lists(actions, max_size=12), min_size=2, max_size=4)


def act(live, action):
    path = os.path.join(os.fsencode(live), *action[1])
    with contextlib.suppress(OSError, shutil.Error):
        if action[0] == "link":
            os.link(path, os.path.join(os.fsencode(live), *action[2]), follow_symlinks=False)
        elif action[0] == "rename":
            os.rename(path, os.path.join(os.fsencode(live), *action[2]))
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            action[0](path, *action[2:])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories)
def test_every_version_of_a_random_history_arrives_as_it_was(laboratories, history):
    check_history(laboratories, history)


@pytest.mark.proof
@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(histories)
def test_many_random_histories_arrive_as_they_were(laboratories, history):
    check_history(laboratories, history)


def check_history(laboratories, history):
    with laboratories() as laboratory:
        base = None
        for number, step in enumerate(history):
            for action in step:
                act(laboratory.live, action)
            version, warnings = laboratory.create(f"v{number}")
            data = laboratory.stream(version, base)

            assert warnings == []
            assert laboratory.size(version, base) == len(data)
            assert laboratory.stream(version, base) == data
            assert laboratory.receive(data, version, base)["warnings"] == []
            laboratory.check(version)
            base = version
        # A version that is sent on from the receiver is what the sender has.
        for side in ("sender", "receiver"):
            laboratory.destroy(side, laboratory.store(side).find(base.guid))
            assert base.folder not in laboratory.names(side)


def test_an_incremental_from_any_earlier_version_arrives(laboratory):
    versions = []
    for number in range(4):
        laboratory.write(f"file{number}", b"x" * number)
        laboratory.write("changing", b"y" * number)
        versions.append(laboratory.create(f"v{number}")[0])
    laboratory.replicate(versions[0])
    laboratory.replicate(versions[3], versions[0])

    laboratory.check(versions[3])


def test_nothing_is_shared_with_the_live_tree(laboratory):
    path = laboratory.write("file", b"before")
    version, _ = laboratory.create("v1")
    with open(path, "r+b") as file:
        file.write(b"AFTER!")

    with open(f"{laboratory.tree('sender', version)}/file", "rb") as file:
        assert file.read() == b"before"


def test_unchanged_files_are_shared_between_versions_on_both_sides(laboratory):
    laboratory.write("same", b"same")
    laboratory.write("other", b"1")
    first, _ = laboratory.create("v1")
    laboratory.write("other", b"2")
    second, _ = laboratory.create("v2")
    laboratory.replicate(first)
    laboratory.replicate(second, first)

    for side in ("sender", "receiver"):
        inodes = {
            name: [
                os.stat(f"{laboratory.tree(side, each)}/{name}").st_ino for each in (first, second)
            ]
            for name in ("same", "other")
        }
        assert inodes["same"][0] == inodes["same"][1]
        assert inodes["other"][0] != inodes["other"][1]


def test_a_directory_replaced_by_a_file_and_back(laboratory):
    laboratory.write("place/inner/file", b"1")
    laboratory.write("place.txt", b"2")
    versions = [laboratory.create("v1")[0]]
    shutil.rmtree(f"{laboratory.live}/place")
    laboratory.write("place", b"a file now")
    versions.append(laboratory.create("v2")[0])
    os.unlink(f"{laboratory.live}/place")
    laboratory.write("place/inner/file", b"3")
    versions.append(laboratory.create("v3")[0])
    laboratory.replicate(versions[0])
    for base, version in itertools.pairwise(versions):
        laboratory.replicate(version, base)

    for version in versions:
        laboratory.check(version, live=version is versions[-1])


def test_a_group_of_hard_links_that_splits_and_joins(laboratory):
    laboratory.write("a", b"group")
    os.link(f"{laboratory.live}/a", f"{laboratory.live}/b")
    os.link(f"{laboratory.live}/a", f"{laboratory.live}/c")
    versions = [laboratory.create("v1")[0]]
    os.unlink(f"{laboratory.live}/a")
    laboratory.write("a", b"group")
    versions.append(laboratory.create("v2")[0])
    os.unlink(f"{laboratory.live}/c")
    os.link(f"{laboratory.live}/a", f"{laboratory.live}/c")
    os.mkdir(f"{laboratory.live}/0")
    os.link(f"{laboratory.live}/b", f"{laboratory.live}/0/before")
    versions.append(laboratory.create("v3")[0])
    base = None
    for version in versions:
        laboratory.replicate(version, base)
        base = version
        laboratory.check(version, live=version is versions[-1])


def test_further_names_of_symlinks_and_fifos(laboratory):
    os.symlink("1", f"{laboratory.live}/a")
    os.mkfifo(f"{laboratory.live}/c")
    for one, other in (("a", "b"), ("c", "d")):
        os.link(f"{laboratory.live}/{one}", f"{laboratory.live}/{other}", follow_symlinks=False)
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    laboratory.check(first)
    os.unlink(f"{laboratory.live}/a")
    os.symlink("2", f"{laboratory.live}/a")
    os.link(f"{laboratory.live}/a", f"{laboratory.live}/e", follow_symlinks=False)
    second, _ = laboratory.create("v2")
    laboratory.replicate(second, first)

    laboratory.check(second)


def test_two_equal_files_that_were_one_are_two(laboratory):
    path = laboratory.write("a", b"group")
    os.link(path, os.fsencode(laboratory.live) + b"/b")
    first, _ = laboratory.create("v1")
    info = os.stat(path)
    os.unlink(f"{laboratory.live}/b")
    shutil.copy2(path, os.fsencode(laboratory.live) + b"/b")
    os.utime(f"{laboratory.live}/b", ns=(info.st_mtime_ns, info.st_mtime_ns))
    second, _ = laboratory.create("v2")
    laboratory.replicate(first)
    laboratory.replicate(second, first)

    laboratory.check(second)


def test_a_tree_deeper_than_a_path_can_be_long(laboratory):
    depth = 450
    descriptor = os.open(laboratory.live, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep-level", dir_fd=descriptor)
        below = os.open("deep-level", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptor))
    os.close(descriptor)
    first, _ = laboratory.create("v1")
    laboratory.write("new")
    second, _ = laboratory.create("v2")
    laboratory.replicate(first)
    laboratory.replicate(second, first)

    assert laboratory.manifest("sender", second) == laboratory.manifest("receiver", second)
    assert laboratory.manifest("receiver", second).count(b"\n") == depth + 3
    for side in ("sender", "receiver"):
        assert laboratory.destroy(side, first, second) == [{}, {}]
    remove_tree(laboratory.live)  # pytest's own cleaning is recursive


def test_a_bookmark_is_a_base_after_its_snapshot_is_gone(laboratory):
    from fsrep_directory.engine.cursor import move_cursor

    laboratory.write("kept", b"1")
    laboratory.write("gone", b"1")
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    where = {"root": laboratory.root("sender"), "filesystem": "docs", "job": "job"}
    move_cursor({**where, "guid": first.guid})
    laboratory.destroy("sender", first)
    os.unlink(f"{laboratory.live}/gone")
    laboratory.write("new", b"2")
    second, _ = laboratory.create("v2")
    laboratory.replicate(second, first)

    laboratory.check(second)


def test_a_changed_base_on_the_receiver_is_refused(laboratory):
    laboratory.write("file", b"1")
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    laboratory.write("file", b"2")
    second, _ = laboratory.create("v2")
    data = laboratory.stream(second, first)
    path = f"{laboratory.store('receiver').path}/@v1/version.json"
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace(first.manifest_digest, "0" * 64))

    with pytest.raises(Failure, match="not one content on both sides"):
        laboratory.receive(data, second, first)
