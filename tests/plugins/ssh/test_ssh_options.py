"""The options of ssh, the command line that they make, and the ciphers that are preferred."""

from __future__ import annotations

import shutil

import pytest

from fsrep_core.runtime.options import OptionsError, structure_options
from fsrep_ssh.ciphers import AES_GCM_FIRST, preferred_ciphers
from fsrep_ssh.config import OURS, SshConfig, command_line


def config(**options):
    return structure_options(SshConfig, {"host": "nas", **options}, "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "-oProxyCommand=touch /tmp/x"),
        ("host", "a b"),
        ("host", "a\nb"),
        ("host", ""),
        ("host", "backup@nas"),
        ("host", "$(id)"),
        ("user", "-l"),
        ("user", "a;b"),
        ("user", "a b"),
        ("user", ""),
        ("user", "`id`"),
        ("port", 0),
        ("port", 65536),
        ("ciphers", "-a b"),
        ("ciphers", "a b"),
        ("options", ["-v"]),
        ("options", ["ServerAliveInterval"]),
        ("options", ["User=a\nProxyCommand=b"]),
        ("options", ["batchmode=no"]),
        ("command", ""),
        ("command", "-v"),
        ("command", "a\0b"),
        ("connect_timeout", "0s"),
        ("identity_file", "id_ed25519"),
    ],
)
def test_what_could_become_an_option_or_a_command_is_refused(key, value):
    with pytest.raises(OptionsError) as raised:
        config(**{key: value})

    assert [mistake.key.partition("[")[0] for mistake in raised.value.mistakes] == [key]


def test_every_option_reaches_ssh():
    words = command_line(
        config(
            user="backup",
            port=2222,
            identity_file="/k",
            options=["ServerAliveInterval=5"],
            command="/opt/fsrep endpoint",
            connect_timeout="7s",
        ),
        AES_GCM_FIRST,
    )

    line = " ".join(words)
    assert words[0] == "ssh"
    assert words[-3:] == ["--", "nas", "/opt/fsrep endpoint"]
    for part in ("-l backup", "-p 2222", "-i /k", f"-c {AES_GCM_FIRST}", "-o ConnectTimeout=7"):
        assert part in line
    assert (
        line.index("BatchMode=yes") < line.index("ServerAliveInterval=5") < line.index("LogLevel")
    )


def test_ssh_understands_the_command_line():
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    import subprocess

    words = command_line(config(user="backup", port=2222), AES_GCM_FIRST)
    ended = subprocess.run(
        [words[0], "-F", "none", "-G", *words[1:]], capture_output=True, text=True, check=True
    )

    found = dict(line.partition(" ")[::2] for line in ended.stdout.splitlines())
    assert found["ciphers"].startswith("aes128-gcm@openssh.com,aes256-gcm@openssh.com,")
    assert "chacha20-poly1305@openssh.com" in found["ciphers"]
    assert (found["hostname"], found["user"], found["port"]) == ("nas", "backup", "2222")
    for name in ("BatchMode", "PermitLocalCommand", "ClearAllForwardings", "ForwardAgent"):
        assert found[name.lower()] == OURS[name], name


@pytest.fixture
def cpuinfo(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu aes avx\n")
    return path


def test_aes_gcm_is_preferred_where_the_processor_has_aes(tmp_path, cpuinfo):
    assert preferred_ciphers((tmp_path / "none",), cpuinfo) == AES_GCM_FIRST


@pytest.mark.parametrize("text", ["flags : fpu avx\n", "aes : yes\n", ""])
def test_nothing_is_preferred_where_it_has_not(tmp_path, cpuinfo, text):
    cpuinfo.write_text(text)

    assert preferred_ciphers((), cpuinfo) is None
    assert preferred_ciphers((), tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "preferred"),
    [
        ("Host *\n  SendEnv LANG\n", True),
        ("# Ciphers aes128-ctr\n", True),
        ("CiphersAndMore x\n", True),
        ("Ciphers aes128-ctr\n", False),
        ("Host *\n\tciphers=aes128-ctr\n", False),
        ("Host other\n  Ciphers ^aes128-ctr\n", False),
        ("Include more.d/*.conf\n", False),
        ('Include "{root}/more.d/*.conf"\n', False),
        ("Include other.d/*.conf\n", True),
        ("Include again\n", False),
    ],
)
def test_whoever_names_ciphers_for_ssh_is_not_overruled(tmp_path, cpuinfo, text, preferred):
    (tmp_path / "more.d").mkdir()
    (tmp_path / "more.d" / "50.conf").write_text("Ciphers aes128-ctr\n")
    (tmp_path / "again").write_text("Include again\n")
    file = tmp_path / "config"
    file.write_text(text.replace("{root}", str(tmp_path)))

    assert (preferred_ciphers((file,), cpuinfo) is not None) is preferred
