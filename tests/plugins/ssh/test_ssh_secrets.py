"""Keys stay where they are: not in logs, reports, errors, command lines or printed lines."""

from __future__ import annotations

import shlex

import pytest

from fsrep_core.ops.commands import ssh as command


def secrets_of(path):
    return [line for line in path.read_text().splitlines() if "-----" not in line]


def test_a_job_with_a_verbose_log_shows_no_key(scene):
    (scene.here / "docs").mkdir()
    scene.snapshot("one")
    options = [*scene.options()["options"], "LogLevel=DEBUG3"]

    ended = scene.run_job("--log-format", "json", "--log-level", "debug", options=options)

    assert ended.status == 0, ended.said
    for secret in secrets_of(scene.root / "key"):
        assert secret not in ended.said
        assert secret not in str(ended.report)


def test_what_the_client_says_of_the_storage_is_on_no_command_line(scene, tmp_path):
    words = tmp_path / "words"
    wrapper = scene.root / "bin" / "ssh"
    wrapper.write_text(wrapper.read_text().replace("exec ", f'echo "$@" >> {words}\nexec '))
    (scene.here / "docs").mkdir()
    scene.snapshot("one")

    ended = scene.run_job()

    assert ended.status == 0, ended.said
    assert str(scene.there) not in words.read_text()
    assert "fsrep endpoint" in words.read_text()


@pytest.fixture
def serving(scene):
    path = scene.root / "it's a file.toml"
    path.write_text(
        f"""
        [[identity]]
        name = "laptop"
        storage = {{ name = "directory", root = "{scene.there}" }}
        permissions = ["receive"]
        """
    )
    return path


def test_a_private_key_is_refused_and_not_shown(scene, serving):
    words = ("ssh", "authorized-key", "laptop", "--config", serving, "--key")

    ended = scene.fsrep(*words, scene.root / "key")

    assert ended.returncode == 2
    assert "name the file that ends in .pub" in ended.stderr
    for secret in secrets_of(scene.root / "key"):
        assert secret not in ended.stdout + ended.stderr


def test_the_printed_line_survives_every_shell_it_goes_through(scene, serving):
    words = ("ssh", "authorized-key", "laptop", "--config", serving)

    line = scene.fsrep(*words, "--key", scene.root / "key.pub").stdout

    begin, _, rest = line.partition('command="')
    quoted, _, key = rest.rpartition('" ')
    assert begin == "restrict,"
    assert key == (scene.root / "key.pub").read_text()
    arguments = shlex.split(quoted.replace('\\"', '"'))
    assert arguments[1:] == ["endpoint", "--identity", "laptop", "--config", str(serving)]
    assert arguments[0].startswith("/")
    assert scene.fsrep(*words).stdout == line.replace(key, f"{command.PLACEHOLDER}\n")


def test_an_identity_that_is_not_configured_gets_no_line(scene, serving):
    ended = scene.fsrep("ssh", "authorized-key", "lapdog", "--config", serving)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert 'there is no identity "lapdog"' in ended.stderr
    assert 'did you mean "laptop"?' in ended.stderr
