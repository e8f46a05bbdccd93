"""``kill -9`` at seeded moments: of fsrep, of ``btrfs send``, of ``btrfs receive``.

After each, nothing partial is listed, the cursor is not ahead, and the next run
converges and leaves nothing behind.
"""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio

from forked_runs import ForkedRuns

pytestmark = [pytest.mark.btrfs, pytest.mark.proof]

VICTIMS = {"fsrep": None, "btrfs send": "send", "btrfs receive": "receive"}
"""Each with the argument that its process was started with; the first is the run itself."""
MOMENTS = 50
STREAM_BYTES = 8 << 20
RATE_LIMIT = "32 MiB/s"
"""Stretches the stream to a quarter of a second, so that most moments are within it."""
POLL_SECONDS = 0.001

CONFIG = """
[[job]]
name = "job"
filesystems = ["docs"]
retry_for = "{retry_for}"
{sides}
"""
SIDE = """
[job.{side}]
rate_limit = "{rate_limit}"
transport = {{ name = "local-pipe" }}
storage = {{ name = "btrfs", root = "{root}" }}
"""


@pytest.fixture
def runs(sites, tmp_path):
    """Give two ways to run one job: one gives up at once, the other goes on."""
    sides = "".join(
        SIDE.format(side=side, root=site.root, rate_limit=RATE_LIMIT)
        for side, site in zip(("sender", "receiver"), sites, strict=False)
    )
    for name, retry_for in (("once", "0s"), ("stubborn", "1h")):
        config = CONFIG.format(retry_for=retry_for, sides=sides)
        tmp_path.joinpath(f"{name}.toml").write_text(config)
    with ForkedRuns.opened(tmp_path, "fsrep_local_pipe", "fsrep_btrfs.storage") as forked:
        yield {
            name: partial(forked.start, "run", "--config", f"{tmp_path}/{name}.toml")
            for name in ("once", "stubborn")
        }


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_at_any_moment(sites, runs, tools, victim):
    """Each time the next run converges, and until then nothing is wrong."""
    a, b, _ = sites
    seed = f"{victim} 1"
    chance = random.Random(seed)
    docs = a.subvolume("docs")
    interrupted = number = 0
    duration_seconds = warm_up(a, runs, docs, chance, victim)

    while interrupted < MOMENTS:
        number += 1
        moment = chance.random()
        where = f"seed {seed!r}, trial {number}, moment {moment:.3f} of {duration_seconds:.2f}s"
        assert number <= 3 * MOMENTS, f"only {interrupted} kills hit something; {where}"
        make_version(a, docs, chance, number)
        run = runs["once"]()
        run.strike(VICTIMS[victim], moment * duration_seconds, POLL_SECONDS)
        late = run.finish().status == 0
        interrupted += not late
        if late:
            duration_seconds *= 0.9  # too late: the machine is faster than when it was measured
        look(a, b, tools, where)

        ended = runs["stubborn"]().finish()

        assert ended.status == 0, f"{where}: {ended}"
        sent = look(a, b, tools, where)
        assert sent[-1] == f"v{number}", where
        assert b.left_behind() == [], where
        assert len(tools.subvolumes_below(b.root)) == len(sent), where
        thin_out(a, b, number)


def warm_up(a, runs, docs, chance, victim):
    """Replicate once; tell how long the victim lives when nobody kills it."""
    make_version(a, docs, chance, "first")
    return runs["once"]().measure(VICTIMS[victim], POLL_SECONDS)


def make_version(site, docs, chance, number):
    """Change much of the filesystem, so that there is a stream to be cut."""
    for part in range(4):
        (docs / f"part{part}").write_bytes(chance.randbytes(STREAM_BYTES // 4))
    trio.run(site.snapshot, f"v{number}")


def look(a, b, tools, where):
    """Check what the receiver lists; give the names of its versions, oldest first."""
    for site in (a, b):
        site.reopen()
    sent = trio.run(a.versions)
    received = trio.run(b.versions)
    cursor = trio.run(a.cursor)
    assert received.items() <= sent.items(), where
    if received:
        newest = list(received)[-1]
        assert tools.same_content(a.place(newest), b.place(newest)) == [], where
    assert cursor is None or cursor.guid in received.values(), where
    for path in tools.subvolumes_below(b.root / "snapshots" / "docs"):
        assert "ro=true" in tools.btrfs("property", "get", "-ts", path), where
    return list(received)


def thin_out(a, b, number):
    """Keep the newest only: the file systems are small."""
    for site in (a, b):
        filesystem = trio.run(site.filesystem)
        old = [each for each in filesystem.versions if each.name != f"v{number}"]
        for result in trio.run(site.destroy, old):
            assert result.problem is None
