"""An endpoint that does not keep the contract is refused, or reported as what it is."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from fsrep_core import (
    BrokenEndpointError,
    ConfigError,
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InventoryRequest,
    PluginError,
    ReceiveRequest,
    SendRequest,
    Side,
    TimeoutExpiredError,
    Transport,
    VersionResult,
    hookimpl,
)
from fsrep_core.runtime.binding import HOOK_NAMES, Endpoint, SideSettings, open_endpoint
from fsrep_core.runtime.registry import Registry, load_plugins
from fsrep_fake import MemoryStorage, MemoryStore

ASK = InventoryRequest(job="job")


def memory(name="store"):
    return MemoryStorage(MemoryStore(name))


def storage_with(**replaced):
    """A memory storage some of whose hooks are replaced."""
    storage = memory()
    plugin = type(
        "Plugin",
        (),
        {
            name: hookimpl(replaced.get(name) or _forward(storage, name))
            for name in HOOK_NAMES
            if replaced.get(name, True) is not None
        },
    )
    return plugin()


def _forward(storage, name):
    if name == "receive":

        def forward(self, request, stream):
            return storage.receive(request, stream)
    else:

        def forward(self, request):
            return getattr(storage, name)(request)

    return forward


def gives_none(self, request):
    """Neither awaitable nor a context manager."""


def test_the_contract_has_these_hooks():
    assert HOOK_NAMES == (
        "inventory",
        "size_estimate",
        "send",
        "receive",
        "replication_cursor",
        "create_version",
        "destroy_versions",
    )


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_an_endpoint_that_lacks_a_hook_is_refused_by_name(hook):
    with pytest.raises(PluginError, match=hook):
        Endpoint(storage_with(**{hook: None}), name="sender")


def test_an_endpoint_with_other_parameters_is_refused():
    async def inventory(self, question):
        pass

    with pytest.raises(PluginError, match="question"):
        Endpoint(storage_with(inventory=inventory), name="sender")


def test_two_sides_do_not_meet():
    first, second = Endpoint(memory("a"), name="a"), Endpoint(memory("b"), name="b")

    assert first._hook is not second._hook


@pytest.mark.parametrize("hook", [name for name in HOOK_NAMES if name not in {"send", "receive"}])
async def test_a_wrong_answer_is_the_plugins_defect(hook):
    async def answer(self, request):
        return "nonsense"

    endpoint = Endpoint(storage_with(**{hook: answer}), name="sender (x over y)")
    version = memory().store.snapshot("a")
    requests = {
        "inventory": ASK,
        "size_estimate": SendRequest(job="j", filesystem="a", to_version=version),
        "replication_cursor": CursorRequest(job="j", filesystem="a"),
        "create_version": CreateVersionRequest(job="j", filesystems=("a",), name="n"),
        "destroy_versions": DestroyVersionsRequest(job="j", filesystem="a", versions=(version,)),
    }

    with pytest.raises(BrokenEndpointError, match=rf"sender \(x over y\) answered {hook}"):
        await getattr(endpoint, hook)(requests[hook])


async def test_a_hook_that_is_not_asynchronous_is_a_defect():
    endpoint = Endpoint(storage_with(inventory=gives_none), name="sender")

    with pytest.raises(BrokenEndpointError, match="awaitable"):
        await endpoint.inventory(ASK)


async def test_too_few_results_are_a_defect():
    async def create_version(self, request):
        return (VersionResult(filesystem="a", name="n"),)

    endpoint = Endpoint(storage_with(create_version=create_version), name="sender")

    with pytest.raises(BrokenEndpointError, match="2 results"):
        await endpoint.create_version(
            CreateVersionRequest(job="j", filesystems=("a", "b"), name="n")
        )


async def test_a_send_that_is_no_context_manager_or_gives_no_response_is_a_defect():
    @asynccontextmanager
    async def gives_nothing(self, request):
        yield None

    request = SendRequest(job="j", filesystem="a", to_version=memory().store.snapshot("a"))
    for send, wanted in [(gives_none, "context manager"), (gives_nothing, "Response")]:
        endpoint = Endpoint(storage_with(send=send), name="sender")
        with pytest.raises(BrokenEndpointError, match=wanted):
            async with endpoint.send(request):
                pytest.fail("it was accepted")


async def test_a_call_has_a_deadline(autojump_clock):
    async def inventory(self, request):
        await trio.sleep_forever()

    endpoint = Endpoint(storage_with(inventory=inventory), name="nas", call_timeout_seconds=30)

    with pytest.raises(TimeoutExpiredError, match="nas gave no answer to inventory"):
        await endpoint.inventory(ASK)
    assert trio.current_time() == pytest.approx(30, abs=1)


async def test_a_foreign_deadline_is_not_the_calls(autojump_clock):
    async def inventory(self, request):
        await trio.sleep_forever()

    endpoint = Endpoint(storage_with(inventory=inventory), name="nas", call_timeout_seconds=30)
    with trio.move_on_after(5) as scope:
        await endpoint.inventory(ASK)

    assert scope.cancelled_caught


# The rate limit of a side


RATE = 1000
"""Bytes in a second."""


def limited(store, *names):
    """An endpoint whose side has a rate limit, and a version of 20,000 bytes in each filesystem."""
    for name in names:
        store.change(name, bytes(20_000))
        store.snapshot(name, "v1")
    return Endpoint(MemoryStorage(store), name="limited", rate_limit_bytes_per_second=RATE)


def sending(store, name):
    [version] = store.versions(name)
    return SendRequest(job="job", filesystem=name, to_version=version)


async def count_sent(endpoint, request):
    count_bytes = 0
    async with endpoint.send(request) as response:
        while piece := await response.stream.receive_some(65536):
            count_bytes += len(piece)
        await response.stream.finish()
    return count_bytes


async def test_a_side_sends_no_faster_than_its_limit(autojump_clock):
    store = MemoryStore("limited")
    endpoint = limited(store, "a")
    started = trio.current_time()
    count_bytes = await count_sent(endpoint, sending(store, "a"))

    assert count_bytes >= 20_000
    assert trio.current_time() - started == pytest.approx(count_bytes / RATE, abs=0.2)


async def test_a_side_receives_no_faster_than_its_limit(autojump_clock):
    store, source = MemoryStore("limited"), MemoryStore("source")
    limited(source, "a")
    fast, slow = Endpoint(MemoryStorage(source), name="fast"), limited(store)
    request = sending(source, "a")
    count_bytes = await count_sent(fast, request)
    started = trio.current_time()
    async with fast.send(request) as response:
        wanted = ReceiveRequest(job="job", filesystem="a", to_version=request.to_version)
        await slow.receive(wanted, response.stream)

    assert store.versions("a")[0].guid == request.to_version.guid
    assert trio.current_time() - started == pytest.approx(count_bytes / RATE, abs=0.2)


async def test_the_streams_of_a_side_share_its_limit(autojump_clock):
    store = MemoryStore("limited")
    endpoint = limited(store, "a", "b", "c")
    sizes = []

    async def send(name):
        sizes.append(await count_sent(endpoint, sending(store, name)))

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(send, name)

    assert trio.current_time() - started == pytest.approx(sum(sizes) / RATE, abs=0.5)


async def test_a_side_without_a_limit_takes_no_time(autojump_clock):
    store = MemoryStore("unlimited")
    limited(store, "a")
    started = trio.current_time()
    await count_sent(Endpoint(MemoryStorage(store), name="fast"), sending(store, "a"))

    assert trio.current_time() == started


# Opening a side by its names


def side(**changes):
    settings = {"side": Side.SENDER, "transport": "local-pipe", "storage": "memory"}
    return SideSettings(**{**settings, **changes})


async def test_open_endpoint_by_name():
    registry = load_plugins()

    async with open_endpoint(registry, side(storage_options={"store": "x"}), job="j") as endpoint:
        inventory = await endpoint.inventory(ASK)

    assert endpoint.name == "sender (memory over local-pipe)"
    assert inventory.filesystems == ()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"transport": "local-pip"}, PluginError, "local-pip'"),
        ({"storage": "memroy"}, PluginError, "memroy"),
        ({"storage_options": {"stor": "x"}}, ConfigError, "stor"),
        ({"transport_options": {"x": 1}}, ConfigError, "x"),
    ],
)
async def test_wrong_names_and_options_are_told_exactly(changes, error, words):
    with pytest.raises(error, match=words):
        async with open_endpoint(load_plugins(), side(**changes), job="j"):
            pytest.fail("it was accepted")


async def test_an_incomplete_storage_is_refused_when_the_job_opens():
    @attrs.frozen
    class Options:
        pass

    class Half:
        @hookimpl
        async def inventory(self, request):
            pass

    registry = load_plugins()
    registry.add_storage("half", lambda _: Half(), config_class=Options, summary="x")

    with pytest.raises(PluginError, match="lacks part of the contract: size_estimate, send"):
        async with open_endpoint(registry, side(storage="half"), job="j"):
            pytest.fail("it was accepted")


# The registry


@attrs.frozen
class NoOptions:
    pass


class EntryPoint:
    """As much of an entry point as the registry uses."""

    def __init__(self, name, load):
        self.name, self.load = name, load
        self.value = f"{name}:plugin"
        self.dist = None


class Offers:
    def __init__(self, *names):
        self.names = names

    def register(self, registry):
        for name in self.names:
            registry.add_storage(name, object, config_class=NoOptions, summary="s")


def broken():
    raise ImportError("no module named gone")


def test_a_broken_plugin_is_reported_by_name_and_harms_no_other():
    registry = load_plugins([EntryPoint("good", lambda: Offers("ok")), EntryPoint("bad", broken)])

    assert [(each.name, each.error) for each in registry.plugins] == [
        ("bad", "ImportError: no module named gone"),
        ("good", None),
    ]
    assert registry.find("storage", "ok").plugin == "good"
    with pytest.raises(PluginError) as caught:
        registry.find("storage", "gone")
    assert "bad (ImportError" in caught.value.hint


def test_a_plugin_that_fails_halfway_offers_nothing():
    class Half:
        def register(self, registry):
            registry.add_storage("half", object, config_class=NoOptions, summary="s")
            raise RuntimeError("oops")

    registry = load_plugins([EntryPoint("half", Half)])

    assert registry.offers("storage") == ()
    assert registry.plugins[0].error == "RuntimeError: oops"


def test_a_name_is_offered_once():
    registry = load_plugins(
        [EntryPoint("a", lambda: Offers("x")), EntryPoint("b", lambda: Offers("x"))]
    )

    assert registry.find("storage", "x").plugin == "a"
    assert "already offered by the plugin 'a'" in registry.plugins[1].error


def test_options_are_an_attrs_class():
    with pytest.raises(PluginError, match="attrs"):
        Registry().add_transport("x", Transport, config_class=dict, summary="s")


def test_a_storage_and_a_transport_may_share_a_name():
    registry = Registry()
    registry.add_storage("x", object, config_class=NoOptions, summary="s")
    registry.add_transport("x", Transport, config_class=NoOptions, summary="t")

    assert [each.name for each in registry.offers("storage")] == ["x"]
    assert registry.find("transport", "x").summary == "t"
