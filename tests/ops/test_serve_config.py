"""The table [serve] is read as strictly as everything else, and serving needs all of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fsrep_core.ops import certificates

SERVE = """\
[serve]
{extra}
[[serve.listener]]
name = "tls"
ca = "{root}/ca.pem"
certificate = "{root}/nas.pem"
key = "{root}/nas.key"
"""
IDENTITY = """\
[[identity]]
name = "laptop"
storage = {{ name = "directory", root = "{root}/storage", create_root = true }}
permissions = ["receive"]
"""


@pytest.fixture
def write(tmp_path):
    certificates.make_ca(tmp_path, lifetime=timedelta(days=90))
    certificates.issue(tmp_path, ["nas"], lifetime=timedelta(days=9))

    def write(*, extra="", identity=IDENTITY, change=lambda text: text):
        path = tmp_path / "fsrep.toml"
        text = (SERVE + identity).format(root=tmp_path, extra=extra)
        path.write_text(change(text))
        return path

    return write


def replacing(old, new):
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("extra", "change", "said"),
    [
        ("connection = 1", str, 'serve.connection: unknown key; did you mean "connections"?'),
        ("connections = 0", str, "serve.connections: 0 is out of range; write 1 to 65536"),
        ("handshakes = true", str, "serve.handshakes: expected an integer, not true"),
        ('handshake_timeout = "0s"', str, "serve.handshake_timeout: must be longer than zero"),
        ("", replacing("[serve]", "[[server]]"), "server: unknown key; did you mean [serve]?"),
        ("", replacing("[[serve.listener]]", "[serve.listener]"), "listeners are a list of tables"),
        ("listener = []", lambda text: text.partition("[[serve")[0], "listens nowhere"),
        (
            "",
            replacing('"tls"', '"tsl"'),
            "serve.listener[0].name: no plugin offers the listener 'tsl'; did you mean 'tls'?",
        ),
        (
            "",
            replacing('name = "tls"', 'name = "local-pipe"'),
            '"local-pipe" is a transport; the listeners are',
        ),
        ("", replacing("ca =", "cas ="), 'serve.listener[0].cas: unknown key; did you mean "ca"?'),
        ("", replacing('name = "tls"', 'name = "tls"\nport = 70000'), "70000 is no port"),
        ("", replacing('name = "tls"', 'name = "tls"\naddress = "a b"'), '"a b" is no host'),
    ],
)
def test_a_mistake_is_found_before_anything_listens(fsrep, write, extra, change, said):
    done = fsrep("serve", "--config", write(extra=extra, change=change))

    assert done.status == 2
    assert said in done.err


def test_without_the_table_nothing_is_served(fsrep, write):
    config = write(change=lambda text: text[text.index("[[identity]]") :])
    done = fsrep("serve", "--config", config)

    assert done.status == 2
    assert "there is no table [serve]" in done.err


def test_without_identities_nobody_is_served(fsrep, write):
    done = fsrep("serve", "--config", write(identity=""))

    assert done.status == 2
    assert "nobody is served" in done.err


def test_files_that_cannot_be_used_are_told_at_the_start(fsrep, write, tmp_path):
    config = write()
    (tmp_path / "nas.key").unlink()
    done = fsrep("serve", "--config", config)

    assert done.status == 2
    assert f"cannot read {tmp_path}/nas.key" in done.err


def test_check_counts_listeners_and_warns_of_their_certificates(fsrep, write, tmp_path):
    done = fsrep("check", "--config", write())

    assert done.status == 0
    assert "1 identity, 1 listener, no mistakes" in done.out
    assert f"serve: {tmp_path}/nas.pem expires on" in done.out
