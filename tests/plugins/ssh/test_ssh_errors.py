"""What goes wrong on the way to another host has a typed error that says what to do."""

from __future__ import annotations

import re
import shlex
import socket
import sys

import pytest
import trio

from fsrep_core import (
    ConfigError,
    ConnectivityError,
    FsrepError,
    InventoryRequest,
    PermissionDeniedError,
    TimeoutExpiredError,
)
from fsrep_core.runtime.binding import Endpoint, SideSettings, open_endpoint
from fsrep_core.runtime.registry import load_plugins
from fsrep_core.testing import no_leaks
from fsrep_core.values import Side
from fsrep_core.wire import WireError
from fsrep_ssh.config import SshConfig
from fsrep_ssh.failures import explain


async def ask(scene, **options):
    """List what is there, over ssh."""
    settings = SideSettings(
        side=Side.RECEIVER,
        transport="ssh",
        transport_options=scene.options(**options),
        storage="directory",
        storage_options={"root": str(scene.there)},
    )
    async with open_endpoint(load_plugins(), settings, job="job") as endpoint:
        assert isinstance(endpoint, Endpoint)
        return await endpoint.inventory(InventoryRequest(job="job"))


async def refused(scene, **options):
    """Give the error of asking; nothing may be left of it."""
    await trio.to_thread.run_sync(str)  # the first thread of trio stays, and is no leak
    async with no_leaks():
        with pytest.raises(FsrepError) as raised, trio.fail_after(50):
            await ask(scene, **options)
    error = raised.value
    assert not error.local
    return error


async def test_the_far_side_is_reached(scene):
    async with no_leaks():
        inventory = await ask(scene)

    assert inventory.filesystems == ()
    assert scene.started() == 1


async def test_a_host_key_that_changed(scene):
    scene.know_host("other_host_key.pub")

    error = await refused(scene)

    assert (type(error), error.temporary) == (ConnectivityError, False)
    assert "not the one that is known" in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{scene.server.port}'" in error.hint


async def test_a_host_key_that_is_not_known(scene):
    (scene.root / "known_hosts").unlink()

    error = await refused(scene)

    assert (type(error), error.temporary) == (ConnectivityError, False)
    assert "is not known yet" in error.message
    assert f"ssh -p {scene.server.port} 127.0.0.1" in error.hint


async def test_a_key_that_is_not_authorized(scene):
    error = await refused(scene, identity_file=str(scene.root / "other_key"))

    assert (type(error), error.temporary) == (PermissionDeniedError, False)
    assert "refuses to let us in" in error.message
    assert "identity_file" in error.hint


async def test_nothing_that_listens(scene):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await refused(scene, port=unused.getsockname()[1])

    assert (type(error), error.temporary) == (ConnectivityError, True)
    assert "nothing listens there" in error.message


async def test_a_host_that_does_not_answer(scene):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = await refused(scene, port=silent.getsockname()[1], connect_timeout="1s")

    assert isinstance(error, ConnectivityError | TimeoutExpiredError)
    assert error.temporary
    assert "did not answer in time" in error.message


async def test_a_name_that_is_not_known(scene):
    error = await refused(scene, host="no-such-host.invalid")

    assert isinstance(error, ConnectivityError)
    assert re.search("no host of this name|cannot be resolved now", error.message)


async def test_a_command_that_is_not_there(scene):
    error = await refused(scene, command="no-such-fsrep endpoint")

    assert (type(error), error.temporary) == (ConnectivityError, False)
    assert "there is no 'no-such-fsrep' there" in error.message
    assert 'command = "' in error.hint


def python(program):
    return f"{sys.executable} -c {shlex.quote(program)}"


async def test_an_fsrep_that_is_too_old_to_serve(scene):
    said = "Error: No such command 'endpoint'."

    error = await refused(
        scene, command=python(f"import sys; print({said!r}, file=sys.stderr); sys.exit(2)")
    )

    assert (type(error), error.temporary) == (ConnectivityError, False)
    assert "too old" in error.message
    assert "same release" in error.hint


async def test_an_fsrep_that_speaks_another_version_of_the_wire(scene):
    program = (
        "import json, os, struct; text = json.dumps({'protocols': [99], 'capabilities': [], "
        "'software': 'fsrep 9', 'identity': ''}).encode(); "
        "os.write(1, b'\\xfffsrep\\r\\n' + struct.pack('>I', len(text)) + text); "
        "os.read(0, 1 << 20)"
    )

    error = await refused(scene, command=python(program))

    assert (type(error), error.temporary) == (WireError, False)
    assert "fsrep 9" in error.message
    assert "99" in error.message


async def test_a_shell_that_prints_a_greeting(scene):
    error = await refused(scene, command="echo Welcome; sleep 5")

    assert type(error) is WireError
    assert "'Welcome'" in error.message
    assert "startup files" in error.hint


async def test_an_fsrep_that_dies(scene):
    error = await refused(scene, command=python("import sys; sys.exit('Traceback: oh')"))

    assert (type(error), error.temporary) == (ConnectivityError, True)
    assert "ended with status 1 (Traceback: oh)" in error.message


async def test_an_fsrep_that_is_killed(scene):
    error = await refused(scene, command=python("import os; os.kill(os.getpid(), 9)"))

    assert (type(error), error.temporary) == (ConnectivityError, True)
    assert "fsrep was killed there" in error.message


async def test_a_storage_that_is_not_installed_there(scene):
    settings = SideSettings(
        side=Side.RECEIVER,
        transport="ssh",
        transport_options=scene.options(),
        storage="no-such-storage",
    )
    with pytest.raises(FsrepError, match="no plugin offers the storage 'no-such-storage'"):
        async with open_endpoint(load_plugins(), settings, job="job") as endpoint:
            await endpoint.inventory(InventoryRequest(job="job"))


async def test_no_ssh_on_this_host(scene, monkeypatch):
    monkeypatch.setenv("PATH", str(scene.here))

    error = await refused(scene)

    assert type(error) is ConfigError
    assert "there is no such program" in error.message


@pytest.mark.parametrize(
    ("status", "said", "kind", "temporary", "message"),
    [
        (
            255,
            "kex_exchange_identification: Connection closed by remote host",
            "connectivity",
            True,
            "was cut",
        ),
        (
            255,
            "ssh: connect to host nas port 22: No route to host",
            "connectivity",
            True,
            "no way to the host",
        ),
        (255, "client_loop: send disconnect: Broken pipe", "connectivity", True, "was cut"),
        (255, "Timeout, server nas not responding.", "connectivity", True, "was cut"),
        (
            255,
            "ssh_dispatch_run_fatal: Connection to nas: message authentication code incorrect",
            "connectivity",
            True,
            "was cut",
        ),
        (
            255,
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found.",
            "connectivity",
            False,
            "no algorithm in common",
        ),
        (
            255,
            "/root/.ssh/config: line 3: Bad configuration option: foo",
            "config",
            False,
            "cannot use its configuration",
        ),
        (
            255,
            "Bad owner or permissions on /root/.ssh/config",
            "config",
            False,
            "cannot use its configuration",
        ),
        (
            255,
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
            "permission-denied",
            False,
            "refuses to let us in",
        ),
        (
            255,
            "ssh: Could not resolve hostname nas: Temporary failure in name resolution",
            "connectivity",
            True,
            "cannot be resolved now",
        ),
        (126, "bash: /opt/fsrep: Permission denied", "connectivity", False, "cannot be run"),
        (1, "Permission denied (publickey).", "connectivity", True, "ended with status 1"),
        (137, "", "connectivity", True, "ended by signal 9"),
        (-15, "", "connectivity", True, "ssh was ended by SIGTERM"),
        (255, "", "connectivity", True, "the connection was cut, or fsrep was killed there"),
        (
            2,
            "fsrep: /etc/fsrep.toml: there is no such file",
            "connectivity",
            False,
            "cannot serve (fsrep: /etc/fsrep.toml",
        ),
    ],
)
def test_words_and_status_are_understood(status, said, kind, temporary, message):
    error = explain(SshConfig(host="nas", user="backup"), status, f"Welcome!\n{said}\n")

    assert (error.kind, error.temporary, error.local) == (kind, temporary, False)
    assert error.message.startswith("backup@nas: ")
    assert message in error.message
