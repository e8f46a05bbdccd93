"""A sender that lies, or a stranger's tar, changes nothing outside of a partial."""

import io
import os
import tarfile

import pytest

from fsrep_core.testing.trees import read_tree
from fsrep_directory.engine.failures import Failure
from fsrep_directory.engine.records import Entry, parse_record
from fsrep_directory.engine.stream import (
    end_of_stream,
    format_promise,
    parse_promise,
    start_of_stream,
)
from fsrep_directory.engine.tar_format import PAX_LIMIT_BYTES, START_MARK, padding
from fsrep_directory.engine.tar_write import (
    _block,
    _filled,
    _pax_record,
    global_header,
    member_header,
    whiteout_header,
)

DIGEST = b"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"


@pytest.fixture
def scene(laboratory, tmp_path):
    """A version, and something outside of the receiver's trees that must not change."""
    laboratory.write("sub/file", b"hello")
    version, _ = laboratory.create("v1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    return laboratory, version, outside


def file(path, content=b"hello"):
    header, _ = member_header(Entry(path, b"f", 0o644, 0, 0, 0, len(content), DIGEST))
    return header + content + bytes(padding(len(content)))


def directory(path):
    return member_header(Entry(path, b"d", 0o755, 0, 0, 0))[0]


def symlink(path, target):
    return member_header(Entry(path, b"l", 0o777, 0, 0, 0, target=target))[0]


def hard_link(path, target):
    return member_header(Entry(path, b"h", 0o644, 0, 0, 0, 5, DIGEST, target))[0]


def raw(name, kind, *, size=0, target=b"", pax=b""):
    before = _block(b"x", 0o644, 0, 0, len(pax), 0, b"x", b"") + _filled(pax) if pax else b""
    return before + _block(name, 0o644, 0, 0, size, 0, kind, target)


COMMENT = _pax_record(b"comment", b"sha256:" + DIGEST)
ABROAD = {
    "absolute": [file(b"/tmp/evil")],
    "parent": [file(b"../evil")],
    "parent inside": [directory(b"a"), file(b"a/../../evil")],
    "dot": [directory(b"a"), file(b"a/./evil")],
    "empty component": [directory(b"a"), file(b"a//evil")],
    "through a symlink": [symlink(b"a", b"/tmp"), file(b"a/evil")],
    "through a symlink to a directory": [
        symlink(b"a", b"/tmp"),
        directory(b"a/b"),
        file(b"a/b/evil"),
    ],
    "through a file": [file(b"a"), file(b"a/evil")],
    "without a parent": [file(b"a/evil")],
    "hard link abroad": [hard_link(b"a", b"/etc/passwd")],
    "hard link up": [hard_link(b"a", b"../../manifest")],
    "hard link to the manifest": [hard_link(b"a", b"../manifest")],
    "hard link within, through the parent": [
        directory(b"a"),
        file(b"a/b"),
        hard_link(b"c", b"a/../a/b"),
    ],
    "hard link to itself": [hard_link(b"a", b"a")],
    "hard link to what comes later": [hard_link(b"a", b"b"), file(b"b")],
    "hard link to nothing": [hard_link(b"b", b"a")],
    "hard link through a symlink": [symlink(b"a", b"/etc"), hard_link(b"b", b"a/passwd")],
    "hard link to a directory": [directory(b"a"), hard_link(b"b", b"a")],
    "twice": [file(b"a"), file(b"a")],
    "directory twice": [directory(b"a"), directory(b"a")],
    "out of order": [file(b"b"), file(b"a")],
    "into a directory that was left": [directory(b"a"), file(b"b"), file(b"a/evil")],
    "character device": [raw(b"null", b"3")],
    "block device": [raw(b"disk", b"4")],
    "old GNU long name": [raw(b"././@LongLink", b"L", size=5) + b"/evil".ljust(512, b"\0")],
    "old GNU sparse": [raw(b"a", b"S")],
    "unknown type": [raw(b"a", b"Z")],
    "name with NUL": [raw(b"x", b"0", pax=COMMENT + _pax_record(b"path", b"a\0b"))],
    "long component": [raw(b"x", b"0", pax=COMMENT + _pax_record(b"path", b"n" * 256))],
    "long path": [raw(b"x", b"0", pax=COMMENT + _pax_record(b"path", b"n" * 70_000))],
    "unknown pax record": [raw(b"a", b"0", pax=COMMENT + _pax_record(b"SCHILY.fflags", b"x"))],
    "pax record twice": [raw(b"a", b"0", pax=COMMENT + COMMENT)],
    "pax record that lies": [raw(b"a", b"0", pax=b"99 comment=x\n")],
    "pax record without a length": [raw(b"a", b"0", pax=b" comment=x\n")],
    "huge pax header": [_block(b"x", 0, 0, 0, PAX_LIMIT_BYTES + 1, 0, b"x", b"")],
    "file without a digest": [raw(b"a", b"0")],
    "directory with content": [raw(b"a/", b"5", size=512) + bytes(512)],
    "negative size": [raw(b"a", b"0", pax=COMMENT + _pax_record(b"size", b"-1"))],
    "absurd size": [raw(b"a", b"0", pax=COMMENT + _pax_record(b"size", b"9" * 30))],
    "whiteout of nothing": [whiteout_header(b"nothing")],
    "whiteout of the root": [whiteout_header(b".")],
    "whiteout of the parent": [whiteout_header(b"..")],
    "wrong content": [file(b"a", b"HELLO")],
    "sparse map that overlaps": [
        raw(
            b"x",
            b"0",
            size=512 + 5,
            pax=COMMENT
            + _pax_record(b"GNU.sparse.major", b"1")
            + _pax_record(b"GNU.sparse.minor", b"0")
            + _pax_record(b"GNU.sparse.name", b"a")
            + _pax_record(b"GNU.sparse.realsize", b"5"),
        )
        + _filled(b"2\n0\n5\n3\n2\n")
    ],
    "sparse map without an end": [
        raw(
            b"x",
            b"0",
            size=1 << 40,
            pax=COMMENT
            + _pax_record(b"GNU.sparse.major", b"1")
            + _pax_record(b"GNU.sparse.minor", b"0")
            + _pax_record(b"GNU.sparse.name", b"a")
            + _pax_record(b"GNU.sparse.realsize", b"5"),
        )
        + b"1" * 4096
    ],
}


@pytest.mark.parametrize("name", ABROAD)
def test_a_hostile_member_is_refused(scene, name):
    laboratory, version, outside = scene
    before = read_tree(outside)
    members = [directory(b"."), *ABROAD[name]]
    data = start_of_stream(None, version) + b"".join(members) + end_of_stream(len(members))
    with pytest.raises(Failure) as caught:
        laboratory.receive(data, version)

    assert caught.value.kind == "storage"
    # It is refused for what it is, not because the manifest differs in the end.
    assert "is not what its sender has" not in caught.value.message
    assert laboratory.names("receiver") == []
    assert read_tree(outside) == before
    assert not os.path.exists("/tmp/evil")  # noqa: S108  (what a member above names)
    assert not os.path.exists(f"{laboratory.path}/receiver/evil")


@pytest.mark.parametrize(
    "member", [file(b"docs"), symlink(b"sub", b"/"), whiteout_header(b"sub/file")]
)
def test_what_the_manifest_does_not_promise_is_refused(scene, member):
    laboratory, version, _ = scene
    data = laboratory.stream(version)
    end = end_of_stream(version.entries)
    changed = data.removesuffix(end) + member + end_of_stream(version.entries + 1)
    with pytest.raises(Failure):
        laboratory.receive(changed, version)

    assert laboratory.names("receiver") == []


def test_an_ordinary_tar_is_no_stream(scene):
    laboratory, version, _ = scene
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(Failure):
        laboratory.receive(buffer.getvalue(), version)


@pytest.mark.parametrize("junk", [b"", b"\0" * 2048, b"junk" * 1000, global_header(b"git commit")])
def test_junk_is_no_stream(scene, junk):
    laboratory, version, _ = scene
    with pytest.raises(Failure):
        laboratory.receive(junk, version)

    assert laboratory.names("receiver") == []


@pytest.mark.parametrize(
    "change",
    [
        {"created": "yesterday"},
        {"created": float("nan")},
        {"entries": "many"},
        {"manifest": 5},
        {"more": 1},
    ],
)
def test_a_start_that_makes_no_sense_is_refused(scene, change):
    laboratory, version, _ = scene
    start = start_of_stream(None, version)
    facts = parse_promise(start.partition(START_MARK)[2].partition(b"\n")[0])
    changed = global_header(START_MARK + format_promise({**facts, **change}))
    with pytest.raises(Failure, match="start cannot be read"):
        laboratory.receive(changed + laboratory.stream(version)[len(start) :], version)


@pytest.mark.parametrize("token", ["", "{}", "[]", "1", '{"to": 1}'])
def test_a_token_that_is_none_is_stale(scene, token):
    laboratory, version, _ = scene
    with pytest.raises(Failure) as caught:
        laboratory.receive(b"", version, token=token)

    assert caught.value.kind == "stale-token"


def test_another_format_is_refused_by_name(scene):
    laboratory, version, _ = scene
    with pytest.raises(Failure, match="of another format"):
        laboratory.receive(global_header(b"fsrep-directory-2 {}"), version)


def test_a_hard_link_to_a_symlink_is_a_further_name_of_the_link(laboratory, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    os.symlink(tmp_path / "precious", f"{laboratory.live}/a")
    os.link(f"{laboratory.live}/a", f"{laboratory.live}/b", follow_symlinks=False)
    version, _ = laboratory.create("v1")
    laboratory.replicate(version)

    laboratory.check(version)
    assert os.stat(tmp_path / "precious").st_nlink == 1


def test_a_symlink_is_stored_as_it_is_and_never_followed(laboratory):
    os.symlink("/etc/passwd", f"{laboratory.live}/link")
    version, _ = laboratory.create("v1")
    laboratory.replicate(version)

    assert os.readlink(f"{laboratory.tree('receiver', version)}/link") == "/etc/passwd"


def test_the_record_of_a_hostile_name_is_read_as_it_was_written():
    entry = Entry(b"a\n\tb\\n\\\\", b"l", 0o777, 1, 2, -3, target=b"\t\n\\")
    from fsrep_directory.engine.records import format_record

    line = format_record(entry)

    assert b"\n" not in line
    assert parse_record(line) == entry
