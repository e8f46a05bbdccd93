"""Each command does what it says, with real plugins and real directories."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading

import pytest

import fsrep_core
from fsrep_core.ops import files
from fsrep_core.runtime import registry
from fsrep_core.testing.trees import compare_trees

# --- init ---------------------------------------------------------------------------------


def test_init_writes_a_configuration_that_check_accepts(fsrep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "photos", ".cache"):
        (tmp_path / "data" / name).mkdir(parents=True)

    made = fsrep("init", "--sender", "data")
    checked = fsrep("check")

    assert made.status == checked.status == 0
    assert made.out.startswith(f"wrote fsrep.toml: {tmp_path}/data to {tmp_path}/data.replica\n")
    text = (tmp_path / "fsrep.toml").read_text()
    assert 'filesystems = ["docs", "photos"]' in text
    assert checked.out.startswith("fsrep.toml: 1 job, no mistakes\n")


@pytest.mark.parametrize("names", [[], ["a*"], [f"d{number}" for number in range(30)]])
def test_init_takes_all_where_names_are_many_or_odd(fsrep, tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).mkdir()

    assert fsrep("init", "--sender", "data", "-c", "other.toml").status == 0
    assert 'filesystems = ["**"]' in (tmp_path / "other.toml").read_text()
    assert fsrep("check", "-c", "other.toml").status == 0


def test_init_quotes_what_toml_would_take_otherwise(fsrep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a "b" \\c é').mkdir()

    assert fsrep("init", "--sender", 'a "b" \\c é').status == 0
    assert 'name = "main"' in (tmp_path / "fsrep.toml").read_text()
    assert fsrep("check").status == 0


def test_init_overwrites_nothing(fsrep, job):
    before = job.config.read_text()

    ended = fsrep("init", "--sender", "sender", "--receiver", "elsewhere")

    assert ended.status == 2
    assert ended.err.startswith("fsrep: fsrep.toml exists and is not overwritten\n")
    assert job.config.read_text() == before
    assert not (job.root / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sender", "nowhere"], "does not exist"),
        (["--sender", "sender", "--receiver", "sender/in"], "overlap"),
        (["--sender", "sender", "--receiver", "no/such/place"], "cannot be written"),
        (["--sender", "sender", "--receiver", "r", "-c", "no/fsrep.toml"], "cannot be written"),
    ],
)
def test_init_says_what_it_cannot_do(fsrep, job, arguments, message):
    job.config.unlink()

    ended = fsrep("init", *arguments)

    assert message in ended.err
    assert ended.status == 2
    assert not job.config.exists()


# --- where the configuration is ----------------------------------------------------------


def test_the_first_configuration_that_exists_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "SYSTEM_CONFIG", tmp_path / "etc.toml")
    home = tmp_path / "home"
    environment = {"HOME": str(home)}
    (tmp_path / "etc.toml").touch()

    found = [files.find_config(None, environment)]
    (home / ".config/fsrep").mkdir(parents=True)
    (home / ".config/fsrep/fsrep.toml").touch()
    found.append(files.find_config(None, environment))
    (tmp_path / "fsrep.toml").touch()
    found.append(files.find_config(None, environment))
    environment["FSREP_CONFIG"] = "by-variable.toml"
    found.append(files.find_config(None, environment))
    found.append(files.find_config(tmp_path / "by-option.toml", environment))

    assert [path.name for path in found] == [
        "etc.toml",
        "fsrep.toml",
        "fsrep.toml",
        "by-variable.toml",
        "by-option.toml",
    ]
    assert found[1].parent == home / ".config/fsrep"


# --- check --------------------------------------------------------------------------------


def test_check_says_what_is_fine_and_what_is_not_yet(fsrep, job):
    job.config.write_text(
        job.config.read_text().replace('"photos"', '"photos", "gone", "x/*", "!y"')
    )

    ended = fsrep("check")

    assert ended.status == 0
    assert ended.out.splitlines() == [
        "fsrep.toml: 1 job, no mistakes",
        "documents: sender (directory over local-pipe): 2 filesystems with 0 versions",
        "documents: receiver (directory over local-pipe): 0 filesystems with 0 versions",
        "documents: 2 filesystems selected",
        'documents: the sender has no filesystem "gone"',
        'documents: the pattern "x/*" matches no filesystem of the sender',
        'documents: the pattern "!y" takes nothing away',
        'documents: "docs" has no version yet; "fsrep snapshot documents" makes the first',
        'documents: "photos" has no version yet; "fsrep snapshot documents" makes the first',
    ]
    fsrep("snapshot")
    assert '"docs" has no version' not in fsrep("check").out


def test_check_fails_where_a_side_does_not_answer(fsrep, job):
    shutil.rmtree(job.receiver)

    ended = fsrep("check")
    document = fsrep("check", "--json").document

    assert ended.status == document["exit_status"] == 1
    assert f"{job.receiver}" in ended.out
    assert document["schema"] == "fsrep.check/1"
    assert "receiver" in document["jobs"][0]["problem"]["message"]


def test_check_fails_where_the_storages_speak_no_common_format(fsrep, job):
    text = job.config.read_text()
    job.config.write_text(
        text.replace(
            f'{{ name = "directory", root = "{job.receiver}" }}',
            '{ name = "memory", store = "x" }',
        )
    )

    ended = fsrep("check")

    assert ended.status == 1
    assert "both sides need storages that share a stream format" in ended.out


# --- the way of a version -----------------------------------------------------------------


def test_snapshot_plan_run_versions(fsrep, job):
    assert fsrep("snapshot", "--name", "one").out.splitlines() == [
        "documents: docs@one: made",
        "documents: photos@one: made",
    ]

    planned = fsrep("plan")
    assert planned.status == 0
    assert planned.out.startswith("documents: 2 filesystems, 2 steps, ")
    assert "      docs@one (full): size " in planned.out
    assert "      why: " in planned.out
    assert not (job.receiver / ".fsrep" / "docs").exists()

    ran = fsrep("run")
    assert ran.status == 0
    assert ran.out.startswith("documents: replicated, 2 of 2 filesystems up to date, ")
    assert re.search(r"^docs +1 .* replicated$", ran.out, re.MULTILINE)
    assert ran.err.startswith("documents: docs@one (full): ")
    for name in ("docs", "photos"):
        assert compare_trees(job.sender / name, job.received(name, "one")) == []

    (job.sender / "docs" / "new").write_text("more")
    fsrep("snapshot", "--name", "two")
    listed = fsrep("versions")
    assert "documents: docs: common up to @one, 1 version, " in listed.out
    assert re.search(r"^  @one .* yes +yes$", listed.out, re.MULTILINE)
    assert re.search(r"^  @two .* yes +-$", listed.out, re.MULTILINE)
    assert re.search(r"^  #.*cursor$", listed.out, re.MULTILINE)

    again = fsrep("run")
    assert again.status == 0
    assert "documents: docs@one => @two: " in again.err
    assert compare_trees(job.sender / "docs", job.received("docs", "two")) == []

    idle = fsrep("run")
    assert (idle.status, idle.err) == (0, "")
    assert idle.out == "documents: nothing to do; 2 filesystems up to date\n"
    assert "docs: nothing to do\n" in fsrep("plan").out
    assert "documents: docs: up to date with @two\n" in fsrep("versions").out


def test_one_filesystem_that_fails_is_named_and_the_status_tells(fsrep, job):
    fsrep("snapshot", "--name", "one")
    fsrep("run")
    fsrep("snapshot", "--name", "two")
    job.config.write_text(job.config.read_text().replace('"docs", "photos"', '"docs"'))
    reverse = job.root / "reverse.toml"
    text = job.config.read_text()
    swapped = (
        text.replace("/sender", "/x").replace("/receiver", "/sender").replace("/x", "/receiver")
    )
    reverse.write_text(swapped)
    shutil.copytree(job.received("docs", "one"), job.receiver / "docs")
    assert fsrep("snapshot", "--name", "mine", "-c", reverse).status == 0

    planned, ran = fsrep("plan"), fsrep("run")

    assert planned.status == ran.status == 1
    assert "docs: conflict: " in planned.out
    assert re.search(r"^docs .* failed$", ran.out, re.MULTILINE)
    assert "@mine" in ran.out
    assert ran.out.count("@mine") <= 2
    document = fsrep("plan", "--json").document
    assert document["exit_status"] == 1
    assert document["jobs"][0]["filesystems"][0]["conflict"]["kind"] == "diverged"


def test_a_job_that_cannot_run_does_not_stop_the_others(fsrep, job):
    text = job.config.read_text()
    broken = text.replace('"documents"', '"broken"').replace("/sender", "/nowhere")
    job.config.write_text(broken + text)
    fsrep("snapshot", "documents", "--name", "one")

    ended = fsrep("run")

    assert ended.status == 1
    assert ended.out.startswith("broken: failed, ")
    assert "documents: replicated, 2 of 2 filesystems up to date" in ended.out
    assert fsrep("run", "documents").status == 0


def test_snapshot_tells_what_it_could_not_make(fsrep, job):
    job.config.write_text(job.config.read_text().replace('"photos"', '"photos", "gone"'))

    ended = fsrep("snapshot", "--name", "one")
    document = fsrep("snapshot", "--name", "two", "--json").document

    assert ended.status == document["exit_status"] == 1
    assert "documents: docs@one: made" in ended.out
    assert "documents: gone@one: " in ended.out
    assert document["schema"] == "fsrep.snapshot/1"
    assert document["name"] == "two"
    results = document["jobs"][0]["results"]
    assert {each["filesystem"]: each["problem"] is None for each in results} == {
        "docs": True,
        "gone": False,
        "photos": True,
    }


@contextlib.contextmanager
def changing_all_the_time(path):
    """Write to a file for as long as this goes on."""
    ended = threading.Event()

    def write():
        with path.open("r+b") as file:
            while not ended.is_set():
                file.seek(0)
                file.write(os.urandom(8))
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_snapshot_warns_of_what_is_not_in_the_version_as_it_was(fsrep, job, monkeypatch):
    monkeypatch.chdir(job.sender / "docs")  # the address of a socket must be short
    log = job.sender / "docs" / "log"
    log.write_bytes(bytes(50_000_000))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("listening")
        with changing_all_the_time(log):
            shown = fsrep("snapshot", "-c", job.config, "--name", "one")
            document = fsrep("snapshot", "-c", job.config, "--name", "two", "--json").document

    (docs, photos) = document["jobs"][0]["results"]
    assert shown.status == document["exit_status"] == 0
    assert shown.out.splitlines() == [
        "documents: docs@one: made",
        *(f"    warning: {warning}" for warning in docs["warnings"]),
        "documents: photos@one: made",
    ]
    assert docs["warnings"] == [
        "the socket 'listening' is not in the version",
        ("these changed while the version was made, and may be in it half old and half new: 'log'"),
    ]
    assert photos["warnings"] == []


def test_snapshot_names_versions_by_the_time(fsrep, job):
    ended = fsrep("snapshot")

    assert ended.status == 0
    assert re.match(r"documents: docs@fsrep-\d{8}T\d{6}Z: made\n", ended.out)


def test_snapshot_needs_something_to_make_a_version_of(fsrep, job):
    job.config.write_text(job.config.read_text().replace('"docs", "photos"', '"*"'))

    ended = fsrep("snapshot")

    assert ended.status == 1
    assert "name a filesystem without wildcards" in ended.out


def test_a_name_that_is_left_out_gets_no_version(fsrep, job):
    job.config.write_text(job.config.read_text().replace('"photos"', '"photos", "!docs"'))

    assert "docs" not in fsrep("snapshot", "--name", "one").out


# --- documents ----------------------------------------------------------------------------


def test_run_prints_one_document(fsrep, job):
    fsrep("snapshot", "--name", "one")

    ended = fsrep("run", "--json")

    document = ended.document
    assert document["schema"] == "fsrep.report/1"
    assert document["exit_status"] == ended.status == 0
    assert document["interrupted"] is False
    (run,) = document["jobs"]
    assert run["status"] == "completed"
    (docs, photos) = run["completed"]
    assert (docs["filesystem"], photos["filesystem"]) == ("docs", "photos")
    assert docs["newest_common"]["name"] == "one"
    assert docs["completed"][0]["transferred_bytes"] > 0
    assert ended.err == ""


def test_versions_prints_one_document(fsrep, job):
    fsrep("snapshot", "--name", "one")

    document = fsrep("versions", "--json").document

    assert document["schema"] == "fsrep.versions/1"
    docs = document["jobs"][0]["filesystems"][0]
    assert docs["filesystem"] == "docs"
    assert docs["newest_common"] is None
    assert docs["lag_versions"] == 1
    assert [each["name"] for each in docs["sender"]] == ["one"]


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_a_damaged_record_concerns_its_filesystem_alone(fsrep, job, side):
    fsrep("snapshot", "--name", "one")
    fsrep("run")
    fsrep("snapshot", "--name", "two")
    (getattr(job, side) / ".fsrep/docs/@one/version.json").write_text("{")

    ran = fsrep("run", "--json")
    compared = fsrep("versions", "--json")
    shown = fsrep("versions")

    (failed,) = [each for each in ran.document["jobs"][0]["completed"] if each["problem"]]
    assert (ran.status, failed["filesystem"]) == (1, "docs")
    assert failed["problem"]["message"].startswith(f"the {side} cannot say what it has: ")
    assert job.received("photos", "two").is_dir()
    docs, photos = compared.document["jobs"][0]["filesystems"]
    assert compared.status == 1
    assert "is damaged" in docs["problem"]["message"]
    assert (photos["problem"], photos["lag_versions"]) == (None, 0)
    assert f"documents: docs: the {side} cannot say what it has" in shown.out


def test_a_name_of_any_bytes_is_shown_and_documented(fsrep, job):
    (job.sender / "b\udcff\x1b").mkdir()
    job.config.write_text(job.config.read_text().replace('["docs", "photos"]', '["*", "docs"]'))
    fsrep("snapshot", "--name", "one")

    assert fsrep("run").status == 0
    assert fsrep("run", "--json").document["exit_status"] == 0


# --- plugins, version ---------------------------------------------------------------------


def test_plugins_lists_what_is_installed(fsrep):
    ended = fsrep("plugins")

    version = importlib.metadata.version("fsrep")
    assert ended.status == 0
    assert re.search(
        rf"^directory +storage +fsrep {version} +fsrep_directory:plugin ", ended.out, re.MULTILINE
    )
    document = fsrep("plugins", "--json").document
    assert {"local-pipe", "fake", "directory", "memory"} <= {
        each["name"] for each in document["offers"]
    }
    assert document["broken"] == []


def test_plugins_names_a_broken_one(fsrep, monkeypatch):
    broken = importlib.metadata.EntryPoint("tape", "no_such_module_anywhere:plugin", "fsrep")
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda **_: [broken])

    ended = fsrep("plugins")

    assert ended.status == 1
    assert "broken: tape (unknown unknown, no_such_module_anywhere:plugin): Module" in ended.out


def test_version(fsrep):
    ended = fsrep("--version")

    assert (ended.status, ended.out) == (0, f"fsrep {fsrep_core.__version__}\n")


def test_no_command_shows_what_there_is(fsrep):
    ended = fsrep()

    assert "snapshot" in ended.out + ended.err
    assert ended.status == 2


# --- what is not fsrep's ------------------------------------------------------------------


def test_a_defect_is_not_hidden(fsrep, job, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("fsrep_core.ops.commands.check.open_session", fail)

    with pytest.raises(ZeroDivisionError):
        fsrep("check")


def test_ctrl_c_before_anything_runs(fsrep, job, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fsrep_core.ops.commands.check.open_session", interrupt)

    ended = fsrep("check")

    assert (ended.status, ended.out) == (130, "")


def complete(fsrep, monkeypatch, *words):
    """Ask as the script of bash does; the last word is being typed."""
    monkeypatch.setenv("_FSREP_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", shlex.join(["fsrep", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    return fsrep().out.split()


def test_job_names_are_completed(fsrep, job, monkeypatch):
    assert complete(fsrep, monkeypatch, "run", "do") == ["plain,documents"]
    assert complete(fsrep, monkeypatch, "run", "x") == []
    job.config.write_text("not toml")
    assert complete(fsrep, monkeypatch, "run", "") == []


@pytest.mark.parametrize("option", ["-c other.toml", "--config=other.toml", "-c ~/other.toml"])
def test_job_names_are_those_of_the_file_that_is_named(fsrep, job, monkeypatch, option):
    monkeypatch.setenv("HOME", str(job.root))
    other = job.config.read_text().replace('"documents"', '"elsewhere"')
    (job.root / "other.toml").write_text(other)
    names = complete(fsrep, monkeypatch, "versions", *option.split(), "")
    missing = complete(fsrep, monkeypatch, "versions", "-c", "missing.toml", "")

    assert names == ["plain,elsewhere"]
    assert missing == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_the_shell_reads(fsrep, shell):
    ended = fsrep("completion", shell)

    assert ended.status == 0
    assert "_FSREP_COMPLETE" in ended.out


COMMANDS_THAT_PRINT = [
    "--version",
    "--help",
    "check",
    "completion bash",
    "plan",
    "plan --json",
    "plugins",
    "plugins --json",
    "run",
    "run --json",
    "snapshot --name two",
    "versions",
    "versions --json",
]


def run_in_shell(job, command, output):
    line = f'exec "$0" -c "from fsrep_core.ops.cli import main; main()" {command} {output}'
    return subprocess.run(
        ["/bin/sh", "-c", line, sys.executable],
        cwd=job.root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS_THAT_PRINT)
def test_output_that_cannot_be_written_is_one_line_and_no_traceback(fsrep, job, command):
    fsrep("snapshot", "--name", "one")

    ended = run_in_shell(job, command, ">/dev/full")

    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last == "fsrep: cannot write to standard output: No space left on device"
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_more_output_than_is_buffered_is_no_traceback_either(fsrep, job):
    for number in range(60):
        fsrep("snapshot", "--name", f"version-with-a-long-name-{number:03}")

    ended = run_in_shell(job, "versions --json", ">/dev/full")

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


def test_output_that_nobody_reads_is_no_error_worth_a_word(fsrep, job):
    fsrep("snapshot", "--name", "one")
    reading, writing = os.pipe()
    os.close(reading)

    with os.fdopen(writing, "wb") as nobody:
        ended = subprocess.run(
            [sys.executable, "-c", "from fsrep_core.ops.cli import main; main()", "versions"],
            cwd=job.root,
            stdout=nobody,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_whose_standard_streams_are_closed_replicates(fsrep, job, closed):
    fsrep("snapshot", "--name", "one")
    command = f'exec "$0" -c "from fsrep_core.ops.cli import main; main()" run {closed}'
    ended = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable], cwd=job.root, capture_output=True, check=False
    )

    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    assert job.received("docs", "one").is_dir()
