"""The server process of ``bench.latency``: two storages in memory and an echo, by port."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from bench.latency import make_history
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy
from fsrep_core.runtime.remote.server import Admission, Admit, serve_connection
from fsrep_fake import MemoryStorage, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fsrep_core.wire import Hello


def admitting(store: MemoryStore) -> Admit:
    admission = Admission(
        endpoint=Endpoint(MemoryStorage(store), name="there"), policy=PeerPolicy(identity="bench")
    )

    def admit(_: Hello) -> Admission:
        return admission

    return admit


async def serve(admit: Admit, stream: trio.SocketStream) -> None:
    await serve_connection(stream, admit, peer_name="here")


async def echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def main(steps: int) -> None:
    """Print the ports; serve until standard input ends."""
    pulled, _ = make_history("there", steps)
    handlers: list[Callable[[trio.SocketStream], Awaitable[None]]] = [
        partial(serve, admitting(MemoryStore("pushed"))),
        partial(serve, admitting(pulled)),
        echo,
    ]
    async with trio.open_nursery() as nursery:
        ports = []
        for handler in handlers:
            listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
            ports.append(listeners[0].socket.getsockname()[1])
        print(*ports, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
