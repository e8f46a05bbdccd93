"""A pair of memory storages, and short ways to ask them."""

import attrs
import pytest
import trio

from fsrep_core import CursorRequest, InventoryRequest, ReceiveRequest, SendRequest
from fsrep_fake import FakeTransport, MemoryStorage, MemoryStore

JOB = "job"


@attrs.define(eq=False)
class Pair:
    """A store full of versions, an empty one, and an endpoint for each."""

    source: MemoryStore = attrs.field(factory=lambda: MemoryStore("source"))
    target: MemoryStore = attrs.field(factory=lambda: MemoryStore("target"))
    sender: object = None
    receiver: object = None
    nursery: trio.Nursery | None = None

    def __attrs_post_init__(self):
        self.sender = MemoryStorage(self.source)
        self.receiver = MemoryStorage(self.target)

    async def reach(self, storage, *script):
        """A fake in front of a storage, until the end of the test."""
        transport = FakeTransport(script)

        async def hold(task_status):
            async with transport.reach(storage) as endpoint:
                task_status.started(endpoint)
                await trio.sleep_forever()

        return transport, await self.nursery.start(hold)

    async def fake_sender(self, *script):
        transport, self.sender = await self.reach(MemoryStorage(self.source), *script)
        return transport

    async def fake_receiver(self, *script):
        transport, self.receiver = await self.reach(MemoryStorage(self.target), *script)
        return transport

    async def replicate(self, to_version, filesystem="a", *, token=None, **fields):
        """One step, as a driver does it."""
        given = {"job": JOB, "filesystem": filesystem, "to_version": to_version, **fields}
        only_received = {
            key: given.pop(key) for key in ("rollback", "clear_resume_token") & given.keys()
        }
        async with self.sender.send(SendRequest(**given, resume_token=token)) as response:
            request = ReceiveRequest(
                **given, **only_received, resume_token=token if response.resumed else None
            )
            return await self.receiver.receive(request, response.stream)

    async def cursor(self, filesystem="a", move_to=None, job=JOB):
        return await self.sender.replication_cursor(
            CursorRequest(job=job, filesystem=filesystem, move_to=move_to)
        )

    async def found(self, filesystem="a", endpoint=None):
        """The filesystem as the receiver lists it; ``None`` = it does not."""
        inventory = await (endpoint or self.receiver).inventory(InventoryRequest(job=JOB))
        return {each.name: each for each in inventory.filesystems}.get(filesystem)

    async def token(self, filesystem="a"):
        found = await self.found(filesystem)
        return found.resume_token if found else None

    def same(self, version, filesystem="a"):
        return self.source.read(filesystem, version) == self.target.read(filesystem, version)


@pytest.fixture
def pair():
    return Pair()


@pytest.fixture
async def wired(pair, nursery):
    """A pair whose sides can be reached over the fake."""
    pair.nursery = nursery
    return pair
