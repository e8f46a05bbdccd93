"""Frames: any split of the bytes gives the same frames, and no length is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core.wire import WireError
from fsrep_core.wire.frames import (
    DATA_LIMIT_BYTES,
    HEADER_BYTES,
    PAYLOAD_LIMITS_BYTES,
    FrameDecoder,
    FrameKind,
    encode_frame,
    encode_header,
)


@st.composite
def frames(draw):
    kind = draw(st.sampled_from(FrameKind))
    least, most = PAYLOAD_LIMITS_BYTES[kind]
    return kind, draw(st.binary(min_size=least, max_size=min(most, 50)))


def decode_all(pieces):
    """Feed piece by piece; give the frames with their payloads, data from both ways."""
    decoder, found = FrameDecoder(), []
    for piece in pieces:
        decoder.feed(piece)
        while True:
            if decoder.data_remaining_bytes:
                taken = decoder.take_data(3)
                if not taken:
                    break
                found[-1][1].extend(taken)
                continue
            frame = decoder.next_frame()
            if frame is None:
                break
            found.append((frame.kind, bytearray(frame.payload)))
    return found, decoder


@given(st.lists(frames(), max_size=8), st.data())
def test_any_split_gives_the_same_frames(sent, data):
    whole = b"".join(encode_frame(kind, payload) for kind, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    found, decoder = decode_all(pieces)

    assert [(kind, bytes(payload)) for kind, payload in found] == sent
    assert decoder.buffered_bytes == 0


@given(st.lists(frames(), max_size=8))
def test_reading_only_what_is_wanted_leaves_every_payload_alone(sent):
    whole = memoryview(b"".join(encode_frame(kind, payload) for kind, payload in sent))
    decoder, position, found = FrameDecoder(), 0, []
    while position < len(whole):
        wanted = decoder.wanted_bytes
        decoder.feed(whole[position : position + wanted])
        position += wanted
        frame = decoder.next_frame()
        if frame is None:
            continue
        found.append(frame.kind)
        if frame.kind is FrameKind.DATA:
            assert decoder.buffered_bytes == 0
            decoder.skip_data(frame.size_bytes)
            position += frame.size_bytes

    assert found == [kind for kind, _ in sent]


@pytest.mark.parametrize("kind", FrameKind)
def test_a_payload_longer_or_shorter_than_its_kind_allows_is_refused_at_the_header(kind):
    least, most = PAYLOAD_LIMITS_BYTES[kind]
    for size in {most + 1, 2**32 - 1, least - 1} - {-1}:
        decoder = FrameDecoder()
        decoder.feed(bytes([kind, 0, 0, 0]) + size.to_bytes(4, "big"))
        with pytest.raises(WireError, match=f"{kind.name} frame of {size} bytes"):
            decoder.next_frame()
        with pytest.raises(ValueError, match=kind.name):
            encode_header(kind, size)


@pytest.mark.parametrize("number", [0, 12, 127, 255])
def test_an_unknown_kind_is_refused(number):
    decoder = FrameDecoder()
    decoder.feed(bytes([number]) + bytes(7))

    with pytest.raises(WireError, match=f"unknown kind {number}"):
        decoder.next_frame()


@pytest.mark.parametrize("position", [1, 2, 3])
def test_the_reserved_bytes_must_be_zero(position):
    header = bytearray(encode_header(FrameKind.DONE, 0))
    header[position] = 1
    decoder = FrameDecoder()
    decoder.feed(header)

    with pytest.raises(WireError, match="reserved"):
        decoder.next_frame()


def test_a_data_payload_must_be_taken_before_the_next_frame():
    decoder = FrameDecoder()
    decoder.feed(encode_frame(FrameKind.DATA, b"12345"))
    decoder.next_frame()

    with pytest.raises(RuntimeError, match="not taken"):
        decoder.next_frame()
    with pytest.raises(RuntimeError, match="more was skipped"):
        decoder.skip_data(1)  # it is buffered: only what comes after it can be skipped
    assert decoder.take_data(100) == b"12345"
    assert decoder.next_frame() is None


def test_no_more_can_be_skipped_than_is_left():
    decoder = FrameDecoder()
    decoder.feed(encode_header(FrameKind.DATA, DATA_LIMIT_BYTES))
    decoder.next_frame()
    decoder.skip_data(DATA_LIMIT_BYTES - 1)

    with pytest.raises(RuntimeError, match="more was skipped"):
        decoder.skip_data(2)
    assert decoder.data_remaining_bytes == 1


def test_wanted_bytes_count_down_to_the_header_and_then_to_the_payload():
    decoder = FrameDecoder()
    assert decoder.wanted_bytes == HEADER_BYTES
    frame = encode_frame(FrameKind.END, bytes(8))
    decoder.feed(frame[:5])
    assert decoder.wanted_bytes == HEADER_BYTES - 5
    decoder.feed(frame[5:8])
    assert decoder.next_frame() is None
    assert decoder.wanted_bytes == 8
    decoder.feed(frame[8:10])
    assert decoder.wanted_bytes == 6


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.data())
def test_a_run_moves_every_payload_and_stops_at_another_frame(sent, data):
    """Payloads go another way, any number of bytes at a time, over any number of runs."""
    frames = [encode_frame(FrameKind.DATA, each) for each in sent]
    rest = memoryview(b"".join([*frames, encode_frame(FrameKind.END, bytes(8))]))
    decoder, moved, announced_bytes = FrameDecoder(), bytearray(), 0

    def take(most_bytes):
        nonlocal rest
        size_bytes = data.draw(st.integers(1, most_bytes))
        taken, rest = rest[:size_bytes], rest[size_bytes:]
        return taken

    frame = None
    while frame is None or frame.kind is FrameKind.DATA:
        if not decoder.data_remaining_bytes:
            decoder.feed(take(decoder.wanted_bytes))
            frame = decoder.next_frame()
            announced_bytes += decoder.data_remaining_bytes
            continue
        run = decoder.begin_run()
        for _ in range(data.draw(st.integers(1, 6))):
            if run.over:
                break
            if run.remaining_bytes:
                piece = take(run.remaining_bytes)
                moved += piece
                run.took_payload(len(piece))
            else:
                piece = take(len(run.header_rest))
                run.header_rest[: len(piece)] = piece
                run.took_header(len(piece))
        decoder.end_run(run)
        announced_bytes += run.announced_bytes
        frame = None if decoder.data_remaining_bytes else decoder.next_frame()

    assert moved == b"".join(sent)
    assert announced_bytes == len(moved)
    assert frame.kind is FrameKind.END
    assert not rest


@pytest.mark.parametrize(
    "header",
    [
        b"\x63\x00\x00\x00\x00\x00\x00\x00",
        b"\x06\x00\x01\x00\x00\x00\x00\x01",
        encode_header(FrameKind.DATA, 1)[:4] + (DATA_LIMIT_BYTES + 1).to_bytes(4, "big"),
        encode_header(FrameKind.DATA, 1)[:4] + bytes(4),
    ],
    ids=["unknown kind", "reserved bytes", "too long", "empty"],
)
def test_a_header_that_is_wrong_ends_a_run_and_is_refused_behind_it(header):
    decoder = FrameDecoder()
    decoder.feed(encode_header(FrameKind.DATA, 1))
    decoder.next_frame()
    run = decoder.begin_run()
    run.took_payload(1)
    run.header_rest[:] = header
    run.took_header(len(header))

    assert run.over
    decoder.end_run(run)
    with pytest.raises(WireError):
        decoder.next_frame()


def test_a_run_that_is_told_of_more_than_is_there_objects():
    decoder = FrameDecoder()
    decoder.feed(encode_header(FrameKind.DATA, 5))
    decoder.next_frame()
    run = decoder.begin_run()

    with pytest.raises(RuntimeError, match="more was moved"):
        run.took_payload(6)


def test_a_run_begins_only_within_a_payload_that_nobody_holds():
    decoder = FrameDecoder()
    with pytest.raises(RuntimeError, match="begins within a payload"):
        decoder.begin_run()
    decoder.feed(encode_header(FrameKind.DATA, 5) + b"x")
    decoder.next_frame()
    with pytest.raises(RuntimeError, match="begins within a payload"):
        decoder.begin_run()
