"""The first bytes: agreement on a version, and strangers who are named."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsrep_core.wire import Hello, StorageAsk, WireError
from fsrep_core.wire.hello import (
    HELLO_LIMIT_BYTES,
    MAGIC,
    HelloDecoder,
    choose_protocol,
    encode_hello,
)

HELLO = Hello(
    software="fsrep 1.2.0",
    identity="laptop",
    capabilities=frozenset({"later"}),
    ask=StorageAsk(
        job="docs", side="receiver", storage="directory", options={"root": "/srv", "n": [1, None]}
    ),
)


def decode(data):
    decoder = HelloDecoder()
    decoder.feed(data)
    return decoder.next_hello()


def with_fields(**changes):
    fields = {"protocols": [1], "capabilities": [], "software": "x", "identity": "", **changes}
    payload = json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()
    return MAGIC + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("hello", [HELLO, Hello(software="other 3")])
def test_a_hello_comes_back_with_what_follows_it(hello):
    assert decode(encode_hello(hello) + b"rest") == (hello, b"rest")


def test_a_hello_may_come_byte_by_byte():
    decoder, data = HelloDecoder(), encode_hello(HELLO)
    for each in data[:-1]:
        decoder.feed(bytes([each]))
        assert decoder.next_hello() is None
    decoder.feed(data[-1:])

    assert decoder.next_hello() == (HELLO, b"")


def test_unknown_keys_of_a_newer_peer_are_ignored():
    hello, _ = decode(with_fields(protocols=[1, 2, 9], novelty={"a": 1}))

    assert hello.protocols == {1, 2, 9}


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "transport ssh"),
        (b"HTTP/1.1 400 Bad Request\r\n", "web server"),
        (b"\x16\x03\x01\x02\x00", "TLS"),
        (b"220 mail.example ESMTP\r\n", "mail"),
        (b"Last login: Mon\r\n", "startup files"),
        (b"\x1b[31mdanger", "startup files"),
        (b"\xffFSREP", "startup files"),
    ],
)
def test_a_stranger_is_quoted_with_what_to_do(said, hint):
    with pytest.raises(WireError) as caught:
        decode(said)

    assert hint in caught.value.hint
    assert "\x1b" not in caught.value.message
    assert not caught.value.temporary


def test_a_stranger_is_found_out_at_its_first_wrong_byte():
    decode(MAGIC[:3])
    with pytest.raises(WireError, match="does not speak"):
        decode(MAGIC[:3] + b"X")


def test_no_common_version_names_both_sides():
    theirs = Hello(protocols=frozenset({3, 4}), software="fsrep 9.0")

    with pytest.raises(WireError) as caught:
        choose_protocol(HELLO, theirs)

    assert "fsrep 1.2.0) speaks 1" in caught.value.message
    assert "fsrep 9.0) speaks 3, 4" in caught.value.message
    assert not caught.value.temporary


def test_the_newest_common_version_is_chosen():
    ours = Hello(protocols=frozenset({1, 2, 3}), software="a")
    theirs = Hello(protocols=frozenset({2, 3, 7}), software="b")

    assert choose_protocol(ours, theirs) == 3


@pytest.mark.parametrize("size", [0, 1, HELLO_LIMIT_BYTES + 1, 2**32 - 1])
def test_the_length_is_checked_before_anything_is_kept(size):
    with pytest.raises(WireError, match=f"hello of {size} bytes"):
        decode(MAGIC + size.to_bytes(4, "big"))


def test_a_hello_that_would_be_too_long_is_not_written():
    ask = StorageAsk(job="j", side="sender", storage="s", options={"x": "y" * HELLO_LIMIT_BYTES})

    with pytest.raises(ValueError, match="at most"):
        encode_hello(Hello(software="x", ask=ask))


@pytest.mark.parametrize(
    "changes",
    [
        {"protocols": "1"},
        {"protocols": [True]},
        {"protocols": [1.0]},
        {"protocols": ...},
        {"protocols": list(range(65))},
        {"software": None},
        {"software": "a\x1bb"},
        {"software": "x" * 257},
        {"identity": 5},
        {"capabilities": ["x" * 257]},
        {"ask": []},
        {"ask": {"job": "j", "side": "sender", "storage": "s"}},
        {"ask": {"job": 1, "side": "sender", "storage": "s", "options": {}}},
    ],
)
def test_wrong_fields_are_refused(changes):
    with pytest.raises(WireError, match="cannot be read"):
        decode(with_fields(**changes))


@pytest.mark.parametrize(
    "payload", [b"[]", b"{]", b"\xff\xff", b"[" * 60000, b"nul", b'"\xc3\xa9"']
)
def test_what_is_no_object_is_refused(payload):
    with pytest.raises(WireError, match="cannot be read"):
        decode(MAGIC + len(payload).to_bytes(4, "big") + payload)


def test_options_stay_out_of_reprs():
    assert "/srv" not in repr(HELLO)


@given(st.binary(max_size=60))
def test_nothing_but_a_wire_error_comes_of_any_bytes(data):
    for start in (b"", MAGIC, MAGIC + (len(data)).to_bytes(4, "big")):
        with suppress(WireError):
            decode(start + data)
