"""ssh, the far fsrep and sshd's own process, killed without warning at seeded moments.

The run ends in a typed error within its deadline, or in success; no version that can be
seen is incomplete; nothing is left on either side; and the next run converges.

The moment is drawn from the seed as a share of the time that an undisturbed run takes
here, so a failure is repeated by its seed, if not to the microsecond.
"""

from __future__ import annotations

import os
import random
import shutil
import signal

import attrs
import pytest
import trio

from fsrep_core.ops.session import job_settings, open_session, open_sides
from fsrep_core.runtime.classify import classify
from fsrep_core.runtime.driver import Driver
from fsrep_core.runtime.observers import Observers
from fsrep_core.testing import compare_trees, find_leaks, open_resources

VICTIMS = {
    "ssh": lambda words: " -F none " in words,
    "far side": lambda words: "fsrep endpoint" in words and " -F none " not in words,
    "session": lambda words: words.startswith("sshd: "),
}
"""Each by its command line. ``-F none`` is the tests' own."""

EXPECTED_KINDS = {"connectivity", "interrupted-stream", "timeout"}
DEADLINE_SECONDS = 45
SEEDS_PER_TEST = 10
PROOF_SEEDS = 60
"""The faults between hosts and the storms bring those of ssh to 530."""


@attrs.define(eq=False)
class Trial:
    """A job over ssh in this process, and its killing."""

    scene: object
    undisturbed_seconds: float = 0.0

    def prepare(self):
        chance = random.Random(1)
        live = self.scene.here / "docs"
        live.mkdir()
        for number in range(20):
            (live / f"f{number}").write_bytes(chance.randbytes(20_000))
        (live / "big").write_bytes(chance.randbytes(8_000_000))
        self.scene.snapshot("one")
        (live / "f1").write_bytes(b"changed")
        (live / "big2").write_bytes(chance.randbytes(4_000_000))
        self.scene.snapshot("two")

    def config(self, push):
        if not push and not any(self.scene.there.iterdir()):
            shutil.copytree(self.scene.here, self.scene.there, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(self.scene.here)
            self.scene.here.mkdir()
        return self.scene.write_job(
            push=push, settings='initial = "all"\nsteps = "each"\nretry_for = "0s"'
        )

    async def run(self, push):
        """Run the job once; give its problem, ``None`` = everything is there."""
        session = open_session(self.config(push), [])
        (job,) = session.jobs
        with trio.fail_after(DEADLINE_SECONDS):
            try:
                async with open_sides(session, job) as (sender, receiver):
                    driver = Driver(job_settings(job), sender, receiver, Observers([]))
                    await driver.run()
            except Exception as error:  # noqa: BLE001  (what the command would report)
                return classify(error)
        report = driver.report()
        problems = [report.problem, *(each.problem for each in report.replications)]
        return next((each for each in problems if each is not None), None)

    async def kill(self, victim, after_seconds):
        """Kill one of its processes; the next that appears, where there is none yet."""
        await trio.sleep(after_seconds)
        is_victim = VICTIMS[victim]
        while True:
            found = [pid for pid, line in self.scene.processes().items() if is_victim(line)]
            if found:
                try:
                    os.kill(random.Random(len(found)).choice(found), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return
            await trio.sleep(0.005)

    def receiver_root(self, push):
        return self.scene.there if push else self.scene.here

    def sender_root(self, push):
        return self.scene.here if push else self.scene.there

    def check_visible(self, push):
        """Every version that can be seen is whole."""
        for version in ("one", "two"):
            tree = self.scene.tree(self.receiver_root(push), "docs", version)
            if tree.exists():
                whole = self.scene.tree(self.sender_root(push), "docs", version)
                assert not compare_trees(whole, tree)

    def forget(self, push):
        shutil.rmtree(self.receiver_root(push) / ".fsrep", ignore_errors=True)


async def kill_once(trial, seed, *, push, victim):
    chance = random.Random(seed)
    trial.forget(push)
    before = open_resources()
    async with trio.open_nursery() as nursery:
        moment = chance.uniform(0, trial.undisturbed_seconds)
        nursery.start_soon(trial.kill, victim, moment)
        problem = await trial.run(push)
        nursery.cancel_scope.cancel()
    about = f"seed {seed}, {victim}, push={push}: {problem}"

    assert problem is None or problem.kind in EXPECTED_KINDS, about
    assert problem is None or problem.temporary, about
    assert not await find_leaks(before), about
    assert not await trio.to_thread.run_sync(trial.scene.left_behind), about
    trial.check_visible(push)

    again = await trial.run(push)

    assert again is None, f"{about}; then {again}"
    trial.check_visible(push)
    assert trial.scene.tree(trial.receiver_root(push), "docs", "two").exists(), about
    return problem


async def prepared(scene, push):
    trial = Trial(scene)
    trial.prepare()
    started = trio.current_time()
    assert await trial.run(push) is None
    trial.undisturbed_seconds = trio.current_time() - started
    return trial


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("push", [True, False], ids=["push", "pull"])
async def test_a_kill_is_noticed_and_the_next_run_converges(scene, push, victim):
    trial = await prepared(scene, push)

    await kill_once(trial, 1, push=push, victim=victim)


@pytest.mark.proof
@pytest.mark.parametrize("first", range(0, PROOF_SEEDS, SEEDS_PER_TEST))
async def test_many_kills(scene, first):
    push = (first // SEEDS_PER_TEST) % 2 == 0
    trial = await prepared(scene, push)
    for seed in range(first, first + SEEDS_PER_TEST):
        victim = sorted(VICTIMS)[seed % len(VICTIMS)]
        await kill_once(trial, seed, push=push, victim=victim)
