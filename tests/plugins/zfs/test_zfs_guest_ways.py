"""From pool to pool through real connections: an sshd on loopback, and TLS."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest

import ways
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.timing import Timing
from fsrep_core.testing import CutStream, no_leaks
from real_zfs import drive, zfs

pytestmark = pytest.mark.zfs

LARGE_BYTES = 3 << 20


class CutOnce(Endpoint):
    """A bound endpoint whose next stream breaks off in the middle."""

    cut_next = False

    @asynccontextmanager
    async def send(self, request):
        async with super().send(request) as response:
            stream = response.stream
            if self.cut_next:
                self.cut_next = False
                stream = CutStream(stream, LARGE_BYTES // 2)
            yield attrs.evolve(response, stream=stream)


@pytest.mark.parametrize("transport", ["ssh", "tls"])
async def test_full_incremental_and_resumed(zfs_sites, reach, monkeypatch):
    """Both pools are elsewhere; children, volumes and increments arrive, and a cut resumes."""
    monkeypatch.setattr(ways, "TIMING", Timing(heartbeat_interval_seconds=2.0))
    a, b = zfs_sites
    a.filesystem("docs")
    a.filesystem("docs/with space")
    a.volume("docs/disk")
    reports = []
    async with no_leaks(), reach(a.storage) as there, reach(b.storage) as elsewhere:
        sender = CutOnce(there, name="sender")
        receiver = Endpoint(elsewhere, name="receiver")
        for number in (1, 2):
            a.write(number, "docs/with space")
            zfs("snapshot", "-r", a.dataset(f"docs@{number}"))
            reports.append(await drive(sender, receiver, concurrency=2))
        a.write("large", size_bytes=LARGE_BYTES)
        zfs("snapshot", a.dataset("docs@3"))
        sender.cut_next = True
        interrupted = await drive(sender, receiver, filesystems=("docs",))
        reports.append(await drive(sender, receiver))

    problems = [each.problem for report in reports for each in report.replications]
    assert set(problems) == {None}, problems
    assert [each.status for each in reports] == ["completed"] * 3
    assert interrupted.replications[0].problem.kind == "interrupted-stream"
    resumed = {
        step.to_version.name: step.resumed
        for replication in reports[-1].replications
        for step in replication.completed
    }
    assert resumed == {"3": True}
    for name, newest in (("docs", "3"), ("docs/with space", "2"), ("docs/disk", "2")):
        assert a.content(name, newest) == b.content(name, newest)
