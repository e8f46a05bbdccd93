"""Jobs over a real sshd: push, pull, forced identities, and how few processes they take."""

from __future__ import annotations

import json
import random

import pytest

import fsrep_core.runtime.remote.endpoint as remote_endpoint
from fsrep_core import InvalidRequestError, SendRequest, Side, Version, VersionKind
from fsrep_core.runtime.binding import SideSettings, open_endpoint
from fsrep_core.runtime.registry import load_plugins
from fsrep_core.testing import compare_trees, no_leaks


def fill(directory, chance, files=30):
    for number in range(files):
        file = directory / f"d{number % 5}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.choice([0, 10, 5000, 300_000])))
        file.chmod(chance.choice([0o600, 0o644, 0o755]))
    (directory / f"link{files}").symlink_to("d1/f1")


@pytest.fixture
def chance():
    return random.Random(7)


@pytest.mark.parametrize("push", [True, False])
def test_versions_arrive_whole_either_way(scene, chance, push):
    sender, receiver = (scene.here, scene.there) if push else (scene.there, scene.here)
    fill(sender / "docs", chance)
    scene.snapshot("one", sender)
    first = scene.run_job(push=push, settings='initial = "all"\nretry_for = "0s"')
    fill(sender / "docs" / "more", chance, files=5)
    (sender / "docs" / "link30").unlink()
    scene.snapshot("two", sender)
    second = scene.run_job(push=push)

    assert (first.status, second.status) == (0, 0), first.said + second.said
    for version in ("one", "two"):
        assert not compare_trees(
            scene.tree(sender, "docs", version), scene.tree(receiver, "docs", version)
        )
    step = second.replications[0]["completed"][0]
    assert step["from_version"]["name"] == "one"


def forced(scene, permissions, root=None):
    """Let the test's key do what an identity may, as the printed line says."""
    config = scene.root / "serving.toml"
    kept = root or scene.there
    config.write_text(
        f"""
        [[identity]]
        name = "laptop"
        storage = {{ name = "directory", root = "{kept}" }}
        permissions = {permissions}
        """
    )
    printed = scene.fsrep(
        "ssh", "authorized-key", "laptop", "--key", scene.root / "key.pub", "--config", config
    )
    assert printed.returncode == 0, printed.stderr
    scene.authorize(printed.stdout)
    return printed.stdout


def test_a_forced_identity_ignores_what_the_client_asks_for(scene, chance):
    fill(scene.here / "docs", chance, files=3)
    scene.snapshot("one")
    forced(scene, '["receive"]')
    elsewhere = scene.root / "elsewhere"
    elsewhere.mkdir(exist_ok=True)

    ended = scene.run_job(
        command=f"touch {elsewhere}/never; echo never",
        storage={"name": "directory", "root": str(elsewhere), "create_root": True},
    )

    assert ended.status == 0, ended.said
    assert list(elsewhere.iterdir()) == []
    assert not compare_trees(
        scene.tree(scene.here, "docs", "one"), scene.tree(scene.there, "docs", "one")
    )


@pytest.mark.parametrize("name", ["..", "../elsewhere", "/etc", "-rf", "a/../../b", "a@b", "a\0b"])
async def test_a_forced_identity_cannot_leave_its_root(scene, monkeypatch, name):
    """Also where the client does not look at what it says."""
    forced(scene, '["send", "receive", "create", "destroy"]')
    asked = {
        "job": "kit",
        "filesystem": name,
        "to_version": {"kind": "snapshot", "name": "n", "guid": "g", "order": 1},
    }
    monkeypatch.setattr(remote_endpoint, "pack", lambda _: [json.dumps(asked).encode()])
    settings = SideSettings(
        side=Side.SENDER,
        transport="ssh",
        transport_options=scene.options(),
        storage="directory",
        storage_options={"root": "/"},
    )
    version = Version(VersionKind.SNAPSHOT, "n", "g", 1)
    request = SendRequest(job="kit", filesystem="docs", to_version=version)

    async with no_leaks(), open_endpoint(load_plugins(), settings, job="kit") as endpoint:
        with pytest.raises(InvalidRequestError):
            await endpoint.size_estimate(request)
        with pytest.raises(InvalidRequestError):
            async with endpoint.send(request):
                pass


@pytest.mark.parametrize("storage", ["memory", "no-such-storage"])
def test_a_forced_identity_ignores_also_which_storage_is_asked_for(scene, chance, storage):
    fill(scene.here / "docs", chance, files=3)
    scene.snapshot("one")
    forced(scene, '["receive"]')
    config = scene.write_job(settings='retry_for = "0s"')
    text = config.read_text()
    config.write_text(text.replace(str(scene.there), "/nowhere"))

    ended = scene.fsrep("run", "--config", config)

    assert ended.returncode == 0, ended.stderr
    assert scene.tree(scene.there, "docs", "one").exists()


def test_a_permission_that_was_not_granted_is_refused(scene, chance):
    fill(scene.here / "docs", chance, files=3)
    scene.snapshot("one")
    forced(scene, '["send"]')

    ended = scene.run_job()

    assert ended.status == 1
    assert ended.problem["kind"] == "permission-denied"
    assert "laptop may not ask for receive" in ended.problem["message"]
    assert ended.problem["hint"] == "grant it 'receive' on the serving side"
    assert not (scene.there / ".fsrep" / "docs").exists()


def test_an_identity_that_only_receives_cannot_roll_back(scene, chance):
    fill(scene.here / "docs", chance, files=3)
    scene.snapshot("one")
    forced(scene, '["receive"]')
    assert scene.run_job().status == 0
    (scene.there / "docs").mkdir()
    scene.snapshot("two", scene.there)
    fill(scene.here / "docs", chance, files=4)
    scene.snapshot("three")

    ended = scene.run_job(settings='retry_for = "0s"\ndiverged = "rollback"')

    assert ended.status == 1
    assert "laptop may not ask for receive with rollback" in ended.problem["message"]
    assert scene.tree(scene.there, "docs", "two").exists()


def test_an_unknown_identity_is_told_to_the_client(scene):
    forced(scene, '["send"]')
    (scene.root / "serving.toml").write_text(
        (scene.root / "serving.toml").read_text().replace("laptop", "desktop")
    )
    (scene.here / "docs").mkdir()
    scene.snapshot("one")

    ended = scene.run_job()

    assert ended.status == 1
    assert 'there is no identity "laptop"' in ended.problem["message"]


@pytest.mark.parametrize(
    ("filesystems", "versions", "concurrency"),
    [
        (4, 3, 2),
        pytest.param(40, 5, 1, marks=pytest.mark.proof),
        pytest.param(40, 5, 3, marks=pytest.mark.proof),
    ],
)
def test_a_job_of_many_steps_starts_few_processes(scene, filesystems, versions, concurrency):
    for number in range(filesystems):
        (scene.here / f"fs{number}").mkdir()
    for version in range(versions):
        scene.snapshot(f"v{version}")

    ended = scene.run_job(
        settings=(
            f'initial = "all"\nsteps = "each"\nretry_for = "0s"\nconcurrency = {concurrency}'
        ),
        timeout=600,
    )

    assert ended.status == 0, ended.said
    steps = [step for each in ended.replications for step in each["completed"]]
    assert len(steps) == filesystems * versions
    assert scene.started() <= concurrency + 1
