"""Holds: what keeps versions from being destroyed while they are needed.

On a sender, both ends of a step are held from before the first byte until the receiver has
confirmed the step. On a receiver, what was received last is held, and the version before
it until a next step shows that the sender goes on from the newer one.

Holds are made before they are needed, one command for all steps that begin together.
Nothing waits for a release, so releases gather until no step is under way any more (or the
oldest has waited for a while), and are then one command as well. What fsrep could not
release because it was killed is released by the next step of that filesystem: of snapshots
that the listing shows as held, and that the step does not need, its own holds are released,
if there are any. To ask first whose they are would cost one more command.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import FsrepError, PermissionDeniedError
from fsrep_zfs.batching import Batch
from fsrep_zfs.tool import ZfsTool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

__all__ = ["Guard"]

PATIENCE_SECONDS = 10.0
"""How long a release may wait for others while steps are under way."""

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Guard:
    """Makes and releases the holds of one endpoint."""

    tool: ZfsTool
    _under_way: int = attrs.field(init=False, default=0)
    _to_release: dict[tuple[str, str], None] = attrs.field(init=False, factory=dict)
    """Tags and snapshots, in order."""
    _held: dict[tuple[str, str], set[str]] = attrs.field(
        init=False, factory=lambda: defaultdict(set)
    )
    """What is held by this endpoint, by tag and dataset."""
    _waiting_since: float = attrs.field(init=False, default=0.0)
    _holds: Batch[tuple[str, tuple[str, ...]], None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._holds = Batch(self._hold_all)

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Note that a step is under way for as long as the context; then release what waits.

        Not where it was cancelled: then the next run releases what is left.
        """
        self._under_way += 1
        try:
            yield
        except FsrepError:
            self._under_way -= 1
            await self._settle()
            raise
        except BaseException:
            self._under_way -= 1
            raise
        self._under_way -= 1
        await self._settle()

    async def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        """Hold snapshots by a tag, together with those of other steps.

        :raises FsrepError: one of them is gone, or it is not allowed
        """
        for snapshot in snapshots:
            self._to_release.pop((tag, snapshot), None)
            self._held[tag, snapshot.partition("@")[0]].add(snapshot)
        await self._holds.submit((tag, tuple(snapshots)))

    def take_held(self, tag: str, dataset: str) -> list[str]:
        """Give the snapshots of a dataset that were held here by a tag, and forget that."""
        return sorted(self._held.pop((tag, dataset), ()))

    async def _hold_all(
        self, items: Sequence[tuple[str, tuple[str, ...]]]
    ) -> dict[tuple[str, tuple[str, ...]], FsrepError | None]:
        by_tag: dict[str, dict[str, None]] = defaultdict(dict)
        for tag, snapshots in items:
            by_tag[tag].update(dict.fromkeys(snapshots))
        errors: dict[str, Mapping[str, FsrepError]] = {}
        for tag, names in by_tag.items():
            errors[tag] = await self.tool.hold(tag, list(names))
        return {
            (tag, snapshots): next(
                (errors[tag][each] for each in snapshots if each in errors[tag]), None
            )
            for tag, snapshots in items
        }

    def release_later(self, tag: str, snapshots: Iterable[str]) -> None:
        """Release snapshots some time soon; those that are not held by this tag do no harm."""
        if not self._to_release:
            self._waiting_since = trio.current_time()
        self._to_release.update(dict.fromkeys((tag, snapshot) for snapshot in snapshots))

    async def _settle(self) -> None:
        """Release what waits for it, unless steps are under way that will do it.

        A hold that stays is not the fault of the step that happens to be the last one, so
        it is told in the log; the next step of its filesystem tries again.
        """
        overdue = trio.current_time() - self._waiting_since > PATIENCE_SECONDS
        if not self._to_release or (self._under_way and not overdue):
            return
        waiting, self._to_release = self._to_release, {}
        by_tag: dict[str, list[str]] = defaultdict(list)
        for tag, snapshot in waiting:
            by_tag[tag].append(snapshot)
        for tag, snapshots in by_tag.items():
            try:
                errors = await self.tool.release(tag, snapshots)
            except FsrepError as error:
                errors = dict.fromkeys(snapshots, error)
            for snapshot, why in errors.items():
                logger.warning("the hold %s of %s stays: %s", tag, snapshot, why)


def not_allowed(error: PermissionDeniedError, option: str) -> PermissionDeniedError:
    """Say what to do where holds are not allowed."""
    return PermissionDeniedError(
        error.message,
        hint=f"let the user hold and release ('fsrep zfs allow'), or set {option} to "
        "'incremental' or 'none'",
    )
