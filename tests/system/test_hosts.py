"""Replication between hosts: over each transport, either way, and from a third one.

Real processes on hosts of their own, which reach each other only by the network. What
arrived is compared by a reader that knows nothing of storages.
"""

from __future__ import annotations

import time

import pytest

from fsrep_core.testing import compare_trees

pytestmark = pytest.mark.hosts

TRANSPORTS = ("ssh", "tls")


def check_arrived(scene, source, target, versions):
    for version in versions:
        sent, arrived = scene.tree(source, version), scene.tree(target, version)
        assert any(sent.iterdir())
        assert compare_trees(sent, arrived) == []


def replicate_twice(scene, runs_on, sender, receiver):
    """A full step and one from there, by two runs of a job."""
    source = sender[0]
    for number, version in enumerate(("first", "second")):
        scene.make_version(source, version, seed=number)
        report = scene.run_job(runs_on, scene.write_job(sender, receiver))
        assert report["problem"] is None, report["problem"]
        (replication,) = [*report["completed"], *report["active"], *report["pending"]]
        (step,) = replication["completed"]
        assert step["to_version"]["name"] == version
        assert (step["from_version"] is None) == (number == 0)
    check_arrived(scene, source, receiver[0], ("first", "second"))
    assert scene.left_behind() == {}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("push", [True, False], ids=["push", "pull"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_versions_arrive_at_another_host(scene, transport, push, family):
    here = ("one", {"name": "local-pipe"})
    there = ("two", scene.way(transport, "one", "two", family))
    if transport == "tls":
        scene.serve("two")

    sides = (here, there) if push else (there, here)
    replicate_twice(scene, "one", *sides)


@pytest.mark.parametrize("to_receiver", TRANSPORTS)
@pytest.mark.parametrize("to_sender", TRANSPORTS)
def test_a_third_host_replicates_between_two(scene, to_sender, to_receiver):
    """Nothing of it is kept there, and the two need not know each other."""
    for name, transport in (("one", to_sender), ("two", to_receiver)):
        if transport == "tls":
            scene.serve(name)
    sender = ("one", scene.way(to_sender, "three", "one", "ipv6"))
    receiver = ("two", scene.way(to_receiver, "three", "two", "ipv4"))

    replicate_twice(scene, "three", sender, receiver)

    assert list(scene.place("three").iterdir()) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_host_that_cannot_be_reached_is_named(scene, transport):
    """The run ends in bounded time, and a run after the link is back converges."""
    scene.make_version("one", "first", seed=1)
    if transport == "tls":
        scene.serve("two")
    short = {"ssh": {"connect_timeout": "2s"}, "tls": {"dial_timeout": "2s"}}[transport]
    way = scene.way(transport, "one", "two", **short)
    config = scene.write_job(("one", {"name": "local-pipe"}), ("two", way))

    scene.network.take_down(scene.host("two"))
    try:
        started_at = time.monotonic()
        report = scene.run_job("one", config)
        took_seconds = time.monotonic() - started_at
    finally:
        scene.network.put_up(scene.host("two"))
    again = scene.run_job("one", config)

    assert report["problem"]["kind"] in {"connectivity", "timeout"}
    assert report["problem"]["temporary"]
    assert scene.host("two").ipv4 in report["problem"]["message"]
    assert took_seconds < 20
    assert again["problem"] is None
    check_arrived(scene, "one", "two", ["first"])
    assert scene.left_behind() == {}
