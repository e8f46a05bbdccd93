"""Plan 1,000,000 versions over 1,000 filesystems: seconds, peak memory, growth.

The mix: each of 1,000 filesystems has 1,000 versions on the sender, 950 snapshots and 50
bookmarks of them, in shuffled order. The receiver has the oldest snapshots up to a random
one, less a tenth that it has pruned, so it adds some 430,000 versions to the sender's
million. Of a hundred filesystems one is new, one has diverged, one shares no version with
the receiver, one has only a bookmark left as its base, and one is complete but for the
cursor. Every filesystem has names of its own, no string is shared between the sides.

``seconds``, ``peak_mib`` and ``growth`` are for batched steps; ``each_seconds`` and
``each_peak_mib`` for one step for each snapshot, some 450,000 steps. Every measurement is
a fresh process, which times ``make_plan`` alone and reports its largest resident set,
with Python, fsrep and both inventories in it. Seconds are medians of three processes;
``growth`` divides them by those of the same 1,000 filesystems with 100 versions each.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from fsrep_core.planning import Policy, Steps, make_plan
from fsrep_core.values import Capabilities, Filesystem, Inventory, Version, VersionKind

if TYPE_CHECKING:
    import argparse

FILESYSTEMS = 1_000
VERSIONS = 1_000_000
FATES = ("new", "diverged", "unrelated", "lone bookmark", "mark only")
"""What becomes of the first five of every hundred filesystems."""
CAPABILITIES = Capabilities(
    stream_formats=frozenset({"bench"}), batched=True, bookmarks=True, nests=True
)


def run(options: argparse.Namespace) -> dict[str, float]:
    versions = VERSIONS // 10 if options.quick else VERSIONS
    whole = [_measure(versions, Steps.BATCHED) for _ in range(3)]
    tenth = [_measure(versions // 10, Steps.BATCHED) for _ in range(3)]
    each = _measure(versions, Steps.EACH)
    seconds = statistics.median(figures["seconds"] for figures in whole)
    tenth_seconds = statistics.median(figures["seconds"] for figures in tenth)
    return {
        "versions": versions,
        "filesystems": FILESYSTEMS,
        "receiver_versions": whole[0]["receiver_versions"],
        "seconds": round(seconds, 3),
        "peak_mib": max(figures["peak_mib"] for figures in whole),
        "growth": round(seconds / tenth_seconds, 2),
        "each_steps": each["steps"],
        "each_seconds": round(each["seconds"], 3),
        "each_peak_mib": each["peak_mib"],
    }


def _measure(versions: int, steps: Steps) -> dict[str, float]:
    program = "import sys, bench.planning; bench.planning.report_one(sys.argv[1], sys.argv[2])"
    arguments = [sys.executable, "-c", program, str(versions), steps.value]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def report_one(versions: str, steps: str) -> None:
    sender, receiver = make_inventories(int(versions) // FILESYSTEMS)
    policy = Policy(steps=Steps(steps))
    started = time.perf_counter()
    plan = make_plan(sender, receiver, patterns=["**"], policy=policy)
    seconds = time.perf_counter() - started
    conflicts = sum(each.conflict is not None for each in plan.filesystems)
    assert conflicts == 2 * FILESYSTEMS // 100, conflicts
    figures = {
        "seconds": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps": sum(len(each.steps) for each in plan.filesystems),
        "receiver_versions": sum(len(each.versions) for each in receiver.filesystems),
    }
    print(json.dumps(figures))


def make_inventories(versions_each: int) -> tuple[Inventory, Inventory]:
    chance = random.Random(20261122)
    pairs = [_make_pair(index, versions_each, chance) for index in range(FILESYSTEMS)]
    return (
        Inventory(capabilities=CAPABILITIES, filesystems=tuple(pair[0] for pair in pairs)),
        Inventory(
            capabilities=CAPABILITIES,
            filesystems=tuple(pair[1] for pair in pairs if pair[1] is not None),
        ),
    )


def _make_pair(
    index: int, versions_each: int, chance: random.Random
) -> tuple[Filesystem, Filesystem | None]:
    name = f"pool/data{index // 10}" + (f"/child{index}" if index % 10 else "")
    fate = dict(enumerate(FATES)).get(index % 100, "behind")
    lone = versions_each // 20
    total = versions_each - lone
    common = total if fate == "mark only" else chance.randrange(1, total)
    sender = [_version(index, at) for at in range(total)]
    marked = chance.sample(range(total), lone)
    if fate == "lone bookmark":
        sender = sender[common:]
        marked = [common - 1, *marked[: versions_each - len(sender) - 1]]
    sender += [_version(index, at, VersionKind.BOOKMARK) for at in marked]
    receiver = [_version(index, at, host=1) for at in range(common) if at == common - 1 or at % 10]
    if fate == "diverged":
        receiver.append(_version(index, total + 7, host=1))
    if fate == "unrelated":
        receiver = [_version(index + FILESYSTEMS, at, host=1) for at in range(common)]
    chance.shuffle(sender)
    chance.shuffle(receiver)
    if fate == "new":
        return Filesystem(name=name, versions=tuple(sender)), None
    return (
        Filesystem(name=name, versions=tuple(sender)),
        Filesystem(name=name, versions=tuple(receiver)),
    )


def _version(
    index: int, at: int, kind: VersionKind = VersionKind.SNAPSHOT, *, host: int = 0
) -> Version:
    guid = (index << 32 | at) * 0x9E3779B97F4A7C15 % 2**64
    order = 1_000_000 * host + 10_000 + 37 * at
    return Version(kind, f"auto-{index}-{at:06d}", str(guid), order, 1.7e9 + 60.0 * at)
