"""The layout on disk: names, versions, cursors, locks, destroying."""

import errno
import fcntl
import json
import os

import pytest

from fsrep_directory.engine.cursor import move_cursor, read_cursor
from fsrep_directory.engine.failures import Failure, from_os_error
from fsrep_directory.engine.inventory import inventory
from fsrep_directory.engine.names import check_filesystem, check_version_name
from fsrep_directory.engine.partial import Partial


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "-a",
        "a/-b",
        "a@b",
        "a#b",
        "%a",
        "a/%partial",
        ".fsrep",
        "a/.fsrep",
        "a\0b",
        "a\nb",
        "n" * 256,
        "a/" * 1500 + "a",
        "\udcff",
    ],
)
def test_names_that_could_lead_elsewhere_are_no_filesystems(name):
    with pytest.raises(Failure) as caught:
        check_filesystem(name)

    assert caught.value.kind == "invalid-request"


@pytest.mark.parametrize("name", ["a", "a/b", "photos/2024", "a b", "ä", ".hidden", "a%b", "a-b"])
def test_ordinary_names_are_filesystems(name):
    check_filesystem(name)


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a@b", "a#b", "a\0", "a\n", "n" * 201, "\udc00"])
def test_names_that_cannot_be_versions(name):
    with pytest.raises(Failure):
        check_version_name(name)


def test_a_later_format_is_refused(laboratory):
    laboratory.create("v1")
    with open(f"{laboratory.root('sender')}/.fsrep/%format", "w") as file:
        file.write("fsrep-directory-store 2\n")
    with pytest.raises(Failure, match="has the format 'fsrep-directory-store 2'"):
        laboratory.listed("sender")


def test_others_cannot_look_into_the_store(laboratory):
    version, _ = laboratory.create("v1")
    folder = f"{laboratory.store('sender').path}/@v1"

    assert os.stat(f"{laboratory.root('sender')}/.fsrep").st_mode & 0o777 == 0o700
    for name in ("manifest", "index", "version.json"):
        assert os.stat(f"{folder}/{name}").st_mode & 0o777 == 0o600
    assert version.folder == "@v1"


def test_an_inventory_lists_nested_filesystems_and_literal_patterns(laboratory):
    laboratory.write("a/b/file")
    laboratory.create("v1")
    laboratory.create("n1", "docs/a/b")
    os.mkdir(f"{laboratory.root('sender')}/new")
    root = laboratory.root("sender")
    found = inventory(root, "job", ("new", "missing", "**", "!x", "../sender"), may_lack=False)

    assert [(each.name, len(each.versions)) for each in found] == [
        ("docs", 1),
        ("docs/a/b", 1),
        ("new", 0),
    ]


def test_a_root_that_is_missing_is_no_empty_root(laboratory):
    missing = f"{laboratory.path}/missing"
    with pytest.raises(Failure) as caught:
        inventory(missing, "job", (), may_lack=False)

    assert caught.value.local is False
    assert inventory(missing, "job", (), may_lack=True) == []


@pytest.mark.parametrize("damage", ["text", "type", "unreadable"])
def test_a_damaged_version_is_a_failure_of_its_filesystem_alone(laboratory, damage):
    laboratory.create("v1")
    os.mkdir(f"{laboratory.root('sender')}/other")
    laboratory.create("v1", "other")
    path = f"{laboratory.store('sender').path}/@v1/version.json"
    os.unlink(path)
    if damage == "unreadable":
        os.symlink("version.json", path)  # root may read everything else
    else:
        with open(path, "w") as file:
            file.write("{" if damage == "text" else '{"name": "v1"}')

    docs, other = inventory(laboratory.root("sender"), "job", ("**",), may_lack=False)

    assert (docs.name, docs.failure.kind) == ("docs", "storage")
    assert "version.json" in docs.failure.message
    assert docs.failure.local is not False
    assert (other.failure, len(other.versions)) == (None, 1)


def test_orders_grow_on_each_side(laboratory):
    versions = [laboratory.create(f"v{number}")[0] for number in range(3)]
    laboratory.replicate(versions[0])
    laboratory.replicate(versions[2], versions[0])

    assert [each.order for each in laboratory.listed("sender").versions] == [1, 2, 3]
    assert [each.order for each in laboratory.listed("receiver").versions] == [1, 2]
    assert [each.guid for each in laboratory.listed("receiver").versions] == [
        versions[0].guid,
        versions[2].guid,
    ]


def test_newer_versions_block_unless_they_may_go(laboratory):
    laboratory.write("file", b"1")
    first, _ = laboratory.create("v1")
    second, _ = laboratory.create("v2")
    laboratory.write("file", b"2")
    third, _ = laboratory.create("v3")
    laboratory.replicate(first)
    laboratory.replicate(second, first)
    data = laboratory.stream(third, first)
    with pytest.raises(Failure) as caught:
        laboratory.receive(data, third, first)
    assert caught.value.kind == "conflict"
    assert laboratory.names("receiver") == ["@v1", "@v2"]
    with pytest.raises(Failure):
        laboratory.receive(data[:-1], third, first, rollback=[second])
    assert laboratory.names("receiver") == ["@v1", "@v2"]

    laboratory.receive(data, third, first, rollback=[second], clear=True)
    assert laboratory.names("receiver") == ["@v1", "@v3"]
    laboratory.check(third)


def test_a_received_version_is_durable_before_anything_leaves_or_can_be_seen(
    laboratory, disk_order, monkeypatch
):
    versions = [laboratory.create(name)[0] for name in ("v1", "v2", "v3")]
    laboratory.replicate(versions[0])
    laboratory.replicate(versions[1], versions[0])
    data = laboratory.stream(versions[2], versions[0])
    sync, there = Partial.sync, []

    def list_and_sync(partial):
        there.extend(os.listdir(partial.path))
        sync(partial)

    monkeypatch.setattr(Partial, "sync", list_and_sync)
    disk_order.clear()
    laboratory.receive(data, versions[2], versions[0], rollback=[versions[1]])

    assert disk_order == [
        ("all", "%partial"),
        ("rename", "@v2", "%trash"),
        ("rename", "%partial", "@v3"),
        ("one", "docs"),
    ]
    assert {"version.json", "manifest", "tree"} <= set(there)


def test_a_name_that_another_version_has_is_a_conflict(laboratory):
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    second, _ = laboratory.create("v2")
    data = laboratory.stream(second, first)
    with pytest.raises(Failure) as caught:
        laboratory.receive(data, second._replace(name="v1"), first)

    assert caught.value.kind == "conflict"


def test_a_base_that_is_gone_is_missing(laboratory):
    first, _ = laboratory.create("v1")
    second, _ = laboratory.create("v2")
    with pytest.raises(Failure) as caught:
        laboratory.receive(b"", second, first)
    assert caught.value.kind == "version-missing"
    laboratory.destroy("sender", first)
    with pytest.raises(Failure) as caught:
        laboratory.stream(second, first)
    assert caught.value.kind == "version-missing"


def test_destroying_matches_by_guid_and_twice_is_fine(laboratory):
    laboratory.write("sub/file")
    os.chmod(f"{laboratory.live}/sub", 0o500)
    version, _ = laboratory.create("v1")
    other = version._replace(guid="0" * 32)

    assert laboratory.destroy("sender", other) == [{}]
    assert laboratory.names("sender") == ["@v1"]
    assert laboratory.destroy("sender", version) == [{}]
    assert laboratory.destroy("sender", version) == [{}]
    assert laboratory.names("sender") == []
    assert os.listdir(laboratory.store("sender").path) == ["%lock"]


def test_a_version_in_use_is_kept(laboratory):
    version, _ = laboratory.create("v1")
    store = laboratory.store("sender")
    with store.in_use(version):
        (result,) = laboratory.destroy("sender", version)

    assert result["failure"]["kind"] == "busy"
    assert laboratory.names("sender") == ["@v1"]


@pytest.mark.parametrize("act", ["create", "receive"])
def test_one_writer_at_a_time(laboratory, act):
    version, _ = laboratory.create("v1")
    data = laboratory.stream(version)
    side = "sender" if act == "create" else "receiver"
    with laboratory.store(side).locked(), pytest.raises(Failure) as caught:
        laboratory.create("v2") if act == "create" else laboratory.receive(data, version)

    assert caught.value.kind == "busy"


@pytest.fixture
def cursors(laboratory):
    where = {"root": laboratory.root("sender"), "filesystem": "docs"}
    versions = [laboratory.create(f"v{number}")[0] for number in range(3)]

    def move(version, job="job"):
        return move_cursor({**where, "job": job, "guid": version.guid})

    def look(job="job"):
        return read_cursor({**where, "job": job})

    return laboratory, versions, move, look


def test_a_missing_cursor_is_an_answer(cursors, laboratory):
    _, _, _, look = cursors

    assert look() is None
    nothing = {"root": laboratory.root("receiver"), "filesystem": "nothing", "job": "job"}
    assert read_cursor(nothing) is None


def test_a_cursor_moves_forward_only_and_belongs_to_its_job(cursors):
    laboratory, versions, move, look = cursors
    move(versions[1])
    move(versions[1])
    move(versions[0], "another/job")
    move(versions[0])

    assert look().guid == versions[1].guid
    assert look("another/job").guid == versions[0].guid
    assert look("job2") is None
    assert sum(name[0] == "#" for name in laboratory.names("sender")) == 2
    assert laboratory.listed("sender").cursor.guid == versions[1].guid


def test_a_new_cursor_is_there_before_the_old_one_goes(cursors, monkeypatch):
    laboratory, versions, move, look = cursors
    move(versions[0])
    monkeypatch.setattr(
        "fsrep_directory.engine.store.FilesystemStore.retire",
        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        move(versions[2])
    monkeypatch.undo()

    assert look().guid == versions[2].guid
    assert sum(name[0] == "#" for name in laboratory.names("sender")) == 2
    move(versions[2])
    assert sum(name[0] == "#" for name in laboratory.names("sender")) == 1


def test_a_new_cursor_is_durable_before_the_old_one_goes(cursors, disk_order):
    _, versions, move, _ = cursors
    move(versions[0])
    disk_order.clear()
    move(versions[2])

    [written, (synced, staging), *rest] = disk_order
    assert written == ("one", "version.json")
    assert (synced, staging.rpartition("-")[0]) == ("one", "%cursor-new")
    assert rest == [
        ("rename", "%cursor", "#fsrep"),
        ("one", "docs"),
        ("rename", "#fsrep", "%trash"),
    ]


def test_a_cursor_survives_its_snapshot(cursors):
    laboratory, versions, move, look = cursors
    move(versions[2])
    laboratory.destroy("sender", *versions)

    assert look().guid == versions[2].guid
    with pytest.raises(Failure) as caught:
        move(versions[1])
    assert caught.value.kind == "version-missing"
    assert move(versions[2]).guid == versions[2].guid


def test_jobs_with_long_names_have_cursors_of_their_own(cursors):
    _, versions, move, look = cursors
    move(versions[0], "ä" * 200)
    move(versions[1], "ä" * 200 + "b")

    assert look("ä" * 200).guid == versions[0].guid
    assert look("ä" * 200 + "b").guid == versions[1].guid


def test_a_crashed_cursor_is_cleaned(cursors):
    laboratory, versions, move, _ = cursors
    os.mkdir(f"{laboratory.store('sender').path}/%cursor-new-0123")
    move(versions[0])

    assert not os.path.exists(f"{laboratory.store('sender').path}/%cursor-new-0123")


def test_a_lock_does_not_outlive_its_holder(laboratory):
    laboratory.create("v1")
    path = f"{laboratory.store('sender').path}/%lock"
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    laboratory.create("v2")
    facts = json.loads(laboratory.listed("sender").versions[0].to_json())

    assert facts["name"] == "v1"


def test_a_stream_that_another_process_made_needless_is_refused_for_now(laboratory):
    laboratory.write("file", b"x" * 500_000)
    version, _ = laboratory.create("v1")
    laboratory.replicate(version)
    with pytest.raises(Failure) as caught:
        laboratory.replicate(version)

    # Taken for a success, the engine's end would look like that of one that broke.
    assert caught.value.kind == "busy"
    assert laboratory.names("receiver") == ["@v1"]


def test_a_filesystem_that_is_mounted_read_only_is_called_so():
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "/srv/backup")
    failure = from_os_error(error, "making a version")

    assert "mount" in failure.hint
    assert failure.message == "making a version: Read-only file system (/srv/backup)"
