"""A cut stream goes on from where it was, at whatever byte that is."""

import json
import os

import pytest

from fsrep_directory.engine import partial as partial_module
from fsrep_directory.engine.failures import Failure


@pytest.fixture
def prepared(laboratory):
    for number in range(6):
        laboratory.write(f"dir{number % 2}/kept{number}", b"k" * number)
    laboratory.write("gone/inner", b"g")
    first, _ = laboratory.create("v1")
    laboratory.replicate(first)
    laboratory.write("dir0/new", b"n" * 3000)
    path = laboratory.write("dir1/changed", os.urandom(300_000))
    os.link(path, os.fsencode(laboratory.live) + b"/dir1/link")
    os.unlink(f"{laboratory.live}/gone/inner")
    os.rmdir(f"{laboratory.live}/gone")
    sparse = laboratory.write("sparse", b"")
    with open(sparse, "r+b") as file:
        for at in range(4):
            file.seek(at << 20)
            file.write(os.urandom(50_000))
        file.truncate(5 << 20)
    os.symlink("x", f"{laboratory.live}/z-symlink")
    second, _ = laboratory.create("v2")
    return laboratory, first, second, laboratory.stream(second, first)


@pytest.fixture
def small_reads(monkeypatch):
    """Bytes come in small pieces, as from a slow network."""
    from fsrep_directory.engine import tar_read

    monkeypatch.setattr(tar_read, "_READ_BYTES", 4096)


def cut_at(laboratory, first, second, data, length):
    with pytest.raises(Failure) as caught:
        laboratory.receive(data[:length], second, first, clear=True)
    assert caught.value.kind == "interrupted-stream"
    return laboratory.token()


@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("stride_bytes", [9973, pytest.param(1009, marks=pytest.mark.proof)])
def test_a_stream_cut_anywhere_goes_on_without_repeating(prepared, stride_bytes):
    laboratory, first, second, data = prepared
    resumed = 0
    for length in range(0, len(data), stride_bytes):
        token = cut_at(laboratory, first, second, data, length)
        offset = json.loads(token)["offset"] if token else 0
        rest = laboratory.stream(second, first, token=token)

        assert rest == data[offset:]
        assert laboratory.size(second, first, token=token) == len(rest)
        # What was received of a file's content is never sent again.
        assert length - offset <= 8192
        resumed += offset > 0
        laboratory.receive(rest, second, first, token=token)
        laboratory.check(second)
        laboratory.destroy("receiver", laboratory.store("receiver").find(second.guid))
    assert resumed > 10


@pytest.mark.usefixtures("small_reads")
def test_a_stream_cut_many_times_arrives(prepared):
    laboratory, first, second, data = prepared
    token = None
    for _ in range(200):
        offset = json.loads(token)["offset"] if token else 0
        piece = data[offset : offset + 20_000]
        try:
            laboratory.receive(piece, second, first, token=token)
        except Failure:
            token = laboratory.token()
        else:
            break
    laboratory.check(second)


def test_many_large_files_in_one_read_do_not_mix_up_their_marks(laboratory):
    for number in range(6):
        laboratory.write(f"large{number}", os.urandom(100_000))
    version, _ = laboratory.create("v1")
    data = laboratory.stream(version)
    for length in (300_000, 500_000, len(data) - 1, len(data)):
        with pytest.raises(Failure):
            laboratory.receive(data[:length], version, clear=True, vouched=False)
        token = laboratory.token()
        laboratory.receive(laboratory.stream(version, token=token), version, token=token)
        laboratory.check(version)
        laboratory.destroy("receiver", laboratory.store("receiver").find(version.guid))


def test_a_partial_is_never_a_version(prepared):
    laboratory, first, second, data = prepared
    token = cut_at(laboratory, first, second, data, len(data) - 1)

    assert laboratory.names("receiver") == ["@v1"]
    assert json.loads(token)["to"] == second.guid


def test_a_first_receive_that_was_cut_is_listed_with_its_token_alone(laboratory):
    laboratory.write("file", b"x" * 100_000)
    version, _ = laboratory.create("v1")
    with pytest.raises(Failure):
        laboratory.receive(laboratory.stream(version)[:50_000], version)

    assert laboratory.names("receiver") == []
    assert laboratory.token() is not None


def test_after_another_boot_only_what_was_durable_counts(prepared, monkeypatch):
    laboratory, first, second, data = prepared
    cut_at(laboratory, first, second, data, 100_000)
    monkeypatch.setattr(partial_module, "boot_id", lambda: "another boot")

    assert laboratory.token() is None
    laboratory.receive(data, second, first)
    laboratory.check(second)


@pytest.mark.usefixtures("small_reads")
def test_a_durable_mark_is_gone_on_from_after_a_loss_of_power(prepared, monkeypatch):
    laboratory, first, second, data = prepared
    monkeypatch.setattr(partial_module, "_DURABLE_SECONDS", 0.0)
    cut_at(laboratory, first, second, data, 200_000)
    path = f"{laboratory.store('receiver').path}/%partial"
    # What came after the durable mark is lost, or half there.
    os.unlink(f"{path}/mark")
    with open(f"{path}/manifest", "ab") as file:
        file.write(b"rubbish")
    monkeypatch.setattr(partial_module, "boot_id", lambda: "another boot")
    token = laboratory.token()
    rest = laboratory.stream(second, first, token=token)

    assert 0 < len(rest) < len(data)
    laboratory.receive(rest, second, first, token=token)
    laboratory.check(second)


@pytest.mark.usefixtures("small_reads")
def test_a_durable_mark_in_a_file_is_gone_on_from_when_a_later_file_had_begun(
    laboratory, monkeypatch
):
    laboratory.write("a-large", os.urandom(300_000))
    laboratory.write("b-large", os.urandom(300_000))
    version, _ = laboratory.create("v1")
    data = laboratory.stream(version)
    monkeypatch.setattr(partial_module, "_DURABLE_SECONDS", 0.0)
    with pytest.raises(Failure):
        laboratory.receive(data[:200_000], version)
    durable = json.loads(laboratory.token())["offset"]
    monkeypatch.setattr(partial_module, "_DURABLE_SECONDS", 1e9)
    token = laboratory.token()
    with pytest.raises(Failure):
        laboratory.receive(data[durable:500_000], version, token=token)
    assert json.loads(laboratory.token())["offset"] > 400_000
    monkeypatch.setattr(partial_module, "boot_id", lambda: "another boot")
    token = laboratory.token()

    assert json.loads(token)["offset"] == durable
    laboratory.receive(data[durable:], version, token=token)
    laboratory.check(version)


def test_a_partial_is_not_lost_unless_the_request_says_so(prepared):
    laboratory, first, second, data = prepared
    token = cut_at(laboratory, first, second, data, 200_000)
    with pytest.raises(Failure, match="would lose"):
        laboratory.receive(data, second, first)

    assert laboratory.token() == token
    laboratory.receive(data, second, first, clear=True)
    laboratory.check(second)
    assert laboratory.token() is None


def test_a_token_that_has_been_overtaken_is_refused(prepared):
    laboratory, first, second, data = prepared
    old = cut_at(laboratory, first, second, data, 100_000)
    cut_at(laboratory, first, second, data, 200_000)
    with pytest.raises(Failure) as caught:
        laboratory.receive(data[json.loads(old)["offset"] :], second, first, token=old)

    assert caught.value.kind == "stale-token"
    assert laboratory.token() is not None


def test_a_sender_refuses_a_token_that_means_something_else(prepared):
    laboratory, first, second, data = prepared
    token = cut_at(laboratory, first, second, data, 100_000)
    with pytest.raises(Failure) as caught:
        laboratory.stream(second, token=token)
    assert caught.value.kind == "stale-token"
    with pytest.raises(Failure) as caught:
        laboratory.stream(second, first, token="no token")  # noqa: S106  (a resume token)
    assert caught.value.kind == "stale-token"


def test_a_sender_whose_stream_would_differ_sends_from_the_start(prepared):
    laboratory, first, second, data = prepared
    facts = json.loads(cut_at(laboratory, first, second, data, 100_000))
    token = json.dumps({**facts, "stream": "0" * 64})

    assert laboratory.stream(second, first, token=token) == data
