"""A connection of this process: two directions of bytes, bounded, that go wrong by a script.

What happens is decided by the byte that is about to be read, in the task that reads it:
it does not depend on the order in which trio runs tasks. A fault at a frame becomes one
at a byte when the header of the frame is written, which is before anybody can read it.

A connection that is cut takes no more bytes in either direction. What was written before
still arrives, except behind the byte of a fault.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import attrs
import trio

from fsrep_core import FrameWatch
from fsrep_fake.faults import Direction, WireFault

__all__ = ["Cable", "CableEnd"]


@attrs.define(eq=False)
class Cable:
    """One connection.

    :param number: which one of its transport it is, from 1
    :param note: hears of each fault that befalls it, as the fault of this connection alone
    """

    number: int
    faults: tuple[WireFault, ...]
    buffer_bytes: int
    note: Callable[[WireFault], None]
    client: CableEnd = attrs.field(init=False)
    server: CableEnd = attrs.field(init=False)
    _lanes: tuple[_Lane, _Lane] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        to_server, to_client = _Lane(self, "to_server"), _Lane(self, "to_client")
        self._lanes = (to_server, to_client)
        self.client = CableEnd(to_client, to_server)
        self.server = CableEnd(to_server, to_client)

    def cut(self) -> None:
        """End both directions, as a cable does that is pulled out."""
        for lane in self._lanes:
            lane.end()


class CableEnd(trio.abc.Stream):
    """One end of a cable."""

    def __init__(self, incoming: _Lane, outgoing: _Lane) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``trio.abc.SendStream``."""
        self._check_open()
        await self._outgoing.write(memoryview(data))
        self._check_open()

    async def wait_send_all_might_not_block(self) -> None:
        """See ``trio.abc.SendStream``."""
        self._check_open()
        await self._outgoing.wait_for_room()
        self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``trio.abc.ReceiveStream``."""
        self._check_open()
        data = await self._incoming.read(max_bytes or self._incoming.cable.buffer_bytes)
        self._check_open()
        return data

    async def aclose(self) -> None:
        """See ``trio.abc.AsyncResource``. What was sent still arrives."""
        self._closed = True
        self._outgoing.end()
        self._incoming.abandon()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end of the cable was closed")


@attrs.define(eq=False)
class _Lane:
    """One direction of a cable."""

    cable: Cable
    direction: Direction
    _bytes: bytearray = attrs.field(init=False, factory=bytearray)
    _read_bytes: int = attrs.field(init=False, default=0)
    """How many were read: the place of the next one in the direction."""
    _ended: bool = attrs.field(init=False, default=False)
    _abandoned: bool = attrs.field(init=False, default=False)
    """Nobody reads here any more."""
    _change: trio.Event = attrs.field(init=False, factory=trio.Event)
    _watch: FrameWatch = attrs.field(init=False, factory=FrameWatch)
    _passed: Counter[str] = attrs.field(init=False, factory=Counter)
    """How many frames of each kind have been written."""
    _due: list[tuple[int, WireFault]] = attrs.field(init=False, factory=list)
    """What will go wrong, and at which byte of the direction."""
    _waiting: list[WireFault] = attrs.field(init=False, factory=list)
    """What will go wrong at frames that have not come."""
    _resume_time: float = attrs.field(init=False, default=-math.inf)
    """Until then nothing can be read."""
    _trickling_bytes: int = attrs.field(init=False, default=0)
    _pause_seconds: float = attrs.field(init=False, default=0.0)
    _damaged: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        mine = [
            fault
            for fault in self.cable.faults
            if fault.direction == self.direction and fault.connection in {None, self.cable.number}
        ]
        self._due = [(fault.at_byte, fault) for fault in mine if fault.frame is None]
        self._waiting = [fault for fault in mine if fault.frame is not None]

    def end(self) -> None:
        """Take no more bytes."""
        self._ended = True
        self._tell()

    def abandon(self) -> None:
        """Take no more bytes, and let nobody read what is there."""
        self._abandoned = True
        self._bytes.clear()
        self.end()

    async def write(self, data: memoryview) -> None:
        """Take bytes as there is room for them."""
        await self.wait_for_room()
        while data:
            if self._ended:
                raise trio.BrokenResourceError("the cable was cut, or closed at its other end")
            room = self.cable.buffer_bytes - len(self._bytes)
            if room <= 0:
                await self._change.wait()
                continue
            part, data = data[:room], data[room:]
            self._look_at(part)
            self._bytes += part
            self._tell()

    async def wait_for_room(self) -> None:
        """Return when a write would get on."""
        await trio.lowlevel.checkpoint()
        while not self._ended and len(self._bytes) >= self.cable.buffer_bytes:
            await self._change.wait()

    async def read(self, max_bytes: int) -> bytes:
        """Give bytes as soon as there are any; ``b""`` = the end. Nothing is lost if cancelled."""
        await trio.lowlevel.checkpoint()
        while not self._abandoned:
            self._befall()
            if trio.current_time() < self._resume_time:
                with trio.move_on_at(self._resume_time):
                    await self._change.wait()
            elif self._bytes:
                return self._take(max_bytes)
            elif self._ended:
                break
            else:
                await self._change.wait()
        return b""

    def _take(self, max_bytes: int) -> bytes:
        ahead = [at_byte - self._read_bytes for at_byte, _ in self._due]
        if self._trickling_bytes:
            max_bytes = 1
            self._trickling_bytes -= 1
            if self._trickling_bytes:
                self._resume_time = trio.current_time() + self._pause_seconds
        size_bytes = min([max_bytes, len(self._bytes), *ahead])
        taken = bytes(self._bytes[:size_bytes])
        del self._bytes[:size_bytes]
        self._read_bytes += size_bytes
        if self._damaged:
            self._damaged = False
            taken = bytes([taken[0] ^ 0xFF]) + taken[1:]
        self._tell()
        return taken

    def _look_at(self, data: memoryview) -> None:
        """Find the frames that faults wait for."""
        if not self._waiting:
            return
        for frame in self._watch.feed(data):
            self._passed[frame.kind] += 1
            for fault in list(self._waiting):
                if (fault.frame, fault.occurrence) == (frame.kind, self._passed[frame.kind]):
                    self._waiting.remove(fault)
                    self._due.append((frame.start_byte + fault.at_byte, fault))

    def _befall(self) -> None:
        """Let happen what happens at the next byte."""
        for at_byte, fault in list(self._due):
            if at_byte > self._read_bytes:
                continue
            self._due.remove((at_byte, fault))
            self.cable.note(attrs.evolve(fault, connection=self.cable.number))
            match fault.action:
                case "cut":
                    self._bytes.clear()
                    self.cable.cut()
                case "stall":
                    seconds = math.inf if fault.seconds is None else fault.seconds
                    self._resume_time = trio.current_time() + seconds
                case "trickle":
                    self._trickling_bytes = fault.length_bytes
                    self._pause_seconds = 1.0 if fault.seconds is None else fault.seconds
                    self._resume_time = trio.current_time() + self._pause_seconds
                case _:
                    self._damaged = True

    def _tell(self) -> None:
        """Wake whoever waits for something to change here."""
        self._change.set()
        self._change = trio.Event()
