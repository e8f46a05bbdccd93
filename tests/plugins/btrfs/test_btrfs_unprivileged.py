"""A user who is not root replicates, with the rules and capabilities that the pages give."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import trio

from nobody import NOBODY, as_nobody, let_in

pytestmark = pytest.mark.btrfs

DOCS = Path(__file__).parents[3] / "docs"


def missing(*names):
    """Say what is not installed."""
    absent = [name for name in names if shutil.which(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)}: not installed")


@pytest.fixture
def by_sudo():
    """Let the user run what the how-to says."""
    page = DOCS.joinpath("how-to", "btrfs.md").read_text(encoding="utf-8")
    rules = re.findall(r"^backup (ALL=.*)$", page, re.MULTILINE)
    assert len(rules) > 4
    program = shutil.which("btrfs")
    file = Path(f"/etc/sudoers.d/fsrep-test-{os.getpid()}")
    file.touch(0o440)
    try:
        file.write_text("".join(f"nobody {rule}\n" for rule in rules))
        yield ("sudo", "-n", program)
    finally:
        file.unlink()


@pytest.fixture
def by_capabilities(tmp_path, tools):
    """Give the user a program with the capabilities that the reference names."""
    page = DOCS.joinpath("reference", "btrfs-storage.md").read_text(encoding="utf-8")
    (capabilities,) = re.findall(r"^setcap (\S+) ", page, re.MULTILINE)
    program = tmp_path / "fsrep-btrfs"
    shutil.copy(shutil.which("btrfs"), program)
    os.chown(program, NOBODY, NOBODY)
    program.chmod(0o500)
    tools.run("setcap", capabilities, program)
    let_in(program.parent)
    return (str(program),)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("by_sudo", marks=missing("sudo")),
        pytest.param("by_capabilities", marks=missing("setcap")),
    ],
)
def test_a_user_replicates(how, request, sites, tools):
    """Makes versions, replicates in full and in increments, and destroys."""
    command = request.getfixturevalue(how)
    a, b, _ = sites
    docs = a.subvolume("docs")
    a.root.parent.parent.chmod(0o711)
    (a.root / "snapshots").mkdir()
    for path in (a.root / "snapshots", b.root):
        os.chown(path, NOBODY, NOBODY)
    secret = docs / "secret"
    secret.write_text("only root may read this")
    secret.chmod(0o600)

    async def replicate(*names):
        for name in names:
            await a.snapshot(name)
        report = await tools.run_job(a, b)
        assert report.status == "completed", report
        assert set(await b.versions()) == set(await a.versions())

    async def destroy():
        versions = (await b.filesystem()).versions
        results = await b.destroy(versions[:1])
        assert [each.problem for each in results] == [None]

    trio.run(replicate, "0")  # as root, which also imports whatever the user cannot read
    for site in (a, b):
        shutil.rmtree(site.root / "snapshots" / ".fsrep", ignore_errors=True)
        for path in site.root.rglob("@0"):
            tools.btrfs("subvolume", "delete", path / "snapshot")
        for path in (site.root / "snapshots").rglob("*"):
            os.chown(path, NOBODY, NOBODY)
        site.reopen(command=command)
    os.chown(b.root / "snapshots", NOBODY, NOBODY)

    assert as_nobody(lambda: trio.run(replicate, "1"))
    secret.write_text("and this, which is newer")
    assert as_nobody(lambda: trio.run(replicate, "2"))
    assert tools.same_content(a.place("2"), b.place("2")) == []
    assert b.place("2").joinpath("secret").stat().st_uid == 0
    assert as_nobody(lambda: trio.run(destroy))
