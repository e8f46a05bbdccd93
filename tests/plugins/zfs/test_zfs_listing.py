"""What ``zfs list`` prints is read exactly, or refused as a whole."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core import StorageError, VersionKind
from fsrep_zfs.listing import COLUMNS, parse_listing

RECORDED = """\
pa\tfilesystem\t3534848983988432743\t1\t1795347109\t-\t-\toff\t-\t-\ton\tnone\t-
pa/a\tfilesystem\t17360206146435594490\t6\t1795347112\t-\t-\toff\t-\t-\ton\t/pa\t-
pa/a@s 1\tsnapshot\t664453418838544194\t9\t1795347115\t0\t-\toff\t-\t-\t-\t-\t-
pa/a@s2\tsnapshot\t6796801752785863634\t10\t1795347116\t1\t-\toff\t-\t-\t-\t-\t-
pa/a#b1\tbookmark\t664453418838544194\t9\t1795347115\t-\t-\t-\t-\t-\t-\t-\t-
pa/b\tfilesystem\t2594240015765738297\t8\t1795347113\t-\t-\toff\t-\t-\ton\tnone\t-
"""
"""As OpenZFS 2.3.2 prints it."""

DEFAULTS = {
    "type": "filesystem",
    "guid": "1",
    "createtxg": "1",
    "creation": "1",
    "encryption": "off",
    "canmount": "on",
    "mountpoint": "none",
}


def row(name, **values):
    known = {**DEFAULTS, **values}
    made = known.pop("made", "-")
    return "\t".join([name, *(known.get(column, "-") for column in COLUMNS[1:-1]), made])


def listing(*rows):
    return "".join(f"{each}\n" for each in rows)


def test_a_recorded_listing_is_read():
    datasets = parse_listing(RECORDED)

    assert list(datasets) == ["pa", "pa/a", "pa/b"]
    dataset = datasets["pa/a"]
    assert [each.name for each in dataset.snapshots.values()] == ["s 1", "s2"]
    assert dataset.held == {"6796801752785863634"}
    (bookmark,) = dataset.bookmarks.values()
    assert (bookmark.kind, bookmark.name) == (VersionKind.BOOKMARK, "b1")
    assert (bookmark.guid, bookmark.order, bookmark.created) == (
        "664453418838544194",
        9,
        1795347115.0,
    )
    assert dataset.mounts_at == "/pa"
    assert datasets["pa/b"].mounts_at is None


def test_an_empty_listing_is_nothing():
    assert parse_listing("") == {}


def test_what_is_encrypted_is_seen():
    datasets = parse_listing(
        listing(
            row("p"),
            row("p/a", encryption="aes-256-gcm", keystatus="unavailable"),
            row("p/b", encryption="aes-256-gcm", keystatus="available"),
        )
    )

    assert [each.encrypted for each in datasets.values()] == [False, True, True]
    assert [each.key_loaded for each in datasets.values()] == [True, False, True]


def test_a_mark_counts_only_where_it_is_not_inherited():
    one, other = "placeholder:1", "placeholder:2"
    datasets = parse_listing(
        listing(
            row("p"),
            row("p/a", made=one),
            row("p/a/b", made=one),
            row("p/a/b/c", made=other),
            row("p/ab", made=one),
        )
    )

    assert [each.placeholder for each in datasets.values()] == [False, True, False, True, True]


def test_a_mark_does_not_count_where_the_parent_is_not_known():
    assert not parse_listing(listing(row("p/a/b", made="placeholder:1")))["p/a/b"].placeholder


def test_a_mark_counts_where_the_parent_was_listed_before():
    known = parse_listing(listing(row("p"), row("p/a")))

    listed = parse_listing(listing(row("p/a", made="copy:7")), known)

    assert listed["p/a"].replaceable
    assert not listed["p/a"].placeholder


def test_what_has_snapshots_is_never_a_placeholder():
    text = listing(
        row("p"),
        row("p/a", made="placeholder:1"),
        row("p/a@s", type="snapshot", guid="5", userrefs="0"),
    )

    dataset = parse_listing(text)["p/a"]

    assert not dataset.placeholder
    assert not dataset.replaceable


@pytest.mark.parametrize(
    "text",
    [
        "p\tfilesystem\n",
        listing(row("p"), row("p")),
        listing(row("p"), row("p/a@s", type="snapshot")),
        listing(row("p", made="x\ny")),
        listing(row("p"), row("p@s", type="snapshot", createtxg="never")),
        listing(row("p"), row("p@s", type="snapshot"), row("p@t", type="snapshot")),
    ],
    ids=["short", "twice", "orphan", "line break", "no number", "guid twice"],
)
def test_what_cannot_be_is_refused_as_a_whole(text):
    with pytest.raises(StorageError) as caught:
        parse_listing(text)

    assert not caught.value.local


names = st.text("abcXYZ019_.: -", min_size=1, max_size=20)


@given(st.dictionaries(names, st.integers(0, 2**64 - 1), max_size=30, dict_class=dict))
def test_every_snapshot_comes_back(made):
    guids = {name: guid for guid, name in {guid: name for name, guid in made.items()}.items()}
    rows = [
        row(f"p/x@{name}", type="snapshot", guid=str(guid), createtxg=str(index), userrefs="0")
        for index, (name, guid) in enumerate(guids.items())
    ]

    found = parse_listing(listing(row("p/x"), *rows))["p/x"].snapshots

    assert {each.name: int(each.guid) for each in found.values()} == guids


@pytest.mark.proof
def test_reading_is_linear():
    def seconds(count):
        rows = [row("p")]
        rows += [
            row(f"p@{index}", type="snapshot", guid=str(index), createtxg=str(index))
            for index in range(count)
        ]
        text = listing(*rows)
        started = time.process_time()
        parse_listing(text)
        return time.process_time() - started

    small, large = (min(seconds(count) for _ in range(3)) for count in (5_000, 50_000))

    assert large < 40 * small
