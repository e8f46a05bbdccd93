"""Two processes, as on two hosts: ``fsrep serve`` and ``fsrep run``, over real TLS."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fsrep_core.ops import certificates
from fsrep_core.testing import compare_trees


def grow(root: Path, chance: random.Random, *, files: int = 5, size_bytes: int = 100_000) -> None:
    """Put some content below a root, as a filesystem of the directory storage."""
    for number in range(files):
        path = root / "docs" / f"d{number % 3}" / f"f{chance.randrange(1 << 30)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(size_bytes)))


def with_docs(config: Path) -> Path:
    config.write_text(config.read_text().replace('["**"]', '["docs"]'))
    return config


def snapshot(kit, site, root: Path, name: str) -> None:
    """Make a version on the host that has the root, whoever sends it later."""
    config = site.root / "snapshot.toml"
    config.write_text(
        '[[job]]\nname = "s"\nfilesystems = ["docs"]\n'
        '[job.sender]\ntransport = { name = "local-pipe" }\n'
        f'storage = {{ name = "directory", root = "{root}" }}\n'
        '[job.receiver]\ntransport = { name = "local-pipe" }\n'
        f'storage = {{ name = "directory", root = "{site.root}/nowhere" }}\n'
    )
    done = kit.run_fsrep("snapshot", "--config", config, "--name", name)
    assert done.returncode == 0, done.stderr


def versions_of(root: Path) -> dict[str, Path]:
    return {
        path.name.removeprefix("@"): path / "tree" for path in (root / ".fsrep" / "docs").glob("@*")
    }


def assert_same(here: Path, there: Path) -> None:
    ours, theirs = versions_of(here), versions_of(there)

    assert ours.keys() == theirs.keys()
    for name, tree in ours.items():
        assert compare_trees(tree, theirs[name]) == []


@pytest.mark.parametrize("push", [True, False], ids=["push", "pull"])
def test_versions_arrive_as_they_were(kit, site, push):
    chance = random.Random(1)
    here, there = site.root / "here", site.root / "there"
    source = here if push else there
    config = site.write_server(site.identity("laptop", there))
    with kit.daemon(config) as server:
        job = with_docs(site.write_job(server.port, push=push, here=here))
        for name in ("one", "two"):
            grow(source, chance)
            snapshot(kit, site, source, name)
            done = kit.run_fsrep("run", "--config", job, "--json")
            assert done.returncode == 0, done.stdout + done.stderr
        assert_same(here, there)
        assert server.stop() == 0

    done = {(line["operation"], line["identity"]) for line in server.events("operation done")}
    assert ("receive" if push else "send", "laptop") in done
    assert {line["identity"] for line in server.events("connection opened")} == {"laptop"}


def test_secrets_are_in_no_log_and_no_command_line(kit, site):
    here, there = site.root / "here", site.root / "there"
    grow(here, random.Random(2))
    snapshot(kit, site, here, "one")
    with kit.daemon(site.write_server(site.identity("laptop", there))) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here))
        arguments = ("--config", job, "--log-format", "json", "--log-level", "debug", "--json")
        done = kit.run_fsrep("run", *arguments)
        command_line = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()
        server.stop()
    said = done.stdout + done.stderr + server.log_path.read_text() + command_line

    assert done.returncode == 0
    for name in ("laptop", "localhost"):
        lines = (site.hosts.directory / f"{name}.key").read_text().splitlines()[1:-1]
        assert not any(line in said for line in lines)


def test_a_client_never_sees_the_root_of_another(kit, site):
    mine, yours = site.root / "mine", site.root / "yours"
    grow(yours, random.Random(3))
    snapshot(kit, site, yours, "private")
    mine.mkdir()
    identities = site.identity("laptop", mine) + site.identity("desktop", yours)
    with kit.daemon(site.write_server(identities)) as server:
        job = site.write_job(server.port, push=False, here=site.root / "here")
        done = kit.run_fsrep("versions", "--config", job, "--json")
        server.stop()

    assert "private" not in done.stdout
    assert done.returncode == 0


def test_a_host_that_may_not_write_is_refused(kit, site):
    here, there = site.root / "here", site.root / "there"
    grow(here, random.Random(4))
    snapshot(kit, site, here, "one")
    with kit.daemon(site.write_server(site.identity("laptop", there, ["send"]))) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here))
        done = kit.run_fsrep("run", "--config", job, "--json")
        server.stop()

    assert done.returncode == 1
    assert "laptop may not ask for receive" in done.stdout
    assert versions_of(there) == {}


def test_a_certificate_is_renewed_while_the_server_runs(kit, site):
    here, there = site.root / "here", site.root / "there"
    grow(here, random.Random(5))
    snapshot(kit, site, here, "one")
    with kit.daemon(site.write_server(site.identity("laptop", there), name="expired")) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here, extra='retry_for="0s"'))
        refused = kit.run_fsrep("run", "--config", job, "--json")
        certificates.renew(site.hosts.directory, "expired", lifetime=timedelta(days=1))
        done = kit.run_fsrep("run", "--config", job, "--json")
        warnings = [line["event"] for line in server.lines if line["level"] == "warning"]
        server.stop()

    assert "the server's certificate has expired" in refused.stdout
    assert any("expired.pem has expired" in each for each in warnings)
    assert done.returncode == 0, done.stdout
    assert_same(here, there)


def test_a_server_tells_when_its_certificates_end(kit, site):
    there, metrics = site.root / "there", site.root / "serve.prom"
    config = site.write_server(site.identity("laptop", there))
    with kit.daemon(config, arguments=["--metrics-file", metrics]) as server:
        written = metrics.read_text()
        warnings = [line["event"] for line in server.lines if line["level"] == "warning"]
        server.stop()
    found = dict(re.findall(r'^fsrep_expiry_.*\{job="",what="(.*)"\} (.*)$', written, re.MULTILINE))

    files = [site.hosts.ca, site.hosts.directory / "localhost.pem"]
    assert {Path(what): float(end) for what, end in found.items()} == {
        each: x509.load_pem_x509_certificate(each.read_bytes()).not_valid_after_utc.timestamp()
        for each in files
    }
    assert [each.partition(" expires on ")[0] for each in warnings] == [str(each) for each in files]


def test_a_metrics_file_that_cannot_be_written_is_told_before_it_listens(kit, site):
    config = site.write_server(site.identity("laptop", site.root / "there"))

    ended = kit.run_fsrep("serve", "--config", config, "--metrics-file", site.root / "no" / "file")

    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
    assert "listening" not in ended.stderr


@pytest.mark.proof
def test_a_job_of_many_steps_shakes_hands_a_few_times(kit, site):
    """At most once for each step at a time, and once more."""
    steps, concurrency = 200, 4
    here, there = site.root / "here", site.root / "there"
    filesystems = [f"fs{number}" for number in range(steps)]
    for name in filesystems:
        (here / name).mkdir(parents=True)
        (here / name / "file").write_text(name)
    with kit.daemon(site.write_server(site.identity("laptop", there))) as server:
        job = site.write_job(
            server.port, push=True, here=here, extra=f"concurrency = {concurrency}"
        )
        job.write_text(job.read_text().replace('["**"]', json.dumps(filesystems)))
        made = kit.run_fsrep("snapshot", "--config", job, "--name", "one")
        assert made.returncode == 0, made.stderr
        done = kit.run_fsrep("run", "--config", job, "--json", seconds=400)
        server.stop()
    received = [line for line in server.events("operation done") if line["operation"] == "receive"]

    assert done.returncode == 0, done.stdout[-2000:]
    assert len(received) == steps
    assert 1 <= len(server.events("connection opened")) <= concurrency + 1


# --- stopping and killing -----------------------------------------------------------------


def start_run(kit, job: Path, out: Path) -> subprocess.Popen:
    with out.open("w") as file:
        return subprocess.Popen(
            [*kit.fsrep_argv, "run", "--config", str(job), "--json"], stdout=file
        )


def wait_for_bytes(root: Path, least: int, process: subprocess.Popen) -> None:
    """Wait until a receive has begun, in the file system and nowhere else."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if sum(size_now(path) for path in files_below(root)) >= least:
            return
        time.sleep(0.005)


def size_now(path: Path) -> int:
    """The size of a file; 0 where it is gone again."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def files_below(root: Path) -> list[Path]:
    try:
        return [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    except OSError:
        return []  # it changes while one looks


def test_a_stop_lets_a_step_finish(kit, site):
    here, there = site.root / "here", site.root / "there"
    grow(here, random.Random(6), files=40, size_bytes=1 << 20)
    snapshot(kit, site, here, "one")
    config = site.write_server(site.identity("laptop", there))
    text = config.read_text().replace("permissions", 'rate_limit = "8 MiB/s"\npermissions')
    config.write_text(text)
    with kit.daemon(config) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here, extra='retry_for="0s"'))
        run = start_run(kit, job, site.root / "out.json")
        wait_for_bytes(there, 1, run)
        assert server.stop() == 0
        run.wait(timeout=60)
    received = [line for line in server.events("operation done") if line["operation"] == "receive"]

    assert len(received) == 1
    assert versions_of(there).keys() == {"one"}


@pytest.mark.parametrize(
    ("stop_timeout", "signals"), [("1s", 1), ("10m", 2)], ids=["late", "second signal"]
)
def test_a_stop_cuts_what_takes_too_long_and_the_next_run_resumes_it(
    kit, site, stop_timeout, signals
):
    """What takes longer than ``stop_timeout``; at a second signal, whatever goes on."""
    here, there = site.root / "here", site.root / "there"
    grow(here, random.Random(7), files=40, size_bytes=1 << 20)
    snapshot(kit, site, here, "one")
    identity = site.identity("laptop", there)
    slow = identity.replace("permissions", 'rate_limit = "1 MiB/s"\npermissions')
    out = site.root / "out.json"
    with kit.daemon(site.write_server(slow, f'stop_timeout = "{stop_timeout}"')) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here, extra='retry_for="0s"'))
        run = start_run(kit, job, out)
        wait_for_bytes(there, 2 << 20, run)
        began_at = time.monotonic()
        for _ in range(signals):
            server.process.terminate()
            server.wait_for("stopping")
        status = server.process.wait(timeout=60)
        took_seconds = time.monotonic() - began_at
        run_status = run.wait(timeout=60)
    (received,), (stopped,) = server.events("operation failed"), server.events("stopped")
    cut = json.loads(out.read_text())["jobs"][0]
    visible = versions_of(there)
    with kit.daemon(site.write_server(identity)) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here))
        done = kit.run_fsrep("run", "--config", job, "--json")
        assert server.stop() == 0
    (step,) = json.loads(done.stdout)["jobs"][0]["completed"][0]["completed"]

    assert status == 128 + signal.SIGTERM
    assert stopped["finished"] is False
    assert received["operation"] == "receive"
    assert took_seconds >= (1 if signals == 1 else 0)
    assert run_status == 1
    assert cut["problem"]["temporary"]
    assert visible == {}
    assert done.returncode == 0
    assert step["resumed"]
    assert_same(here, there)
    assert {path.name for path in (there / ".fsrep" / "docs").iterdir()} == {"%lock", "@one"}
    assert processes_about(there) == []


def wait_until_all_have_left(server) -> None:
    """Wait until the server has noticed that its clients are gone."""
    deadline = time.monotonic() + 60
    while len(server.events("connection opened")) > sum(
        len(server.events(name)) for name in ("connection failed", "connection closed")
    ):
        assert time.monotonic() < deadline, server.log_path.read_text()
        time.sleep(0.02)


def processes_about(root: Path) -> list[str]:
    """List the processes whose command line names a root."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command_line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if str(root) in command_line:
            found.append(command_line)
    return found


def check_kill(kit, site, seed: int) -> None:
    """Kill one end in the middle of a push; the next run converges and nothing is left."""
    chance = random.Random(seed)
    here, there = site.root / "here", site.root / "there"
    grow(here, chance, files=10, size_bytes=2 << 20)
    snapshot(kit, site, here, "one")
    config = site.write_server(site.identity("laptop", there))
    kill_server = chance.random() < 0.5
    moment = chance.uniform(0, 2 << 20) if chance.random() < 0.8 else 0
    with kit.daemon(config) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here, extra='retry_for="0s"'))
        out = site.root / "out.json"
        run = start_run(kit, job, out)
        wait_for_bytes(there, int(moment), run)
        victim = server.process if kill_server else run
        os.kill(victim.pid, signal.SIGKILL)
        status = run.wait(timeout=90)
        if kill_server:
            report = json.loads(out.read_text())
            (job_report,) = report["jobs"]
            problem = job_report["problem"]
            assert status == (0 if problem is None else 1), f"seed {seed}: {report}"
            kinds = {None, "connectivity", "interrupted-stream"}
            assert (problem or {"kind": None})["kind"] in kinds, f"seed {seed}: {problem}"
        else:
            wait_until_all_have_left(server)
    with kit.daemon(config) as server:
        job = with_docs(site.write_job(server.port, push=True, here=here))
        done = kit.run_fsrep("run", "--config", job, "--json")
        assert done.returncode == 0, f"seed {seed}: {done.stdout}"
        server.stop()
    assert_same(here, there)
    left = {path.name for path in (there / ".fsrep" / "docs").iterdir()}
    assert left == {"%lock", "@one"}, f"seed {seed}"
    assert processes_about(there) == [], f"seed {seed}"


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_of_either_end_is_survived(kit, site, seed):
    check_kill(kit, site, seed)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_kills_of_either_end_are_survived(kit, site, seed):
    check_kill(kit, site, seed)
