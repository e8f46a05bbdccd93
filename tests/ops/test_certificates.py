"""What ``fsrep tls`` makes is believed, is not replaced, and is warned of in time."""

from __future__ import annotations

import stat
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fsrep_core import ConfigError, Expiry, Listener
from fsrep_core.events import ExpiriesKnown
from fsrep_core.ops import certificates
from fsrep_core.ops.commands.serve import _Server
from fsrep_core.ops.config import PluginChoice
from fsrep_core.ops.expiries import expiry_warnings, watch_expiries
from fsrep_core.ops.logs import line_of
from fsrep_core.ops.metrics import MetricsListener
from fsrep_core.ops.serve_config import ServeConfig

YEAR = timedelta(days=365)


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


@pytest.fixture
def directory(tmp_path):
    certificates.make_ca(tmp_path, lifetime=10 * YEAR)
    return tmp_path


def test_the_ca_can_only_issue_for_hosts(directory):
    ca = read(directory / "ca.pem")

    constraints = extension(ca, x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )
    usage = extension(ca, x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    assert ca.public_key().curve.name == "secp256r1"


def test_a_host_is_named_and_serves_both_ends(directory):
    made = certificates.issue(directory, ["nas.example", "nas", "192.0.2.9", "::1"], lifetime=YEAR)
    leaf, ca = read(made.certificate), read(directory / "ca.pem")

    leaf.verify_directly_issued_by(ca)
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["nas.example", "nas"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["192.0.2.9", "::1"]
    assert set(extension(leaf, x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert not extension(leaf, x509.BasicConstraints).value.ca
    assert made.certificate.name == "nas.example.pem"


def test_serial_numbers_differ_and_lifetimes_are_those_asked_for(directory):
    one = read(certificates.issue(directory, ["one"], lifetime=YEAR).certificate)
    two = read(certificates.issue(directory, ["two"], lifetime=YEAR).certificate)

    assert one.serial_number != two.serial_number
    left = one.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=364) < left <= YEAR
    assert one.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=50)


def test_no_certificate_outlives_its_ca(directory):
    made = certificates.issue(directory, ["nas"], lifetime=100 * YEAR)

    assert made.expires_at == read(directory / "ca.pem").not_valid_after_utc


def test_keys_are_for_their_owner_only(directory):
    made = certificates.issue(directory, ["nas"], lifetime=YEAR)

    for key in (made.key, directory / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["nas.pem", "nas.key"])
def test_nothing_is_replaced(directory, there):
    (directory / there).write_text("precious")
    with pytest.raises(ConfigError, match=f"{there} is there already and is not replaced"):
        certificates.issue(directory, ["nas"], lifetime=YEAR)

    assert (directory / there).read_text() == "precious"
    assert {path.name for path in directory.iterdir()} == {"ca.pem", "ca.key", there}


def test_a_second_ca_is_not_made_in_the_same_place(directory):
    before = (directory / "ca.key").read_bytes()
    with pytest.raises(ConfigError):
        certificates.make_ca(directory, lifetime=YEAR)

    assert (directory / "ca.key").read_bytes() == before


@pytest.mark.parametrize("name", ["../nas", "a/b", "-x", "", "ca", "a b", "a\n", "x" * 300])
def test_a_name_that_would_lead_elsewhere_is_refused(directory, name):
    with pytest.raises(ConfigError, match="cannot be in a certificate"):
        certificates.issue(directory, [name], lifetime=YEAR)


def test_a_renewed_certificate_keeps_key_and_names(directory):
    made = certificates.issue(directory, ["nas", "192.0.2.9"], lifetime=timedelta(days=1))
    old, key = read(made.certificate), made.key.read_bytes()
    again = certificates.renew(directory, "nas", lifetime=YEAR)
    new = read(again.certificate)

    assert new.public_key() == old.public_key()
    assert made.key.read_bytes() == key
    assert again.names == ("nas", "192.0.2.9")
    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert new.serial_number != old.serial_number
    assert not list(directory.glob(".*"))


def test_without_a_ca_nothing_is_issued(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*ca\.pem") as raised:
        certificates.issue(tmp_path, ["nas"], lifetime=YEAR)

    assert '"fsrep tls ca" makes a CA' in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_expired_ca_issues_nothing(tmp_path):
    certificates.make_ca(tmp_path, lifetime=timedelta(minutes=-30))
    with pytest.raises(ConfigError, match="has expired"):
        certificates.issue(tmp_path, ["nas"], lifetime=YEAR)


def test_the_commands_say_what_belongs_where(fsrep, tmp_path):
    made = fsrep("tls", "ca", "--directory", tmp_path / "new")
    issued = fsrep("tls", "issue", "nas", "--also", "::1", "--directory", tmp_path / "new")
    renewed = fsrep("tls", "issue", "nas", "--directory", tmp_path / "new", "--renew")
    both = fsrep("tls", "issue", "nas", "--also", "x", "--directory", tmp_path, "--renew")

    assert (made.status, issued.status, renewed.status, both.status) == (0, 0, 0, 2)
    assert "every host needs it" in made.out
    assert "nas.pem: the certificate of nas, ::1" in issued.out
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


# --- expiry -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (40, []),
        (30.5, []),
        (29, ["/c.pem expires on 1970-01-30, in 29d; renew it"]),
        (0, ["/c.pem has expired; nothing that needs it works"]),
        (-5, ["/c.pem has expired; nothing that needs it works"]),
    ],
)
def test_thirty_days_before_the_end_somebody_is_warned(days, said):
    assert expiry_warnings([Expiry(what="/c.pem", expires_at=days * 86400)], now=0) == said


def test_the_log_warns(tmp_path):
    soon = Expiry(what="/c.pem", expires_at=time.time() + 86400)
    later = Expiry(what="/d.pem", expires_at=time.time() + 86400 * 365)

    line = line_of(ExpiriesKnown(job="docs", expiries=(soon, later)))
    assert line is not None
    assert line.level == "warning"
    assert len(line.fields["warnings"]) == 1
    assert line_of(ExpiriesKnown(job="docs", expiries=(later,))) is None


def test_the_metric_follows_what_the_job_needs_now(tmp_path):
    path = tmp_path / "metrics.prom"
    listener = MetricsListener(path)
    for name, end in (("/old.pem", 1.0), ("/new.pem", 2.0)):
        listener.observe(ExpiriesKnown(job="docs", expiries=(Expiry(what=name, expires_at=end),)))
    listener._write()

    lines = [each for each in path.read_text().splitlines() if "expiry" in each and "#" not in each]
    assert lines == ['fsrep_expiry_timestamp_seconds{job="docs",what="/new.pem"} 2.0']


async def told_within(seconds, look):
    """Watch for a while; give what was told, each with when."""
    told = []
    with trio.move_on_after(seconds):
        await watch_expiries(look, lambda seen: told.append((trio.current_time(), seen)))
    return told


async def test_those_who_watch_are_told_again_once_a_day(autojump_clock):
    began_at = trio.current_time()
    found = (Expiry(what="/c.pem", expires_at=0.0),)

    told = await told_within(3.5 * 86400, lambda: found)

    assert [round((at - began_at) / 86400, 2) for at, _ in told] == [0, 1, 2, 3]
    assert {seen for _, seen in told} == {found}


async def test_those_who_watch_are_told_of_a_change_within_a_minute(autojump_clock):
    began_at = trio.current_time()
    old, new = ((Expiry(what="/c.pem", expires_at=end),) for end in (1.0, 2.0))

    told = await told_within(
        1.5 * 86400, lambda: old if trio.current_time() - began_at < 36030 else new
    )

    assert [(round(at - began_at), seen) for at, seen in told] == [
        (0, old),
        (36060, new),
        (36060 + 86400, new),
    ]


async def test_a_file_that_is_being_replaced_leaves_what_was_known(autojump_clock):
    began_at = trio.current_time()
    found = (Expiry(what="/c.pem", expires_at=1.0),)

    def look():
        if 0 < trio.current_time() - began_at < 86500:
            raise ConfigError("/c.pem holds no certificate")
        return found

    told = await told_within(2.5 * 86400, look)

    assert [seen for _, seen in told] == [found] * 3


async def test_what_cannot_be_read_from_the_start_is_told():
    def look():
        raise ConfigError("/c.pem holds no certificate")

    with pytest.raises(ConfigError):
        await watch_expiries(look, lambda _: None)


class QuietListener(Listener):
    """Accepts nobody, and needs what ends in ten days."""

    async def serve(self, _welcome, *, task_status):
        task_status.started(())
        await trio.sleep_forever()

    def expiries(self):
        return (Expiry(what="/c.pem", expires_at=time.time() + 10 * 86400),)


async def test_a_server_warns_while_it_runs(autojump_clock, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    lines = []
    log = SimpleNamespace(write=lines.append)
    config = ServeConfig(listener=(PluginChoice(name="quiet", options={}),))
    listeners = [QuietListener(), QuietListener()]
    server = _Server(config, listeners, admissions={}, log=log, metrics=None)

    with trio.move_on_after(2.5 * 86400):
        await server.run()

    assert [line.level for line in lines] == ["warning"] * 3
    assert all(line.message.startswith("/c.pem expires on ") for line in lines)


def test_a_server_writes_when_its_certificates_end(tmp_path):
    path = tmp_path / "metrics.prom"
    job = MetricsListener(path)
    job.observe(ExpiriesKnown(job="docs", expiries=(Expiry(what="/job.pem", expires_at=1.0),)))
    job._write()
    for name in ("/old.pem", "/new.pem"):
        MetricsListener(path).write_server([Expiry(what=name, expires_at=2.0)])

    lines = [each for each in path.read_text().splitlines() if "expiry" in each and "#" not in each]
    assert lines == [
        'fsrep_expiry_timestamp_seconds{job="",what="/new.pem"} 2.0',
        'fsrep_expiry_timestamp_seconds{job="docs",what="/job.pem"} 1.0',
    ]


def test_check_and_run_warn_of_a_certificate(fsrep, directory, tmp_path):
    made = certificates.issue(directory, ["laptop"], lifetime=timedelta(days=3))
    sender = tmp_path / "sender"
    (sender / "docs").mkdir(parents=True)
    config = tmp_path / "fsrep.toml"
    config.write_text(
        '[[job]]\nname = "docs"\nfilesystems = ["docs"]\nretry_for = "0s"\n'
        '[job.sender]\ntransport = { name = "local-pipe" }\n'
        f'storage = {{ name = "directory", root = "{sender}" }}\n'
        '[job.receiver]\nstorage = { name = "directory", root = "/elsewhere" }\n'
        '[job.receiver.transport]\nname = "tls"\nhost = "127.0.0.1"\nport = 1\n'
        f'ca = "{directory}/ca.pem"\ncertificate = "{made.certificate}"\nkey = "{made.key}"\n'
    )
    done = fsrep("run", "--config", config)

    assert done.status == 1
    assert "connection refused" in done.out + done.err
    assert f"{made.certificate} expires on" in done.err
