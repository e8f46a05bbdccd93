"""Metering: every byte counted, told of now and then, and at the end."""

from __future__ import annotations

import itertools
import os

import pytest
import trio

from fsrep_core import InterruptedStreamError, pump
from fsrep_core.runtime.metering import MeteredStream


@pytest.fixture
def told():
    return []


async def test_buffers_are_counted(list_stream, told):
    stream = MeteredStream(list_stream([b"abc", b"de"]), told.append)
    while await stream.receive_some(2):
        pass
    assert stream.total_bytes == 5

    await stream.finish()
    assert told == [5]


async def test_descriptor_is_counted(make_ends, descriptor_stream, told):
    source, source_writer = make_ends("pipe")
    _reader, target = make_ends("pipe")
    os.write(source_writer.fileno(), b"abcde")
    source_writer.close()
    inner = descriptor_stream(source.fileno(), piece_limit_bytes=2)
    stream = MeteredStream(inner, told.append)
    await pump(stream, target.fileno())

    assert stream.total_bytes == 5
    assert told == [5]
    assert inner.told == [2, 2, 1]


@pytest.mark.parametrize("interval_seconds", [0.25, 1.0])
async def test_told_at_most_once_in_an_interval(interval_seconds, mock_clock, list_stream):
    calls = []
    stream = MeteredStream(
        list_stream([bytes(10)] * 1000),
        lambda total_bytes: calls.append((trio.current_time(), total_bytes)),
        interval_seconds=interval_seconds,
    )
    while await stream.receive_some(10):
        mock_clock.jump(0.01)
    *during, (_, last_bytes) = calls
    assert last_bytes <= 10_000
    await stream.finish()

    assert calls[-1][1] == 10_000
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(calls[:-1])]
    assert min(gaps) >= interval_seconds
    assert max(gaps) <= interval_seconds + 0.02
    assert [total for _, total in during] == sorted(total for _, total in during)


async def test_total_is_told_even_if_the_maker_failed(list_stream, told):
    stream = MeteredStream(
        list_stream([b"abc"], failure=InterruptedStreamError("cut")), told.append
    )
    await stream.receive_some(10)
    for _ in range(2):
        with pytest.raises(InterruptedStreamError):
            await stream.finish()

    assert told == [3]


async def test_empty_stream_is_told_of(list_stream, told):
    stream = MeteredStream(list_stream([]), told.append)
    assert await stream.receive_some(10) == b""
    await stream.finish()

    assert told == [0]


async def test_everything_else_is_passed_on(list_stream, descriptor_stream, told):
    listed = MeteredStream(list_stream([], piece_limit_bytes=7), told.append)
    assert listed.descriptor is None
    assert listed.piece_limit_bytes == 7
    assert MeteredStream(descriptor_stream(3), told.append).descriptor == 3
