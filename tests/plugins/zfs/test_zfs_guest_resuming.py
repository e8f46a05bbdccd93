"""Streams that break off: what is kept, what is sent again, and whom a token may serve."""

from __future__ import annotations

import re
import struct
import zlib

import attrs
import pytest
import trio

from fsrep_core import ConflictError, InterruptedStreamError, SendRequest, StaleTokenError
from fsrep_core.planning import StaleToken
from fsrep_core.testing import CutStream, HookedStream, drain, no_leaks
from real_zfs import JOB, replicate, run, run_job, zfs

pytestmark = pytest.mark.zfs

CHANGE_BYTES = 4 << 20
CUT_BYTES = 1 << 20
REPEATED_BYTES = 512 << 10
"""What a resumed send may repeat: what the receiver had not written, and headers."""
REFUSED = "refused"


async def two_versions(site, name="docs"):
    """Make a filesystem with a small version and a large one after it."""
    site.filesystem(name)
    site.write("small", name, 200_000)
    first = await site.snapshot("1", name)
    site.write("large", name, CHANGE_BYTES)
    return first, await site.snapshot("2", name)


async def cut_step(a, b, to_version, from_version=None, *, name="docs"):
    """Let a step break off; give the receiver's token."""
    with pytest.raises(InterruptedStreamError):
        await replicate(
            a, b, to_version, from_version, name, change=lambda stream: CutStream(stream, CUT_BYTES)
        )
    return await token_of(b, name)


async def token_of(site, name="docs"):
    site.reopen()
    found = await site.listed(name)
    return found.resume_token if found else None


async def size_of(site, to_version, from_version=None, token=None):
    """Read a whole stream; give its size."""
    request = SendRequest(
        job=JOB,
        filesystem="docs",
        to_version=to_version,
        from_version=from_version,
        resume_token=token,
    )
    async with site.storage.send(request) as response:
        return await drain(response.stream)


@pytest.mark.parametrize("protection", ["resumable", "incremental", "none"])
@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
async def test_cut_at_every_mebibyte_it_resumes_to_the_end(zfs_sites, protection, incremental):
    """Hardly a byte is sent twice."""
    a, b = zfs_sites
    a.reopen(protect_initial=protection, protect_incremental=protection)
    first, second = await two_versions(a)
    base = first if incremental else None
    if incremental:
        await replicate(a, b, first)
    size_bytes = await size_of(a, second, base)
    streams = []

    async def cut():
        raise InterruptedStreamError("cut on purpose")

    def watch(stream):
        streams.append(HookedStream(stream, CUT_BYTES, cut))
        return streams[-1]

    received = None
    while received is None:
        assert len(streams) < 2 * CHANGE_BYTES // CUT_BYTES
        token = await token_of(b)
        assert (token is not None) is bool(streams)
        assert set(await b.versions()) == ({"1"} if incremental else set())
        try:
            received = await replicate(a, b, second, base, resume_token=token, change=watch)
        except InterruptedStreamError:
            continue

    assert len(streams) >= size_bytes // CUT_BYTES
    assert sum(each.passed_bytes for each in streams) < size_bytes + REPEATED_BYTES * len(streams)
    assert received.guid == second.guid
    assert a.content("docs", "2") == b.content("docs", "2")
    assert await token_of(b) is None


async def test_a_volume_is_resumed(zfs_sites):
    a, b = zfs_sites
    a.volume("docs")
    a.device("docs").write_bytes(bytes(range(256)) * (CHANGE_BYTES >> 8))
    a.reopen(compressed=False)
    version = await a.snapshot("1")
    token = await cut_step(a, b, version)

    await replicate(a, b, version, resume_token=token)

    assert a.content("docs", "1") == b.content("docs", "1")


async def test_a_partial_is_only_thrown_away_by_who_may(zfs_sites):
    """Without the word of the plan, a second full receive does not touch it."""
    a, b = zfs_sites
    first, second = await two_versions(a)
    token = await cut_step(a, b, second)

    with pytest.raises((ConflictError, StaleTokenError)):
        await replicate(a, b, first)
    kept = await token_of(b)
    received = await replicate(a, b, first, clear_resume_token=True)

    assert kept == token
    assert received.guid == first.guid
    assert await token_of(b) is None


@pytest.mark.parametrize("policy", list(StaleToken))
@pytest.mark.parametrize("gone", ["target", "target made anew", "base"])
async def test_a_token_whose_snapshot_is_gone(zfs_sites, policy, gone):
    """It does not stop unattended runs for ever, unless the operator says so."""
    a, b = zfs_sites
    a.reopen(protect_initial="none", protect_incremental="none")
    first, second = await two_versions(a)
    await replicate(a, b, first)
    await a.cursor(move_to=first)
    token = await cut_step(a, b, second, first)
    assert token.to_guid == second.guid
    lost = "1" if gone == "base" else "2"
    zfs("destroy", a.dataset(f"docs@{lost}"))
    if gone == "target made anew":
        zfs("snapshot", a.dataset("docs@2"))
    a.write("more")
    await a.snapshot("3")
    a.reopen()

    report = await run_job(a, b, stale_token=policy)

    (replication,) = report.replications
    if policy is StaleToken.FAIL and gone != "base":
        assert replication.problem.kind == "conflict"
        assert await token_of(b) == token
    else:
        assert replication.problem is None
        assert await token_of(b) is None
        versions = await b.versions()
        assert versions.items() >= (await a.versions()).items()


async def test_what_is_committed_is_what_the_token_means(zfs_sites):
    """A newer version came since: the run completes the token first, then goes on."""
    a, b = zfs_sites
    _, second = await two_versions(a)
    token = await cut_step(a, b, second)
    a.write("more")
    third = await a.snapshot("3")

    with pytest.raises(StaleTokenError):
        await size_of(a, third, token=token)
    report = await run_job(a, b)

    steps = report.replications[0].completed
    assert [step.to_version.guid for step in steps] == [second.guid, third.guid]
    assert [step.resumed for step in steps] == [True, False]


def forge(token, change):
    """Change what a token says, and let its checksum be right."""
    _, _, size, packed = token.value.split("-")
    said = zlib.decompress(bytes.fromhex(packed))
    forged = zlib.compress(change(said))
    words = struct.unpack(f"<{len(forged) // 4}I", forged[: len(forged) // 4 * 4])
    value = f"1-{sum(words) % (1 << 64):x}-{size}-{forged.hex()}"
    return attrs.evolve(token, value=value)


async def test_a_forged_token_reads_nothing(zfs_sites):
    """Whatever it says, and whatever the peer says of it: only what was asked for is sent."""
    a, b = zfs_sites
    _, second = await two_versions(a)
    _, secret = await two_versions(a, "priv")
    a.reopen()
    token = await cut_step(a, b, second)
    other = await cut_step(a, b, secret, name="priv")
    half = len(token.value) // 2
    wrong = {
        "another filesystem's": other,
        "another filesystem's, said to be ours": attrs.evolve(other, to_guid=second.guid),
        "a changed path": forge(token, lambda said: said.replace(b"/docs@2", b"/priv@2")),
        "a changed snapshot": forge(token, lambda said: said.replace(b"/docs@2", b"/docs@1")),
        "a changed digit": attrs.evolve(
            token,
            value=token.value[:half]
            + format(int(token.value[half], 16) ^ 1, "x")
            + token.value[half + 1 :],
        ),
        "an option": attrs.evolve(token, value="-R"),
        "nothing": attrs.evolve(token, value=""),
        "a wrong version": attrs.evolve(token, value=re.sub("^1-", "9-", token.value)),
        "a long one": attrs.evolve(token, value=token.value + "0" * 200_000),
    }

    whole_bytes = await size_of(a, second)
    sent = {what: await size_or_refusal(a, second, each) for what, each in wrong.items()}

    assert {what for what, bytes_sent in sent.items() if bytes_sent != REFUSED} == {
        "a changed path",  # as it is after a rename: the whole of what was asked for
        "a changed snapshot",
    }
    assert set(sent.values()) == {REFUSED, whole_bytes}
    unchanged = forge(token, lambda said: said)
    assert 0 < await size_of(a, second, token=unchanged) < CHANGE_BYTES


async def size_or_refusal(site, version, token):
    try:
        return await size_of(site, version, token=token)
    except StaleTokenError:
        return REFUSED


STAGES = ["at once", "after a byte", "in the middle", "at the end", "vouched for"]


@pytest.mark.parametrize("cancelled", [False, True], ids=["left", "cancelled"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_send_may_be_closed_at_every_stage(zfs_sites, stage, cancelled):
    """No process is left, and the next send gives everything."""
    a, _ = zfs_sites
    _, second = await two_versions(a)
    size_bytes = await size_of(a, second)
    request = SendRequest(job=JOB, filesystem="docs", to_version=second)

    async with no_leaks():
        with trio.CancelScope() as scope, trio.fail_after(60):
            async with a.storage.send(request) as response:
                await advance(response.stream, stage, size_bytes)
                if cancelled:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert f"zfs send {a.root}" not in run("ps", "-eo", "args")
    assert await size_of(a, second) == size_bytes


async def advance(stream, stage, size_bytes):
    if stage == "after a byte":
        await stream.receive_some(1)
    elif stage == "in the middle":
        passed = 0
        while passed < size_bytes // 2:
            passed += len(await stream.receive_some(1 << 16))
    elif stage == "at the end":
        while await stream.receive_some(1 << 20):
            pass
    elif stage == "vouched for":
        await drain(stream)


async def test_a_send_may_be_cancelled_while_it_opens(zfs_sites):
    a, _ = zfs_sites
    _, second = await two_versions(a)
    request = SendRequest(job=JOB, filesystem="docs", to_version=second)

    async with no_leaks():
        for milliseconds in (0, 1, 20, 80, 200, 400):
            with trio.move_on_after(milliseconds / 1000):
                async with a.storage.send(request):
                    await trio.sleep_forever()

    assert await size_of(a, second) > CHANGE_BYTES


async def test_a_receive_that_is_cancelled_leaves_what_can_be_resumed(zfs_sites):
    a, b = zfs_sites
    _, second = await two_versions(a)

    async with no_leaks():
        with trio.CancelScope() as scope:

            async def cancel():
                scope.cancel()
                await trio.lowlevel.checkpoint()

            await replicate(
                a, b, second, change=lambda stream: HookedStream(stream, 3 << 20, cancel)
            )
    token = await token_of(b)
    rest_bytes = await size_of(a, second, token=token)

    assert scope.cancelled_caught
    assert await b.versions() == {}
    assert rest_bytes < CHANGE_BYTES - (2 << 20)
    assert (await replicate(a, b, second, resume_token=token)).guid == second.guid
