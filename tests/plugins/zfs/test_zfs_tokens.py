"""Tokens are read as ``zstream token`` reads them; forged and damaged ones are refused."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core import StaleTokenError
from fsrep_zfs.nvlists import NvlistError, unpack_nvlist
from fsrep_zfs.tokens import decode_token

RECORDED = (
    "1-9f56ce4eb-b0-789c636064000310a500c4ec50360710e72765a52697303030419460caa7a515a796806464"
    "e0f26c48f2499525a9c540da43460eabfe92fcf4d2cc1406864b877b1feb8907c721cb7382e5f312735319180a"
    "12f5131d8a8dc06600002a511409"
)
"""As OpenZFS 2.3.2 gives it; ``zstream token`` says what it means."""

UINT64, STRING, BOOLEAN = 8, 9, 1


def pair(name, kind, value, order="<"):
    """One pair in the memory's own packing."""
    raw_name = name.encode() + b"\0"
    head_bytes = 16 + len(raw_name) + (-(16 + len(raw_name)) % 8)
    if kind == UINT64:
        data = struct.pack(f"{order}Q", value)
    elif kind == STRING:
        data = value.encode() + b"\0"
        data += bytes(-len(data) % 8)
    else:
        data = b""
    head = struct.pack(
        f"{order}ihhii", head_bytes + len(data), len(raw_name), 0, int(kind != BOOLEAN), kind
    )
    return (head + raw_name).ljust(head_bytes, b"\0") + data


def packed(pairs, order="<"):
    header = bytes([0, order == "<", 0, 0]) + struct.pack(f"{order}iI", 0, 1)
    body = b"".join(pair(*each, order=order) for each in pairs)
    return header + body + struct.pack("i", 0)


def token_of(pairs, order="<", size_bytes=None, rest=b""):
    plain = packed(pairs, order)
    compressed = zlib.compress(plain)
    compressed += bytes(-len(compressed) % 4) * bool(rest) + rest
    words = compressed[: len(compressed) // 4 * 4]
    checksum = sum(struct.unpack(f"<{len(words) // 4}I", words))
    return f"1-{checksum:x}-{size_bytes or len(plain):x}-{compressed.hex()}"


GOOD = [
    ("object", UINT64, 2),
    ("offset", UINT64, 5),
    ("bytes", UINT64, 1973320),
    ("toguid", UINT64, 2**63 + 5),
    ("toname", STRING, "pool/a b@s 1"),
    ("fromguid", UINT64, 17),
    ("compressok", BOOLEAN, None),
]


def test_a_recorded_token_is_read():
    token = decode_token(RECORDED)

    assert token.to_guid == "6796801752785863634"
    assert token.to_name == "pa/a@s2"
    assert token.from_guid is None
    assert token.received_bytes == 1973320
    assert not token.raw
    assert not token.unknown


@pytest.mark.parametrize("order", "<>")
def test_tokens_of_hosts_of_both_kinds_are_read(order):
    token = decode_token(token_of([*GOOD, ("rawok", BOOLEAN, None)], order))

    assert token.to_guid == str(2**63 + 5)
    assert token.to_name == "pool/a b@s 1"
    assert token.from_guid == "17"
    assert token.raw


def test_what_a_token_asks_for_besides_is_told():
    pairs = [*GOOD, ("savedok", BOOLEAN, None), ("redact_snaps", STRING, "x")]

    assert decode_token(token_of(pairs)).unknown == {"savedok", "redact_snaps"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        RECORDED[:-2],
        RECORDED.replace("1-9f56ce4eb", "1-9f56ce4ec"),
        RECORDED.replace("1-", "2-", 1),
        RECORDED.upper(),
        token_of([each for each in GOOD if each[0] != "toguid"]),
        token_of([each for each in GOOD if each[0] != "toname"]),
        token_of([("toguid", STRING, "x"), ("toname", STRING, "p@s")]),
        token_of([("toguid", UINT64, 1), ("toname", UINT64, 1)]),
        token_of(GOOD, size_bytes=1 << 40),
        token_of(GOOD, size_bytes=8),
    ],
)
def test_what_is_no_token_is_refused(value):
    with pytest.raises(StaleTokenError) as caught:
        decode_token(value)

    assert caught.value.local
    assert not value or value not in str(caught.value)


@given(st.data())
def test_a_damaged_token_is_refused_or_harmless(data):
    index = data.draw(st.integers(0, len(RECORDED) - 1))
    digit = data.draw(st.sampled_from("0123456789abcdef-"))
    damaged = RECORDED[:index] + digit + RECORDED[index + 1 :]
    try:
        token = decode_token(damaged)
    except StaleTokenError:
        return
    assert token.to_name.count("@") <= 1 or damaged == RECORDED


@given(st.binary(max_size=400))
def test_any_bytes_are_a_list_or_refused(data):
    for start in (b"", b"\1\1\0\0", b"\0\1\0\0", b"\0\0\0\0"):
        with contextlib.suppress(NvlistError):
            unpack_nvlist(start + data)


def xdr_string(text):
    raw = text.encode()
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def test_a_list_nested_without_end_is_refused():
    nested = b""
    for _ in range(100):
        nested += struct.pack(">iI", 0, 1)
        nested += struct.pack(">ii", 28, 1) + xdr_string("x") + struct.pack(">ii", 19, 1)
    with pytest.raises(NvlistError):
        unpack_nvlist(b"\1\1\0\0" + nested)


@pytest.mark.parametrize("more_bytes", [4, 200_000])
def test_what_follows_a_token_is_refused_though_its_checksum_is_right(more_bytes):
    """Zeros add nothing to a sum, and a long argument could not be given to ``zfs``."""
    assert decode_token(token_of(GOOD)).to_guid

    with pytest.raises(StaleTokenError):
        decode_token(token_of(GOOD, rest=bytes(more_bytes)))
