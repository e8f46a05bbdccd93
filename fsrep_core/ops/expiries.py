"""Warns of what ends soon: certificates, and whatever else transports need and lose."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import trio

from fsrep_core.errors import FsrepError
from fsrep_core.quantities import format_duration
from fsrep_core.runtime.options import structure_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.runtime.registry import Registry
    from fsrep_core.transports import Expiry

__all__ = ["WARNING_SECONDS", "expiries_of", "expiry_warnings", "watch_expiries"]

WARNING_SECONDS = 30 * 86400.0
"""How long before its end somebody is warned."""

REPEAT_SECONDS = 86400.0
"""How often those who watch are told while nothing changes."""

LOOK_SECONDS = 60.0
"""How soon they are told of a change."""


def expiry_warnings(expiries: Iterable[Expiry], now: float | None = None) -> list[str]:
    """Say what has ended, or ends soon."""
    now = time.time() if now is None else now
    warnings = []
    for each in expiries:
        left_seconds = each.expires_at - now
        if left_seconds <= 0:
            warnings.append(f"{each.what} has expired; nothing that needs it works")
        elif left_seconds < WARNING_SECONDS:
            day = time.strftime("%Y-%m-%d", time.gmtime(each.expires_at))
            warnings.append(
                f"{each.what} expires on {day}, in {format_duration(left_seconds)}; renew it"
            )
    return warnings


def expiries_of(job: JobConfig, registry: Registry) -> tuple[Expiry, ...]:
    """Ask the transports of a job. What cannot be told now, the run itself will meet."""
    found: dict[str, Expiry] = {}
    for side in (job.sender, job.receiver):
        offer = registry.find("transport", side.transport.name)
        try:
            options = structure_options(offer.config_class, side.transport.options, "transport")
            found |= {each.what: each for each in offer.create(options).expiries()}
        except FsrepError:
            continue
    return tuple(found.values())


async def watch_expiries(
    look: Callable[[], tuple[Expiry, ...]],
    tell: Callable[[tuple[Expiry, ...]], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Tell what ends some day: at once, when that changes, and once a day; until cancelled.

    :param look: lists it. Once it could be read, what cannot be, as while it is replaced,
        leaves what is known: whoever needs it goes on with that as well
    :raises ConfigError: it cannot be read, and never could
    """
    known = look()
    tell(known)
    told_at = trio.current_time()
    task_status.started()
    while True:
        await trio.sleep(LOOK_SECONDS)
        seen = known
        with suppress(FsrepError):
            seen = look()
        if seen != known or trio.current_time() - told_at >= REPEAT_SECONDS:
            known, told_at = seen, trio.current_time()
            tell(known)
