"""Sends one step: checks what is asked for, guards it, and opens the stream.

What a resume token says is done only if it is what the request says and what the options
allow: a token is a peer's word, and ``zfs send -t`` would do whatever stands in it.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from fsrep_core import (
    ConflictError,
    InvalidRequestError,
    PermissionDeniedError,
    SendResponse,
    StaleTokenError,
    StorageError,
    Version,
    VersionKind,
    VersionMissingError,
)
from fsrep_zfs.catalog import Catalog, full_name, gone
from fsrep_zfs.config import Protection, ZfsConfig
from fsrep_zfs.cursors import Cursors
from fsrep_zfs.guarding import Guard, not_allowed
from fsrep_zfs.listing import Dataset
from fsrep_zfs.names import step_tag
from fsrep_zfs.tokens import decode_token
from fsrep_zfs.tool import ZfsTool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from fsrep_core import SendRequest

__all__ = ["Sender"]

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class _Step:
    """A request, found on the pool."""

    attempt: str
    dataset: Dataset
    target: Version
    base: Version | None
    origin: str | None
    """The full name of the snapshot that it is sent as a clone of."""
    batched: bool

    @property
    def held(self) -> list[str]:
        """The snapshots at its ends."""
        ends = [each for each in (self.base, self.target) if each is not None]
        return [
            full_name(self.dataset.name, each) for each in ends if each.kind is VersionKind.SNAPSHOT
        ]


@attrs.define(eq=False)
class Sender:
    """Sends the versions below one root."""

    config: ZfsConfig
    tool: ZfsTool
    catalog: Catalog
    guard: Guard
    cursors: Cursors
    in_use: Counter[tuple[str, str]]
    """Datasets and guids that streams are being made of."""

    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """See :meth:`fsrep_core.EndpointSpec.send`."""
        step = await self._find(request, "sending")
        self._check_encryption(request, step)
        resumed = self._check_token(request, step)
        ends = [
            (step.dataset.name, each.guid) for each in (step.base, step.target) if each is not None
        ]
        self.in_use.update(ends)
        try:
            async with self.guard.step():
                await self._protect(request, step)
                arguments = ["-t", resumed] if resumed else self._arguments(step)
                from_bookmark = step.base is not None and step.base.kind is VersionKind.BOOKMARK
                async with self.tool.send(
                    step.attempt, arguments, sized=not (resumed or from_bookmark)
                ) as opened:
                    yield SendResponse(
                        stream=opened.stream,
                        resumed=resumed is not None,
                        size_bytes=opened.size_bytes,
                    )
        finally:
            self.in_use.subtract(ends)

    async def estimate(self, request: SendRequest) -> int | None:
        """Tell how many bytes a step would be."""
        step = await self._find(request, "estimating")
        token = self._check_token(request, step)
        arguments = ["-t", token] if token else self._arguments(step)
        return await self.tool.estimate(step.attempt, arguments)

    # --- finding ---

    async def _find(self, request: SendRequest, verb: str) -> _Step:
        name = self.catalog.dataset_name(request.filesystem)
        attempt = f"{verb} {request.filesystem}{request.to_version.relative_name}"
        target = await self.catalog.find(name, request.to_version, bookmarks=False)
        if target is None:
            raise gone(attempt, request.to_version)
        base = None
        if request.from_version is not None:
            found = await self.catalog.find(name, request.from_version)
            if found is None:
                raise gone(attempt, request.from_version)
            base = found[1]
        if request.intermediates and (base is None or base.kind is VersionKind.BOOKMARK):
            raise InvalidRequestError(
                f"{attempt}: several snapshots can be sent only from a snapshot",
                hint="plan again: the base was destroyed, and its bookmark leads to the next one",
            )
        origin = self.catalog.origins(target[0]).get(target[0].origin) if request.origin else None
        if request.origin != (origin.guid if origin is not None else None):
            raise VersionMissingError(
                f"{attempt}: it is no clone of the snapshot with the guid {request.origin}",
                hint="plan again: it, or its origin, was promoted or replaced",
            )
        return _Step(
            attempt=attempt,
            dataset=target[0],
            target=target[1],
            base=base,
            origin=target[0].origin if origin is not None else None,
            batched=bool(request.intermediates),
        )

    def _arguments(self, step: _Step) -> list[str]:
        """Give the options and names that ``zfs send`` takes for a step.

        What is not encrypted is never sent raw: such a stream may hold embedded blocks, which
        an encrypted receiver refuses.
        """
        config = self.config
        flags = {
            "-w": config.raw and step.dataset.encrypted,
            "-L": config.large_blocks,
            "-c": config.compressed,
            "-e": config.embedded,
            "-p": config.properties,
            "-b": config.backup,
        }
        arguments = [flag for flag, wanted in flags.items() if wanted]
        if step.base is not None:
            arguments += ["-I" if step.batched else "-i", step.base.relative_name]
        elif step.origin is not None:
            arguments += ["-i", step.origin]
        return [*arguments, full_name(step.dataset.name, step.target)]

    # --- refusing ---

    def _check_encryption(self, request: SendRequest, step: _Step) -> None:
        """Refuse what would fail later, or would be found to be wrong much later.

        :raises ConflictError: earlier steps of the job were sent the other way
        :raises StorageError: the key is needed and not loaded
        """
        if not step.dataset.encrypted:
            return
        raw = self.config.raw
        sent_raw = self.cursors.sent_raw(request.job, step.dataset, step.base)
        if sent_raw is not None and sent_raw is not raw:
            was, would_be = ("raw", "plain") if sent_raw else ("plain", "raw")
            raise ConflictError(
                f"{step.attempt}: earlier steps of this job were sent {was}, this one would be "
                f"sent {would_be}, and no later one could follow them",
                hint=f"set raw = {str(sent_raw).lower()} again, or replicate to another place",
            )
        if not raw and not step.dataset.key_loaded:
            raise StorageError(
                f"{step.attempt}: the dataset is encrypted and its key is not loaded",
                temporary=True,
                hint=f"load it (zfs load-key {step.dataset.name}), or send raw, which needs none "
                "(raw = true)",
            )

    def _check_token(self, request: SendRequest, step: _Step) -> str | None:
        """Give the token to send by; ``None`` = there is none that can be used.

        :raises StaleTokenError: it means something else than the request
        """
        if request.resume_token is None:
            return None
        token = decode_token(request.resume_token.value)
        base = request.from_version
        start = base.guid if base is not None else request.origin
        if (token.from_guid, token.to_guid) != (start, request.to_version.guid):
            raise StaleTokenError(
                f"{step.attempt}: the resume token is of another step than the request",
                hint="plan again; discard the partial receive if this goes on",
            )
        raw = self.config.raw and step.dataset.encrypted
        reasons = {
            "the dataset was renamed": token.to_name != full_name(step.dataset.name, step.target),
            "it was sent with another choice of raw": step.dataset.encrypted and token.raw != raw,
            f"it asks for {', '.join(sorted(token.unknown))}": bool(token.unknown),
        }
        why = next((reason for reason, applies in reasons.items() if applies), None)
        if why is None:
            return request.resume_token.value
        logger.warning("%s begins anew, its resume token cannot be used: %s", step.attempt, why)
        return None

    # --- guarding ---

    async def _protect(self, request: SendRequest, step: _Step) -> None:
        """Keep what the step needs, as the options say, and let go of what earlier ones needed."""
        option = "protect_initial" if step.base is None else "protect_incremental"
        protection: Protection = getattr(self.config, option)
        tag = step_tag(request.job)
        held = step.held if protection is Protection.RESUMABLE else []
        self._release_leftovers(tag, step, held)
        try:
            if held:
                await self.guard.hold(tag, held)
        except PermissionDeniedError as error:
            raise not_allowed(error, option) from error
        if protection is Protection.INCREMENTAL and step.base is not None:
            await self.cursors.keep(request.job, step.dataset, step.base, raw=self.config.raw)

    def _release_leftovers(self, tag: str, step: _Step, wanted: Collection[str]) -> None:
        """Let go of what a step that never came to its end has left held."""
        dataset = step.dataset
        held = [
            full_name(dataset.name, dataset.snapshots[guid])
            for guid in dataset.held
            if guid in dataset.snapshots
        ]
        self.guard.release_later(tag, [name for name in held if name not in wanted])
