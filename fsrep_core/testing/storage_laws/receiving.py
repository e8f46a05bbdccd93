"""Laws of receives that do not succeed: nothing is ever visible that is not whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core.errors import FsrepError, InterruptedStreamError, OutOfSpaceError
from fsrep_core.streams import ByteStream
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.leaks import find_leaks, open_resources
from fsrep_core.testing.tampering import CutStream, HookedStream
from fsrep_core.values import Side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsrep_core.testing.storage_trial import StorageTrial
    from fsrep_core.values import Version

__all__ = ["LAWS"]

LAWS: LawBook[StorageTrial] = LawBook()

_MUCH_BYTES = 16 << 20


@LAWS.law()
async def a_stream_that_is_cut_never_becomes_a_version(trial: StorageTrial) -> None:
    """Wherever the bytes end early, the receive fails, lists nothing, and the next converges."""
    first, second = await trial.snapshots(2)
    await trial.replicate(first)
    size_bytes = await trial.stream_size(second, first)
    for at_byte in _places(size_bytes):
        what = f"a stream cut at byte {at_byte} of {size_bytes}"
        error = await trial.expect_error(
            f"receiving {what}",
            partial(
                trial.replicate,
                second,
                first,
                clear=await trial.token() is not None,
                tamper=partial(CutStream, at_byte=at_byte),
            ),
            FsrepError,
        )
        trial.require(error.temporary, f"{what}: the error says that trying again is no use")
        await trial.require_absent(second, f"after {what}")
        await trial.require_equal(first)
    await trial.converge(second, first)


@LAWS.law()
async def the_end_of_bytes_is_not_success(trial: StorageTrial) -> None:
    """All bytes came, but their maker does not vouch for them: nothing is committed."""
    version = await trial.snapshot()

    async def refuse() -> None:
        raise InterruptedStreamError("the maker does not vouch for its bytes, on purpose")

    await trial.expect_error(
        "receiving what is not vouched for",
        partial(trial.replicate, version, tamper=_hooked(None, refuse)),
        FsrepError,
    )

    await trial.require_absent(version, "though nobody vouched for it")
    await trial.converge(version)


@LAWS.law()
async def a_first_receive_that_fails_shows_no_version(trial: StorageTrial) -> None:
    """A filesystem whose first receive failed has no versions, if it is listed at all."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)

    await trial.expect_error(
        "receiving a stream that is cut",
        partial(trial.replicate, version, tamper=partial(CutStream, at_byte=size_bytes // 2)),
        FsrepError,
    )

    found = await trial.look(Side.RECEIVER)
    trial.require(found is None or not found.versions, f"the receiver lists {found}")
    await trial.converge(version)


@LAWS.law()
async def an_error_of_the_stream_is_the_error_of_the_receive(trial: StorageTrial) -> None:
    """What a stream raises comes out of receive as it is: the cause, and not its echo."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)
    cause = OutOfSpaceError("the other side is full, on purpose", temporary=False, local=False)

    async def fail() -> None:
        raise cause

    for at_byte in (0, size_bytes // 2, None):
        error = await trial.expect_error(
            f"receiving a stream that fails at byte {at_byte}",
            partial(
                trial.replicate,
                version,
                clear=await trial.token() is not None,
                tamper=_hooked(at_byte, fail),
            ),
            OutOfSpaceError,
        )
        trial.require(
            (error.message, error.temporary, error.local) == (cause.message, False, False),
            f"the error became {error!r}",
        )
        await trial.require_absent(version, f"after its stream failed at byte {at_byte}")
    await trial.converge(version)


@LAWS.law()
async def a_cancelled_receive_leaves_no_version(trial: StorageTrial) -> None:
    """Cancelled at the start, in the middle or at the end, a receive leaves nothing visible."""
    first, second = await trial.snapshots(2)
    await trial.replicate(first)
    size_bytes = await trial.stream_size(second, first)
    for at_byte in (*_places(size_bytes), None):
        what = f"cancelling a receive at byte {at_byte} of {size_bytes}"
        clear = await trial.token() is not None
        before = open_resources()
        async with trial.bounded(what):
            with trio.CancelScope() as scope:
                await trial.replicate(
                    second, first, clear=clear, tamper=_hooked(at_byte, partial(_cancel, scope))
                )
        leaks = await find_leaks(before)
        trial.require(not leaks, f"{what} left {', '.join(leaks)}")
        await trial.require_absent(second, f"after {what}")
        await trial.require_equal(first)
    await trial.converge(second, first)


@LAWS.law()
async def nothing_is_listed_before_it_is_vouched_for(trial: StorageTrial) -> None:
    """While a receive goes on, inventory answers, and does not list what is not committed."""
    version = await trial.snapshot()
    size_bytes = await trial.stream_size(version)

    for at_byte in (size_bytes // 2, None):
        await trial.replicate(
            version,
            tamper=_hooked(
                at_byte, partial(trial.require_absent, version, "while it is being received")
            ),
        )
        await trial.require_equal(version)
        await _forget(trial, version)


@LAWS.law()
async def a_receive_that_fails_early_does_not_drain(trial: StorageTrial) -> None:
    """A receive that is refused from the start raises at once, whatever is still to come."""
    first, second = await trial.snapshots(2)
    stream = _Long()

    await trial.expect_error(
        "receiving a long stream without its base",
        partial(trial.replicate, second, first, tamper=lambda _stream: stream),
        FsrepError,
    )

    trial.require(
        stream.passed_bytes <= _MUCH_BYTES,
        f"{stream.passed_bytes} bytes were read before it was refused",
    )


@LAWS.law()
async def two_receives_of_one_version_make_one(trial: StorageTrial) -> None:
    """Received twice at once, a version is there once and whole; one of the two may be refused."""
    version = await trial.snapshot()
    outcomes: list[str] = []

    async def receive() -> None:
        try:
            await trial.replicate(version)
        except FsrepError as error:
            trial.require(error.local, f"the error concerns more than the filesystem: {error!r}")
            outcomes.append(error.kind)
        else:
            outcomes.append("done")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(receive)

    trial.require("done" in outcomes, f"neither succeeded: {outcomes}")
    found = await trial.look(Side.RECEIVER)
    guids = [each.guid for each in found.versions] if found else []
    trial.require(guids.count(version.guid) == 1, f"the receiver lists {guids}")
    await trial.require_equal(version)


def _places(size_bytes: int) -> list[int]:
    """Where streams are cut: around both ends, and between."""
    places = {0, 1, size_bytes // 4, size_bytes // 2, size_bytes * 3 // 4, size_bytes - 1}
    return sorted(places)


def _hooked(
    at_byte: int | None, function: Callable[[], Awaitable[None]]
) -> Callable[[ByteStream], ByteStream]:
    return lambda stream: HookedStream(stream, at_byte, function)


async def _cancel(scope: trio.CancelScope) -> None:
    scope.cancel()
    await trio.sleep_forever()


async def _forget(trial: StorageTrial, version: Version) -> None:
    listed = await trial.listed(Side.RECEIVER, version)
    if listed is not None:
        await trial.destroy(Side.RECEIVER, listed)


@attrs.define(eq=False)
class _Long(ByteStream):
    """Much more than anyone may read of a step that cannot succeed."""

    passed_bytes: int = 0

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.passed_bytes > 2 * _MUCH_BYTES:
            raise InterruptedStreamError("a long stream was read to its end")
        piece = bytes(min(max_bytes, 1 << 20))
        self.passed_bytes += len(piece)
        return piece

    async def finish(self) -> None:
        raise InterruptedStreamError("a long stream never ends well")
