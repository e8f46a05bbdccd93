"""Which subvolumes are filesystems, which are whose versions, and what they are called."""

from __future__ import annotations

import pytest

from fsrep_btrfs.layout import Places, arrange, check_filesystem, check_version_name
from fsrep_btrfs.listing import Subvolume
from fsrep_core import InvalidRequestError


class World:
    """Makes subvolumes with increasing ids and generations."""

    def __init__(self):
        self.subvolumes = []
        self.marks = {}

    def add(self, path, *, readonly=False, parent=None, received=None, uuid=None):
        number = 256 + len(self.subvolumes)
        self.subvolumes.append(
            Subvolume(
                id=number,
                path=path,
                uuid=uuid or f"uuid-{number}",
                parent_uuid=parent,
                received_uuid=received,
                created_generation=number,
                readonly=readonly,
            )
        )
        return self.subvolumes[-1].uuid

    def arrange(self, *, root="pool", snapshots="snapshots", reachable=lambda _: True, **options):
        return arrange(
            self.subvolumes,
            Places(root=root, snapshots=snapshots, **options),
            reachable=reachable,
            marked_filesystem=self.marks.get,
        )


def versions(arrangement):
    return {
        filesystem: {found.version.name: found.version.guid for found in found_by_guid.values()}
        for filesystem, found_by_guid in arrangement.versions.items()
    }


@pytest.fixture
def world():
    return World()


def test_every_writable_subvolume_below_the_root_is_a_filesystem(world):
    """Nested ones are filesystems of their own; containers and private places are none."""
    for path in (
        "pool",
        "pool/docs",
        "pool/docs/nested",
        "pool/@home",
        "pool/@home/.snapshots",
        "pool/snapshots",
        "pool/snapshots/somebodys-clone",
        "pool/snapshots/docs/@received-and-made-writable/snapshot",
        "pool/snapshots/.fsrep/staging/docs.1/@x/docs",
        "pool2/other",
        "other",
    ):
        world.add(path)

    found = world.arrange()

    assert set(found.live) == {"docs", "docs/nested", "@home"}
    assert [each.name for each in found.filesystems()] == ["@home", "docs", "docs/nested"]


def test_the_operator_names_the_filesystems(world):
    """``"."`` is the root itself; a path that is not there is no filesystem (yet)."""
    world.add("@home")
    world.add("@home/work")

    found = world.arrange(root="@home", subvolumes={"home": ".", "work": "work/", "gone": "gone"})

    assert {name: each.path for name, each in found.live.items()} == {
        "home": "@home",
        "work": "@home/work",
    }


def test_snapshots_are_found_by_what_they_were_taken_of(world):
    """Those of snapper and btrbk, in or outside of the root, under the names they have."""
    home = world.add("pool/home")
    world.add("pool/home/.snapshots")
    snapper = world.add("pool/home/.snapshots/7/snapshot", readonly=True, parent=home)
    btrbk = world.add("btrbk_snapshots/home.20261122T0800", readonly=True, parent=home)
    world.add("pool/stranger", readonly=True, parent="somebody")

    assert versions(world.arrange()) == {"home": {"7": snapper, "home.20261122T0800": btrbk}}


def test_versions_in_fsreps_own_places(world):
    """They need no live subvolume, and what they were taken of does not matter."""
    other = world.add("pool/other")
    made = world.add("pool/snapshots/docs/@monday/snapshot", readonly=True, parent=other)
    world.add("pool/snapshots/docs/deep/@a@b/snapshot", readonly=True, received="origin")
    world.add("pool/snapshots/docs/@tuesday/renamed", readonly=True)
    world.add("pool/snapshots/@x/snapshot", readonly=True)

    assert versions(world.arrange()) == {
        "docs": {"monday": made},
        "docs/deep": {"a@b": "origin"},
    }


def test_versions_directly_in_the_root(world):
    world.add("pool/docs/@monday/snapshot", readonly=True, received="origin")
    world.add("pool/docs/@tuesday/snapshot", received=None)

    found = world.arrange(snapshots=".")

    assert versions(found) == {"docs": {"monday": "origin"}}
    assert found.live == {}


def test_a_received_version_is_found_wherever_it_was_moved(world):
    """The mark stands on the directory around it, which is all that can be moved."""
    world.add("pool/archive/old/snapshot", readonly=True, received="one")
    world.add("pool/snapshots/docs/@monday/kept", readonly=True, received="two")
    world.add("pool/archive/unmarked/snapshot", readonly=True, received="three")
    world.marks = {"pool/archive/old": "docs", "pool/snapshots/docs/@monday": "docs"}

    found = world.arrange()

    assert versions(found) == {"docs": {"old": "one", "kept": "two"}}
    assert set(found.readonly) == {"one", "two", "three"}


def test_the_operators_patterns_come_first(world):
    """A ``*`` stays within its component."""
    other = world.add("pool/other")
    world.add("pool/backup/home.1", readonly=True, received="one", parent=other)
    world.add("pool/backup/home.2/deep", readonly=True, received="two")

    assert versions(world.arrange(also={"home": ("backup/home.*",)})) == {"home": {"home.1": "one"}}


def test_identity_is_the_received_uuid_of_what_is_read_only(world):
    """A partial (writable, without one) has none and is never listed, nor a base."""
    live = world.add("pool/docs")
    own = world.add("pool/snapshots/docs/@own/snapshot", readonly=True, parent=live)
    world.add("pool/snapshots/docs/@received/snapshot", readonly=True, received="origin")
    world.add("pool/snapshots/docs/@partial/snapshot")
    world.add("pool/partial-of-another-tool", parent=own)

    found = world.arrange()

    assert versions(found) == {"docs": {"own": own, "received": "origin"}}
    assert set(found.readonly) == {own, "origin"}


def test_a_received_uuid_that_a_writable_subvolume_has_proves_nothing(world):
    """Its snapshots inherit it: they are told apart by their own UUIDs, and not proven."""
    live = world.add("pool/docs", received="origin")
    first = world.add(
        "pool/snapshots/docs/@1/snapshot", readonly=True, parent=live, received="origin"
    )
    second = world.add(
        "pool/snapshots/docs/@2/snapshot", readonly=True, parent=live, received="origin"
    )

    found = world.arrange()

    assert versions(found) == {"docs": {"1": first, "2": second}}
    assert [found.find("docs", guid).proven for guid in (first, second)] == [False, False]
    assert "origin" not in found.readonly


def test_a_partial_in_the_private_place_makes_nothing_doubtful(world):
    """A receive has its received UUID an instant before it is read-only."""
    world.add("pool/snapshots/docs/@1/snapshot", readonly=True, received="origin")
    world.add("pool/snapshots/.fsrep/staging/docs.1/@1/x", received="origin")

    assert versions(world.arrange()) == {"docs": {"1": "origin"}}


def test_copies_of_one_version_are_one_version(world):
    """The oldest stands for all of them."""
    world.add("pool/snapshots/docs/@a/snapshot", readonly=True, received="origin")
    world.add("pool/snapshots/docs/@b/snapshot", readonly=True, received="origin")

    assert versions(world.arrange()) == {"docs": {"a": "origin"}}


def test_names_are_unique_within_a_filesystem(world):
    live = world.add("pool/docs")
    one = world.add("pool/x/daily", readonly=True, parent=live, uuid="11111111-1")
    two = world.add("pool/y/daily", readonly=True, parent=live, uuid="22222222-2")

    assert versions(world.arrange()) == {"docs": {"daily~11111111": one, "daily~22222222": two}}


def test_names_can_be_shown(world):
    """A line break or a byte that is no text comes out as an escape."""
    live = world.add("pool/two\nlines")
    guid = world.add("pool/x/\udcff", readonly=True, parent=live)

    assert versions(world.arrange()) == {"two\\x0alines": {"\\xff": guid}}


def test_what_is_not_below_the_mount_point_does_not_exist(world):
    """btrfs can only use as a base what it reaches through the same mount."""
    live = world.add("pool/docs")
    world.add("outside/docs.1", readonly=True, parent=live)

    found = world.arrange(reachable=lambda path: path.startswith("pool"))

    assert versions(found) == {}
    assert found.readonly == {}


def test_versions_come_oldest_first(world):
    live = world.add("pool/docs")
    guids = [
        world.add(f"pool/snapshots/docs/@{name}/snapshot", readonly=True, parent=live)
        for name in "cab"
    ]
    world.subvolumes.reverse()

    assert list(world.arrange().versions["docs"]) == guids


@pytest.mark.parametrize(
    "name", ["", "a//b", "/a", "a/", ".", "..", "a/../b", ".fsrep/x", "a\nb", "x" * 256]
)
def test_names_that_no_filesystem_can_have(name):
    with pytest.raises(InvalidRequestError, match="cannot name a filesystem"):
        check_filesystem(name)


@pytest.mark.parametrize("name", ["", "a/b", "..\0", "a\nb", "x" * 255])
def test_names_that_no_version_can_have(name):
    with pytest.raises(InvalidRequestError, match="cannot name a version"):
        check_version_name(name)


def test_odd_names_that_are_fine():
    check_filesystem("@home/-x/a b")
    check_version_name("..")
    check_version_name("x" * 254)
