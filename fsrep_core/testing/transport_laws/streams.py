"""Laws of streams: every byte, in order, and whole only where the maker says so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.probe import Behaviour, ProbeStream
from fsrep_core.testing.transport_trial import TransportTrial, send_request

if TYPE_CHECKING:
    from fsrep_core.streams import ByteStream

__all__ = ["LAWS", "SIZES"]

LAWS: LawBook[TransportTrial] = LawBook()

SIZES = (
    *(0, 1, 2),
    *(each + delta for each in (1 << 12, 1 << 14, 1 << 16, 1 << 20) for delta in (-1, 0, 1)),
    3_000_001,
)
"""Around the sizes of pages, TLS records, pipes and frames."""

_FAILING = {"kind": "out-of-space", "temporary": True, "local": False}


@LAWS.law()
async def every_byte_of_a_sent_stream_arrives(trial: TransportTrial) -> None:
    """Streams of all sizes, around every boundary, are read byte for byte and vouched for."""
    for seed, size_bytes in enumerate(SIZES):
        async with (
            trial.bounded(f"reading {size_bytes} bytes"),
            trial.stream(size_bytes=size_bytes, seed=seed) as stream,
        ):
            found = await trial.read(stream)
            await stream.finish()
        trial.require_exact(found, seed, size_bytes)


@LAWS.law()
async def every_byte_of_a_received_stream_arrives(trial: TransportTrial) -> None:
    """Streams of all sizes, around every boundary, reach the storage byte for byte."""
    for seed, size_bytes in enumerate(SIZES):
        async with trial.bounded(f"receiving {size_bytes} bytes"):
            answer = await trial.receive(
                ProbeStream(Behaviour(size_bytes=size_bytes, seed=seed)), size_bytes=-1
            )
        trial.require_exact((int(answer.warnings[0]), answer.warnings[1]), seed, size_bytes)


@LAWS.law()
async def a_stream_can_be_read_in_any_pieces(trial: TransportTrial) -> None:
    """A reader gets no more than it asks for, whatever that is, and misses nothing."""
    size_bytes = 10_000
    for max_bytes in (1, 3, 4096, 1 << 30):
        async with (
            trial.bounded(f"reading {max_bytes} bytes at a time"),
            trial.stream(size_bytes=size_bytes, seed=9) as stream,
        ):
            found = await trial.read(stream, max_bytes=max_bytes)
            await stream.finish()
        trial.require_exact(found, 9, size_bytes)


@LAWS.law()
async def a_stream_vouches_as_often_as_asked(trial: TransportTrial) -> None:
    """After the last byte, finish returns, also when it is called again."""
    async with trial.bounded("reading"), trial.stream(size_bytes=1000) as stream:
        await trial.read(stream)
        await stream.finish()
        await stream.finish()


@LAWS.law()
async def a_sent_stream_that_is_cut_is_not_whole(trial: TransportTrial) -> None:
    """Where the far end does not vouch for its bytes, finish raises, and trying again may help."""
    for size_bytes in (0, 1, 1 << 16, 1_000_000):

        async def read(size_bytes: int = size_bytes) -> None:
            async with trial.stream(size_bytes=size_bytes, then="cut") as stream:
                await trial.read(stream)
                await stream.finish()

        error = await trial.expect_error(f"a stream cut after {size_bytes} bytes", read)
        trial.require(error.temporary, f"the error says that trying again is no use: {error!r}")


@LAWS.law()
async def an_error_of_a_sent_stream_arrives_typed(trial: TransportTrial) -> None:
    """What the far end's stream raises, among its bytes or after them, is what the reader gets."""
    for then in ("raise", "refuse"):
        for size_bytes in (1, 1 << 16, 1_000_000):
            behaviour = Behaviour(size_bytes=size_bytes, then=then, **_FAILING)  # type: ignore[arg-type]

            async def read(name: str = behaviour.name) -> None:
                async with trial.endpoint.send(send_request(name)) as response:
                    stream = response.stream
                    if stream is None:
                        raise trial.broken("send gave no stream")
                    await trial.read(stream)
                    await stream.finish()

            what = f"a stream that fails after {size_bytes} bytes ({then})"
            trial.require_error(what, await trial.expect_error(what, read), behaviour)


@LAWS.law()
async def a_received_stream_that_is_cut_is_not_committed(trial: TransportTrial) -> None:
    """Where the near end does not vouch for its bytes, the far end's storage commits nothing."""
    commits = (await trial.require_idle("before")).commits
    for size_bytes in (0, 1, 1 << 16, 1_000_000):
        await trial.expect_error(
            f"receiving a stream cut after {size_bytes} bytes",
            partial(
                trial.receive,
                ProbeStream(Behaviour(size_bytes=size_bytes, then="cut")),
                size_bytes=-1,
            ),
        )
        state = await trial.require_idle("after a cut stream")
        trial.require(
            state.commits == commits, f"a stream cut after {size_bytes} bytes was committed"
        )


@LAWS.law()
async def an_error_of_a_received_stream_reaches_both_ends(trial: TransportTrial) -> None:
    """What the near end's stream raises comes out of receive, and reaches the storage typed."""
    commits = (await trial.require_idle("before")).commits
    for then in ("raise", "refuse"):
        for size_bytes in (1, 1 << 16, 1_000_000):
            behaviour = Behaviour(size_bytes=size_bytes, then=then, **_FAILING)  # type: ignore[arg-type]
            what = f"receiving a stream that fails after {size_bytes} bytes ({then})"
            error = await trial.expect_error(
                what, partial(trial.receive, ProbeStream(behaviour), size_bytes=-1)
            )
            trial.require_error(what, error, behaviour)
            state = await trial.require_idle("after a stream that failed")
            trial.require(state.commits == commits, f"{what}: it was committed")
            trial.require(
                state.failures == behaviour.kind, f"{what}: the storage got {state.failures!r}"
            )


@LAWS.law()
async def streams_run_side_by_side(trial: TransportTrial) -> None:
    """Sends, receives and calls go on at once, and none gets another's bytes."""
    size_bytes = 500_000

    async def send(seed: int) -> None:
        async with trial.stream(size_bytes=size_bytes, seed=seed) as stream:
            found = await trial.read(stream)
            await stream.finish()
        trial.require_exact(found, seed, size_bytes)

    async def receive(seed: int) -> None:
        stream: ByteStream = ProbeStream(Behaviour(size_bytes=size_bytes, seed=seed))
        answer = await trial.receive(stream, size_bytes=-1)
        trial.require_exact((int(answer.warnings[0]), answer.warnings[1]), seed, size_bytes)

    async with (
        trial.bounded("eight streams at once"),
        trial.stream(size_bytes=10) as held,
        trio.open_nursery() as nursery,
    ):
        for seed in range(4):
            nursery.start_soon(send, seed)
            nursery.start_soon(receive, 10 + seed)
        estimate = await trial.endpoint.size_estimate(send_request("size_bytes=5"))
        trial.require(estimate.size_bytes == 5, f"a call in between got {estimate}")  # noqa: PLR2004  (as asked)
        await trial.read(held)
        await held.finish()
    await trial.require_idle("after all streams ended")
