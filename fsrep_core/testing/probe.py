"""A storage that a transport is checked with: each request says what shall happen to it.

What a call does stands in its request, as the name of a filesystem (of a job, for an
inventory), so that the storage may as well be in another process: a transport's harness
only has to reach a :class:`ProbeStorage`. Nothing is stored. A receive answers with the
size and digest of what came; :data:`STATE` asks what is going on at the far end. Only how
the far end vanishes, which is no matter of a storage, is said by the harness.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import errors
from fsrep_core.errors import FsrepError, InterruptedStreamError, InvalidRequestError
from fsrep_core.hookspecs import hookimpl
from fsrep_core.streams import ByteStream
from fsrep_core.values import (
    Capabilities,
    Filesystem,
    Inventory,
    Problem,
    ReceiveResponse,
    ResumeToken,
    SendResponse,
    SizeEstimate,
    Version,
    VersionKind,
    VersionResult,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fsrep_core.values import (
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        InventoryRequest,
        ReceiveRequest,
        SendRequest,
    )

__all__ = ["STATE", "Behaviour", "ProbeState", "ProbeStorage", "ProbeStream", "sample_inventory"]

STATE = "state"
"""The job whose inventory tells of the far end; see :class:`ProbeState`."""

_BLOCK_BYTES = 65521  # a prime: no boundary of anyone's buffers falls on the same byte twice
_FOREIGN = "foreign"


@attrs.frozen(kw_only=True)
class Behaviour:
    """What a call shall do."""

    size_bytes: int = 0
    """How many bytes a stream gives, or a receive takes, before ``then``; of a receive,
    -1 = all."""
    seed: int = 0
    """What the bytes are."""
    then: str = "end"
    """``end`` well; ``cut`` = end without being vouched for; ``raise`` the error where
    bytes are due; ``refuse`` = raise it in ``finish``, or from the call; ``stall``;
    ``vanish`` = the far end is gone, and this call with it."""
    kind: str = "storage"
    """Of the error; ``foreign`` = one that is none of ours."""
    temporary: bool = False
    local: bool = False

    @property
    def name(self) -> str:
        """The behaviour as a name that a request can carry."""
        return (
            ",".join(
                f"{field.name}={int(value) if isinstance(value, bool) else value}"
                for field in attrs.fields(Behaviour)
                if (value := getattr(self, field.name)) != field.default
            )
            or "end"
        )

    @classmethod
    def of(cls, name: str) -> Behaviour:
        """Read a behaviour from such a name."""
        given = dict(part.split("=") for part in name.split(",") if "=" in part)
        return cls(
            size_bytes=int(given.get("size_bytes", "0")),
            seed=int(given.get("seed", "0")),
            then=given.get("then", "end"),
            kind=given.get("kind", "storage"),
            temporary=given.get("temporary") == "1",
            local=given.get("local") == "1",
        )

    def error(self) -> Exception:
        """Make the error."""
        if self.kind == _FOREIGN:
            return ZeroDivisionError("the probe failed in a way that is none of ours")
        classes = (getattr(errors, name) for name in errors.__all__)
        cls = next(each for each in classes if each.kind == self.kind)
        error: FsrepError = cls(
            "the probe failed, on purpose: ü",
            temporary=self.temporary,
            local=self.local,
            hint="this is a test",
        )
        return error


@attrs.define(eq=False)
class ProbeState:
    """What goes on in one process, all its probes together."""

    open_sends: int = 0
    open_receives: int = 0
    produced_bytes: int = 0
    """By the send that began last."""
    commits: int = 0
    failures: str = ""
    """The kind of the error that the receive which failed last got from its stream."""
    can_vanish: bool = False
    """Of the one probe that was asked."""

    @classmethod
    def of(cls, filesystem: Filesystem) -> ProbeState:
        """Read what an inventory of the job :data:`STATE` told."""
        told = filesystem.attributes
        return cls(
            **{name: int(told[name]) for name in _COUNTS},
            failures=told["failures"],
            can_vanish=told["can_vanish"] == "1",
        )


_COUNTS = ("open_sends", "open_receives", "produced_bytes", "commits")
_state = ProbeState()


@attrs.define(eq=False)
class ProbeStream(ByteStream):
    """Bytes that follow from a behaviour."""

    behaviour: Behaviour
    passed_bytes: int = attrs.field(init=False, default=0)
    _block: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        chance = random.Random(self.behaviour.seed)  # noqa: S311  (repeatable)
        self._block = chance.randbytes(_BLOCK_BYTES) * 2

    async def receive_some(self, max_bytes: int) -> bytes:
        """Give the next bytes, or do what comes then."""
        await trio.lowlevel.checkpoint()
        count = min(max_bytes, _BLOCK_BYTES, self.behaviour.size_bytes - self.passed_bytes)
        if count > 0:
            start = self.passed_bytes % _BLOCK_BYTES
            self.passed_bytes += count
            return self._block[start : start + count]
        if self.behaviour.then == "raise":
            raise self.behaviour.error()
        if self.behaviour.then == "stall":
            await trio.sleep_forever()
        return b""

    async def finish(self) -> None:
        """Vouch for the bytes, or do not."""
        await trio.lowlevel.checkpoint()
        if self.behaviour.then in {"raise", "refuse"}:
            raise self.behaviour.error()
        if self.behaviour.then == "cut" or self.passed_bytes < self.behaviour.size_bytes:
            raise InterruptedStreamError(f"the probe's stream was cut at {self.passed_bytes}")

    @staticmethod
    def digest(seed: int, size_bytes: int) -> str:
        """Tell the digest of so many bytes of a seed."""
        block = random.Random(seed).randbytes(_BLOCK_BYTES)  # noqa: S311  (repeatable)
        whole, rest = divmod(size_bytes, _BLOCK_BYTES)
        hasher = hashlib.sha256()
        for _ in range(whole):
            hasher.update(block)
        hasher.update(block[:rest])
        return hasher.hexdigest()


@attrs.define(eq=False)
class _FarStream(ProbeStream):
    probe: ProbeStorage

    async def receive_some(self, max_bytes: int) -> bytes:
        if self.passed_bytes == self.behaviour.size_bytes:
            await self.probe.stay(self.behaviour)
        data = await ProbeStream.receive_some(self, max_bytes)
        _state.produced_bytes = self.passed_bytes
        return data


@attrs.define(eq=False)
class ProbeStorage:
    """The far end of a transport that is being checked.

    :param vanish: ends every connection to this probe at once and without a word, as if the
        process behind them had been killed; a new connection then reaches a probe again.
        Does not block. ``None`` = that cannot be done, and laws that need it are left out
    """

    vanish: Callable[[], object] | None = None

    @hookimpl
    async def inventory(self, request: InventoryRequest) -> Inventory:
        """Tell the state, or a sample."""
        if request.job == STATE:
            told = {name: str(getattr(_state, name)) for name in (*_COUNTS, "failures")}
            told["can_vanish"] = str(int(self.vanish is not None))
            await trio.lowlevel.checkpoint()
            return Inventory(
                capabilities=Capabilities(stream_formats=frozenset({"probe"})),
                filesystems=(Filesystem(name=STATE, attributes=told),),
            )
        behaviour = await self._begin(request.job)
        return sample_inventory(behaviour.size_bytes)

    @hookimpl
    async def size_estimate(self, request: SendRequest) -> SizeEstimate:
        """Tell the size; none = unknown."""
        behaviour = await self._begin(request.filesystem)
        return SizeEstimate(size_bytes=behaviour.size_bytes or None)

    @hookimpl
    async def replication_cursor(self, request: CursorRequest) -> Version | None:
        """Answer with what was asked to move to."""
        await self._begin(request.filesystem)
        return request.move_to

    @hookimpl
    async def create_version(self, request: CreateVersionRequest) -> tuple[VersionResult, ...]:
        """Answer for each filesystem with a version, and a warning."""
        await self._begin(request.filesystems[0])
        return tuple(
            VersionResult(
                filesystem=filesystem,
                name=request.name,
                version=Version(VersionKind.SNAPSHOT, request.name, f"guid-{index}", index, 0.5),
                warnings=("something to know: ü",),
            )
            for index, filesystem in enumerate(request.filesystems)
        )

    @hookimpl
    async def destroy_versions(self, request: DestroyVersionsRequest) -> tuple[VersionResult, ...]:
        """Answer for each version with a problem."""
        await self._begin(request.filesystem)
        return tuple(
            VersionResult(
                filesystem=request.filesystem,
                name=version.name,
                problem=Problem(
                    message="kept: ü", temporary=True, local=True, kind="busy", hint="wait"
                ),
            )
            for version in request.versions
        )

    @hookimpl
    @asynccontextmanager
    async def send(self, request: SendRequest) -> AsyncIterator[SendResponse]:
        """Give the stream that the request describes."""
        behaviour = Behaviour.of(request.filesystem)
        if behaviour.then == "refuse" and not behaviour.size_bytes:
            raise behaviour.error()
        _state.open_sends += 1
        _state.produced_bytes = 0
        try:
            yield SendResponse(
                stream=_FarStream(behaviour, self),
                resumed=request.resume_token is not None,
                size_bytes=behaviour.size_bytes or None,
            )
        finally:
            _state.open_sends -= 1

    @hookimpl
    async def receive(self, request: ReceiveRequest, stream: ByteStream) -> ReceiveResponse:
        """Take what the request describes; answer with size and digest."""
        behaviour = Behaviour.of(request.filesystem)
        if behaviour.then == "refuse" and not behaviour.size_bytes:
            raise behaviour.error()
        _state.open_receives += 1
        try:
            size_bytes, digest = await self._take(behaviour, stream)
        except FsrepError as error:
            _state.failures = error.kind
            raise
        finally:
            _state.open_receives -= 1
        _state.commits += 1
        return ReceiveResponse(
            version=attrs.evolve(request.to_version, order=7),
            warnings=(str(size_bytes), digest, "ü"),
        )

    async def stay(self, behaviour: Behaviour) -> None:
        """Do not return where a behaviour is to stall, or to vanish."""
        if behaviour.then == "vanish":
            if self.vanish is None:
                raise InvalidRequestError("this probe has no way to vanish")
            self.vanish()
        if behaviour.then in {"stall", "vanish"}:
            await trio.sleep_forever()

    async def _begin(self, name: str) -> Behaviour:
        """Do what a call without a stream shall do before it answers."""
        await trio.lowlevel.checkpoint()
        behaviour = Behaviour.of(name)
        if behaviour.then in {"raise", "refuse"}:
            raise behaviour.error()
        await self.stay(behaviour)
        return behaviour

    async def _take(self, behaviour: Behaviour, stream: ByteStream) -> tuple[int, str]:
        """Read what a receive shall read; give its size and digest."""
        hasher = hashlib.sha256()
        taken_bytes = 0
        while behaviour.size_bytes < 0 or taken_bytes < behaviour.size_bytes:
            room = 1 << 20 if behaviour.size_bytes < 0 else behaviour.size_bytes - taken_bytes
            piece = await stream.receive_some(room)
            if not piece:
                break
            hasher.update(piece)
            taken_bytes += len(piece)
        if behaviour.then in {"raise", "refuse"}:
            raise behaviour.error()
        await self.stay(behaviour)
        await stream.finish()
        return taken_bytes, hasher.hexdigest()


def sample_inventory(count: int) -> Inventory:
    """Give an inventory with every field in use, and ``count`` versions in one filesystem."""
    bookmark = Version(VersionKind.BOOKMARK, "märk", "guid-b", 3, None)
    return Inventory(
        capabilities=Capabilities(
            stream_formats=frozenset({"probe", "other"}), resumable=True, bookmarks=True
        ),
        filesystems=(
            Filesystem(name="empty", placeholder=True),
            Filesystem(
                name="some/nested ü",
                versions=(bookmark,),
                cursor=bookmark,
                resume_token=ResumeToken("a secret value", "guid-t", "guid-f", 1 << 40),
                attributes={"type": "probe", "größe": "viel"},
            ),
            Filesystem(
                name="many",
                versions=tuple(
                    Version(VersionKind.SNAPSHOT, f"v{n}", f"guid-{n}", n, 1.6e9 + n / 3)
                    for n in range(count)
                ),
            ),
        ),
    )
