"""Without root: what can be kept is kept, what cannot is told, and nothing gets stuck."""

import os

import pytest

from fsrep_core.testing.trees import compare_trees

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
NOBODY = 65534


@pytest.fixture
def scene(laboratory, as_nobody):
    """A tree of root's, and a receiver that belongs to nobody."""
    os.chmod(laboratory.write("private/file", b"1"), 0o000)
    os.chmod(laboratory.write("readonly/file", b"2"), 0o444)
    os.chmod(f"{laboratory.live}/private", 0o000)
    os.chmod(f"{laboratory.live}/readonly", 0o555)
    os.mkfifo(f"{laboratory.live}/fifo")
    os.symlink("x", f"{laboratory.live}/symlink")
    first, _ = laboratory.create("v1")
    as_nobody.give(laboratory.root("receiver"))
    return laboratory, first


def test_an_unprivileged_receiver_keeps_all_but_owners_and_says_so(scene, as_nobody):
    laboratory, first = scene
    whole = laboratory.stream(first)
    answer = as_nobody(lambda: laboratory.receive(whole, first))
    laboratory.write("new", b"3")
    second, _ = laboratory.create("v2")
    data = laboratory.stream(second, first)
    again = as_nobody(lambda: laboratory.receive(data, second, first))
    found = compare_trees(
        laboratory.tree("sender", second),
        laboratory.tree("receiver", second),
        ignore=("ownership", "mode"),
    )

    assert [warning.split(" failed")[0] for warning in answer["warnings"]] == [
        "restoring the owner",
        "withholding the owner's own access",
    ]
    assert "restoring the owner" in again["warnings"][0]
    assert found == []
    assert laboratory.manifest("receiver", second) == laboratory.manifest("sender", second)
    tree = laboratory.tree("receiver", second)
    assert os.stat(f"{tree}/private").st_mode & 0o777 == 0o500
    assert os.stat(f"{tree}/private/file").st_mode & 0o777 == 0o400
    assert os.stat(f"{tree}/readonly").st_mode & 0o777 == 0o555
    assert os.stat(f"{tree}/new").st_uid == NOBODY


def test_an_unprivileged_receive_resumes_and_is_destroyed(scene, as_nobody):
    laboratory, first = scene
    laboratory.write("zz/large", os.urandom(600_000))
    second, _ = laboratory.create("v2")
    data = laboratory.stream(second)
    cut = as_nobody(lambda: laboratory.receive(data[:500_000], second))
    assert cut["kind"] == "interrupted-stream"
    token = laboratory.token()
    rest = laboratory.stream(second, token=token)
    assert len(rest) < len(data)
    as_nobody(lambda: laboratory.receive(rest, second, token=token))

    assert laboratory.names("receiver") == ["@v2"]
    assert as_nobody(lambda: laboratory.destroy("receiver", second)) == [{}]
    assert os.listdir(laboratory.store("receiver").path) == ["%lock"]
    assert first.name == "v1"


def test_a_root_that_nobody_may_write_is_a_permission_denied(laboratory, as_nobody):
    version, _ = laboratory.create("v1")
    as_nobody.give(laboratory.path)
    os.chown(laboratory.root("receiver"), 0, 0)
    os.chmod(laboratory.root("receiver"), 0o755)
    data = laboratory.stream(version)

    def receive():
        try:
            return laboratory.receive(data, version)
        except PermissionError:
            return "refused"

    assert as_nobody(receive) == "refused"
