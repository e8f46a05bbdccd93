"""Receives one step: looks, makes room as far as it may, receives, and looks again.

Nothing on the receiver is ever overwritten except what fsrep itself has made and what has
no snapshot: a placeholder, or the copy whose last snapshot was destroyed. Nothing is rolled
back except over the versions that the request names, and then all that is newer than the
base has to be named. Everything received stays unmounted.

``zfs receive`` ending well is not believed alone: the snapshot is listed afterwards, and
its guid has to be the one that was promised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from fsrep_core import (
    BrokenEndpointError,
    ByteStream,
    ConflictError,
    FsrepError,
    InvalidRequestError,
    PermissionDeniedError,
    ReceiveRequest,
    ReceiveResponse,
    StorageError,
    Version,
    VersionMissingError,
)
from fsrep_zfs.batching import Batch
from fsrep_zfs.catalog import Catalog, full_name
from fsrep_zfs.config import PlaceholderEncryption, Protection, ZfsConfig
from fsrep_zfs.guarding import Guard, not_allowed
from fsrep_zfs.listing import Dataset
from fsrep_zfs.messages import property_complaints
from fsrep_zfs.names import MADE_PROPERTY, copy_mark, last_tag, new_placeholder_mark
from fsrep_zfs.tool import ZfsTool
from fsrep_zfs.withholding import WithheldStream

if TYPE_CHECKING:
    from fsrep_zfs.headers import StreamHeader

__all__ = ["Receiver"]

Destroy: TypeAlias = Callable[
    [str, str, Sequence[Version]], Awaitable[Mapping[str, FsrepError | None]]
]
"""Destroys versions for a job; gives the problem of each, by guid."""

_ANY = ("filesystem", "volume")
_BELONGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("volmode", "volsize", "volblocksize", "snapdev"), ("volume",)),
    **dict.fromkeys(
        (
            *("canmount", "mountpoint", "atime", "relatime", "devices", "exec", "setuid"),
            *("sharenfs", "sharesmb", "quota", "refquota", "recordsize", "snapdir", "acltype"),
            *("aclinherit", "aclmode", "xattr", "dnodesize", "nbmand", "overlay", "vscan"),
            *("special_small_blocks", "filesystem_limit", "filesystem_count", "zoned", "direct"),
        ),
        ("filesystem",),
    ),
}
"""Which properties only one type of dataset has (``zfsprops(7)``). ``zfs receive`` refuses
a whole stream for one that does not apply."""

_UNMOUNTED = {"canmount": "noauto", "volmode": "none"}
"""How a first receive keeps what it makes out of the way: also after the next import, ``-u``
or not."""


@attrs.frozen
class _Arrival:
    """What is looked at together after receives."""

    dataset: str
    target: Version
    tag: str | None
    """How it shall be held."""


@attrs.define(eq=False)
class Receiver:
    """Receives versions below one root."""

    config: ZfsConfig
    tool: ZfsTool
    catalog: Catalog
    guard: Guard
    destroy: Destroy
    _parents: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    _arrivals: Batch[_Arrival, Dataset] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._arrivals = Batch(self._look_at_arrivals)

    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """See :meth:`fsrep_core.EndpointSpec.receive`."""
        name = self.catalog.dataset_name(request.filesystem)
        attempt = f"receiving {request.filesystem}{request.to_version.relative_name} into {name}"
        present = await self._find_present(name, request)
        if present is not None:
            return ReceiveResponse(version=present)
        async with self.guard.step():
            return await self._receive(attempt, name, request, stream)

    async def _receive(
        self, attempt: str, name: str, request: ReceiveRequest, stream: ByteStream
    ) -> ReceiveResponse:
        if request.clear_resume_token:
            await self.tool.abort_receive(name)
            self.catalog.forget(name)
        dataset = await self._check_place(attempt, name, request)
        coming = WithheldStream(stream, attempt)
        header = await coming.peek()
        _check_header(attempt, request, header)
        if request.origin is not None:
            await self._check_origin(attempt, request.origin)
            if dataset is not None and request.resume_token is None:
                raise ConflictError(
                    f"{attempt}: a clone cannot be received into what exists",
                    temporary=True,
                    hint="plan again: it will be sent in full",
                )
        if request.rollback:
            await self._roll_back(attempt, name, request)
        if dataset is None and self.config.make_parents:
            await self._make_parents(name)
        first = request.from_version is None
        try:
            complaints = await self.tool.receive(
                attempt,
                coming,
                name,
                overwrite=first and dataset is not None and request.resume_token is None,
                override=self._override(header, request),
                exclude=self._exclude(header, request),
            )
        except FsrepError as error:
            self.catalog.forget(name)
            present = await self._find_after_refusal(error, name, request)
            if present is None:
                raise
            return ReceiveResponse(version=present)
        except BaseException:
            self.catalog.forget(name)
            raise
        received = await self._confirm(attempt, name, request)
        version = received.snapshots[request.to_version.guid]
        return ReceiveResponse(
            version=version,
            warnings=_warnings(request, received, complaints, first=first),
        )

    # --- before ---

    async def _find_present(self, name: str, request: ReceiveRequest) -> Version | None:
        """Give the version if it exists already; believe that only after a fresh look."""
        guid = request.to_version.guid
        dataset = await self.catalog.known(name)
        if dataset is None or guid not in dataset.snapshots:
            return None
        dataset = await self.catalog.look_at(name)
        return dataset.snapshots.get(guid) if dataset is not None else None

    async def _find_after_refusal(
        self, error: FsrepError, name: str, request: ReceiveRequest
    ) -> Version | None:
        """Tell whether something was refused because another receive had made it already."""
        if not isinstance(error, ConflictError):
            return None
        dataset = await self.catalog.look_at(name)
        return dataset.snapshots.get(request.to_version.guid) if dataset is not None else None

    async def _check_place(
        self, attempt: str, name: str, request: ReceiveRequest
    ) -> Dataset | None:
        """Refuse before anything moves what could not be received in the end."""
        look = self.catalog.look_at if request.rollback else self.catalog.known
        dataset = await look(name)
        if request.from_version is not None:
            if dataset is None or request.from_version.guid not in dataset.snapshots:
                dataset = await self.catalog.look_at(name)
            if dataset is None or request.from_version.guid not in dataset.snapshots:
                raise VersionMissingError(
                    f"{attempt}: its base {request.from_version.relative_name} "
                    f"(guid {request.from_version.guid}) does not exist here",
                    hint="plan again: it was destroyed meanwhile",
                )
            if request.rollback:
                _check_rollback(attempt, dataset, request)
            return dataset
        if dataset is not None and request.resume_token is None and not dataset.replaceable:
            dataset = await self.catalog.look_at(name)
            if dataset is not None and not dataset.replaceable:
                raise _occupied(attempt, dataset)
        return dataset

    async def _check_origin(self, attempt: str, guid: str) -> None:
        """Refuse a clone whose origin is not below the root.

        ``zfs receive`` would take any snapshot of the pool, also one that this client must
        not see.
        """
        for look in (False, True):
            datasets = await self.catalog.look() if look else self.catalog.remembered
            if any(guid in dataset.snapshots for dataset in datasets.values()):
                return
        raise ConflictError(
            f"{attempt}: it is sent as a clone, and its origin (guid {guid}) is not below "
            f"{self.catalog.root}",
            temporary=True,
            hint="plan again: it was destroyed, or is gone to another place",
        )

    async def _roll_back(self, attempt: str, name: str, request: ReceiveRequest) -> None:
        """Destroy what the policy gives up, then give the dataset the state of its base."""
        base = request.from_version
        assert base is not None  # noqa: S101  (_check_place has seen to it)
        problems = await self.destroy(request.job, name, request.rollback)
        for problem in problems.values():
            if problem is not None:
                raise StorageError(
                    f"{attempt}: a version that it replaces cannot be destroyed: {problem.message}",
                    temporary=problem.temporary,
                    hint=problem.hint,
                )
        dataset = await self.catalog.known(name)
        if dataset is None or base.guid not in dataset.snapshots:
            raise VersionMissingError(f"{attempt}: its base is gone", hint="plan again")
        await self.tool.roll_back(full_name(name, dataset.snapshots[base.guid]))

    async def _make_parents(self, name: str) -> None:
        """Make what is missing between the root and a dataset, one task at a time."""
        parents = []
        parent = name.rpartition("/")[0]
        while len(parent) > len(self.catalog.root):
            parents.append(parent)
            parent = parent.rpartition("/")[0]
        async with self._parents:
            for each in reversed(parents):
                if await self.catalog.known(each) is None:
                    await self.tool.create_placeholder(each, self._placeholder_properties())
                    self.catalog.forget(each)

    def _placeholder_properties(self) -> dict[str, str]:
        properties = {
            "canmount": "off",
            "mountpoint": "none",
            MADE_PROPERTY: new_placeholder_mark(),
        }
        if self.config.placeholder_encryption is PlaceholderEncryption.OFF:
            properties["encryption"] = "off"
        return properties

    def _override(self, header: StreamHeader, request: ReceiveRequest) -> dict[str, str]:
        """Choose the properties to set by the type of what comes."""
        chosen = dict(self.config.override)
        if request.from_version is None:
            kept = {*chosen, *self.config.exclude}
            chosen |= {name: value for name, value in _UNMOUNTED.items() if name not in kept}
            chosen[MADE_PROPERTY] = copy_mark(request.to_version.guid)
        return {name: value for name, value in chosen.items() if _applies(name, header)}

    def _exclude(self, header: StreamHeader, request: ReceiveRequest) -> list[str]:
        """Choose the properties not to take from the stream.

        A package says how its dataset is encrypted. Of one that comes in plain that would
        keep the parent's encryption from what is received.
        """
        chosen = [each for each in self.config.exclude if _applies(each, header)]
        plain_package = header.package and not header.raw and request.from_version is None
        if plain_package and "encryption" not in {*chosen, *self.config.override}:
            chosen.append("encryption")
        return chosen

    # --- after ---

    async def _confirm(self, attempt: str, name: str, request: ReceiveRequest) -> Dataset:
        """See that the version is there, and hold it; let go of what it replaces.

        :raises StorageError: it is not, whatever ``zfs receive`` said
        """
        option = "protect_initial" if request.from_version is None else "protect_incremental"
        protection: Protection = getattr(self.config, option)
        tag = last_tag(request.job)
        former = await self.catalog.known(name)
        held = tag if protection is not Protection.NONE else None
        arrival = _Arrival(name, request.to_version, held)
        try:
            received = await self._arrivals.submit(arrival)
        except PermissionDeniedError as error:
            raise not_allowed(error, option) from error
        except FsrepError as error:
            error.message = f"{attempt}: {error.message}"
            raise
        if former is not None:
            self._let_go(tag, former, request)
            received = _with_versions_of(former, received)
        self.catalog.remember(name, received)
        return received

    def _let_go(self, tag: str, former: Dataset, request: ReceiveRequest) -> None:
        """Release what this job held here before, except the base of this step.

        That the sender goes on from a base shows that it knows of it; whether it knows of
        what was received just now, it has yet to show.
        """
        base_guid = request.from_version.guid if request.from_version is not None else None
        names = [
            full_name(former.name, former.snapshots[guid])
            for guid in former.held
            if guid in former.snapshots and guid not in {base_guid, request.to_version.guid}
        ]
        self.guard.release_later(tag, names)

    async def _look_at_arrivals(
        self, arrivals: Sequence[_Arrival]
    ) -> dict[_Arrival, Dataset | FsrepError]:
        """List what was received, in one command, and hold it, in another."""
        names = dict.fromkeys(full_name(each.dataset, each.target) for each in arrivals)
        listed = await self.tool.list_snapshots(names, self.catalog.remembered)
        outcome: dict[_Arrival, Dataset | FsrepError] = {}
        by_tag: dict[str, list[_Arrival]] = {}
        for arrival in arrivals:
            dataset = listed.get(arrival.dataset)
            if dataset is None or arrival.target.guid not in dataset.snapshots:
                outcome[arrival] = _not_there(dataset, arrival)
                continue
            outcome[arrival] = dataset
            if arrival.tag is not None:
                by_tag.setdefault(arrival.tag, []).append(arrival)
        for tag, held in by_tag.items():
            full_names = {full_name(each.dataset, each.target): each for each in held}
            errors = await self.tool.hold(tag, list(full_names))
            for full, arrival in full_names.items():
                dataset = listed[arrival.dataset]
                dataset.held.add(arrival.target.guid)
                if full in errors:
                    outcome[arrival] = errors[full]
        return outcome


def _check_header(attempt: str, request: ReceiveRequest, header: StreamHeader) -> None:
    """Refuse a stream that is not what was promised, before anything changes."""
    promised = {each.guid: each for each in (*request.intermediates, request.to_version)}
    first = promised.get(header.to_guid)
    if first is None or header.to_name != first.name:
        raise VersionMissingError(
            f"{attempt}: the stream makes @{header.to_name} (guid {header.to_guid}) instead",
            hint="plan again: the snapshot was replaced by another of the same name",
        )
    start = request.from_version.guid if request.from_version is not None else request.origin
    if header.from_guid != start:
        raise BrokenEndpointError(
            f"{attempt}: the stream starts from {header.from_guid or 'nothing'}, the request "
            f"from {start or 'nothing'}"
        )


def _check_rollback(attempt: str, dataset: Dataset, request: ReceiveRequest) -> None:
    """Refuse a rollback over anything that the request does not name."""
    assert request.from_version is not None  # noqa: S101  (the caller has seen to it)
    base = dataset.snapshots[request.from_version.guid]
    given_up = {version.guid for version in request.rollback}
    kept = [
        each.relative_name
        for each in dataset.snapshots.values()
        if each.order > base.order and each.guid not in given_up
    ]
    if kept:
        raise ConflictError(
            f"{attempt}: rolling back to {base.relative_name} would destroy {', '.join(kept)}, "
            "which is not given up",
            hint="plan again: they are new on the receiver",
        )
    older = [
        each.relative_name
        for each in dataset.snapshots.values()
        if each.order <= base.order and each.guid in given_up
    ]
    if older:
        raise InvalidRequestError(
            f"{attempt}: {', '.join(older)} is not newer than the base, and need not go"
        )


def _occupied(attempt: str, dataset: Dataset) -> ConflictError:
    if dataset.snapshots:
        what = f"{dataset.name} has snapshots of its own"
    elif dataset.token is not None:
        what = f"{dataset.name} holds a partial receive"
    else:
        what = f"{dataset.name} exists, has no snapshot, and was not made by fsrep"
    return ConflictError(
        f"{attempt}: {what}",
        temporary=dataset.token is not None,
        hint="rename or destroy it, or replicate to another place; fsrep overwrites nothing that "
        "it has not made",
    )


def _not_there(dataset: Dataset | None, arrival: _Arrival) -> FsrepError:
    found = "nothing is there"
    if dataset is not None and dataset.snapshots:
        found = "another snapshot has its name: " + ", ".join(
            f"{each.relative_name} (guid {each.guid})" for each in dataset.snapshots.values()
        )
    return StorageError(
        f"zfs receive ended well, but {arrival.target.relative_name} "
        f"(guid {arrival.target.guid}) does not exist: {found}",
        temporary=True,
        hint="plan again; if it goes on, look at 'zpool history -i' of the receiver",
    )


def _with_versions_of(former: Dataset, received: Dataset) -> Dataset:
    """Give what is known of a dataset: its state now, and its versions from before.

    Those are taken over, not copied: a dataset may have very many, and a step for each.
    """
    former.snapshots |= received.snapshots
    former.bookmarks |= received.bookmarks
    former.held |= received.held
    return attrs.evolve(
        received, snapshots=former.snapshots, bookmarks=former.bookmarks, held=former.held
    )


def _applies(name: str, header: StreamHeader) -> bool:
    """Tell whether the type of dataset that comes has a property."""
    return ("volume" if header.volume else "filesystem") in _BELONGS.get(name, _ANY)


def _warnings(
    request: ReceiveRequest, received: Dataset, complaints: str, *, first: bool
) -> tuple[str, ...]:
    """Tell what was not set although the version is whole."""
    refused = property_complaints(complaints)
    if not received.mounts_at:
        refused.pop("canmount", None)  # it cannot be mounted anyway
    warnings = [
        f"{request.filesystem}: the property {name} was not set: {why}"
        for name, why in refused.items()
    ]
    if first and received.mounts_at:
        warnings.append(
            f"{request.filesystem}: would be mounted at {received.mounts_at} when the pool is "
            "imported; set mountpoint=none on the storage's root, or canmount=noauto on it"
        )
    return tuple(warnings)
