"""Children: what they say at their end is believed, nothing else, and none survives."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import logging
import math
import os
import random
import signal
import subprocess
import sys

import pytest
import trio

from fsrep_core import (
    ByteStream,
    ConnectivityError,
    StorageError,
    feed_process,
    open_process_stream,
    run_process,
)
from fsrep_core.runtime import processes
from fsrep_core.runtime.metering import MeteredStream

ENDLESS = ["cat", "/dev/zero"]
STALLED = ["sh", "-c", "printf begun; exec sleep 1000"]
MIB = 1 << 20


def shell(script, *arguments):
    return ["sh", "-c", script, "sh", *map(str, arguments)]


def unread_marker(path):
    """A taker that writes a file when it sees the end of its input."""
    return shell('cat > /dev/null; echo end > "$1"', path)


async def gone(pid):
    """Return once a process that is no child of ours has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


# Making a stream


@pytest.mark.parametrize(
    "sizes",
    [*itertools.product([0, 1, (1 << 16) - 1, 1 << 16, MIB + 1, 5 * MIB + 3], [1000, 1 << 24])],
)
async def test_received_bytes_are_exact(sizes, tmp_path, content, explain_failure, nothing_left):
    size_bytes, max_bytes = sizes
    (tmp_path / "source").write_bytes(content(size_bytes))
    received = hashlib.sha256()
    async with (
        nothing_left(),
        open_process_stream(["cat", str(tmp_path / "source")], explain=explain_failure) as stream,
    ):
        while piece := await stream.receive_some(max_bytes):
            assert len(piece) <= max_bytes
            received.update(piece)
        assert await stream.receive_some(max_bytes) == b""
        await stream.finish()
        await stream.finish()

    assert received.digest() == hashlib.sha256(content(size_bytes)).digest()


async def test_cancelled_receive_loses_nothing(tmp_path, explain_failure, nothing_left):
    os.mkfifo(fifo := tmp_path / "fifo")
    async with (
        nothing_left(),
        open_process_stream(["cat", str(fifo)], explain=explain_failure) as stream,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some, 100)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.Path(fifo).write_bytes(b"everything")
        await trio.lowlevel.wait_readable(stream.descriptor)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some(100)
        assert scope.cancelled_caught

        assert bytes(await stream.receive_some(100)) == b"everything"
        assert await stream.receive_some(100) == b""


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("head -c 100000 /dev/zero; echo why >&2; exit 3", 3),
        ("head -c 100000 /dev/zero; echo why >&2; kill -KILL $$", -9),
        ("echo why >&2; exit 1", 1),
    ],
)
async def test_failure_after_some_bytes(script, status, tmp_path, explain_failure, nothing_left):
    """The maker's error is raised, and the taker never sees an end that was none."""
    marker = tmp_path / "marker"
    async with nothing_left():
        with pytest.raises(StorageError, match=rf"^status {status}: why\n$"):
            async with open_process_stream(shell(script), explain=explain_failure) as stream:
                await feed_process(unread_marker(marker), stream, explain=explain_failure)

    assert not marker.exists()


async def test_end_of_output_is_not_the_end(tmp_path, explain_failure, nothing_left):
    """A maker that closes its output and goes on is waited for; then its status counts."""
    os.mkfifo(fifo := tmp_path / "fifo")
    marker = tmp_path / "marker"
    at_end = trio.Event()

    async def take(stream):
        with pytest.raises(StorageError, match=r"^status 5: late"):
            await feed_process(unread_marker(marker), stream, explain=explain_failure)

    maker = shell('printf abc; exec >&-; read go < "$1"; echo late >&2; exit 5', fifo)
    async with (
        nothing_left(),
        open_process_stream(maker, explain=explain_failure) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(take, MeteredStream(stream, lambda _: at_end.set()))
        await at_end.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await trio.Path(fifo).write_bytes(b"go\n")

    assert not marker.exists()


@pytest.mark.parametrize(
    "program", [ENDLESS, STALLED, shell("trap '' TERM INT HUP; cat /dev/zero")]
)
async def test_leaving_early_ends_the_child(program, explain_failure, nothing_left):
    async with nothing_left(), open_process_stream(program, explain=explain_failure) as stream:
        await stream.receive_some(1)


async def test_leaving_ends_what_the_child_started(explain_failure, nothing_left):
    script = "sleep 1000 & echo $!; wait"
    async with nothing_left():
        async with open_process_stream(shell(script), explain=explain_failure) as stream:
            grandchild = int(bytes(await stream.receive_some(100)))
        await gone(grandchild)


async def test_errors_of_the_body_pass_through_bare(explain_failure, nothing_left):
    async with nothing_left():
        with pytest.raises(KeyError):
            async with open_process_stream(ENDLESS, explain=explain_failure):
                raise KeyError


async def test_chatty_child_neither_blocks_nor_fills_memory(explain_failure, nothing_left):
    """The start and the end of what it complained of are kept."""
    script = "echo first >&2; yes | head -c 20000000 >&2; echo last >&2; exit 9"
    async with (
        nothing_left(),
        open_process_stream(shell(script), explain=explain_failure) as stream,
    ):
        assert await stream.receive_some(1) == b""
        with pytest.raises(StorageError) as caught:
            await stream.finish()

    text = caught.value.message
    assert text.startswith("status 9: first\ny\n")
    assert text.endswith("y\nlast\n")
    assert len(text) < 2.1 * processes.STDERR_PART_BYTES
    assert f"[{20000011 - 2 * processes.STDERR_PART_BYTES} bytes left out]" in text


async def test_pipes_are_enlarged(explain_failure):
    async with open_process_stream(STALLED, explain=explain_failure) as stream:
        size_bytes = fcntl.fcntl(stream.descriptor, fcntl.F_GETPIPE_SZ)

    assert size_bytes == processes.largest_pipe_bytes()


async def test_pipes_that_may_not_be_enlarged_do_as_well(
    monkeypatch, explain_failure, nothing_left
):
    """As for an unprivileged user whose other pipes take all that is granted."""

    def refuse(*_arguments):
        raise PermissionError

    monkeypatch.setattr(processes.fcntl, "fcntl", refuse)
    async with (
        nothing_left(),
        open_process_stream(shell("head -c 3000000 /dev/zero"), explain=explain_failure) as made,
    ):
        output = await feed_process(["wc", "-c"], made, explain=explain_failure)

    assert output.stdout == b"3000000\n"


def test_pipe_size_where_the_kernel_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "Path", lambda _path: tmp_path / "missing")

    assert processes.largest_pipe_bytes.__wrapped__() == MIB


# Taking a stream


@pytest.mark.parametrize("size_bytes", [0, 1, 1 << 16, MIB - 1, MIB, MIB + 1, 100 * MIB + 7])
async def test_process_to_process_is_exact(size_bytes, explain_failure, nothing_left):
    maker = shell(f"yes 'no page has this size' | head -c {size_bytes}")
    expected = await run_process(
        shell(f"yes 'no page has this size' | head -c {size_bytes} | sha256sum"),
        explain=explain_failure,
    )
    async with nothing_left(), open_process_stream(maker, explain=explain_failure) as stream:
        output = await feed_process(["sha256sum"], stream, explain=explain_failure)

    assert output == expected


async def test_stream_without_a_descriptor(list_stream, content, explain_failure, nothing_left):
    data = content(3 * MIB + 1)
    async with nothing_left():
        output = await feed_process(["cat"], list_stream([data]), explain=explain_failure)

    assert output.stdout == data


@pytest.mark.parametrize("source", [STALLED, ENDLESS], ids=["stalled", "streaming"])
@pytest.mark.parametrize("end", ["exit 7", "kill -KILL $$"])
async def test_taker_fails_first(source, end, explain_failure, nothing_left):
    """Its own error is raised at once, whatever the maker does or does not do."""
    status = 7 if "exit" in end else -9
    taker = shell(f"head -c 5 > /dev/null; echo full >&2; {end}")
    async with nothing_left():
        with pytest.raises(StorageError, match=rf"^status {status}: full"):
            async with open_process_stream(source, explain=explain_failure) as stream:
                await feed_process(taker, stream, explain=explain_failure)


async def test_failure_of_the_stream_kills_the_taker(
    list_stream, tmp_path, explain_failure, nothing_left
):
    marker = tmp_path / "marker"
    stream = list_stream([b"bytes"], failure=ConnectivityError("cut"))
    async with nothing_left():
        with pytest.raises(ConnectivityError, match=r"^cut$"):
            await feed_process(
                shell('trap "" TERM INT HUP; cat > /dev/null; echo end > "$1"', marker),
                stream,
                explain=explain_failure,
            )

    assert not marker.exists()


async def test_taker_fails_while_it_commits(list_stream, explain_failure, nothing_left):
    """All was sent and vouched for; what the taker then says is the outcome."""
    async with nothing_left():
        with pytest.raises(StorageError, match=r"^status 4: no room"):
            await feed_process(
                shell("cat > /dev/null; echo no room >&2; exit 4"),
                list_stream([b"bytes"]),
                explain=explain_failure,
            )


async def test_taker_that_knows_the_end_may_exit_before_it(tmp_path, explain_failure, nothing_left):
    """A format can mark its end, so the taker may be done before its input ends."""
    os.mkfifo(fifo := tmp_path / "fifo")
    maker = shell('printf 12345; read go < "$1"', fifo)
    done = trio.Event()

    async def release():
        async with await trio.open_file(tmp_path / "done", "rb") as file:
            await file.read()
        done.set()
        await trio.Path(fifo).write_bytes(b"go\n")

    os.mkfifo(tmp_path / "done")
    taker = shell('head -c 5; exec > "$1"', tmp_path / "done")
    async with (
        nothing_left(),
        open_process_stream(maker, explain=explain_failure) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(release)
        output = await feed_process(taker, stream, explain=explain_failure)

    assert done.is_set()
    assert output.stdout == b"12345"


async def test_taker_that_stops_early_with_success_has_not_succeeded(explain_failure, nothing_left):
    async with nothing_left():
        with pytest.raises(StorageError, match="'sh' ended before it had read the whole stream"):
            async with open_process_stream(ENDLESS, explain=explain_failure) as stream:
                await feed_process(shell("head -c 5"), stream, explain=explain_failure)


async def test_taker_that_closes_its_input_and_goes_on(
    autojump_clock, list_stream, explain_failure, nothing_left
):
    autojump_clock.autojump_threshold = 0.05
    async with nothing_left(math.inf):
        with pytest.raises(StorageError, match="'sh' closed its input before the stream ended"):
            await feed_process(
                shell("exec <&-; exec sleep 1000"),
                list_stream([bytes(MIB)] * 10),
                explain=explain_failure,
            )


async def test_output_environment_and_descriptors_of_the_taker(
    list_stream, explain_failure, nothing_left
):
    reader, writer = os.pipe()
    async with nothing_left():
        output = await feed_process(
            shell("cat; echo $WORD; echo aside >&2; echo more > /proc/self/fd/$1", writer),
            list_stream([b"bytes "]),
            explain=explain_failure,
            env={"WORD": "word"},
            pass_fds=[writer],
        )
    os.close(writer)
    more = os.read(reader, 100)
    os.close(reader)

    assert (output.stdout, output.stderr, more) == (b"bytes word\n", "aside\n", b"more\n")


# Asking


async def test_answer_of_a_process(content, explain_failure, nothing_left):
    """More than any pipe holds goes in and comes out at the same time."""
    data = content(3 * MIB)
    async with nothing_left():
        output = await run_process(["cat"], explain=explain_failure, stdin=data)

    assert output.stdout == data


async def test_failed_question(explain_failure, nothing_left):
    async with nothing_left():
        with pytest.raises(StorageError, match=r"^status 1: no such pool"):
            await run_process(shell("echo no such pool >&2; exit 1"), explain=explain_failure)


async def test_question_that_is_not_read(explain_failure, nothing_left):
    async with nothing_left():
        output = await run_process(["true"], explain=explain_failure, stdin=bytes(3 * MIB))

    assert output.stdout == b""


async def test_question_that_the_child_refuses_to_read(tmp_path, explain_failure, nothing_left):
    os.mkfifo(fifo := tmp_path / "fifo")
    async with nothing_left(), trio.open_nursery() as nursery:
        # Opened by the child only after it has closed its input.
        nursery.start_soon(trio.Path(fifo).write_bytes, bytes(MIB))
        output = await run_process(
            shell('exec <&-; cat "$1"', fifo), explain=explain_failure, stdin=bytes(3 * MIB)
        )

    assert output.stdout == bytes(MIB)


async def test_what_the_child_leaves_running_is_not_waited_for(explain_failure, nothing_left):
    """It holds the pipes open; the exit status is the end all the same."""
    async with nothing_left():
        output = await run_process(
            shell("sleep 1000 & echo $!; echo said >&2"), explain=explain_failure
        )
        os.kill(int(output.stdout), signal.SIGKILL)
        await gone(int(output.stdout))

    assert output.stderr == "said\n"


async def test_answer_has_a_limit(monkeypatch, explain_failure, nothing_left):
    monkeypatch.setattr(processes, "STDOUT_LIMIT_BYTES", 1000)
    async with nothing_left():
        with pytest.raises(StorageError, match="more than the limit of 1000"):
            await run_process(shell("head -c 1001 /dev/zero"), explain=explain_failure)
        output = await run_process(shell("head -c 1000 /dev/zero"), explain=explain_failure)

    assert len(output.stdout) == 1000


# Starting


async def test_program_that_is_missing(explain_failure, nothing_left):
    async with nothing_left():
        with pytest.raises(StorageError, match="cannot start 'no-such-program': No such") as caught:
            await run_process(["no-such-program"], explain=explain_failure)

    assert "install" in caught.value.hint
    assert (caught.value.temporary, caught.value.local) == (False, False)


async def test_program_that_may_not_be_run(tmp_path, explain_failure, nothing_left):
    (tmp_path / "program").write_text("#!/bin/sh\n")
    async with nothing_left():
        with pytest.raises(StorageError, match="Permission denied") as caught:
            async with open_process_stream([str(tmp_path / "program")], explain=explain_failure):
                pytest.fail("it cannot have started")

    assert "executable" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "temporary"), [(errno.EMFILE, True), (errno.EAGAIN, True), (errno.E2BIG, False)]
)
async def test_start_refused_by_the_kernel(number, temporary, monkeypatch, explain_failure):
    async def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    with pytest.raises(StorageError, match=os.strerror(number)) as caught:
        await run_process(["true"], explain=explain_failure)

    assert caught.value.temporary is temporary
    assert caught.value.local is False


PRINT_PLACE_OF_A_CHILD = """
import os, sys, trio
from fsrep_core import run_process
for terminal in sys.argv[1:]:
    os.open(terminal, os.O_RDWR)  # who leads a session and opens one, is controlled by it
output = trio.run(lambda: run_process(["cat", "/proc/self/stat"], explain=None))
pid, _, _, _, group, session = output.stdout.split()[:6]
print(group == pid, session == pid)
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["unattended", "terminal"])
def test_terminal_s_signals_do_not_reach_children(terminal):
    """A child leads a group, so only fsrep hears Ctrl-C. It cannot ask at the terminal."""
    controller, follower = os.openpty()
    result = subprocess.run(
        [sys.executable, "-c", PRINT_PLACE_OF_A_CHILD, *([os.ttyname(follower)] * terminal)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
        timeout=30,
    )
    os.close(controller)
    os.close(follower)

    assert result.stdout.decode().split() == ["True", str(terminal)]


# Ending


async def test_child_that_the_kernel_holds_does_not_hang_us(
    autojump_clock, monkeypatch, caplog, explain_failure, nothing_left
):
    """Uninterruptible sleep: a kill without effect. The child is left, and reaped later."""
    autojump_clock.autojump_threshold = 0.05
    spared = []
    killpg = os.killpg
    monkeypatch.setattr(os, "killpg", lambda *arguments: spared.append(arguments))
    async with nothing_left(math.inf):
        with caplog.at_level(logging.WARNING):
            async with open_process_stream(["sleep", "1000"], explain=explain_failure):
                pass
        assert trio.current_time() >= processes.KILL_WAIT_SECONDS
        killpg(*spared[0])
        await trio.testing.wait_all_tasks_blocked(0.2)

    assert "has not ended after 10 seconds" in caplog.text


async def test_child_that_may_not_be_killed_ends_with_its_pipes(
    monkeypatch, explain_failure, nothing_left
):
    """As with a child of another user, such as through sudo."""

    def refuse(*_arguments):
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    async with nothing_left():
        with pytest.raises(KeyError):
            async with open_process_stream(ENDLESS, explain=explain_failure):
                raise KeyError


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the run loop has made a number of steps."""

    def __init__(self, scope, step):
        self.scope = scope
        self.step = step

    def before_task_step(self, _task):
        self.step -= 1
        if self.step == 0:
            self.scope.cancel()


async def job(explain_failure):
    async with open_process_stream(
        shell("head -c 3000000 /dev/zero"), explain=explain_failure
    ) as made:
        metered = MeteredStream(made, lambda _: None)
        output = await feed_process(["wc", "-c"], metered, explain=explain_failure)
    return output.stdout


async def test_cancelled_at_every_step(explain_failure, nothing_left):
    """Wherever it strikes: in time, and no child, descriptor or task is left."""
    for step in itertools.count(1):
        async with nothing_left():
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    assert await job(explain_failure) == b"3000000\n"
                finally:
                    trio.lowlevel.remove_instrument(instrument)
        if instrument.step > 0:
            break
    assert step > 20


@pytest.mark.parametrize("victim", ["maker", "taker"])
async def test_killed_at_seeded_moments(victim, children, nothing_left):
    """Whoever is killed is named; where no one is, every byte has arrived."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    whole = 20 * MIB

    def explain(name):
        return lambda status, _stderr: StorageError(f"{name} {status}")

    async def attempt(kill_at_bytes):
        others = children()

        class Killing(MeteredStream):
            async def moved(self, count_bytes):
                await super().moved(count_bytes)
                if self.total_bytes >= kill_at_bytes:
                    pids = {"maker": maker_pid, "taker": children() - others - maker_pid}[victim]
                    for pid in pids:
                        os.kill(pid, signal.SIGKILL)

        async with open_process_stream(
            ["head", "-c", str(whole), "/dev/zero"], explain=explain("maker")
        ) as made:
            maker_pid = children() - others
            stream = Killing(made, lambda _: None)
            output = await feed_process(["wc", "-c"], stream, explain=explain("taker"))
        return int(output.stdout)

    for _ in range(20):
        kill_at_bytes = rng.randrange(1, whole)
        async with nothing_left():
            try:
                outcome = await attempt(kill_at_bytes)
            except StorageError as error:
                outcome = error.message
        # A maker may have done its work already when it is hit.
        expected = {f"{victim} -9"} | ({whole} if victim == "maker" else set())
        assert outcome in expected, f"seed {seed}, killed at {kill_at_bytes}"


# What is said beside the answer


async def test_a_tolerated_status_is_an_answer(explain_failure):
    script = shell("echo part; echo 'cannot do the rest' >&2; exit 1")

    output = await run_process(script, explain=explain_failure, tolerate=(1,))

    assert (output.status, output.stdout, output.stderr) == (1, b"part\n", "cannot do the rest\n")
    with pytest.raises(StorageError, match="cannot do the rest"):
        await run_process(script, explain=explain_failure, tolerate=(2,))


async def test_standard_error_is_heard_while_the_stream_goes_on(explain_failure):
    script = shell('echo "size 7" >&2; head -c 1 >/dev/null < "$1"; printf content', "/dev/zero")
    heard = []
    async with open_process_stream(
        script, explain=explain_failure, on_stderr=heard.append
    ) as stream:
        while b"size 7\n" not in b"".join(heard):
            await trio.lowlevel.checkpoint()
        assert await stream.receive_some(100) == b"content"
        while not heard or heard[-1] != b"":
            await trio.lowlevel.checkpoint()
        await stream.finish()

    assert b"".join(heard) == b"size 7\n"


class Broken(ByteStream):
    """A few bytes, and then an error."""

    def __init__(self):
        self.given = False

    async def receive_some(self, _max_bytes):
        await trio.lowlevel.checkpoint()
        if self.given:
            raise ConnectivityError("the cable was cut")
        self.given = True
        return b"a part"

    async def finish(self):
        raise AssertionError("it never ends")


@pytest.mark.parametrize("status", [0, 1])
async def test_a_child_that_keeps_partials_takes_what_is_in_the_pipe(
    status, tmp_path, explain_failure, nothing_left
):
    taker = shell('sleep 0.2; cat > "$1"; exit "$2"', tmp_path / "kept", status)

    async with nothing_left():
        with pytest.raises(ConnectivityError, match="the cable was cut"):
            await feed_process(taker, Broken(), explain=explain_failure, keeps_partial=True)

    assert (tmp_path / "kept").read_bytes() == b"a part"


async def test_a_child_that_keeps_partials_may_not_take_forever(
    monkeypatch, explain_failure, nothing_left
):
    monkeypatch.setattr(processes, "EXIT_WAIT_SECONDS", 0.1)

    async with nothing_left():
        with pytest.raises(ConnectivityError):
            await feed_process(
                ["sleep", "1000"], Broken(), explain=explain_failure, keeps_partial=True
            )
