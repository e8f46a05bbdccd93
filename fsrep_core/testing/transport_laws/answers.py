"""Laws of requests and answers: values and errors arrive as they were."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fsrep_core import errors
from fsrep_core.testing.laws import LawBook
from fsrep_core.testing.probe import Behaviour, ProbeStorage, ProbeStream, sample_inventory
from fsrep_core.testing.transport_trial import VERSION, TransportTrial, send_request
from fsrep_core.values import (
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    InventoryRequest,
    ReceiveRequest,
    ResumeToken,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LAWS"]

LAWS: LawBook[TransportTrial] = LawBook()

_MANY = 10_000


@LAWS.law()
async def answers_arrive_unchanged(trial: TransportTrial) -> None:
    """What the storage answers is what the caller gets, for every hook and field."""
    storage = ProbeStorage()
    endpoint = trial.endpoint
    look = InventoryRequest(job="size_bytes=3", patterns=("**", "!a/ü"))
    create = CreateVersionRequest(job="kit", filesystems=("a", "b/ü"), name="näme")
    destroy = DestroyVersionsRequest(job="kit", filesystem="a", versions=(VERSION, VERSION))
    cursors = [
        CursorRequest(job="kit", filesystem="a", move_to=move_to) for move_to in (None, VERSION)
    ]
    estimates = [send_request(name) for name in ("end", "size_bytes=5", f"size_bytes={1 << 50}")]
    async with trial.bounded("asking every hook"):
        pairs = [
            (await endpoint.inventory(look), await storage.inventory(look)),
            (await endpoint.create_version(create), await storage.create_version(create)),
            (await endpoint.destroy_versions(destroy), await storage.destroy_versions(destroy)),
            *[
                (await endpoint.replication_cursor(each), await storage.replication_cursor(each))
                for each in cursors
            ],
            *[
                (await endpoint.size_estimate(each), await storage.size_estimate(each))
                for each in estimates
            ],
        ]
    for found, wanted in pairs:
        trial.require(found == wanted, f"{wanted} arrived as {found}")


@LAWS.law()
async def a_large_inventory_arrives(trial: TransportTrial) -> None:
    """An inventory of many versions arrives whole."""
    async with trial.bounded(f"listing {_MANY} versions"):
        found = await trial.endpoint.inventory(InventoryRequest(job=f"size_bytes={_MANY}"))

    trial.require(found == sample_inventory(_MANY), "it is not what the storage lists")


@LAWS.law()
async def what_is_said_of_a_stream_arrives(trial: TransportTrial) -> None:
    """Whether a send resumes and how large it is, and what a receive warns of, arrive."""
    token = ResumeToken("a secret value", VERSION.guid)
    for name, given in (("size_bytes=77", token), ("end", None)):
        request = send_request(name, token=given)
        async with trial.bounded("opening a stream"), trial.endpoint.send(request) as response:
            found = response.resumed, response.size_bytes
            wanted = given is not None, 77 if given else None
            trial.require(found == wanted, f"resumed and size {wanted} arrived as {found}")
    async with trial.bounded("receiving"):
        answer = await trial.receive(ProbeStream(Behaviour(size_bytes=5)), size_bytes=-1)
    wanted_answer = ("5", ProbeStream.digest(0, 5), "ü")
    trial.require(answer.warnings == wanted_answer, f"the warnings arrived as {answer.warnings}")
    trial.require(answer.version.order == 7, f"the version arrived as {answer.version}")  # noqa: PLR2004  (as the probe has it)


@LAWS.law()
async def a_token_is_a_secret(trial: TransportTrial) -> None:
    """A resume token arrives, and stands in no repr on the way."""
    inventory = await trial.endpoint.inventory(InventoryRequest(job="end"))
    tokens = [each.resume_token for each in inventory.filesystems if each.resume_token]

    trial.require([token.value for token in tokens] == ["a secret value"], "it did not arrive")
    trial.require("a secret value" not in repr(inventory), "it stands in the inventory's repr")


@LAWS.law()
async def errors_arrive_typed(trial: TransportTrial) -> None:
    """Every class of error arrives as itself, with message, hint, and both facts."""
    kinds = [getattr(errors, name).kind for name in errors.__all__]
    behaviours = [Behaviour(then="raise", kind=kind) for kind in kinds]
    behaviours += [
        Behaviour(then="raise", kind="storage", temporary=temporary, local=local)
        for temporary in (True, False)
        for local in (True, False)
    ]
    for behaviour in behaviours:
        error = await trial.expect_error(
            f"a call that raises {behaviour.kind}",
            partial(trial.endpoint.size_estimate, send_request(behaviour.name)),
        )
        trial.require_error("a call", error, behaviour)


@LAWS.law()
async def every_hook_raises_typed_errors(trial: TransportTrial) -> None:
    """An error arrives typed from whichever hook raises it, also before a stream begins."""
    behaviour = Behaviour(then="refuse", kind="busy", temporary=True, local=True)
    name = behaviour.name
    endpoint = trial.endpoint
    receive = ReceiveRequest(job="kit", filesystem=name, to_version=VERSION)

    async def send() -> None:
        async with endpoint.send(send_request(name)):
            pass

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "inventory": partial(endpoint.inventory, InventoryRequest(job=name)),
        "size_estimate": partial(endpoint.size_estimate, send_request(name)),
        "replication_cursor": partial(
            endpoint.replication_cursor, CursorRequest(job="kit", filesystem=name)
        ),
        "create_version": partial(
            endpoint.create_version,
            CreateVersionRequest(job="kit", filesystems=(name,), name="new"),
        ),
        "destroy_versions": partial(
            endpoint.destroy_versions,
            DestroyVersionsRequest(job="kit", filesystem=name, versions=(VERSION,)),
        ),
        "send": send,
        "receive": partial(endpoint.receive, receive, ProbeStream(Behaviour(size_bytes=5))),
    }
    for hook, call in calls.items():
        error = await trial.expect_error(f"{hook}, which is refused", call)
        trial.require_error(hook, error, behaviour)


@LAWS.law()
async def a_foreign_error_is_an_error_too(trial: TransportTrial) -> None:
    """A defect of the storage reaches the caller as some error, and the next call works."""
    name = Behaviour(then="raise", kind="foreign").name
    raised = False
    async with trial.bounded("a call that fails by a defect"):
        try:
            await trial.endpoint.size_estimate(send_request(name))
        except Exception:  # noqa: BLE001  (any will do)
            raised = True

    trial.require(raised, "the call succeeded")
    await trial.require_idle("after a defect")


@LAWS.law()
async def a_call_can_be_cancelled(trial: TransportTrial) -> None:
    """A call that gets no answer ends when it is cancelled, and the next one works."""
    request = send_request(Behaviour(then="stall").name)
    async with trial.bounded("cancelling a call"):
        with trio.move_on_after(0.01):
            await trial.endpoint.size_estimate(request)
            raise trial.broken("a stalled call was answered")
        with trio.CancelScope() as scope:
            scope.cancel()
            await trial.endpoint.size_estimate(request)
    await trial.require_idle("after a call was cancelled")
