"""The kernel says who a client is, and the client cannot."""

import os
import sys
from pathlib import Path

import trio

from fsrep_core import Caller
from fsrep_unix_socket import UnixConfig, UnixListener, account_name

USER = 65534 if os.geteuid() == 0 else os.geteuid()  # only root can be somebody else
NAMELESS = 4_000_000_000

CLIENT = f"""
import os, socket
os.setuid({USER})
client = socket.socket(socket.AF_UNIX)
client.connect("socket")
client.sendall(b"I am root")
client.recv(1)
"""


async def test_a_client_is_its_account(tmp_path: Path) -> None:
    await trio.Path(tmp_path).chmod(0o711)
    callers, arrived = trio.open_memory_channel[Caller](1)
    listener = UnixListener(UnixConfig(path=tmp_path / "socket"))
    command = [sys.executable, "-c", CLIENT]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.serve, callers.send_nowait)
            client = await trio.lowlevel.open_process(command, cwd=tmp_path)
            caller = await arrived.receive()
            identified = await caller.identify()
            await identified.stream.aclose()
            await client.wait()
            nursery.cancel_scope.cancel()

    assert identified.identity == account_name(USER)


def test_an_account_without_a_name_has_a_number() -> None:
    assert account_name(NAMELESS) == str(NAMELESS)
    assert account_name(0) == "root"
