"""What btrfs-progs 6.2 and 6.14 really print (``recorded/``) becomes the right values."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from fsrep_btrfs.listing import (
    Mount,
    find_mount,
    merge_listings,
    parse_list,
    parse_show,
    parse_version,
)
from fsrep_core import StorageError

RECORDED = Path(__file__).parent / "recorded"

pytestmark = pytest.mark.parametrize("progs", ["6.2", "6.14"])

DOCS = "dfd55d84-8501-9a46-b485-82ec1594db78"
FIRST = "7fa1d792-f12f-4142-b0d0-0167fe4c7a07"
SECOND = "1825dbd6-b7bb-1342-8301-b2ecd29416cd"


def recorded(progs, name):
    return (RECORDED / f"{progs}-{name}.txt").read_text()


def listing(progs, side):
    return merge_listings(
        parse_list(recorded(progs, f"{side}-all"), readonly=False),
        parse_list(recorded(progs, f"{side}-readonly"), readonly=True),
        parse_list(recorded(progs, f"{side}-snapshots"), readonly=False),
    )


def test_every_subvolume_of_a_sender(progs):
    """Paths are from the top level, whatever prefix the tool puts before them."""
    found = {each.path: each for each in listing(progs, "sender")}

    assert {path for path, each in found.items() if not each.readonly} == {
        "@home",
        "@home/.snapshots",
        "docs",
        "docs/a b",
        "two\nlines",
    }
    assert {path for path, each in found.items() if each.readonly} == {
        "@home/.snapshots/7/snapshot",
        "btrbk_snapshots/docs.20261122T0800",
        "btrbk_snapshots/docs.20261122T0900",
    }
    first = found["btrbk_snapshots/docs.20261122T0800"]
    assert first.uuid == FIRST
    assert first.parent_uuid == DOCS
    assert first.received_uuid is None
    assert first.created_generation == 8
    assert first.created == 1795336011.0


def test_every_subvolume_of_a_receiver(progs):
    """The partial is writable and has no received UUID; a full receive has no date."""
    full, incremental, partial = listing(progs, "receiver")

    assert (full.readonly, full.received_uuid, full.parent_uuid) == (True, FIRST, None)
    assert full.created is None
    assert (incremental.readonly, incremental.received_uuid) == (True, SECOND)
    assert incremental.parent_uuid == full.uuid
    assert incremental.created == 1795336011.0
    assert (partial.readonly, partial.received_uuid) == (False, None)


def test_an_empty_listing(progs):
    assert parse_list("", readonly=False) == ()


def test_a_name_that_imitates_a_row_is_refused(progs):
    """A line break in a name cannot smuggle in a row for another's path or UUID."""
    text = recorded(progs, "sender-all")
    victim = next(line for line in text.splitlines() if line.endswith("path docs"))
    row = text.splitlines()[0].replace("ID 256", "ID 300").replace(" path @home", " path trap")
    row = row.replace("e560d587", "00000000")

    for forged in (
        victim,
        victim.replace("ID 258", "ID 999"),
        victim.replace("ID 258", "ID 999").replace(DOCS, FIRST.replace("7fa1", "0000")),
    ):
        with pytest.raises(StorageError, match="two subvolumes") as caught:
            parse_list(f"{text}{row}\n{forged}\n", readonly=False)
        assert not caught.value.local


def test_a_listing_that_contradicts_the_other_is_refused(progs):
    """What only one of the listings has must not take the place of another's path."""
    every = parse_list(recorded(progs, "sender-all"), readonly=False)
    readonly = parse_list(recorded(progs, "sender-readonly"), readonly=True)
    stranger = attrs.evolve(readonly[0], id=999)

    with pytest.raises(StorageError, match="two subvolumes"):
        merge_listings(every, (*readonly, stranger))


def test_another_format_is_refused(progs):
    text = recorded(progs, "sender-all").replace("cgen", "ogen")

    with pytest.raises(StorageError, match="cannot read"):
        parse_list(text, readonly=False)


def test_show_of_what_was_received(progs):
    shown = parse_show(recorded(progs, "show-received"))

    assert shown == attrs.evolve(
        next(each for each in listing(progs, "receiver") if each.uuid == shown.uuid)
    )


def test_show_of_a_partial(progs):
    shown = parse_show(recorded(progs, "show-partial"))

    assert not shown.readonly
    assert shown.received_uuid is None


def test_show_of_a_live_subvolume_is_not_misled_by_its_snapshots(progs):
    """The names of snapshots come last and may say anything."""
    text = (
        recorded(progs, "show-live")
        + f"\t\t\t\tx\n\tUUID: \t\t\t{FIRST}\n\tFlags: \t\t\treadonly\n"
    )

    shown = parse_show(text)

    assert shown.uuid == DOCS
    assert not shown.readonly


def test_show_of_something_else_is_refused(progs):
    with pytest.raises(StorageError, match="cannot read"):
        parse_show(recorded(progs, "sender-all"))


def test_version(progs):
    assert parse_version(recorded(progs, "version")) == tuple(map(int, progs.split(".")))
    with pytest.raises(StorageError, match="cannot read"):
        parse_version("btrfs: command not found")


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
43 27 0:39 / /mnt/pool rw,relatime - btrfs /dev/loop0 rw,subvolid=5,subvol=/
45 27 0:39 /@home /home rw,relatime shared:7 master:2 - btrfs /dev/loop0 rw,subvol=/@home
46 27 0:39 /with\\040space /mnt/a\\040b rw - btrfs /dev/loop0 rw
47 27 0:41 / /mnt/pool rw,relatime - btrfs /dev/loop1 rw
48 27 0:42 / /mnt/poolside rw,relatime - xfs /dev/vdb rw
"""


def test_mounts(progs):
    """The longest mount point that holds the path by components, and of two the later."""
    home = find_mount(MOUNTINFO, "/home/user")
    spaced = find_mount(MOUNTINFO, "/mnt/a b")
    pool = find_mount(MOUNTINFO, "/mnt/pool/docs")

    assert home == Mount(point="/home", root="@home", type="btrfs", source="/dev/loop0")
    assert home.tree_path_of("/home/user") == "@home/user"
    assert home.tree_path_of("/home") == "@home"
    assert home.path_of("@home/user/x") == "/home/user/x"
    assert home.path_of("@home") == "/home"
    assert home.path_of("@home2") is None
    assert home.path_of("docs") is None
    assert (spaced.point, spaced.root) == ("/mnt/a b", "with space")
    assert (pool.source, pool.root) == ("/dev/loop1", "")
    assert pool.path_of("docs/x") == "/mnt/pool/docs/x"
    assert pool.tree_path_of("/mnt/pool") == ""
    assert find_mount(MOUNTINFO, "/mnt/poolside").type == "xfs"
    assert find_mount(MOUNTINFO, "/etc").type == "ext4"


def test_a_path_without_a_mount(progs):
    with pytest.raises(StorageError, match="no mount"):
        find_mount("", "/mnt")
