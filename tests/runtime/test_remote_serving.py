"""What a server lets a client do, however the client asks."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from fsrep_core import (
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    EndpointContext,
    InvalidRequestError,
    Inventory,
    InventoryRequest,
    PermissionDeniedError,
    ReceiveRequest,
    ResumeToken,
    SendRequest,
    Side,
    StaleTokenError,
    StorageChoice,
    StreamTransport,
    Timing,
    Version,
    VersionKind,
)
from fsrep_core.runtime.binding import Endpoint
from fsrep_core.runtime.remote.policy import PeerPolicy, Permission, check_request
from fsrep_core.runtime.remote.server import Admission, serve_connection
from fsrep_core.testing import ProbeStorage, no_leaks
from fsrep_core.wire import (
    OPERATIONS,
    REQUEST_EVENTS,
    Abort,
    Answer,
    Bye,
    Connection,
    Failure,
    Hello,
    Part,
    Role,
    Unpacker,
    WireError,
    pack,
)
from fsrep_core.wire.codec import encode
from fsrep_core.wire.text import dump_json

VERSION = Version(VersionKind.SNAPSHOT, "daily", "guid-1", 1)
OTHER = Version(VersionKind.SNAPSHOT, "other", "guid-2", 2)
SEND = SendRequest(job="j", filesystem="a", to_version=VERSION)
RECEIVE = ReceiveRequest(job="j", filesystem="a", to_version=VERSION)
REQUESTS = {
    "inventory": InventoryRequest(job="end"),
    "size_estimate": SEND,
    "send": SEND,
    "receive": RECEIVE,
    "replication_cursor": CursorRequest(job="j", filesystem="a"),
    "create_version": CreateVersionRequest(job="j", filesystems=("a",), name="new"),
    "destroy_versions": DestroyVersionsRequest(job="j", filesystem="a", versions=(VERSION,)),
}
ALLOWED = {
    Permission.SEND: {"inventory", "size_estimate", "send", "replication_cursor"},
    Permission.RECEIVE: {"inventory", "receive"},
    Permission.CREATE: {"inventory", "create_version"},
    Permission.DESTROY: {"inventory", "destroy_versions"},
}


def policy(*permissions):
    return PeerPolicy(identity="laptop", permissions=frozenset(permissions))


def test_every_operation_is_decided_upon():
    assert set(REQUESTS) == set(OPERATIONS)


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("operation", REQUESTS)
def test_a_permission_grants_its_operations_and_no_others(operation, permission):
    if operation in ALLOWED[permission]:
        check_request(policy(permission), operation, REQUESTS[operation])
        return
    with pytest.raises(
        PermissionDeniedError, match=f"laptop may not ask for {operation}"
    ) as caught:
        check_request(policy(permission), operation, REQUESTS[operation])
    assert not caught.value.temporary
    assert not caught.value.local


@pytest.mark.parametrize("operation", REQUESTS)
def test_without_permissions_nothing_may_be_asked_for(operation):
    with pytest.raises(PermissionDeniedError) as caught:
        check_request(policy(), operation, REQUESTS[operation])
    assert "grant it" in caught.value.hint


def test_rollback_destroys_and_so_needs_that_permission():
    request = attrs.evolve(RECEIVE, rollback=(OTHER,))

    check_request(policy(Permission.RECEIVE, Permission.DESTROY), "receive", request)
    with pytest.raises(PermissionDeniedError, match="rollback"):
        check_request(policy(Permission.RECEIVE), "receive", request)


@pytest.mark.parametrize("request_", [SEND, RECEIVE], ids=["send", "receive"])
@pytest.mark.parametrize(
    ("token", "start", "good"),
    [
        (ResumeToken("t", "guid-1"), {}, True),
        (ResumeToken("t", "guid-1", "guid-2"), {"from_version": OTHER}, True),
        (ResumeToken("t", "guid-1", "guid-2"), {"origin": "guid-2"}, True),
        (ResumeToken("t", "guid-2"), {}, False),
        (ResumeToken("t", "guid-1"), {"from_version": OTHER}, False),
        (ResumeToken("t", "guid-1"), {"origin": "guid-2"}, False),
        (ResumeToken("t", "guid-1", "guid-2"), {}, False),
        (ResumeToken("t", "guid-1", "guid-3"), {"from_version": OTHER}, False),
        (ResumeToken("t", "guid-1", "guid-3"), {"origin": "guid-2"}, False),
    ],
)
def test_a_token_must_mean_what_the_request_means(request_, token, start, good):
    request = attrs.evolve(request_, resume_token=token, **start)
    operation = "send" if isinstance(request, SendRequest) else "receive"
    if good:
        check_request(policy(*Permission), operation, request)
        return
    with pytest.raises(StaleTokenError, match="another step"):
        check_request(policy(*Permission), operation, request)


class RawClient:
    """A client that says whatever it likes."""

    def __init__(self, stream):
        self.stream = stream
        self.wire = Connection(Role.CLIENT, Hello(software="raw"))

    async def greet(self):
        await self.stream.send_all(self.wire.send(self.wire.hello))
        await self.hear()

    async def ask(self, operation, body, *parts):
        event = REQUEST_EVENTS[OPERATIONS[operation].shape](operation, body)
        for each in (*map(Part, parts), event):
            await self.stream.send_all(self.wire.send(each))

    async def hear(self):
        while (event := self.wire.next_event()) is None:
            data = await self.stream.receive_some()
            assert data, "the server closed the connection"
            self.wire.feed(data)
        return event


@asynccontextmanager
async def served(*permissions, storage=None):
    here, there = trio.testing.memory_stream_pair()
    bound = Endpoint(storage or ProbeStorage(), name="storage")
    admission = Admission(endpoint=bound, policy=policy(*(permissions or Permission)))
    client = RawClient(here)
    async with no_leaks(), trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_connection, there, lambda _: admission, peer_name="client")
        )
        await client.greet()
        yield client
        await here.send_all(client.wire.send(Bye()))
        assert await client.hear() == Bye()
        await here.aclose()


BAD_NAMES = ["../b", "/etc", "a/../../b", "-rf", "a@b", "a#b", "a\0b", "", "a/", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("operation", ["send", "receive", "replication_cursor", "destroy_versions"])
async def test_a_name_that_leaves_the_root_reaches_no_storage(operation, name, autojump_clock):
    fields = {**encode(REQUESTS[operation]), "filesystem": name}
    if operation == "destroy_versions":
        fields["versions"] = [encode(VERSION)]
    async with served() as client:
        await client.ask(operation, dump_json(fields))
        match await client.hear():
            case Failure(problem):
                assert problem.kind == InvalidRequestError.kind
            case other:
                raise AssertionError(other)
        if client.wire.may_say(Abort) and not client.wire.idle:
            await client.stream.send_all(client.wire.send(Abort(problem)))
        await works(client)


@pytest.mark.parametrize("name", ["..", "a/b", "-R", "x@y", "x#y", "", "a\x1b"])
async def test_a_version_name_that_is_an_option_reaches_no_storage(name, autojump_clock):
    fields = {**encode(REQUESTS["create_version"]), "name": name}
    async with served() as client:
        await client.ask("create_version", dump_json(fields))
        event = await client.hear()
        assert isinstance(event, Failure)
        assert event.problem.kind == "invalid-request"
        await works(client)


async def works(client):
    """The connection serves another request."""
    (body,) = pack(InventoryRequest(job="end"))
    await client.ask("inventory", body)
    match await client.hear():
        case Answer(answer):
            assert isinstance(Unpacker(Inventory).finish(answer), Inventory)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("operation", sorted(REQUESTS.keys() - {"inventory"}))
async def test_what_is_not_permitted_is_refused_and_the_connection_goes_on(
    operation, autojump_clock
):
    permission = next(each for each in Permission if operation not in ALLOWED[each])
    async with served(permission) as client:
        (body,) = pack(REQUESTS[operation])
        await client.ask(operation, body)
        event = await client.hear()
        assert isinstance(event, Failure)
        assert event.problem.kind == "permission-denied"
        if not client.wire.idle:
            await client.stream.send_all(client.wire.send(Abort(event.problem)))
        await works(client)


async def test_a_request_in_parts_is_put_together(autojump_clock):
    async with served() as client:
        request = DestroyVersionsRequest(job="j", filesystem="end", versions=(VERSION,) * 5000)
        *parts, body = pack(request)
        assert parts
        await client.ask("destroy_versions", body, *parts)
        event = await client.hear()
        while isinstance(event, Part):
            event = await client.hear()
        assert isinstance(event, Answer)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"{]", b'{"job":"j","patterns":"x"}', b"\xff\xff"])
async def test_a_request_that_cannot_be_read_ends_the_connection_with_the_reason(
    body, autojump_clock
):
    here, there = trio.testing.memory_stream_pair()
    admission = Admission(endpoint=Endpoint(ProbeStorage(), name="s"), policy=policy(*Permission))
    client = RawClient(here)
    async with trio.open_nursery() as nursery:

        async def serve():
            with pytest.raises(WireError, match="cannot be read"):
                await serve_connection(there, lambda _: admission, peer_name="client")

        nursery.start_soon(serve)
        await client.greet()
        await client.ask("inventory", body)
        event = await client.hear()
        assert isinstance(event, Bye)
        assert event.problem.kind == "wire"
        await here.aclose()


async def test_an_endless_request_is_cut_off(autojump_clock):
    here, there = trio.testing.memory_stream_pair()
    admission = Admission(endpoint=Endpoint(ProbeStorage(), name="s"), policy=policy(*Permission))
    client = RawClient(here)
    part = b'{"field":"patterns","items":["' + b"x" * 1_000_000 + b'"]}'
    async with trio.open_nursery() as nursery:

        async def serve():
            with pytest.raises(WireError, match="more than 67108864 bytes"):
                await serve_connection(there, lambda _: admission, peer_name="client")

        nursery.start_soon(serve)
        await client.greet()
        for _ in range(68):
            await here.send_all(client.wire.send(Part(part)))
            await trio.testing.wait_all_tasks_blocked()
        event = await client.hear()
        assert isinstance(event, Bye)
        await here.aclose()


@attrs.define(eq=False)
class Pairs(StreamTransport):
    """The smallest transport: streams of this process."""

    nursery: trio.Nursery
    hellos: list[Hello]

    async def connect(self, context):
        await trio.lowlevel.checkpoint()
        here, there = trio.testing.memory_stream_pair()

        def admit(hello):
            self.hellos.append(hello)
            return Admission(
                endpoint=Endpoint(context.storage.create(), name="storage"),
                policy=PeerPolicy(identity=hello.identity),
            )

        self.nursery.start_soon(partial(serve_connection, there, admit, peer_name="client"))
        return here

    def timing(self):
        return Timing(connect_seconds=3)


async def test_a_stream_transport_is_nothing_but_how_to_connect(autojump_clock):
    storage = StorageChoice(name="probe", options={"root": "/srv"}, create=ProbeStorage)
    context = EndpointContext(job="docs", side=Side.RECEIVER, storage=storage)
    hellos = []
    async with no_leaks(), trio.open_nursery() as nursery:
        transport = Pairs(nursery, hellos)
        async with transport.open_endpoint(context) as plugin:
            endpoint = Endpoint(plugin, name="receiver")
            assert (await endpoint.inventory(InventoryRequest(job="end"))).filesystems

    (hello,) = hellos
    assert hello.software.startswith("fsrep ")
    assert (hello.ask.job, hello.ask.side, hello.ask.storage) == ("docs", "receiver", "probe")
    assert hello.ask.options == {"root": "/srv"}
    assert transport.describe(context) == "receiver over Pairs"
