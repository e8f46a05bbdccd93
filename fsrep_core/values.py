"""The words that the sides of a replication exchange: frozen values without logic.

Every value here is immutable, hashable where its fields are, and holds nothing secret.
Times are seconds since the epoch, UTC. Sizes are bytes.

``Version.guid`` is the only identity that holds on both sides. ``order`` sorts the
versions of one side; it, a name, and a date mean nothing on the other side.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from fsrep_core.shown import Shown
from fsrep_core.streams import ByteStream

__all__ = [
    "Awaited",
    "Capabilities",
    "CreateVersionRequest",
    "CursorRequest",
    "DestroyVersionsRequest",
    "Filesystem",
    "Inventory",
    "InventoryRequest",
    "Origin",
    "PlannedStep",
    "Problem",
    "ReceiveRequest",
    "ReceiveResponse",
    "ResumeToken",
    "SendRequest",
    "SendResponse",
    "Side",
    "SizeEstimate",
    "Version",
    "VersionKind",
    "VersionResult",
]


class VersionKind(enum.Enum):
    """What a version can do: a snapshot holds content, a bookmark only a place in time."""

    SNAPSHOT = "snapshot"
    BOOKMARK = "bookmark"


class Side(enum.Enum):
    """Which end of a job an endpoint stands at."""

    SENDER = "sender"
    RECEIVER = "receiver"


@attrs.frozen(repr=False)
class Version(Shown):
    """One snapshot or bookmark of one filesystem, as one side sees it."""

    kind: VersionKind
    name: str
    """The name without the filesystem and without ``@`` or ``#``."""
    guid: str
    """The identity, equal on every host that has this version; compared, never parsed."""
    order: int
    """Sorts the versions of this side (ZFS createtxg, btrfs generation)."""
    created: float | None = None
    """When the version was made, seconds since the epoch; ``None`` = not known."""

    @property
    def relative_name(self) -> str:
        """``@name`` of a snapshot, ``#name`` of a bookmark."""
        return ("@" if self.kind is VersionKind.SNAPSHOT else "#") + self.name


@attrs.frozen(repr=False)
class ResumeToken(Shown):
    """What lets a receive that was cut go on. The receiver's storage makes it.

    ``to_guid`` is what completing the token commits, whatever else was intended.
    """

    value: str = attrs.field(repr=False)
    """Opaque to all but the two storages. Checked by the sender before use."""
    to_guid: str
    from_guid: str | None = None
    """What the stream starts from: a base, or the origin of a clone; ``None`` = from nothing."""
    received_bytes: int | None = None
    """Bytes of the stream that need not be sent again; ``None`` = not known."""


@attrs.frozen(kw_only=True, repr=False)
class Capabilities(Shown):
    """What an endpoint can do beyond the hooks, and what it needs."""

    stream_formats: frozenset[str]
    """The stream formats it sends and receives; both sides must share one."""
    resumable: bool = False
    """A cut receive leaves a resume token."""
    estimates: bool = False
    """``size_estimate`` can answer with a number."""
    batched: bool = False
    """One stream may carry the snapshots between its ends."""
    nests: bool = False
    """A filesystem can be received only where its parent exists."""
    bookmarks: bool = False
    """A bookmark can be the base of a send."""
    clones: bool = False
    """A first stream can be the difference from a snapshot of another filesystem."""


@attrs.frozen(repr=False)
class Origin(Shown):
    """The snapshot that a filesystem is a clone of."""

    filesystem: str
    """Another one of the same endpoint."""
    guid: str


@attrs.frozen(kw_only=True, repr=False)
class Filesystem(Shown):
    """One filesystem of an inventory."""

    name: str
    """Relative to the endpoint's root, ``/`` between components; the same on both sides."""
    versions: tuple[Version, ...] = ()
    """In any order."""
    cursor: Version | None = None
    """The replication cursor of the job that asked; ``None`` = there is none."""
    resume_token: ResumeToken | None = None
    origin: Origin | None = None
    """What it is a clone of, and may be replicated as one of; ``None`` = there is nothing."""
    placeholder: bool = False
    """Exists only to hold its children; it has never received anything."""
    problem: Problem | None = None
    """Why the storage cannot say what is here, such as a damaged record. What else is said
    of it counts for nothing then: it is a conflict, and the others go on."""
    attributes: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    """What the storage wants to show of it (type, encryption); never decided upon here."""


@attrs.frozen(kw_only=True, repr=False)
class Inventory(Shown):
    """All filesystems of one endpoint that a job may mean."""

    capabilities: Capabilities
    filesystems: tuple[Filesystem, ...] = ()


@attrs.frozen(kw_only=True, repr=False)
class InventoryRequest(Shown):
    """Ask for filesystems and their versions."""

    job: str
    """Names the cursor that the answer shall hold."""
    patterns: tuple[str, ...] = ("**",)
    """The job's filesystem patterns: a storage may answer more than they select, never
    less (see :func:`fsrep_core.planning.select_filesystems`)."""


@attrs.frozen(kw_only=True, repr=False)
class SizeEstimate(Shown):
    """How many bytes a send would be."""

    size_bytes: int | None
    """``None`` = the storage cannot say. It stays unknown; it is not zero."""


@attrs.frozen(kw_only=True, repr=False)
class SendRequest(Shown):
    """Ask the sender for the stream of one step."""

    job: str
    filesystem: str
    to_version: Version
    """A snapshot."""
    from_version: Version | None = None
    """The base, a snapshot or bookmark; ``None`` = a full stream, or one from an origin."""
    intermediates: tuple[Version, ...] = ()
    """The snapshots between the two that the stream shall carry as well, oldest first."""
    resume_token: ResumeToken | None = None
    """The receiver's. A sender that cannot use it sends from the start and says so."""
    origin: str | None = None
    """The guid of what the stream shall be the difference from, where there is no base: the
    filesystem's origin, which the receiver has."""


@attrs.frozen(kw_only=True, repr=False)
class SendResponse(Shown):
    """What a sender opened."""

    stream: ByteStream | None
    """Never ``None`` from a working endpoint; ``None`` is reported as a broken one."""
    resumed: bool = False
    """The stream goes on where the request's resume token says."""
    size_bytes: int | None = None
    """How many bytes the stream will be, where opening it told; ``None`` = not known."""


@attrs.frozen(kw_only=True, repr=False)
class ReceiveRequest(Shown):
    """Ask the receiver to consume the stream of one step and commit it."""

    job: str
    filesystem: str
    to_version: Version
    from_version: Version | None = None
    intermediates: tuple[Version, ...] = ()
    resume_token: ResumeToken | None = None
    """Set when the stream goes on from this token."""
    clear_resume_token: bool = False
    """Throw a partial receive away first: the sender did not use its token."""
    rollback: tuple[Version, ...] = ()
    """The receiver's own versions that the policy lets it destroy first; no others."""
    origin: str | None = None
    """The guid of the snapshot here that the stream is the difference from; ``None`` = it
    stands alone or has a base."""


@attrs.frozen(kw_only=True, repr=False)
class ReceiveResponse(Shown):
    """What a receiver committed."""

    version: Version
    """``to_version`` as the receiver has it now: same guid, its own order and name."""
    warnings: tuple[str, ...] = ()
    """What the operator should know although the version is whole."""


@attrs.frozen(kw_only=True, repr=False)
class CursorRequest(Shown):
    """Ask for the cursor of a job on one filesystem, or move it forward."""

    job: str
    filesystem: str
    move_to: Version | None = None
    """``None`` = only look."""


@attrs.frozen(kw_only=True, repr=False)
class CreateVersionRequest(Shown):
    """Ask for a new snapshot of each of these filesystems, of one instant if possible."""

    job: str
    filesystems: tuple[str, ...]
    name: str


@attrs.frozen(kw_only=True, repr=False)
class DestroyVersionsRequest(Shown):
    """Ask to destroy exactly these versions of one filesystem."""

    job: str
    filesystem: str
    versions: tuple[Version, ...]


@attrs.frozen(kw_only=True, repr=False)
class Problem(Shown):
    """An error as reports, machines and peers see it: facts, no traceback."""

    message: str
    temporary: bool
    local: bool
    kind: str = "error"
    hint: str | None = None


@attrs.frozen(kw_only=True, repr=False)
class VersionResult(Shown):
    """What became of one version in ``create_version`` or ``destroy_versions``."""

    filesystem: str
    name: str
    version: Version | None = None
    """The version made or destroyed; ``None`` = ``problem`` says why not."""
    problem: Problem | None = None
    warnings: tuple[str, ...] = ()
    """What the operator should know although it was done."""


@attrs.frozen(kw_only=True, repr=False)
class PlannedStep(Shown):
    """One send/receive that the planner chose. The step machine carries it out."""

    to_version: Version
    from_version: Version | None = None
    """The base as the sender has it; ``None`` = full, or from an origin."""
    intermediates: tuple[Version, ...] = ()
    """The snapshots between, carried by the same stream, oldest first."""
    resume_token: ResumeToken | None = None
    clear_resume_token: bool = False
    """The receiver holds a partial that this step does not use and may throw away."""
    rollback: tuple[Version, ...] = ()
    """The receiver's versions that this step may destroy first."""
    mark_only: bool = False
    """The receiver has ``to_version`` already; only the sender's cursor is behind."""
    origin: str | None = None
    """The guid of the other filesystem's snapshot that a first step starts from: what is
    received is a clone, too. ``None`` = it does not."""


@attrs.frozen(repr=False)
class Awaited(Shown):
    """What must be on the receiver before the first step of a filesystem can run."""

    filesystem: str
    guid: str | None = None
    """A snapshot of it, the origin of a clone; ``None`` = the filesystem itself, a parent."""
