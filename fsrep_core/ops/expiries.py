"""Warns of what ends soon: certificates, and whatever else transports need and lose."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsrep_core.errors import FsrepError
from fsrep_core.quantities import format_duration
from fsrep_core.runtime.options import structure_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsrep_core.ops.config import JobConfig
    from fsrep_core.runtime.registry import Registry
    from fsrep_core.transports import Expiry

__all__ = ["WARNING_SECONDS", "expiries_of", "expiry_warnings"]

WARNING_SECONDS = 30 * 86400.0
"""How long before its end somebody is warned."""


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
