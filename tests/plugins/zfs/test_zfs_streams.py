"""A stream is looked at before it is believed, and its end comes only when it is vouched for."""

from __future__ import annotations

import random
import struct

import attrs
import pytest
import trio

from fsrep_core import BrokenEndpointError, ByteStream, InterruptedStreamError
from fsrep_zfs.headers import RECORD_BYTES
from fsrep_zfs.withholding import WITHHELD_BYTES, WithheldStream

MAGIC = 0x2F5BACBAC
BEGIN, END = 0, 5
SUBSTREAM, PACKAGE = 1, 2
FILESYSTEM, VOLUME = 2, 3
RAW = 1 << 24


def begin(kind=SUBSTREAM, *, order="<", features=0, dataset=FILESYSTEM, payload=b"", **names):
    record = struct.pack(
        f"{order}IIQQQIIQQ256s",
        BEGIN,
        len(payload),
        MAGIC,
        kind | features << 2,
        0,
        dataset,
        0,
        names.get("to_guid", 7),
        names.get("from_guid", 0),
        names.get("name", "pool/fs@snap").encode(),
    )
    assert len(record) == RECORD_BYTES
    return record + payload


def end(order="<"):
    return struct.pack(f"{order}II", END, 0).ljust(RECORD_BYTES, b"\0")


def xdr_string(text):
    raw = text.encode()
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def xdr_pair(name, kind, value=b""):
    body = xdr_string(name) + struct.pack(">ii", kind, 1) + value
    return struct.pack(">ii", len(body) + 8, 1) + body


def xdr_list(*pairs):
    return struct.pack(">iI", 0, 1) + b"".join(pairs) + bytes(8)


def contents(*filesystems, recursive=False):
    inner = xdr_list(*(xdr_pair(each, 19, xdr_list()) for each in filesystems))
    pairs = [xdr_pair("fss", 19, inner)]
    if not recursive:
        pairs.append(xdr_pair("not_recursive", 1))
    return b"\1\1\0\0" + xdr_list(*pairs)


@attrs.define(eq=False)
class Made(ByteStream):
    """Bytes in pieces of any size, with a word at their end."""

    data: bytes
    piece_bytes: int = 1 << 20
    error: Exception | None = None
    vouched: int = 0

    async def receive_some(self, max_bytes):
        await trio.lowlevel.checkpoint()
        size = min(max_bytes, self.piece_bytes)
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    async def finish(self):
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        self.vouched += 1


def withheld(data, **options):
    inner = Made(data, **options)
    return inner, WithheldStream(inner, "receiving fs@snap")


async def test_a_plain_stream_says_what_it_is():
    _, stream = withheld(begin(features=RAW, dataset=VOLUME, from_guid=3) + end())

    header = await stream.peek()

    assert (header.to_guid, header.to_name, header.from_guid) == ("7", "snap", "3")
    assert header.volume
    assert header.raw
    assert not header.package


async def test_a_stream_of_a_host_of_the_other_kind_is_read():
    _, stream = withheld(begin(order=">", to_guid=2**63) + end(">"))

    header = await stream.peek()

    assert header.to_guid == str(2**63)
    assert header.from_guid is None


@pytest.mark.parametrize("payload", [b"", contents("one")])
async def test_of_a_package_the_first_snapshot_counts(payload):
    data = begin(PACKAGE, payload=payload) + end() + begin(to_guid=9, name="p/x@first") + end()
    _, stream = withheld(data + end())

    header = await stream.peek()

    assert (header.to_guid, header.to_name, header.package) == ("9", "first", True)


@pytest.mark.parametrize(
    "payload",
    [contents("one", "two"), contents("one", recursive=True), contents(), b"\1\1\0\0nonsense"],
    ids=["two", "recursive", "none", "nonsense"],
)
async def test_a_package_of_anything_but_one_dataset_is_refused(payload):
    _, stream = withheld(begin(PACKAGE, payload=payload) + end() + begin() + end() + end())

    with pytest.raises(BrokenEndpointError):
        await stream.peek()


async def test_a_list_of_endless_size_is_not_waited_for():
    record = bytearray(begin(PACKAGE))
    record[4:8] = struct.pack("<I", 0xFFFFFFF0)
    _, stream = withheld(bytes(record) + bytes(1 << 20))

    with pytest.raises(BrokenEndpointError, match="announces"):
        await stream.peek()


async def test_what_is_no_stream_is_refused():
    _, stream = withheld(b"hello" * 1000)

    with pytest.raises(BrokenEndpointError, match="no stream of zfs send"):
        await stream.peek()


@pytest.mark.parametrize("size_bytes", [0, 1, RECORD_BYTES - 1])
async def test_the_maker_says_why_a_header_broke_off(size_bytes):
    cause = InterruptedStreamError("the sender was killed")
    _, stream = withheld(begin()[:size_bytes], error=cause)

    with pytest.raises(InterruptedStreamError) as caught:
        await stream.peek()

    assert caught.value is cause


async def test_a_header_that_breaks_off_with_good_words_is_interrupted_too():
    _, stream = withheld(begin()[:100])

    with pytest.raises(InterruptedStreamError, match="within its header"):
        await stream.peek()


@pytest.mark.parametrize("piece_bytes", [1, 7, 311, 312, 624, 625, 1 << 20])
@pytest.mark.parametrize("body_bytes", [0, 1, 311, 5000])
async def test_all_bytes_come_and_the_end_comes_last(piece_bytes, body_bytes):
    body = random.Random(body_bytes).randbytes(body_bytes)
    data = begin() + body + end()
    inner, stream = withheld(data, piece_bytes=piece_bytes)
    await stream.peek()
    received = b""
    while piece := bytes(await stream.receive_some(700)):
        assert len(piece) <= 700
        received += piece
        if not inner.vouched:
            assert len(received) <= len(data) - WITHHELD_BYTES
    await stream.finish()

    assert received == data
    assert inner.vouched


async def test_the_end_never_comes_where_nobody_vouches():
    data = begin() + bytes(5000) + end()
    _, stream = withheld(data, error=InterruptedStreamError("cut"))
    await stream.peek()
    received = bytearray()

    async def read():
        while piece := await stream.receive_some(1 << 20):
            received.extend(piece)

    with pytest.raises(InterruptedStreamError, match="cut"):
        await read()

    assert received == data[: len(received)]
    assert len(received) <= len(data) - WITHHELD_BYTES
