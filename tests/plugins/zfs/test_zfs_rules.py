"""What the storage protects, refuses, overwrites and leaves behind, over pretended pools."""

from __future__ import annotations

import logging

import attrs
import pytest

from fsrep_core import (
    BrokenEndpointError,
    ConflictError,
    CursorRequest,
    DestroyVersionsRequest,
    InterruptedStreamError,
    InvalidRequestError,
    OutOfSpaceError,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    StaleTokenError,
    StorageError,
    VersionKind,
    VersionMissingError,
)
from fsrep_core.planning import Initial
from fsrep_core.testing import CutStream, drain
from fsrep_zfs.names import cursor_name, last_tag, step_tag
from real_zfs import run_job

JOB = "job"
STEP, LAST = step_tag(JOB), last_tag(JOB)


async def make(site, *names, filesystem="docs"):
    """Make snapshots, each after a change; give them by name."""
    for name in names:
        site.write(filesystem, 50_000)
        await site.snapshot(name, filesystem)
    found = await site.listed(filesystem)
    return {each.name: each for each in found.versions if each.kind is VersionKind.SNAPSHOT}


def request_of(to_version, from_version=None, filesystem="docs", **options):
    return SendRequest(
        job=JOB, filesystem=filesystem, to_version=to_version, from_version=from_version, **options
    )


async def replicate(sender, receiver, request, tamper=lambda stream: stream, **options):
    """Carry out one step, as the driver does."""
    async with sender.storage.send(request) as response:
        wanted = ReceiveRequest(
            job=JOB,
            filesystem=request.filesystem,
            to_version=request.to_version,
            from_version=request.from_version,
            intermediates=request.intermediates,
            **options,
        )
        return await receiver.storage.receive(wanted, tamper(response.stream))


async def move_cursor(site, version, filesystem="docs"):
    return await site.storage.replication_cursor(
        CursorRequest(job=JOB, filesystem=filesystem, move_to=version)
    )


def bookmarks(site, filesystem="docs"):
    return set(site.dataset(filesystem)["bookmarks"])


def commands(site):
    return [call[0] for call in site.calls()]


# --- protection ---


async def test_the_ends_of_a_step_are_held_until_it_is_confirmed(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    await replicate(sender, receiver, request_of(made["a"]))
    before = sender.holds()
    await move_cursor(sender, made["a"])
    assert (before, sender.holds()) == ({"a": [STEP]}, {})

    async with sender.storage.send(request_of(made["b"], made["a"])) as response:
        assert sender.holds() == {"a": [STEP], "b": [STEP]}
        await drain(response.stream)
    await move_cursor(sender, made["b"])

    assert sender.holds() == {}


async def test_the_receiver_holds_the_last_and_its_base_until_the_sender_goes_on(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b", "c")
    held = []
    for name, base in (("a", None), ("b", "a"), ("c", "b")):
        receiver.reopen()
        await replicate(sender, receiver, request_of(made[name], made.get(base)))
        held.append(receiver.holds())

    assert held == [{"a": [LAST]}, {"a": [LAST], "b": [LAST]}, {"b": [LAST], "c": [LAST]}]


@pytest.mark.parametrize(
    ("protection", "on_sender", "marks", "on_receiver"),
    [
        ("resumable", {"a": [STEP], "b": [STEP]}, 0, {"a": [LAST], "b": [LAST]}),
        ("incremental", {}, 1, {"a": [LAST], "b": [LAST]}),
        ("none", {}, 0, {}),
    ],
)
async def test_each_protection_keeps_what_it_says(
    protection, on_sender, marks, on_receiver, pretended_sites
):
    sender, receiver = pretended_sites
    for site in pretended_sites:
        site.reopen(protect_initial=protection, protect_incremental=protection)
    made = await make(sender, "a", "b")
    await replicate(sender, receiver, request_of(made["a"]))
    await replicate(sender, receiver, request_of(made["b"], made["a"]))

    assert sender.holds() == on_sender
    assert len(bookmarks(sender)) == marks
    assert receiver.holds() == on_receiver


async def test_a_protection_that_is_lowered_lets_go(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a")
    async with sender.storage.send(request_of(made["a"])):
        pass
    assert sender.holds() == {"a": [STEP]}

    sender.reopen(protect_initial="none")
    async with sender.storage.send(request_of(made["a"])) as response:
        await drain(response.stream)

    assert sender.holds() == {}


async def test_holds_of_others_stay(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b", "c")
    with sender.pools() as pools:
        snapshots = pools.datasets[f"{sender.root}/docs"]["snapshots"]
        snapshots["a"]["holds"] = [STEP, "keep", step_tag("other")]
        snapshots["b"]["holds"] = [STEP]
    sender.reopen()

    await replicate(sender, receiver, request_of(made["c"]))
    await move_cursor(sender, made["c"])

    assert sender.holds() == {"a": ["keep", step_tag("other")]}


async def test_a_hold_that_stays_is_told_and_fails_nothing(pretended_sites, caplog):
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    await replicate(sender, receiver, request_of(made["a"]))
    sender.refuse("release", "cannot release hold: permission denied")

    with caplog.at_level(logging.WARNING):
        cursor = await move_cursor(sender, made["a"])

    assert cursor.guid == made["a"].guid
    assert "stays" in caplog.text


async def test_what_fails_on_receiving_says_where(pretended_sites):
    """Which pool is full, for one, ``zfs receive`` does not say."""
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    receiver.refuse("receive", "cannot receive new filesystem stream: out of space")

    with pytest.raises(OutOfSpaceError) as caught:
        await replicate(sender, receiver, request_of(made["a"]))

    assert f"{receiver.root}/docs:" in caught.value.message


async def test_where_holds_are_forbidden_the_hint_names_the_option(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a")
    sender.refuse("hold", f"cannot hold snapshot '{sender.root}/docs@a': permission denied")

    with pytest.raises(StorageError) as caught:
        async with sender.storage.send(request_of(made["a"])):
            pass

    assert "protect_initial" in caught.value.hint


# --- cursors ---


async def test_a_cursor_that_a_crash_left_goes_with_the_next_move(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a", "b", "c")
    for name in "ab":
        mark = cursor_name(JOB, made[name].guid, raw=False)
        await sender.storage._tool.bookmark(
            f"{sender.root}/docs@{name}", f"{sender.root}/docs#{mark}"
        )
    foreign = cursor_name("other", made["a"].guid, raw=False)
    forged = cursor_name(JOB, "77", raw=False)
    for mark in (foreign, forged, "mine"):
        await sender.storage._tool.bookmark(f"{sender.root}/docs@a", f"{sender.root}/docs#{mark}")
    sender.reopen()

    assert (await sender.listed()).cursor.guid == made["b"].guid
    await move_cursor(sender, made["c"])

    current = cursor_name(JOB, made["c"].guid, raw=False)
    assert bookmarks(sender) == {current, foreign, forged, "mine"}


async def test_a_base_that_is_a_leftover_cursor_outlives_the_send(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a", "b", "c")
    await move_cursor(sender, made["a"])
    base = next(
        each for each in (await sender.listed()).versions if each.kind is VersionKind.BOOKMARK
    )

    async with sender.storage.send(request_of(made["c"], base)) as response:
        await move_cursor(sender, made["b"])
        during = bookmarks(sender)
        await drain(response.stream)

    assert base.name in during


# --- tokens ---


async def cut(sender, receiver, request, at_byte=20_000):
    with pytest.raises(StorageError):
        await replicate_cut(sender, receiver, request, at_byte)
    return (await receiver.listed()).resume_token


async def replicate_cut(sender, receiver, request, at_byte):
    try:
        await replicate(sender, receiver, request, lambda stream: CutStream(stream, at_byte))
    except Exception as error:
        raise StorageError("it was cut") from error


async def test_a_token_of_another_dataset_is_not_used(pretended_sites, caplog):
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    token = await cut(sender, receiver, request_of(made["a"]))
    with sender.pools() as pools:
        pools.datasets[f"{sender.root}/renamed"] = pools.datasets.pop(f"{sender.root}/docs")
    sender.reopen()
    request = request_of(made["a"], filesystem="renamed", resume_token=token)

    with caplog.at_level(logging.WARNING):
        async with sender.storage.send(request) as response:
            resumed = response.resumed

    assert not resumed
    assert "renamed" in caplog.text


@pytest.mark.parametrize("value", ["nonsense", "1-0-0-00"])
async def test_a_token_without_meaning_is_refused(value, pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a")
    token = ResumeToken(value=value, to_guid=made["a"].guid)

    with pytest.raises(StaleTokenError):
        async with sender.storage.send(request_of(made["a"], resume_token=token)):
            pass


async def test_a_partial_of_a_token_nobody_can_read_is_listed_and_fits_nothing(
    pretended_sites, monkeypatch
):
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    await cut(sender, receiver, request_of(made["a"]))

    def refuse(_):
        raise StaleTokenError("no")

    monkeypatch.setattr("fsrep_zfs.storage.decode_token", refuse)
    token = (await receiver.listed()).resume_token

    assert token.to_guid == "unknown"


async def test_what_a_snapshot_was_cut_of_can_be_begun_anew(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    await cut(sender, receiver, request_of(made["a"]))

    await replicate(sender, receiver, request_of(made["b"]), clear_resume_token=True)

    assert set(receiver.dataset("docs")["snapshots"]) == {"b"}


# --- what is in the way ---


async def test_what_fsrep_did_not_make_is_never_overwritten(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    receiver.write("docs")
    receiver.calls()

    with pytest.raises(ConflictError, match="was not made by fsrep"):
        await replicate(sender, receiver, request_of(made["a"]))

    assert "receive" not in commands(receiver)
    assert receiver.dataset("docs")["content"]


async def test_parents_are_made_and_give_way_to_what_belongs_there(pretended_sites):
    sender, receiver = pretended_sites
    sender.write("x")
    sender.write("x/y")
    child = await make(sender, "a", filesystem="x/y/z")
    await replicate(sender, receiver, request_of(child["a"], filesystem="x/y/z"))
    listed = {name: await receiver.listed(name) for name in ("x", "x/y", "x/y/z")}
    made = receiver.dataset("x")["properties"]
    parent = await make(sender, "a", filesystem="x")
    await replicate(sender, receiver, request_of(parent["a"], filesystem="x"))

    assert [each.placeholder for each in listed.values()] == [True, True, False]
    assert (made["canmount"], made["mountpoint"]) == ("off", "none")
    assert not (await receiver.listed("x")).placeholder
    assert (await receiver.listed("x/y")).placeholder


async def test_a_placeholder_that_somebody_mounts_is_not_overwritten(pretended_sites):
    """There may be files in it, of which no snapshot tells."""
    sender, receiver = pretended_sites
    sender.write("x")
    child = await make(sender, "a", filesystem="x/y")
    await replicate(sender, receiver, request_of(child["a"], filesystem="x/y"))
    with receiver.pools() as pools:
        pools.datasets[f"{receiver.root}/x"]["properties"]["canmount"] = "on"
    receiver.reopen()
    parent = await make(sender, "a", filesystem="x")

    with pytest.raises(ConflictError, match="was not made by fsrep"):
        await replicate(sender, receiver, request_of(parent["a"], filesystem="x"))


async def test_what_is_not_encrypted_is_not_sent_raw(pretended_sites):
    """The stream of a plain dataset may hold embedded blocks then, which encryption forbids."""
    sender, _ = pretended_sites
    sender.reopen(raw=True)
    made = await make(sender, "a")
    sender.calls()

    async with sender.storage.send(request_of(made["a"])) as response:
        await drain(response.stream)

    (sent,) = [call for call in sender.calls() if call[0] == "send"]
    assert "-w" not in sent
    assert "-c" in sent


async def test_a_child_of_a_placeholder_is_not_taken_for_one(pretended_sites):
    sender, receiver = pretended_sites
    sender.write("x")
    child = await make(sender, "a", filesystem="x/y")
    await replicate(sender, receiver, request_of(child["a"], filesystem="x/y"))
    receiver.write("x/mine")
    receiver.reopen()
    mine = await make(sender, "a", filesystem="x/mine")

    with pytest.raises(ConflictError, match="was not made by fsrep"):
        await replicate(sender, receiver, request_of(mine["a"], filesystem="x/mine"))


async def test_only_what_is_given_up_is_rolled_back(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    await replicate(sender, receiver, request_of(made["a"]))
    receiver.write("docs")
    await receiver.snapshot("mine", "docs")
    receiver.write("docs")
    await receiver.snapshot("mine2", "docs")
    here = {each.name: each for each in (await receiver.listed()).versions}
    step = request_of(made["b"], made["a"])

    with pytest.raises(ConflictError, match="mine2"):
        await replicate(sender, receiver, step, rollback=(here["mine"],))
    with pytest.raises(InvalidRequestError, match="@a"):
        await replicate(sender, receiver, step, rollback=(here["a"], here["mine"], here["mine2"]))
    assert set(receiver.dataset("docs")["snapshots"]) == {"a", "mine", "mine2"}
    await replicate(sender, receiver, step, rollback=(here["mine"], here["mine2"]))

    assert set(receiver.dataset("docs")["snapshots"]) == {"a", "b"}


async def test_what_came_after_the_listing_is_seen_before_a_rollback(pretended_sites):
    """Otherwise what was given up would be gone, and the rollback refused all the same."""
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    await replicate(sender, receiver, request_of(made["a"]))
    await receiver.snapshot("mine", "docs")
    here = {each.name: each for each in (await receiver.listed()).versions}
    with receiver.pools() as pools:
        pools.snapshot(f"{receiver.root}/docs@newer")

    with pytest.raises(ConflictError, match="newer"):
        await replicate(
            sender, receiver, request_of(made["b"], made["a"]), rollback=(here["mine"],)
        )

    assert set(receiver.dataset("docs")["snapshots"]) == {"a", "mine", "newer"}


async def test_a_change_without_a_snapshot_is_a_conflict(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    await replicate(sender, receiver, request_of(made["a"]))
    receiver.write("docs")

    with pytest.raises(ConflictError, match="has been modified since most recent") as caught:
        await replicate(sender, receiver, request_of(made["b"], made["a"]))

    assert "zfs rollback" in caught.value.hint


# --- streams that are not what was promised ---


async def test_another_snapshot_than_promised_is_refused_untouched(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    receiver.calls()
    async with sender.storage.send(request_of(made["a"])) as response:
        wanted = ReceiveRequest(job=JOB, filesystem="docs", to_version=made["b"])
        with pytest.raises(VersionMissingError, match="instead"):
            await receiver.storage.receive(wanted, response.stream)

    assert "receive" not in commands(receiver)


async def test_another_name_than_promised_is_refused(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a")
    async with sender.storage.send(request_of(made["a"])) as response:
        renamed = attrs.evolve(made["a"], name="z")
        wanted = ReceiveRequest(job=JOB, filesystem="docs", to_version=renamed)
        with pytest.raises(VersionMissingError):
            await receiver.storage.receive(wanted, response.stream)


async def test_another_base_than_promised_is_refused(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b", "c")
    await replicate(sender, receiver, request_of(made["a"]))
    await replicate(sender, receiver, request_of(made["b"], made["a"]))
    async with sender.storage.send(request_of(made["c"], made["a"])) as response:
        wanted = ReceiveRequest(
            job=JOB, filesystem="docs", to_version=made["c"], from_version=made["b"]
        )
        with pytest.raises(BrokenEndpointError, match="starts from"):
            await receiver.storage.receive(wanted, response.stream)


async def test_a_clone_of_what_is_not_below_the_root_is_refused(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    wanted = ReceiveRequest(job=JOB, filesystem="docs", to_version=made["b"], origin=made["a"].guid)
    async with sender.storage.send(request_of(made["b"], made["a"])) as response:
        with pytest.raises(ConflictError, match="origin"):
            await receiver.storage.receive(wanted, response.stream)


async def test_a_clone_that_nobody_asked_for_is_refused(pretended_sites):
    sender, receiver = pretended_sites
    made = await make(sender, "a", "b")
    wanted = ReceiveRequest(job=JOB, filesystem="docs", to_version=made["b"])
    async with sender.storage.send(request_of(made["b"], made["a"])) as response:
        with pytest.raises(BrokenEndpointError, match="the request from nothing"):
            await receiver.storage.receive(wanted, response.stream)


async def make_clone(site):
    """Make a clone of the first of two snapshots, with one of its own; give those by name."""
    made = await make(site, "a", "b")
    with site.pools() as pools:
        pools.clone(f"{site.root}/docs@a", f"{site.root}/variant")
    site.reopen()
    return made | await make(site, "c", filesystem="variant")


async def replicate_all(sender, receiver):
    """Run a job over all there is; give its steps by filesystem."""
    report = await run_job(sender, receiver, initial=Initial.ALL)
    assert report.status == "completed", report
    return {each.filesystem: each.completed for each in report.replications}


async def test_a_clone_arrives_as_a_clone(pretended_sites):
    sender, receiver = pretended_sites
    made = await make_clone(sender)

    steps = await replicate_all(sender, receiver)

    assert receiver.dataset("variant")["origin"] == f"{receiver.root}/docs@a"
    assert [step.origin for step in steps["variant"]] == [made["a"].guid]
    content = [site.dataset("variant")["content"] for site in pretended_sites]
    assert content[0] == content[1]


async def test_a_clone_that_was_cut_goes_on_as_one(pretended_sites):
    sender, receiver = pretended_sites
    made = await make_clone(sender)
    await replicate(sender, receiver, request_of(made["a"]))
    request = request_of(made["c"], filesystem="variant", origin=made["a"].guid)
    with pytest.raises(InterruptedStreamError):
        await replicate(
            sender,
            receiver,
            request,
            lambda stream: CutStream(stream, 30_000),
            origin=request.origin,
        )
    receiver.reopen()
    token = (await receiver.listed("variant")).resume_token

    steps = await replicate_all(sender, receiver)

    assert token.from_guid == made["a"].guid
    assert [step.resumed for step in steps["variant"]] == [True]
    assert receiver.dataset("variant")["origin"] == f"{receiver.root}/docs@a"


async def test_a_clone_is_not_received_into_what_exists(pretended_sites):
    """As a copy whose last snapshot was destroyed: a clone is only ever made anew."""
    sender, receiver = pretended_sites
    made = await make_clone(sender)
    await replicate(sender, receiver, request_of(made["a"]))
    await replicate(sender, receiver, request_of(made["c"], filesystem="variant"))
    with receiver.pools() as pools:
        pools.datasets[f"{receiver.root}/variant"]["snapshots"].clear()
    receiver.reopen()
    receiver.calls()
    request = request_of(made["c"], filesystem="variant", origin=made["a"].guid)

    with pytest.raises(ConflictError, match="into what exists") as caught:
        await replicate(sender, receiver, request, origin=request.origin)

    assert caught.value.temporary
    assert "receive" not in commands(receiver)


async def test_clones_that_are_not_wanted_are_not_told_of(pretended_sites):
    sender, receiver = pretended_sites
    await make_clone(sender)
    sender.reopen(clones=False)

    steps = await replicate_all(sender, receiver)

    assert [step.origin for step in steps["variant"]] == [None]
    assert "origin" not in receiver.dataset("variant")


async def test_an_origin_that_is_not_below_the_root_is_not_told_of(pretended_sites):
    sender, _ = pretended_sites
    await make_clone(sender)
    with sender.pools() as pools:
        pools.datasets[f"{sender.root}/variant"]["origin"] = "elsewhere/docs@a"

    found = await sender.listed("variant")

    assert found.origin is None
    assert found.attributes["origin"] == "elsewhere/docs@a"


async def test_what_is_no_clone_is_not_sent_as_one(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a")
    wanted = attrs.evolve(request_of(made["a"]), origin="5")
    with pytest.raises(VersionMissingError, match="no clone of"):
        async with sender.storage.send(wanted):
            pass


# --- destroying ---


async def test_destroying_tells_the_fate_of_each_in_few_processes(pretended_sites):
    sender, _ = pretended_sites
    made = await make(sender, "a", "b", "c", "d")
    with sender.pools() as pools:
        pools.datasets[f"{sender.root}/docs"]["snapshots"]["b"]["holds"] = ["keep"]
        pools.datasets[f"{sender.root}/docs"]["snapshots"]["c"]["holds"] = [STEP]
    gone = attrs.evolve(made["a"], guid="5")

    async def destroy(*versions):
        sender.calls()
        results = await sender.storage.destroy_versions(
            DestroyVersionsRequest(job=JOB, filesystem="docs", versions=versions)
        )
        return [each.problem.kind if each.problem else None for each in results]

    some = await destroy(made["a"], made["b"], made["c"], gone)
    refused = commands(sender)
    assert some == [None, "busy", None, None]
    assert refused.count("destroy") == 3  # all, the one that is held, all but that one
    assert set(sender.dataset("docs")["snapshots"]) == {"b", "d"}
    assert await destroy(made["d"]) == [None]
    assert commands(sender) == ["list", "destroy"]


# --- all at one instant ---


async def test_all_snapshots_are_made_by_one_command(pretended_sites):
    sender, _ = pretended_sites
    names = ("a", "a/b", "c")
    for name in names:
        sender.write(name)
    sender.calls()

    await sender.snapshot("now", *names)

    calls = sender.calls()
    assert [call[0] for call in calls] == ["list", "snapshot", "list"]
    assert calls[1][1:] == [f"{sender.root}/{name}@now" for name in names]


@pytest.mark.parametrize("name", ["", "a@b", "a/b", "ä", "a%b", "a,b", " a", "a\n"])
async def test_a_name_that_no_snapshot_can_have_is_refused(name, pretended_sites):
    sender, _ = pretended_sites
    sender.write("docs")

    with pytest.raises(InvalidRequestError):
        await sender.snapshot(name, "docs")


@pytest.mark.parametrize("name", ["../x", "a//b", "", "a@b", "a#b", "-a", "a/-b", "%recv", "a\tb"])
async def test_a_name_that_no_filesystem_can_have_is_refused(name, pretended_sites):
    sender, _ = pretended_sites

    with pytest.raises(InvalidRequestError):
        await move_cursor(sender, None, filesystem=name)


async def test_a_root_that_is_not_there_is_told(pretended_sites):
    sender, _ = pretended_sites
    sender.root = "missing"
    sender.reopen()

    with pytest.raises(StorageError, match="does not exist") as caught:
        await sender.listed()

    assert not caught.value.local
    assert "imported" in caught.value.hint
