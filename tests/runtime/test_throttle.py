"""Throttling: the rate is kept to a piece, evenly, shared, and by both ways of moving."""

from __future__ import annotations

import os

import pytest
import trio

from fsrep_core import pump
from fsrep_core.runtime.pump import PIECE_BYTES
from fsrep_core.runtime.throttle import (
    LATENESS_SECONDS,
    PIECE_SECONDS,
    RateLimit,
    ThrottledStream,
)
from fsrep_core.runtime.wrapping import WrappingStream


class Watched(WrappingStream):
    """Notes when how many bytes moved."""

    def __init__(self, inner):
        super().__init__(inner)
        self.seen = []

    async def receive_some(self, max_bytes):
        piece = await self.inner.receive_some(max_bytes)
        self.seen.append((trio.current_time(), len(piece)))
        return piece

    async def moved(self, count_bytes):
        self.seen.append((trio.current_time(), count_bytes))
        await self.inner.moved(count_bytes)


async def drain(stream):
    while await stream.receive_some(PIECE_BYTES):
        pass
    await stream.finish()


@pytest.mark.parametrize(
    ("rate", "seconds"), [(1, 30), (7, 30), (1000, 30), (50 << 20, 30), (3 << 30, 1)]
)
async def test_rate_is_kept(rate, seconds, autojump_clock, list_stream):
    total_bytes = rate * seconds
    inner = list_stream([bytes(PIECE_BYTES)] * (total_bytes // PIECE_BYTES))
    inner.pieces.append(bytes(total_bytes % PIECE_BYTES))
    started = trio.current_time()
    await drain(ThrottledStream(inner, RateLimit(rate)))

    assert trio.current_time() - started == pytest.approx(seconds, abs=LATENESS_SECONDS + 1 / rate)
    assert inner.finished == 1


async def test_rate_is_kept_in_the_kernel(autojump_clock, make_ends, content, descriptor_stream):
    """Bytes that are spliced are slowed as those that are copied."""
    source, source_writer = make_ends("pipe")
    reader, target = make_ends("pipe")
    os.write(source_writer.fileno(), data := content(60_000))
    source_writer.close()
    inner = descriptor_stream(source.fileno())
    received = bytearray()

    async def read_all():
        while len(received) < len(data):
            await trio.lowlevel.wait_readable(reader.fileno())
            received.extend(os.read(reader.fileno(), 100_000))

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        await pump(ThrottledStream(inner, RateLimit(10_000)), target.fileno())

    assert trio.current_time() - started == pytest.approx(6, abs=LATENESS_SECONDS)
    assert received == data
    assert sum(inner.told) == 60_000
    assert max(inner.told) <= 10_000 * PIECE_SECONDS


@pytest.mark.parametrize("rate", [20, 1000, 1 << 20])
async def test_flow_is_even(rate, autojump_clock, list_stream):
    """In no quarter of a second does more pass than is due, but for what was late."""
    watched = Watched(list_stream([bytes(3 * rate)]))
    await drain(ThrottledStream(watched, RateLimit(rate)))

    window_seconds = 0.25
    allowed_bytes = rate * (window_seconds + LATENESS_SECONDS + PIECE_SECONDS) + 1
    for start, _ in watched.seen:
        in_window = sum(n for t, n in watched.seen if start <= t < start + window_seconds)
        assert in_window <= allowed_bytes


async def test_rest_is_not_saved_up(autojump_clock, list_stream):
    """A stream that stood still gets no burst afterwards."""
    limit = RateLimit(1000)
    await drain(ThrottledStream(list_stream([bytes(1000)]), limit))
    await trio.sleep(3600)
    started = trio.current_time()
    await drain(ThrottledStream(list_stream([bytes(1000)]), limit))

    assert trio.current_time() - started == pytest.approx(1, abs=LATENESS_SECONDS)


async def test_streams_share_one_limit(autojump_clock, list_stream):
    limit = RateLimit(1000)
    watched = [Watched(list_stream([bytes(5000)])) for _ in range(4)]
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for each in watched:
            nursery.start_soon(drain, ThrottledStream(each, limit))

    assert trio.current_time() - started == pytest.approx(
        20, abs=LATENESS_SECONDS + 4 * PIECE_SECONDS
    )
    for each in watched:
        by_half_time = sum(n for t, n in each.seen if t - started < 10)
        assert by_half_time == pytest.approx(2500, rel=0.1)


async def test_late_wake_ups_are_made_up_for(autojump_clock, list_stream):
    """What comes a little late each time, as after any timer, keeps the rate still."""

    class Late(list_stream):
        async def receive_some(self, max_bytes):
            await trio.sleep(PIECE_SECONDS / 2)
            return await super().receive_some(max_bytes)

    started = trio.current_time()
    await drain(ThrottledStream(Late([bytes(5000)]), RateLimit(1000)))

    assert trio.current_time() - started == pytest.approx(5, abs=LATENESS_SECONDS)


async def test_cancelled_wait_loses_nothing(autojump_clock, list_stream, content):
    data = content(5000)
    stream = ThrottledStream(list_stream([data]), RateLimit(1000))
    received = bytearray()
    while len(received) < len(data):
        with trio.move_on_after(0.03):
            received += await stream.receive_some(PIECE_BYTES)

    assert received == data


@pytest.mark.parametrize(("inner_limit", "expected"), [(None, 50), (10, 10), (1000, 50)])
def test_smaller_piece_limit_holds(inner_limit, expected, list_stream):
    inner = list_stream([], piece_limit_bytes=inner_limit)

    assert ThrottledStream(inner, RateLimit(1000)).piece_limit_bytes == expected


@pytest.mark.parametrize(("rate", "expected"), [(1, 1), (10**12, PIECE_BYTES)])
def test_piece_is_at_least_a_byte_and_at_most_a_pipe(rate, expected):
    assert RateLimit(rate).piece_bytes == expected


@pytest.mark.parametrize("rate", [0, -1])
def test_rate_that_would_never_finish_is_refused(rate):
    with pytest.raises(ValueError, match="must be >= 1"):
        RateLimit(rate)
