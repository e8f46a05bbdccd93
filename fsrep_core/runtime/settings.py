"""How one job is to be replicated, as the driver wants to know it."""

from __future__ import annotations

import attrs

from fsrep_core.planning import Policy
from fsrep_core.shown import Shown

__all__ = ["JobSettings"]


@attrs.frozen(kw_only=True, repr=False)
class JobSettings(Shown):
    """The settings of one job, apart from its two sides."""

    name: str
    filesystems: tuple[str, ...] = ("**",)
    """Patterns; see :func:`fsrep_core.planning.select_filesystems`."""
    policy: Policy = attrs.field(factory=Policy)
    concurrency: int = 1
    """Steps at once."""
    estimate_concurrency: int = 4
    """Size estimates at once."""
    retry_for_seconds: float = 3600.0
    """How long to try again after the last progress."""
    backoff_initial_seconds: float = 2.0
    """The longest first wait; each further one in a row doubles it."""
    backoff_limit_seconds: float = 120.0
    progress_timeout_seconds: float = 600.0
    """A step in which nothing moves for so long has failed."""
