"""Laws of resuming: what was received once is not sent again, and no token lies."""

from __future__ import annotations

from functools import partial

import attrs

from fsrep_core.errors import FsrepError, StaleTokenError
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.storage_trial import JOB, MAIN, StorageTrial
from fsrep_core.testing.tampering import CutStream, HookedStream
from fsrep_core.values import ResumeToken, SendRequest, Side, Version

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()


@LAWS.law(needs="resumable")
async def a_cut_receive_goes_on_where_it_was(trial: StorageTrial) -> None:
    """By its token a receive is continued; less is sent than the first time, and all is there."""
    first, second = await trial.snapshots(2)
    for version, base in ((first, None), (second, first)):
        size_bytes = await trial.stream_size(version, base)
        token = await _cut(trial, version, base, size_bytes * 3 // 4)
        seen: list[HookedStream] = []

        await trial.replicate(version, base, token=token, tamper=partial(_watch, seen))

        passed_bytes = seen[0].passed_bytes
        trial.require(
            passed_bytes < size_bytes * 3 // 4,
            f"{passed_bytes} bytes of {size_bytes} were sent after three quarters had arrived",
        )
        await trial.require_equal(version)
        trial.require(await trial.token() is None, "a token is left of what is complete")


@LAWS.law(needs="resumable")
async def a_receive_can_be_cut_again_and_again(trial: StorageTrial) -> None:
    """Each attempt brings a step further, until it is complete."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)
    token = None
    for attempt in range(3):
        token = await _cut(trial, version, None, size_bytes // 3, token=token)
        await trial.require_absent(version, f"after attempt {attempt + 1}")
    await trial.replicate(version, token=token)
    await trial.require_equal(version)


@LAWS.law(needs="resumable")
async def a_sender_says_that_it_resumes(trial: StorageTrial) -> None:
    """The response to a request with a good token says so; without a token it does not."""
    version = await trial.snapshot()
    token = await _cut(trial, version, None, await trial.stream_size(version) // 2)
    for given in (token, None):
        request = SendRequest(job=JOB, filesystem=MAIN, to_version=version, resume_token=given)
        async with trial.bounded("opening a stream"), trial.sender.send(request) as response:
            trial.require(
                response.resumed is (given is not None),
                f"resumed is {response.resumed} where the token is {given}",
            )


@LAWS.law(needs="resumable")
async def a_partial_can_be_thrown_away(trial: StorageTrial) -> None:
    """With clear_resume_token a receive begins anew, also with another version."""
    first, second = await trial.snapshots(2)
    await _cut(trial, first, None, await trial.stream_size(first) // 2)
    await trial.replicate(first, clear=True)
    await trial.require_equal(first)
    trial.require(await trial.token() is None, "the token is still listed")

    third = await trial.snapshot()
    await _cut(trial, second, first, await trial.stream_size(second, first) // 2)
    await trial.replicate(third, first, clear=True)
    await trial.require_equal(first, third)
    trial.require(await trial.token() is None, "the token is still listed")


@LAWS.law(needs="resumable")
async def a_token_outlives_looking(trial: StorageTrial) -> None:
    """Listing a partial does not change it."""
    version = await trial.snapshot()
    token = await _cut(trial, version, None, await trial.stream_size(version) // 2)

    trial.require(await trial.token() == token, "the token changed")


@LAWS.law(needs="resumable")
async def a_token_of_another_step_is_refused(trial: StorageTrial) -> None:
    """A sender never resumes what the request does not mean: it refuses, or starts over."""
    first, second, third = await trial.snapshots(3)
    await trial.replicate(first)
    token = await _cut(trial, second, first, await trial.stream_size(second, first) // 2)
    forged = {
        "of another version": (token, third, first),
        "that says another version": (attrs.evolve(token, to_guid=third.guid), third, first),
        "without meaning": (attrs.evolve(token, value="nonsense"), second, first),
        "of another base": (token, second, None),
    }
    for what, (bad, to_version, base) in forged.items():
        await _require_not_resumed(trial, f"a token {what}", bad, to_version, base)
    await trial.converge(second, first)


@LAWS.law(needs="resumable")
async def a_token_is_a_secret(trial: StorageTrial) -> None:
    """A token's value stands in no repr, and so reaches no log."""
    version = await trial.snapshot()
    token = await _cut(trial, version, None, await trial.stream_size(version) // 2)
    found = await trial.look(Side.RECEIVER)

    trial.require(token.value, "the token is empty")
    trial.require(token.value not in repr(found), "the token stands in the repr of its filesystem")


async def _cut(
    trial: StorageTrial,
    version: Version,
    base: Version | None,
    at_byte: int,
    *,
    token: ResumeToken | None = None,
) -> ResumeToken:
    """Receive a part of a step, and give the token that it leaves."""
    await trial.expect_error(
        "receiving a stream that is cut",
        partial(
            trial.replicate, version, base, token=token, tamper=partial(CutStream, at_byte=at_byte)
        ),
        FsrepError,
    )
    left = await trial.token()
    if left is None:
        raise trial.broken(f"no token is left of a receive that was cut after {at_byte} bytes")
    trial.require(
        left.to_guid == version.guid,
        f"the token means {left.to_guid}, but {version.guid} was being received",
    )
    return left


def _watch(seen: list[HookedStream], stream: object) -> HookedStream:
    async def nothing() -> None:
        pass

    seen.append(HookedStream(stream, None, nothing))  # type: ignore[arg-type]
    return seen[0]


async def _require_not_resumed(
    trial: StorageTrial, what: str, token: ResumeToken, version: Version, base: Version | None
) -> None:
    request = SendRequest(
        job=JOB, filesystem=MAIN, to_version=version, from_version=base, resume_token=token
    )
    try:
        async with trial.bounded("opening a stream"), trial.sender.send(request) as response:
            trial.require(not response.resumed, f"the sender resumes by {what}")
    except StaleTokenError as error:
        trial.require(error.local, f"{what}: the error concerns more than the filesystem")
