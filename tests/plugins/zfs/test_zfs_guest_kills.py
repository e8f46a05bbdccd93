"""``kill -9`` at seeded moments: of fsrep, of ``zfs send``, of ``zfs receive``.

After each, nothing partial is listed and the cursor is not ahead; the next run converges and
sends no byte again that the receiver had kept. What a kill has left held, the next step of the
filesystem releases.
"""

from __future__ import annotations

import json
import random
from functools import partial

import attrs
import pytest
import trio

from forked_runs import ForkedRuns
from fsrep_core import ResumeToken
from real_zfs import JOB, zfs

pytestmark = [pytest.mark.zfs, pytest.mark.proof]

VICTIMS = {"fsrep": None, "zfs send": "send", "zfs receive": "receive"}
"""Each with the argument that its process was started with; the first is the run itself."""
PARTS = 2
MOMENTS_PER_PART = 15
CHANGE_BYTES = 3 << 20
RATE_LIMIT = "2 MiB/s"
"""Stretches a stream, so that most moments are within it."""
REPEATED_BYTES = 512 << 10
"""What may be sent again beyond what the receiver had kept: records on their way, headers."""
POLL_SECONDS = 0.02
"""To look more often would slow down what is looked at, where there is one processor."""
KEPT = 5
"""After how many trials old versions are destroyed."""

CONFIG = """
[[job]]
name = "job"
filesystems = ["docs"]
retry_for = "{retry_for}"
{sides}
"""
SIDE = """
[job.{side}]
{rate_limit}
transport = {{ name = "local-pipe" }}
storage = {{ name = "zfs", root = "{root}" }}
"""


@pytest.fixture
def runs(zfs_sites, tmp_path):
    for name, retry_for, rate_limit in (("once", "0s", RATE_LIMIT), ("stubborn", "1h", None)):
        limit = f'rate_limit = "{rate_limit}"' if rate_limit else ""
        sides = "".join(
            SIDE.format(side=side, root=site.root, rate_limit=limit if side == "sender" else "")
            for side, site in zip(("sender", "receiver"), zfs_sites, strict=True)
        )
        config = CONFIG.format(retry_for=retry_for, sides=sides)
        tmp_path.joinpath(f"{name}.toml").write_text(config)
    with ForkedRuns.opened(tmp_path, "fsrep_local_pipe", "fsrep_zfs.storage") as forked:
        yield {
            name: partial(forked.start, "run", "--config", f"{tmp_path}/{name}.toml", "--json")
            for name in ("once", "stubborn")
        }


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_killed_at_any_moment(zfs_sites, runs, victim, part):
    a, b = zfs_sites
    seed = f"{victim} {part}"
    chance = random.Random(seed)
    a.filesystem("docs")
    interrupted = number = resumed = 0
    duration_seconds = warm_up(a, runs, victim)

    while interrupted < MOMENTS_PER_PART:
        number += 1
        moment = chance.random()
        where = f"seed {seed!r}, trial {number}, moment {moment:.3f} of {duration_seconds:.2f}s"
        assert number <= 3 * MOMENTS_PER_PART, f"only {interrupted} kills hit something; {where}"
        make_version(a, number)
        run = runs["once"]()
        run.strike(VICTIMS[victim], moment * duration_seconds, POLL_SECONDS)
        late = run.finish().status == 0
        interrupted += not late
        if late:
            duration_seconds *= 0.9  # too late: the machine is faster than when it was measured
        token = look(a, b, where).token

        ended = runs["stubborn"]().finish()

        assert ended.status == 0, f"{where}: {ended}"
        seen = look(a, b, where)
        assert seen.token is None, where
        if token is not None and token.received_bytes:
            step = only_step(ended.stdout, where)
            if step is None:
                assert victim == "fsrep", where  # what it had started ended the receive by itself
            else:
                assert step["resumed"], where
                repeated = step["transferred_bytes"] + token.received_bytes - CHANGE_BYTES
                assert repeated < REPEATED_BYTES, where
                resumed += 1
        assert f"v{number}" in seen.received, where
        if a.holds(*seen.sent):
            make_version(a, f"{number}b")
            ended = runs["stubborn"]().finish()
            assert ended.status == 0, f"{where}: {ended}"
            seen = look(a, b, where)
            assert a.holds(*seen.sent) == [], where
        if number % KEPT == 0:
            thin_out(a, b)
    assert resumed > MOMENTS_PER_PART / 5 or victim == "fsrep"


def only_step(output, where):
    """Give the report's step, or ``None`` where nothing was to be done."""
    [report] = json.loads(output)["jobs"]
    steps = [
        step
        for replication in report["completed"]
        for step in replication["completed"]
        if not step["mark_only"]
    ]
    assert len(steps) <= 1, where
    return steps[0] if steps else None


def warm_up(a, runs, victim):
    """Replicate twice; tell how long the victim lives when nobody kills it."""
    for name in ("first", "second"):
        make_version(a, name)
        lived_seconds = runs["once"]().measure(VICTIMS[victim], POLL_SECONDS)
    return lived_seconds


def make_version(a, number):
    """Change much of the filesystem, so that there is a stream to be cut."""
    a.write("changed", size_bytes=CHANGE_BYTES)
    zfs("snapshot", a.dataset(f"docs@v{number}"))


def listed(site):
    """List the filesystem, as another process would; ``None`` = it is not there."""
    site.reopen()
    return trio.run(site.listed)


def snapshots(found):
    return [each for each in found.versions if each.relative_name[0] == "@"] if found else []


@attrs.frozen
class Seen:
    """What both sides list."""

    token: ResumeToken | None
    """The receiver's."""
    received: list[str]
    """The names of the receiver's snapshots, oldest first."""
    sent: list[str]
    """Those of the sender, each with its filesystem."""


def look(a, b, where):
    """Check what both sides list, and give it."""
    sender, receiver = listed(a), listed(b)
    sent = {each.guid: each.name for each in snapshots(sender)}
    received = {each.guid: each.name for each in snapshots(receiver)}
    assert received.items() <= sent.items(), where
    assert sender.cursor is None or sender.cursor.guid in received, where
    if received:
        newest = list(received.values())[-1]
        assert a.content("docs", newest) == b.content("docs", newest), where
    return Seen(
        receiver.resume_token if receiver else None,
        list(received.values()),
        [f"docs@{name}" for name in sent.values()],
    )


def thin_out(a, b):
    """Keep the newest: the pools are small, and the cursor outlives its snapshot."""
    for site in (a, b):
        old = snapshots(listed(site))[:-1]
        for result in trio.run(site.destroy, old):
            assert result.problem is None, (JOB, result)
