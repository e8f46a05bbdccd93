"""What a job allows and prefers where more than one plan would be right.

The defaults destroy nothing on the receiver and need no operator: the newest snapshot
first, everything after it in as few streams as possible, a token that can no longer be
used is thrown away. The values of the enums are the words of the configuration.
"""

from __future__ import annotations

import enum

import attrs

from fsrep_core.shown import Shown

__all__ = ["Base", "Diverged", "Initial", "Policy", "StaleToken", "Steps"]


class Initial(enum.Enum):
    """What a receiver without snapshots gets first."""

    NEWEST = "newest"
    """The newest snapshot only; older ones stay on the sender."""
    ALL = "all"
    """The oldest snapshot in full, then every later one."""
    FAIL = "fail"
    """Nothing: an operator begins the replication, the job only carries it on."""


class Diverged(enum.Enum):
    """What happens to a receiver with snapshots newer than the base."""

    FAIL = "fail"
    """Nothing is touched; the filesystem has a conflict."""
    ROLLBACK = "rollback"
    """The step destroys exactly those snapshots first."""


class StaleToken(enum.Enum):
    """What happens to a resume token that no step can use any more."""

    DISCARD = "discard"
    """It is thrown away: a pruned snapshot must not stop unattended runs for ever."""
    FAIL = "fail"
    """It is kept; the filesystem has a conflict."""


class Steps(enum.Enum):
    """How the way from the base to the newest snapshot is divided."""

    BATCHED = "batched"
    """One stream carries all snapshots between, where both storages can."""
    EACH = "each"
    """One step for each snapshot."""
    NEWEST = "newest"
    """One step to the newest; the snapshots between stay on the sender."""


class Base(enum.Enum):
    """Which common version an incremental step may start from."""

    NEWEST = "newest"
    """The newest that both sides have, whoever replicated it."""
    CURSOR = "cursor"
    """Only where both sides have what the job's own cursor marks: a receiver that this
    job has not filled is left alone."""


@attrs.frozen(kw_only=True, repr=False)
class Policy(Shown):
    """The choices of one job."""

    initial: Initial = Initial.NEWEST
    diverged: Diverged = Diverged.FAIL
    stale_token: StaleToken = StaleToken.DISCARD
    steps: Steps = Steps.BATCHED
    base: Base = Base.NEWEST
