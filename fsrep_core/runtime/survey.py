"""Looks at both sides without changing anything: inventories, estimates, a preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from fsrep_core.planning import Plan, make_plan
from fsrep_core.runtime.classify import classify
from fsrep_core.shown import Shown
from fsrep_core.values import Inventory, InventoryRequest, SendRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsrep_core.runtime.binding import Endpoint
    from fsrep_core.runtime.settings import JobSettings
    from fsrep_core.values import PlannedStep

__all__ = ["PlanPreview", "estimate_steps", "preview", "send_request", "survey"]

KeyT = TypeVar("KeyT")


@attrs.frozen(kw_only=True, repr=False)
class PlanPreview(Shown):
    """What a run would do now."""

    plan: Plan
    estimates: Mapping[str, tuple[int | None, ...]]
    """For each filesystem, the bytes of each of its steps; ``None`` = not known."""
    warnings: tuple[str, ...] = ()
    """Which sizes could not be learned, and why."""


async def survey(
    settings: JobSettings, sender: Endpoint, receiver: Endpoint
) -> tuple[Inventory, Inventory]:
    """List both sides at once.

    :raises FsrepError: a side cannot be reached or listed; a note names the side
    """
    request = InventoryRequest(job=settings.name, patterns=settings.filesystems)
    found: dict[Endpoint, Inventory] = {}
    failed: list[Exception] = []

    async with trio.open_nursery() as nursery:

        async def list_side(endpoint: Endpoint) -> None:
            try:
                found[endpoint] = await endpoint.inventory(request)
            except Exception as error:  # noqa: BLE001  (raised again below, alone)
                error.add_note(f"while listing the {endpoint.name}")
                failed.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(list_side, sender)
        nursery.start_soon(list_side, receiver)
    if failed:
        raise failed[0]
    return found[sender], found[receiver]


def send_request(job: str, filesystem: str, planned: PlannedStep) -> SendRequest:
    """What to ask the sender for one planned step."""
    return SendRequest(
        job=job,
        filesystem=filesystem,
        from_version=planned.from_version,
        to_version=planned.to_version,
        intermediates=planned.intermediates,
        resume_token=planned.resume_token,
        origin=planned.origin,
    )


async def estimate_steps(
    settings: JobSettings,
    sender: Endpoint,
    steps: Iterable[tuple[KeyT, str, PlannedStep]],
    *,
    learn: Callable[[KeyT, int | None], None],
    warn: Callable[[str, str], None],
) -> None:
    """Ask the sender for the sizes of steps, a few at a time, in the order given.

    An estimate that fails leaves the size unknown: the step itself will tell whether
    anything is wrong. ``steps`` is read lazily, so a caller can drop what has begun.

    :param steps: a key for the caller, the filesystem, and the step
    :param learn: hears each key with its bytes
    :param warn: hears a filesystem and why its size could not be learned
    """
    waiting = iter(steps)

    async def ask() -> None:
        for key, filesystem, planned in waiting:
            try:
                estimate = await sender.size_estimate(
                    send_request(settings.name, filesystem, planned)
                )
            except Exception as error:  # noqa: BLE001  (only a size is lost)
                target = planned.to_version.relative_name
                warn(
                    filesystem,
                    f"the size of {filesystem}{target} is not known: {classify(error).message}",
                )
            else:
                learn(key, estimate.size_bytes)

    async with trio.open_nursery() as nursery:
        for _ in range(settings.estimate_concurrency):
            nursery.start_soon(ask)


async def preview(settings: JobSettings, sender: Endpoint, receiver: Endpoint) -> PlanPreview:
    """Plan as a run would, with sizes, and change nothing.

    :raises FsrepError: a side cannot be reached or listed
    """
    sender_inventory, receiver_inventory = await survey(settings, sender, receiver)
    plan = make_plan(
        sender_inventory,
        receiver_inventory,
        patterns=settings.filesystems,
        policy=settings.policy,
    )
    sizes: dict[str, list[int | None]] = {
        each.filesystem: [None] * len(each.steps) for each in plan.filesystems
    }
    warnings: list[str] = []

    def learn(key: tuple[str, int], size_bytes: int | None) -> None:
        filesystem, index = key
        sizes[filesystem][index] = size_bytes

    if sender_inventory.capabilities.estimates:
        await estimate_steps(
            settings,
            sender,
            (
                ((each.filesystem, index), each.filesystem, planned)
                for each in plan.filesystems
                for index, planned in enumerate(each.steps)
                if not planned.mark_only
            ),
            learn=learn,
            warn=lambda _, message: warnings.append(message),
        )
    return PlanPreview(
        plan=plan,
        estimates={name: tuple(each) for name, each in sizes.items()},
        warnings=tuple(warnings),
    )
