import os
import socket
import stat

import pytest

from fsrep_core.testing.trees import ASPECTS, compare_trees, differences, read_tree

SECOND = 1_000_000_000


def fill(root):
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    os.link(root / "file", root / "sub" / "link")
    (root / "pointer").symlink_to("file")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff\n name")).write_bytes(b"any name")
    with (root / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"end")
    os.setxattr(root / "file", "user.colour", b"blue")
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(SECOND, SECOND), follow_symlinks=False)


@pytest.fixture
def trees(tmp_path):
    both = tmp_path / "a", tmp_path / "b"
    for root in both:
        root.mkdir()
        fill(root)
    return both


def keep_time(path):
    os.utime(path, ns=(SECOND, SECOND), follow_symlinks=False)


def test_equal_trees_have_no_differences(trees):
    assert compare_trees(*trees) == []


def change_type(root):
    (root / "pointer").unlink()
    (root / "pointer").write_bytes(b"")


def change_mode(root):
    (root / "file").chmod(0o600)


def change_ownership(root):
    os.chown(root / "pointer", 12, 13, follow_symlinks=False)


def change_mtime(root):
    os.utime(root / "sub", ns=(SECOND, SECOND + 1))


def change_content(root):
    (root / "file").write_bytes(b"CONTENT")
    keep_time(root / "file")


def change_target(root):
    (root / "pointer").unlink()
    (root / "pointer").symlink_to("elsewhere")
    keep_time(root / "pointer")


def change_links(root):
    (root / "sub" / "link").unlink()
    (root / "sub" / "link").write_bytes(b"content")
    os.setxattr(root / "sub" / "link", "user.colour", b"blue")
    keep_time(root / "sub" / "link")


def change_xattrs(root):
    os.setxattr(root / "file", "user.colour", b"red")


def change_device(root):
    (root / "fifo").unlink()
    os.mknod(root / "fifo", stat.S_IFCHR | 0o644, os.makedev(1, 3))
    keep_time(root / "fifo")


def change_holes(root):
    with (root / "sparse").open("r+b") as file:
        file.seek(512 * 1024)
        file.write(bytes(64 * 1024))
    keep_time(root / "sparse")


@pytest.mark.parametrize("aspect", [each for each in ASPECTS if each != "device"])
def test_each_aspect_is_seen_and_can_be_ignored(trees, aspect):
    if aspect == "ownership" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    globals()[f"change_{aspect}"](trees[1])
    for root in trees:  # only what was changed shall differ, not the directories around it
        keep_time(root)
        if aspect != "mtime":
            keep_time(root / "sub")

    found = compare_trees(*trees)

    assert found
    assert all(f": {aspect} differs" in each or aspect == "type" for each in found)
    if aspect != "type":
        assert compare_trees(*trees, ignore={aspect}) == []


def test_device_numbers_are_compared(trees):
    if os.geteuid() != 0:
        pytest.skip("only root can make devices")
    for root in trees:
        change_device(root)
        keep_time(root)
    assert compare_trees(*trees) == []

    (trees[1] / "fifo").unlink()
    os.mknod(trees[1] / "fifo", stat.S_IFCHR | 0o644, os.makedev(1, 5))
    keep_time(trees[1] / "fifo")
    keep_time(trees[1])

    assert compare_trees(*trees) == ["fifo: device differs: (1, 3) and (1, 5)"]


def test_a_missing_name_is_told_with_its_side(trees):
    (trees[0] / "only-a").mkdir()
    (trees[1] / os.fsdecode(b"only-\xfe")).mkdir()

    found = compare_trees(*trees, ignore={"mtime"})

    assert found == ["only-a: only in the first tree", r"only-\udcfe: only in the second tree"]


def test_hard_links_to_outside_do_not_count(trees, tmp_path):
    os.link(trees[0] / "sparse", tmp_path / "elsewhere")

    assert compare_trees(*trees) == []


def test_zeros_and_holes_are_equal_content(trees):
    change_holes(trees[1])

    assert compare_trees(*trees, ignore={"holes"}) == []


def test_content_past_a_hole_is_read(trees):
    with (trees[1] / "sparse").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"END")
    keep_time(trees[1] / "sparse")

    found = compare_trees(*trees)

    assert len(found) == 1
    assert found[0].startswith("sparse: content differs")


def test_the_size_of_a_trailing_hole_is_content(trees):
    os.truncate(trees[1] / "sparse", (1 << 20) + 1000)
    keep_time(trees[1] / "sparse")

    assert "sparse: content differs" in compare_trees(*trees)[0]


def test_a_huge_hole_costs_nothing(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)

    assert read_tree(tmp_path)[b"huge"].content.startswith(f"{1 << 33} bytes")


def test_a_socket_is_described_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        assert read_tree(tmp_path)[b"socket"].type == "socket"


def test_trees_read_at_different_times_can_be_compared(trees):
    before = read_tree(trees[0])
    change_content(trees[0])

    assert len(differences(before, read_tree(trees[0]))) == 2  # the file has two names


def test_an_unknown_aspect_is_refused(trees):
    with pytest.raises(ValueError, match="no such aspect: colour"):
        compare_trees(*trees, ignore={"colour"})
