"""Nothing but the whole, true stream makes a version."""

import os
import random

import pytest

from fsrep_directory.engine.failures import Failure

SEED = 20240229


@pytest.fixture
def prepared(laboratory):
    """A base on both sides, and the stream of a small step with everything in it."""
    laboratory.write("gone", b"1")
    laboratory.write("kept/file", b"2")
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    os.unlink(f"{laboratory.live}/gone")
    path = laboratory.write("new/file", b"content")
    os.link(path, os.fsencode(laboratory.live) + b"/new/link")
    os.symlink("file", f"{laboratory.live}/new/symlink")
    os.mkfifo(f"{laboratory.live}/fifo")
    sparse = laboratory.write("sparse", b"")
    with open(sparse, "r+b") as file:
        file.seek(100_000)
        file.write(b"data")
        file.truncate(200_000)
    second, _ = laboratory.create("v2")
    return laboratory, first, second, laboratory.stream(second, first)


def test_a_stream_that_is_cut_anywhere_makes_no_version(prepared):
    laboratory, first, second, data = prepared
    for length in [*range(0, len(data), 512), *range(1, len(data), 997), len(data) - 1]:
        with pytest.raises(Failure) as caught:
            laboratory.receive(data[:length], second, first, clear=True)

        assert caught.value.kind == "interrupted-stream"
        assert laboratory.names("receiver") == ["@v1"]


def test_bytes_after_the_end_are_refused(prepared):
    laboratory, first, second, data = prepared
    with pytest.raises(Failure, match="bytes follow its end"):
        laboratory.receive(data + b"\0", second, first)

    assert laboratory.names("receiver") == ["@v1"]


def check_flip(prepared, position, change):
    laboratory, first, second, data = prepared
    damaged = bytearray(data)
    damaged[position] ^= change
    where = f"byte {position} ^ {change:#x}"
    try:
        laboratory.receive(bytes(damaged), second, first, clear=True)
    except (Failure, OSError):
        assert laboratory.names("receiver") == ["@v1"], where
    else:
        pytest.fail(f"{where} was not found")


def test_an_altered_byte_is_found_wherever_it_is(prepared):
    chosen = random.Random(SEED)
    length = len(prepared[3])
    for position in chosen.sample(range(length), 200):
        check_flip(prepared, position, 1 << chosen.randrange(8))


@pytest.mark.proof
def test_every_altered_byte_is_found(prepared):
    chosen = random.Random(SEED)
    for position in range(len(prepared[3])):
        check_flip(prepared, position, chosen.randrange(1, 256))


def test_a_damaged_stream_leaves_nothing_that_is_resumed(prepared):
    laboratory, first, second, data = prepared
    position = data.index(b"content\0")
    with pytest.raises(Failure, match="does not have the digest"):
        laboratory.receive(data[:position] + b"C" + data[position + 1 :], second, first)

    assert laboratory.token() is None
    laboratory.receive(data, second, first)
    laboratory.check(second)


def test_a_stream_of_another_step_is_refused(prepared):
    laboratory, _, second, _ = prepared
    full = laboratory.stream(second)
    with pytest.raises(Failure, match="and the step is"):
        laboratory.receive(full, second, laboratory.store("receiver").versions()[0])

    assert laboratory.names("receiver") == ["@v1"]


def test_a_version_that_was_changed_by_hand_is_not_sent_as_it_was(laboratory):
    laboratory.write("file", b"true")
    version, _ = laboratory.create("v1")
    path = f"{laboratory.tree('sender', version)}/file"
    with open(path, "wb") as file:
        file.write(b"lie!")
    with pytest.raises(Failure, match="digest"):
        laboratory.replicate(version)
    with open(path, "wb") as file:
        file.write(b"longer lie")

    with pytest.raises(Failure, match="has not the size"):
        laboratory.stream(version)
