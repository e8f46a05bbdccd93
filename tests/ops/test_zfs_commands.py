"""``fsrep zfs``, over pools that only pretend."""

from __future__ import annotations

import sys

import pytest

import pretend_zfs
from pretended_pools import JOB, Pretended

LAST = f"fsrep_last_{JOB}"
STEP = f"fsrep_step_{JOB}"


@pytest.fixture
def config(tmp_path):
    """A job from one pretended pool to another, and a client that is served a third."""
    lines = ["[[job]]", f'name = "{JOB}"', 'filesystems = ["**"]']
    for side in ("sender", "receiver"):
        command = [sys.executable, "-I", "-S", pretend_zfs.__file__, str(tmp_path / side)]
        (tmp_path / side).mkdir()
        lines += [
            f"[job.{side}]",
            'transport = { name = "local-pipe" }',
            f'storage = {{ name = "zfs", root = "pool{side}", command = {command} }}',
        ]
    lines += [
        "[[identity]]",
        'name = "laptop"',
        'permissions = ["receive"]',
        'storage = { name = "zfs", root = "tank/laptop", override = { readonly = "on" } }',
        "[[identity]]",
        'name = "other"',
        'permissions = ["receive"]',
        f'storage = {{ name = "directory", root = "{tmp_path}" }}',
    ]
    path = tmp_path / "fsrep.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def pretended(config, tmp_path):
    return [Pretended(tmp_path / side, f"pool{side}") for side in ("sender", "receiver")]


def test_a_user_is_allowed_what_a_side_needs(fsrep, config):
    done = fsrep("zfs", "allow", "sender", "--job", JOB, "--user", "backup", "-c", config)

    assert done.status == 0
    (line,) = done.out.splitlines()
    assert line.startswith("zfs allow -u backup ")
    assert line.endswith(" poolsender")
    assert {"send", "hold", "release", "bookmark"} <= set(line.split()[4].split(","))


def test_a_receiver_may_set_what_it_overrides_and_stays_unmounted(fsrep, config):
    done = fsrep("zfs", "allow", "receiver", "--identity", "laptop", "--user", "u v", "-c", config)

    allow, unmount = done.out.splitlines()
    assert allow.startswith("zfs allow -u 'u v' ")
    assert {"receive", "create", "mount", "readonly"} <= set(allow.split()[5].split(","))
    assert unmount == "zfs set mountpoint=none tank/laptop"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a job or an identity"),
        (("--job", JOB, "--identity", "laptop"), "name a job or an identity"),
        (("--identity", "other"), "the storage is directory"),
        (("--identity", "nobody"), "no identity"),
        (("--job", "nothing"), "no job"),
    ],
)
def test_what_is_not_there_is_refused(fsrep, config, arguments, words):
    done = fsrep("zfs", "allow", "sender", *arguments, "--user", "x", "-c", config)

    assert done.status == 2
    assert words in done.err


def leave_behind(sender, receiver):
    """Replicate twice, and leave what a killed run could have left; tell what is stale."""
    for site in (sender, receiver):
        with site.pools() as pools:
            for name in "abc":
                pools.datasets.get(f"{site.root}/docs") or pools.create(f"{site.root}/docs")
                pools.snapshot(f"{site.root}/docs@{name}")
            snapshots = pools.datasets[f"{site.root}/docs"]["snapshots"]
            if site is sender:
                for name in "ab":
                    guid = snapshots[name]["guid"]
                    mark = f"fsrep_cursor_{guid:016x}_plain_{JOB}"
                    source = f"{site.root}/docs@{name}"
                    pretend_zfs.do_bookmark(pools, [source, f"{site.root}/docs#{mark}"])
                snapshots["a"]["holds"] = [STEP, "keep"]
                snapshots["b"]["holds"] = [STEP]
                snapshots["c"]["holds"] = [STEP]
            else:
                for name in "abc":
                    snapshots[name]["holds"] = [LAST, "keep"]


def test_what_is_stale_is_listed_and_released_and_nothing_else(fsrep, config, pretended):
    sender, receiver = pretended
    leave_behind(sender, receiver)

    listed = fsrep("zfs", "abstractions", "list", "--job", JOB, "-c", config)
    released = fsrep("zfs", "abstractions", "release-stale", "--job", JOB, "-c", config)
    again = fsrep("zfs", "abstractions", "list", "--job", JOB, "-c", config)

    stale = [line for line in listed.out.splitlines() if line.endswith("(stale)")]
    assert len(listed.out.splitlines()) == 8
    assert len(stale) == 3
    assert released.status == 0
    assert len(released.out.splitlines()) == 3
    assert "stale" not in again.out
    assert sender.holds() == {"a": ["keep"], "b": [STEP], "c": [STEP]}
    assert receiver.holds() == {"a": ["keep"], "b": [LAST, "keep"], "c": [LAST, "keep"]}
    (cursor,) = sender.dataset("docs")["bookmarks"].values()
    assert cursor["guid"] == sender.dataset("docs")["snapshots"]["b"]["guid"]


def test_a_hold_on_what_was_confirmed_last_is_stale_once_no_step_goes_on(fsrep, config, pretended):
    """Killed after its cursor had moved, a run leaves the hold of its target."""
    sender, receiver = pretended
    leave_behind(sender, receiver)
    with sender.pools() as pools:
        pools.datasets[f"{sender.root}/docs"]["snapshots"]["c"]["holds"] = []

    fsrep("zfs", "abstractions", "release-stale", "--job", JOB, "-c", config)

    assert sender.holds() == {"a": ["keep"]}


def test_all_that_a_job_left_is_released_when_it_is_gone(fsrep, config, pretended):
    sender, receiver = pretended
    leave_behind(sender, receiver)

    done = fsrep(
        *("zfs", "abstractions", "release-stale", "--job", JOB, "--gone", JOB, "-c", config)
    )

    assert done.status == 0
    assert sender.holds() == {"a": ["keep"]}
    assert receiver.holds() == {name: ["keep"] for name in "abc"}
    assert not sender.dataset("docs")["bookmarks"]


def test_a_job_that_is_elsewhere_has_nothing_here(fsrep, config):
    done = fsrep("zfs", "abstractions", "list", "--job", "elsewhere", "-c", config)

    assert done.status == 2
    assert "no storage zfs works on this host" in done.err
