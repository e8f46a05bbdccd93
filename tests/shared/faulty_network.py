"""A way between two ends that goes wrong at a byte, below whatever protects the bytes.

A proxy passes TCP on. Once so many bytes have passed in one direction, counted over all
connections, its fault befalls the connection that carried them; the link of the host on
which it listens can go down at that byte as well, and processes can be struck.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

__all__ = ["Detour", "Fault"]

PIECE_BYTES = 1 << 16


@attrs.frozen(kw_only=True)
class Fault:
    """What goes wrong, and when."""

    kind: str
    """``cut``, ``reset``, ``flip``, ``stall``, ``freeze`` (nothing gets through any more), ``mute``
    (in this direction), or what ``strike`` does."""
    direction: str
    """``up`` = towards the server."""
    at_byte: int
    seconds: float = 0.0
    """Of a stall."""


@attrs.define(eq=False)
class _Passage:
    """One connection through the proxy."""

    ends: dict[str, trio.SocketStream]
    """By the direction in which each is written to."""
    silent: set[str] = attrs.field(factory=set)
    """The directions in which nothing gets through any more, and nobody is told."""
    sending: dict[str, trio.CancelScope] = attrs.field(factory=dict)

    async def send(self, direction, piece):
        """Pass bytes on, as long as any get through."""
        if direction not in self.silent:
            with trio.CancelScope() as self.sending[direction]:
                await self.ends[direction].send_all(piece)

    def silence(self, *directions):
        """Let nothing through any more, nor wait for those who cannot take it."""
        for direction in directions:
            self.silent.add(direction)
            if direction in self.sending:
                self.sending[direction].cancel()

    def reset(self):
        for end in self.ends.values():
            if end.socket.fileno() != -1:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        for end in self.ends.values():
            end.socket.close()


@attrs.define(eq=False)
class Detour:
    """The proxy.

    :param make_socket: makes the socket on which it listens, unbound
    :param address: where that is bound
    :param strike: does what is none of the proxy's own faults
    :param patience_seconds: how long the server may take to leave, once its client has
    """

    make_socket: Callable[[], socket.socket]
    address: str
    fault: Fault | None = None
    strike: Callable[[Fault], Awaitable[None]] | None = None
    patience_seconds: float = 20.0
    passed: dict[str, int] = attrs.field(factory=lambda: {"up": 0, "down": 0})
    struck: bool = False
    _passages: list[_Passage] = attrs.field(factory=list)
    _served: int = 0
    """The connections that the server has not ended."""
    _server_left: trio.Event = attrs.field(factory=trio.Event)

    def reset(self):
        """Reset every connection, whatever has passed."""
        for passage in self._passages:
            passage.reset()

    @asynccontextmanager
    async def open(self, host, port):
        """Lead to a server for as long as the context; give the address to use instead.

        Leaving it waits until the server has ended all of its connections by itself.
        """
        raw = self.make_socket()
        raw.bind((self.address, 0))
        raw.listen(100)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(raw))
        async with listener, trio.open_nursery() as nursery:
            passing = partial(self._pass_on, host, port)
            nursery.start_soon(trio.serve_listeners, passing, [listener])
            yield listener.socket.getsockname()
            with trio.fail_after(self.patience_seconds):
                while self._served:
                    await self._server_left.wait()
            nursery.cancel_scope.cancel()

    async def _pass_on(self, host, port, near):
        far = await trio.open_tcp_stream(host, port)
        passage = _Passage({"up": far, "down": near})
        self._passages.append(passage)
        self._served += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, passage, "up", near)
                await self._pump(passage, "down", far)
                self._leave()
                nursery.cancel_scope.cancel()
        finally:
            passage.close()
            self._passages.remove(passage)

    def _leave(self):
        self._served -= 1
        self._server_left.set()
        self._server_left = trio.Event()

    async def _pump(self, passage, direction, source):
        """Pass on until the source ends; its end is passed on too."""
        try:
            while piece := bytearray(await source.receive_some(PIECE_BYTES)):
                await self._befall(passage, direction, piece)
                await passage.send(direction, piece)
            if direction not in passage.silent:
                await passage.ends[direction].send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            if direction not in passage.silent:
                passage.reset()

    async def _befall(self, passage, direction, piece):
        """Count a piece; at the fault's byte, let it happen."""
        fault, before = self.fault, self.passed[direction]
        self.passed[direction] += len(piece)
        if fault is None or self.struck or fault.direction != direction:
            return
        if not before <= fault.at_byte < before + len(piece):
            return
        self.struck = True
        match fault.kind:
            case "cut":
                passage.close()
            case "reset":
                passage.reset()
            case "flip":
                piece[fault.at_byte - before] ^= 1 << (fault.at_byte % 8)
            case "stall":
                await trio.sleep(fault.seconds)
            case "freeze":
                passage.silence("up", "down")
            case "mute":
                passage.silence(direction)
            case _:
                await self._strike(fault)

    async def _strike(self, fault):
        """Let something happen that is not this proxy's; a link that is down is every passage's."""
        await self.strike(fault)
        if fault.kind == "link down":
            for passage in self._passages:
                passage.silence("up", "down")
