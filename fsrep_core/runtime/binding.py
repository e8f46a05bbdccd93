"""One side of a job: from the names in its configuration to an endpoint that answers.

Each side has a plugin manager of its own that holds exactly one configured instance. An
instance that lacks a hook is refused here, by name, before anything runs. The calls go
through :class:`Endpoint`, which checks what comes back: a plugin that answers against
the contract is reported as such, and never as a failure of something else.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pluggy
import trio

from fsrep_core.errors import BrokenEndpointError, PluginError, TimeoutExpiredError
from fsrep_core.hookspecs import EndpointSpec
from fsrep_core.runtime.options import structure_options
from fsrep_core.runtime.throttle import RateLimit, ThrottledStream
from fsrep_core.shown import Shown
from fsrep_core.transports import EndpointContext, StorageChoice
from fsrep_core.values import (
    Inventory,
    ReceiveResponse,
    SendResponse,
    Side,
    SizeEstimate,
    Version,
    VersionResult,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core.runtime.registry import Registry
    from fsrep_core.streams import ByteStream
    from fsrep_core.values import (
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        InventoryRequest,
        ReceiveRequest,
        SendRequest,
    )

__all__ = ["HOOK_NAMES", "Endpoint", "SideSettings", "open_endpoint"]

AnswerT = TypeVar("AnswerT")

HOOK_NAMES = tuple(
    name for name, value in vars(EndpointSpec).items() if hasattr(value, "fsrep_spec")
)
"""The hooks of an endpoint, in the order in which the contract lists them."""


@attrs.frozen(kw_only=True, repr=False)
class SideSettings(Shown):
    """What a job says of one side."""

    side: Side
    transport: str
    transport_options: Mapping[str, Any] = attrs.field(factory=dict)
    storage: str
    storage_options: Mapping[str, Any] = attrs.field(factory=dict)
    rate_limit_bytes_per_second: int | None = None
    """``None`` = as fast as it goes."""


class Endpoint:
    """One bound endpoint: the typed way to call its hooks.

    :param plugin: the configured instance
    :param name: how messages call it, such as ``sender (zfs over ssh)``
    :param call_timeout_seconds: a deadline for every call without a stream
    :raises PluginError: a hook is missing, or one has parameters that its spec lacks
    """

    def __init__(
        self,
        plugin: object,
        *,
        name: str,
        rate_limit_bytes_per_second: int | None = None,
        call_timeout_seconds: float = 600.0,
    ) -> None:
        self.name = name
        self._rate_limit = (
            None if rate_limit_bytes_per_second is None else RateLimit(rate_limit_bytes_per_second)
        )
        self._call_timeout_seconds = call_timeout_seconds
        manager = pluggy.PluginManager("fsrep")
        manager.add_hookspecs(EndpointSpec)
        try:
            manager.register(plugin)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"the {name} does not keep the contract: {error}") from error
        self._hook = manager.hook
        missing = [each for each in HOOK_NAMES if not getattr(self._hook, each).get_hookimpls()]
        if missing:
            raise PluginError(
                f"the {name} lacks part of the contract: {', '.join(missing)}",
                hint=f"{type(plugin).__qualname__} must implement each hook and mark it "
                "with fsrep_core.hookimpl",
            )

    async def inventory(self, request: InventoryRequest) -> Inventory:
        """See :meth:`~fsrep_core.EndpointSpec.inventory`."""
        return self._checked("inventory", await self._call("inventory", request), Inventory)

    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """See :meth:`~fsrep_core.EndpointSpec.size_estimate`."""
        return self._checked(
            "size_estimate", await self._call("size_estimate", request), SizeEstimate
        )

    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """See :meth:`~fsrep_core.EndpointSpec.replication_cursor`."""
        answer = await self._call("replication_cursor", request)
        return None if answer is None else self._checked("replication_cursor", answer, Version)

    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """See :meth:`~fsrep_core.EndpointSpec.create_version`."""
        answer = await self._call("create_version", request)
        return self._results("create_version", answer, len(request.filesystems))

    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """See :meth:`~fsrep_core.EndpointSpec.destroy_versions`."""
        answer = await self._call("destroy_versions", request)
        return self._results("destroy_versions", answer, len(request.versions))

    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """See :meth:`~fsrep_core.EndpointSpec.send`; the stream keeps the rate limit."""
        opened = self._hook.send(request=request)
        if not isinstance(opened, AbstractAsyncContextManager):
            raise self._broken("send", "an async context manager", opened)
        async with opened as response:
            self._checked("send", response, SendResponse)
            if response.stream is None:
                raise BrokenEndpointError(
                    f"the {self.name} opened no stream for {request.filesystem}"
                    f"{request.to_version.relative_name}: the endpoint is broken",
                    hint="report this to the author of the plugin",
                )
            yield attrs.evolve(response, stream=self._throttled(response.stream))

    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """See :meth:`~fsrep_core.EndpointSpec.receive`; the stream keeps the rate limit.

        There is no deadline here: the driver watches the progress of a step.
        """
        answer = self._hook.receive(request=request, stream=self._throttled(stream))
        response = await self._awaited("receive", answer)
        return self._checked("receive", response, ReceiveResponse)

    async def _call(self, hook: str, request: object) -> object:
        """Call a hook under the deadline of calls without a stream."""
        with trio.CancelScope(deadline=trio.current_time() + self._call_timeout_seconds):
            return await self._awaited(hook, getattr(self._hook, hook)(request=request))
        raise TimeoutExpiredError(
            f"the {self.name} gave no answer to {hook} within "
            f"{self._call_timeout_seconds:g} seconds",
            hint="raise call_timeout if the storage is only slow",
        )

    async def _awaited(self, hook: str, answer: object) -> object:
        if not inspect.isawaitable(answer):
            raise self._broken(hook, "an awaitable", answer)
        return await answer

    def _throttled(self, stream: ByteStream) -> ByteStream:
        if self._rate_limit is None:
            return stream
        return ThrottledStream(stream, self._rate_limit)

    def _checked(self, hook: str, answer: object, wanted: type[AnswerT]) -> AnswerT:
        if not isinstance(answer, wanted):
            raise self._broken(hook, wanted.__name__, answer)
        return answer

    def _results(self, hook: str, answer: object, count: int) -> tuple[VersionResult, ...]:
        results = tuple(
            self._checked(hook, each, VersionResult) for each in self._checked(hook, answer, tuple)
        )
        if len(results) != count:
            raise self._broken(hook, f"{count} results", f"{len(results)} results")
        return results

    def _broken(self, hook: str, wanted: str, given: object) -> BrokenEndpointError:
        shown = given if isinstance(given, str) else type(given).__qualname__
        return BrokenEndpointError(
            f"the {self.name} answered {hook} with {shown} instead of {wanted}",
            hint="report this to the author of the plugin",
        )


@asynccontextmanager
async def open_endpoint(
    registry: Registry,
    settings: SideSettings,
    *,
    job: str,
    call_timeout_seconds: float = 600.0,
) -> AsyncIterator[Endpoint]:
    """Make the transport and storage of one side and give its endpoint.

    :raises PluginError: a plugin is missing, broken, or lacks a hook
    :raises ConfigError: an option of the transport or storage is wrong
    """
    side = settings.side.value
    transport_offer = registry.find("transport", settings.transport)
    transport = transport_offer.create(
        structure_options(
            transport_offer.config_class, settings.transport_options, f"{side}.transport"
        )
    )

    def create_storage() -> object:
        offer = registry.find("storage", settings.storage)
        options = structure_options(offer.config_class, settings.storage_options, f"{side}.storage")
        return offer.create(options)

    context = EndpointContext(
        job=job,
        side=settings.side,
        storage=StorageChoice(
            name=settings.storage, options=settings.storage_options, create=create_storage
        ),
    )
    async with transport.open_endpoint(context) as plugin:
        yield Endpoint(
            plugin,
            name=f"{side} ({settings.storage} over {settings.transport})",
            rate_limit_bytes_per_second=settings.rate_limit_bytes_per_second,
            call_timeout_seconds=call_timeout_seconds,
        )
