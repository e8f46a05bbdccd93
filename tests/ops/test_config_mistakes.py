"""Every mistake in a configuration gives one message that names place and remedy."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from pathlib import Path

import pytest

from fsrep_core.runtime import registry

LOCAL = '{ name = "local-pipe" }'
BASE = """\
[[job]]
name = "docs"
filesystems = ["a"]

[job.sender]
transport = { name = "local-pipe" }
storage = { name = "directory", root = "/srv/a" }

[job.receiver]
transport = { name = "local-pipe" }
storage = { name = "directory", root = "/srv/b" }
"""
SENDER_STORAGE = '{ name = "directory", root = "/srv/a" }'
RECEIVER_STORAGE = '{ name = "directory", root = "/srv/b" }'
FILESYSTEMS = 'filesystems = ["a"]'
STORAGES, TRANSPORTS = (
    ", ".join(offer.name for offer in registry.load_plugins().offers(kind))
    for kind in ("storage", "transport")
)


def job_with(line: str) -> str:
    return BASE.replace(FILESYSTEMS, f"{FILESYSTEMS}\n{line}")


def sender_with(line: str) -> str:
    return BASE.replace("[job.sender]\n", f"[job.sender]\n{line}\n")


def identity_with(
    name: str = "nas",
    storage: str = '{ name = "directory", root = "/srv/c" }',
    permissions: str = '["receive"]',
) -> str:
    return f'[[identity]]\nname = "{name}"\nstorage = {storage}\npermissions = {permissions}\n'


MISTAKES = {
    "unknown key of the file": (
        f"verbose = true\n{BASE}",
        (
            "verbose: unknown key; a file consists of [[job]] tables, "
            "and of [[identity]] tables where it serves"
        ),
    ),
    "job key at the top": (
        f'retry_for = "1h"\n{BASE}',
        "retry_for: unknown key; it belongs into a job: put it below a line [[job]]",
    ),
    "misspelt job table": (
        BASE.replace("[[job]]", "[[jobs]]").replace("[job.", "[jobs."),
        "jobs: unknown key; did you mean [[job]]?",
    ),
    "job is no list": (
        BASE.replace("[[job]]", "[job]"),
        "job: jobs are a list of tables; write [[job]], not [job]",
    ),
    "job is a list of something else": (
        "job = [1]",
        "job number 1: expected a table, not the number 1",
    ),
    "empty file": ("", "no job is configured; write one that begins with [[job]]"),
    "unknown key of a job": (
        job_with("concurency = 2"),
        'job "docs": concurency: unknown key; did you mean "concurrency"?',
    ),
    "unknown key of a side": (
        sender_with('ratelimit = "1 MiB/s"'),
        'job "docs": sender.ratelimit: unknown key; did you mean "rate_limit"?',
    ),
    "unknown option of a storage": (
        BASE.replace(SENDER_STORAGE, '{ name = "directory", root = "/srv/a", rot = 1 }'),
        'job "docs": sender.storage.rot: unknown key; did you mean "root"?',
    ),
    "unknown option of a transport": (
        BASE.replace(LOCAL, '{ name = "local-pipe", pipesize = "1 MiB" }', 1),
        'job "docs": sender.transport.pipesize: unknown key; no key is known here',
    ),
    "no name": (
        BASE.replace('name = "docs"\n', ""),
        "job number 1: name: missing; it is required and takes a string",
    ),
    "name with bad characters": (
        BASE.replace('"docs"', '"my docs"'),
        (
            'job "my docs": name: "my docs" cannot name a job; use up to 63 letters, digits, ".", '
            '"_" and "-", and begin with a letter or digit'
        ),
    ),
    "name of a wrong type": (
        BASE.replace('name = "docs"', "name = 7"),
        "job number 1: name: expected a string, not the number 7",
    ),
    "two jobs of one name": (
        BASE + BASE.replace("/srv/b", "/srv/c"),
        (
            'job "docs": name: jobs number 1 and 2 have the same name; '
            "give each a name of its own; it names their cursors"
        ),
    ),
    "no filesystems": (
        BASE.replace(f"{FILESYSTEMS}\n", ""),
        'job "docs": filesystems: missing; it is required and takes a list of strings',
    ),
    "empty filesystems": (
        BASE.replace(FILESYSTEMS, "filesystems = []"),
        (
            'job "docs": filesystems: selects nothing; name filesystems, or write ["**"] for all '
            "of them"
        ),
    ),
    "only excluded filesystems": (
        BASE.replace(FILESYSTEMS, 'filesystems = ["!a"]'),
        (
            'job "docs": filesystems: selects nothing: every pattern begins with "!"; '
            'put "**" before them'
        ),
    ),
    "filesystems as a string": (
        BASE.replace(FILESYSTEMS, 'filesystems = "a"'),
        'job "docs": filesystems: expected a list, not the string "a"; write ["a"]',
    ),
    "bad glob": (
        BASE.replace(FILESYSTEMS, 'filesystems = ["a[b"]'),
        (
            "job \"docs\": filesystems: pattern 'a[b' has a '[' that is not closed in its "
            "component; close it; write '[[]' to mean '['"
        ),
    ),
    "absolute pattern": (
        BASE.replace(FILESYSTEMS, 'filesystems = ["/a"]'),
        (
            "job \"docs\": filesystems: pattern '/a' is absolute; names are relative to the "
            "storage's root: leave out the first '/'"
        ),
    ),
    "no receiver": (
        BASE[: BASE.index("[job.receiver]")],
        'job "docs": receiver: missing; it is required and takes a table',
    ),
    "side of a wrong type": (
        BASE[: BASE.index("[job.receiver]")].replace(FILESYSTEMS, f'{FILESYSTEMS}\nreceiver = "b"'),
        'job "docs": receiver: expected a table, not the string "b"',
    ),
    "no storage": (
        BASE.replace(f"storage = {RECEIVER_STORAGE}\n", ""),
        'job "docs": receiver.storage: missing; it is required and takes a table',
    ),
    "transport without a name": (
        BASE.replace(LOCAL, "{ }", 1),
        'job "docs": sender.transport.name: missing; it is required and takes a string',
    ),
    "transport as a string": (
        BASE.replace(LOCAL, '"local-pipe"', 1),
        'job "docs": sender.transport: expected a table, not the string "local-pipe"',
    ),
    "missing storage plugin": (
        BASE.replace(SENDER_STORAGE, '{ name = "directry", root = "/srv/a" }'),
        (
            "job \"docs\": sender.storage.name: no plugin offers the storage 'directry'; "
            f"did you mean 'directory'?; installed: {STORAGES}"
        ),
    ),
    "storage named as a transport": (
        BASE.replace(LOCAL, '{ name = "directory" }', 1),
        (
            "job \"docs\": sender.transport.name: no plugin offers the transport 'directory'; "
            f'"directory" is a storage; the transports are {TRANSPORTS}'
        ),
    ),
    "missing option of a storage": (
        BASE.replace(SENDER_STORAGE, '{ name = "directory" }'),
        'job "docs": sender.storage.root: missing; it is required and takes a string',
    ),
    "relative root": (
        BASE.replace('"/srv/a"', '"srv/a"'),
        (
            'job "docs": sender.storage.root: '
            "root = 'srv/a' is not an absolute path; write the path from the first slash on"
        ),
    ),
    "option of a wrong type": (
        BASE.replace('"/srv/a"', "1"),
        'job "docs": sender.storage.root: expected a string, not the number 1',
    ),
    "receiver equals sender": (
        BASE.replace("/srv/b", "/srv/a"),
        (
            'job "docs": receiver: is the same as the sender: same transport, same storage, same '
            "options; nothing can be replicated onto itself; give the receiver a place of its own"
        ),
    ),
    "overlapping roots": (
        BASE.replace("/srv/b", "/srv/a/copy"),
        (
            'job "docs": receiver.storage.root: "/srv/a/copy" and the sender\'s root "/srv/a" '
            "overlap on one host; choose two roots of which neither contains the other"
        ),
    ),
    "overlapping roots, spelt otherwise": (
        BASE.replace("/srv/b", "/srv/x/../a/copy"),
        (
            'job "docs": receiver.storage.root: "/srv/a/copy" and the sender\'s root "/srv/a" '
            "overlap on one host; choose two roots of which neither contains the other"
        ),
    ),
    "bad rate": (
        sender_with('rate_limit = "50 Mbit"'),
        (
            'job "docs": sender.rate_limit: "50 Mbit" is no rate that fsrep can read; a rate is a '
            'size per second, such as "50 MiB/s"'
        ),
    ),
    "rate of zero": (
        sender_with('rate_limit = "0 MiB/s"'),
        (
            'job "docs": sender.rate_limit: "0 MiB/s" is no rate that fsrep can read; a rate of '
            "zero would never finish; leave the key out for an unlimited rate"
        ),
    ),
    "rate as a number": (
        sender_with("rate_limit = 50"),
        (
            'job "docs": sender.rate_limit: expected a rate as a string, not the number 50; a rate '
            'is a size per second, such as "50 MiB/s"'
        ),
    ),
    "bad duration": (
        job_with('retry_for = "10 minutes"'),
        (
            'job "docs": retry_for: "10 minutes" is no duration that fsrep can read; a duration is '
            'numbers with units, such as "90s" or "1h 30m"; the units are ms, s, m, h, d'
        ),
    ),
    "duration of zero": (
        job_with('progress_timeout = "0s"'),
        'job "docs": progress_timeout: must be longer than zero; write a duration such as "10m"',
    ),
    "zero concurrency": (
        job_with("concurrency = 0"),
        'job "docs": concurrency: 0 is out of range; write 1 to 64',
    ),
    "negative concurrency": (
        job_with("concurrency = -1"),
        'job "docs": concurrency: -1 is out of range; write 1 to 64',
    ),
    "concurrency as a string": (
        job_with('concurrency = "2"'),
        'job "docs": concurrency: expected an integer, not the string "2"',
    ),
    "value that is not allowed": (
        job_with('diverged = "roll back"'),
        (
            'job "docs": diverged: "roll back" is not one of fail or rollback; '
            'did you mean "rollback"?'
        ),
    ),
    "value of a wrong type": (
        job_with("initial = true"),
        'job "docs": initial: true is not one of newest, all or fail',
    ),
    "misspelt identity table": (
        BASE + identity_with().replace("[[identity]]", "[[identity_]]"),
        "identity_: unknown key; did you mean [[identity]]?",
    ),
    "identity is no list": (
        BASE + identity_with().replace("[[identity]]", "[identity]"),
        "identity: identities are a list of tables; write [[identity]], not [identity]",
    ),
    "identity with a name that means something to a shell": (
        BASE + identity_with(name="a b"),
        (
            'identity "a b": name: "a b" cannot name an identity; use up to 253 letters, digits, '
            '".", "_", "@" and "-", and begin with a letter or digit'
        ),
    ),
    "identity twice": (
        BASE + identity_with() + identity_with(),
        (
            'identity "nas": name: identities number 1 and 2 have the same name; '
            "give each a name of its own; it says who is served what"
        ),
    ),
    "identity without a storage": (
        BASE + identity_with().replace("storage", "#"),
        'identity "nas": storage: missing; it is required and takes a table',
    ),
    "identity with a wrong storage": (
        BASE + identity_with(storage='{ name = "directory", rooot = "/srv/c", root = "/srv/c" }'),
        'identity "nas": storage.rooot: unknown key; did you mean "root"?',
    ),
    "identity with a transport for a storage": (
        BASE + identity_with(storage=LOCAL),
        (
            "identity \"nas\": storage.name: no plugin offers the storage 'local-pipe'; "
            f'"local-pipe" is a transport; the storages are {STORAGES}'
        ),
    ),
    "identity without permissions": (
        BASE + identity_with(permissions="[]"),
        (
            'identity "nas": permissions: grants nothing; '
            'write one or more of "send", "receive", "create", "destroy"'
        ),
    ),
    "identity with an unknown permission": (
        BASE + identity_with(permissions='["recieve"]'),
        (
            'identity "nas": permissions[0]: "recieve" is not one of '
            'send, receive, create or destroy; did you mean "receive"?'
        ),
    ),
    "identity with a transport": (
        BASE + identity_with() + 'transport = { name = "local-pipe" }',
        ('identity "nas": transport: unknown key; known: name, permissions, rate_limit, storage'),
    ),
    "invalid TOML": (
        BASE.replace('name = "docs"', "name = docs"),
        "line 2, column 8: not valid TOML: Invalid value; the line reads: name = docs",
    ),
    "key written twice": (
        BASE.replace('name = "docs"', 'name = "docs"\nname = "docs"'),
        (
            "line 3, column 14: not valid TOML: Cannot overwrite a value; "
            'the line reads: name = "docs"'
        ),
    ),
    "cut in the middle": (
        BASE[: BASE.index(", root")],
        (
            "line 7: not valid TOML: Unclosed inline table; "
            'the line reads: storage = { name = "directory"'
        ),
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_mistake_has_one_message(fsrep, tmp_path, command, text, message):
    path = tmp_path / "fsrep.toml"
    path.write_text(text)

    ended = fsrep(command, "-c", path)

    assert ended.err.splitlines() == [f"fsrep: {path}: {message}"]
    assert ended.out == ""
    assert ended.status == 2


def test_there_are_at_least_thirty_kinds():
    assert len(MISTAKES) >= 30


def test_all_mistakes_of_a_file_are_listed(fsrep, tmp_path):
    path = tmp_path / "fsrep.toml"
    other = BASE.replace('"docs"', '"other"').replace("/srv/b", "/srv/a/b")
    path.write_text(job_with("concurrency = 0\ninitial = 1\nx = 1") + other)

    ended = fsrep("run", "-c", path)

    lines = ended.err.splitlines()
    assert [line.split(": ")[2:4] for line in lines[:-1]] == [
        ['job "docs"', "x"],
        ['job "docs"', "initial"],
        ['job "docs"', "concurrency"],
        ['job "other"', "receiver.storage.root"],
    ]
    assert lines[-1] == "fsrep: 4 mistakes; nothing was run"
    assert ended.status == 2


def test_a_missing_file(fsrep, tmp_path):
    path = tmp_path / "nowhere.toml"

    ended = fsrep("check", "-c", path)

    assert ended.err == (
        f'fsrep: {path}: there is no such file; write one with "fsrep init", or correct --config\n'
    )
    assert ended.status == 2


def test_a_directory_instead_of_a_file(fsrep, tmp_path):
    ended = fsrep("check", "-c", tmp_path)

    assert ended.err == (
        f"fsrep: {tmp_path}: cannot be read: Is a directory; it must be a file that you may read\n"
    )
    assert ended.status == 2


def test_an_unreadable_file(fsrep, tmp_path, monkeypatch):
    """Root may read everything, so the refusal is the test's, not the kernel's."""
    path = tmp_path / "fsrep.toml"
    path.touch()

    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    ended = fsrep("check", "-c", path)

    assert ended.err.startswith(f"fsrep: {path}: cannot be read: Permission denied; ")
    assert ended.status == 2


def test_a_file_that_is_not_utf8(fsrep, tmp_path):
    path = tmp_path / "fsrep.toml"
    path.write_bytes(b"# one\n# two \xff\n")

    ended = fsrep("check", "-c", path)

    assert ended.err == f"fsrep: {path}: line 2: not valid UTF-8; save the file in that encoding\n"
    assert ended.status == 2


def test_a_file_that_never_ends(fsrep):
    ended = fsrep("check", "-c", "/dev/zero")

    assert "is larger than 1048576 bytes" in ended.err
    assert ended.status == 2


def test_an_unknown_job(fsrep, job):
    ended = fsrep("run", "document")

    assert ended.err == (
        'fsrep: fsrep.toml: there is no job "document"\n    did you mean "documents"?\n'
    )
    assert ended.status == 2


def test_no_configuration_at_all(fsrep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSREP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    ended = fsrep("run")

    assert ended.err == (
        "fsrep: no configuration file: looked for ./fsrep.toml, "
        f"{tmp_path}/config/fsrep/fsrep.toml, /etc/fsrep/fsrep.toml\n"
        '    write one with "fsrep init", or name one with --config or FSREP_CONFIG\n'
    )
    assert ended.status == 2


def test_a_broken_plugin_is_named_and_stops_only_who_selects_it(fsrep, job, monkeypatch):
    broken = importlib.metadata.EntryPoint("tape", "no_such_module_anywhere:plugin", "fsrep")
    real = list(importlib.metadata.entry_points(group="fsrep"))
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda **_: [broken, *real])

    assert fsrep("check").status == 0

    job.config.write_text(job.config.read_text().replace('"directory"', '"tape"', 1))
    ended = fsrep("check")

    assert ended.err.startswith(
        'fsrep: fsrep.toml: job "documents": sender.storage.name: no plugin offers the storage '
        "'tape'; installed: "
    )
    assert ended.err.endswith(
        "broken plugins: tape (ModuleNotFoundError: No module named 'no_such_module_anywhere')\n"
    )
    assert ended.status == 2


def test_roots_that_overlap_through_a_symbolic_link(fsrep, tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    path = tmp_path / "fsrep.toml"
    path.write_text(
        BASE.replace("/srv/a", str(tmp_path / "real")).replace("/srv/b", str(tmp_path / "link"))
    )

    ended = fsrep("check", "-c", path)

    assert "overlap on one host" in ended.err
    assert ended.status == 2


def test_a_sibling_with_a_common_prefix_does_not_overlap(fsrep, job):
    job.config.write_text(job.config.read_text().replace("/receiver", "/sender2"))
    (job.root / "sender2").mkdir()

    assert fsrep("check").status == 0


def test_a_name_cannot_send_control_characters_to_the_terminal(fsrep, tmp_path):
    path = tmp_path / "fsrep.toml"
    path.write_text(BASE.replace('"docs"', '"\\u001b[2Jx"'))

    ended = fsrep("check", "-c", path)

    assert "\x1b" not in ended.err
    assert "\\x1b[2Jx" in ended.err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run", "--nonsense"], ["run", "--log-level", "loud"]]
)
def test_a_mistake_of_usage(fsrep, arguments):
    ended = fsrep(*arguments)

    assert ended.status == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_strangers_file_in_the_working_directory_is_not_used(fsrep, job, monkeypatch):
    if os.geteuid() == 0:
        os.chown(job.config, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: job.config.stat().st_uid + 1)

    ended = fsrep("check")

    assert "belongs to the user with the number" in ended.err
    assert ended.status == 2
