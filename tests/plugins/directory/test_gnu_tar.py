"""GNU tar lists and extracts the stream, and what it makes is the version."""

import os
import shutil
import subprocess

import pytest

from fsrep_core.testing.trees import compare_trees

EXTRACT = (
    "tar",
    "--extract",
    "--preserve-permissions",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--warning=no-timestamp",
    "--file=-",
)
pytestmark = pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")


def tar(data, *command, cwd):
    return subprocess.run(command, input=data, cwd=cwd, check=True, capture_output=True)


def fill(laboratory):
    laboratory.write("plain", b"hello")
    laboratory.write("sub/" + "long" * 60, b"x" * 700)
    laboratory.write(b"sub/\xffbytes\n", b"odd")
    laboratory.write(".wh.not-a-whiteout", b"real")
    laboratory.write("--option", b"")
    os.mkdir(f"{laboratory.live}/empty")
    os.link(f"{laboratory.live}/plain", f"{laboratory.live}/sub/link")
    os.symlink("/" + "far/" * 50, f"{laboratory.live}/symlink")
    os.mkfifo(f"{laboratory.live}/fifo")
    path = laboratory.write("sparse")
    with open(path, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"data")
        file.truncate(4 << 20)
    os.setxattr(path, "user.key=with%odd", b"value\0\n")
    os.truncate(laboratory.write("hole", b""), 1 << 20)
    os.chmod(f"{laboratory.live}/plain", 0o4755)
    for stamp, name in ((-(10**9) - 1, "old"), (2**33 * 10**9 + 123, "far"), (1, "epoch")):
        os.utime(laboratory.write(name), ns=(stamp, stamp))
    os.utime(f"{laboratory.live}/empty", ns=(5, 10**18 + 7))


def add_what_needs_root(laboratory, some_acl):
    os.setxattr(f"{laboratory.live}/plain", "system.posix_acl_access", some_acl)
    os.setxattr(f"{laboratory.live}/empty", "system.posix_acl_default", some_acl)
    os.chown(f"{laboratory.live}/sub", 3_000_000, 65534)


def test_a_full_stream_extracts_to_the_version(laboratory, tmp_path):
    fill(laboratory)
    version, _ = laboratory.create("v1")
    data = laboratory.stream(version)
    out = tmp_path / "out"
    out.mkdir()
    done = tar(data, *EXTRACT, cwd=out)

    assert done.stderr == b""
    assert compare_trees(laboratory.live, out) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and their ACLs")
def test_owners_and_acls_extract(laboratory, some_acl, tmp_path):
    fill(laboratory)
    add_what_needs_root(laboratory, some_acl)
    version, _ = laboratory.create("v1")
    out = tmp_path / "out"
    out.mkdir()
    done = tar(laboratory.stream(version), *EXTRACT, cwd=out)

    assert done.stderr == b""
    assert compare_trees(laboratory.live, out) == []


def test_gnu_tar_lists_every_entry(laboratory):
    fill(laboratory)
    version, _ = laboratory.create("v1")
    done = tar(laboratory.stream(version), "tar", "--list", "--file=-", cwd="/")

    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == version.entries


def test_an_incremental_extracts_over_its_base(laboratory, tmp_path):
    fill(laboratory)
    first, _ = laboratory.create("v1")
    os.unlink(f"{laboratory.live}/plain")
    shutil.rmtree(f"{laboratory.live}/empty")
    laboratory.write("empty", b"a file now")
    laboratory.write("sub/new", b"new")
    second, _ = laboratory.create("v2")
    out = tmp_path / "out"
    out.mkdir()
    tar(laboratory.stream(first), *EXTRACT, cwd=out)
    data = laboratory.stream(second, first)
    names = tar(data, "tar", "--list", "--file=-", cwd=out).stdout.split()
    whiteouts = [name for name in names if b".wh." in name]
    for name in whiteouts:
        parent, _, last = os.fsdecode(name).rpartition("/")
        target = out / parent / last.removeprefix(".wh.")
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    done = tar(data, *EXTRACT, "--exclude=.wh.plain", cwd=out)

    assert whiteouts == [b".wh.plain"]
    assert done.stderr == b""
    assert compare_trees(laboratory.live, out) == []


def test_sizes_above_eight_gibibytes_keep_their_holes(laboratory, tmp_path):
    os.truncate(laboratory.write("huge"), 9 << 30)
    path = f"{laboratory.live}/huge"
    with open(path, "r+b") as file:
        file.seek(9 << 30)
        file.write(b"end")
    version, _ = laboratory.create("v1")
    data = laboratory.stream(version)
    out = tmp_path / "out"
    out.mkdir()
    tar(data, *EXTRACT, cwd=out)
    laboratory.receive(data, version)

    assert len(data) < 1 << 16
    for copy in (f"{out}/huge", f"{laboratory.tree('receiver', version)}/huge"):
        assert os.stat(copy).st_size == (9 << 30) + 3
        assert os.stat(copy).st_blocks < 100
