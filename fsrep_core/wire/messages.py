"""Requests and answers: which there are, and how long ones travel in bounded pieces.

An operation is named like the hook that it calls. Its request is one JSON object, and so
is its answer. A message that would be too long for one frame sends the items of its
lists ahead, in ``PART`` frames, each a JSON object of its own::

    {"field": "intermediates", "items": [...]}

Whoever reads appends the items to the list of that name, and then the ones that stand in
the message itself. An inventory's filesystems may be long each: items of the field
``versions`` belong to the last item of ``filesystems`` before them. So a million versions
are read as they come, and no piece is ever longer than a frame.
"""

from __future__ import annotations

import enum
import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.values import (
    CreateVersionRequest,
    CursorRequest,
    DestroyVersionsRequest,
    Filesystem,
    Inventory,
    InventoryRequest,
    ReceiveRequest,
    ReceiveResponse,
    SendRequest,
    SizeEstimate,
    Version,
    VersionResult,
)
from fsrep_core.wire.codec import decode, decode_items, encode, item_writer
from fsrep_core.wire.errors import WireError
from fsrep_core.wire.text import MalformedError, dump_json_text, load_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "OPERATIONS",
    "CursorAnswer",
    "Operation",
    "Results",
    "SendEnded",
    "SendOpened",
    "Shape",
    "Unpacker",
    "pack",
]

PIECE_BYTES = 1 << 18
"""About how long a piece gets before it is sent. Its last item may bring it to a frame's
limit, which the limits on strings keep any item below."""


class Shape(enum.Enum):
    """How the streams of a dialogue run."""

    CALL = "call"
    """Request, answer."""
    FETCH = "fetch"
    """Request, stream from the server, answer."""
    PUSH = "push"
    """Request, stream from the client, answer."""


@attrs.frozen(kw_only=True)
class SendOpened:
    """What a server says of the stream that it opened; the stream follows."""

    resumed: bool = False
    size_bytes: int | None = None


@attrs.frozen
class SendEnded:
    """The answer to ``send``: what made the stream is gone."""


@attrs.frozen
class CursorAnswer:
    """The answer to ``replication_cursor``."""

    version: Version | None = None


@attrs.frozen
class Results:
    """The answer to ``create_version`` and ``destroy_versions``."""

    results: tuple[VersionResult, ...]


@attrs.frozen
class Operation:
    """One thing that can be asked for."""

    shape: Shape
    request_class: type[Any]
    answer_class: type[Any]


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "inventory": Operation(Shape.CALL, InventoryRequest, Inventory),
        "size_estimate": Operation(Shape.CALL, SendRequest, SizeEstimate),
        "send": Operation(Shape.FETCH, SendRequest, SendEnded),
        "receive": Operation(Shape.PUSH, ReceiveRequest, ReceiveResponse),
        "replication_cursor": Operation(Shape.CALL, CursorRequest, CursorAnswer),
        "create_version": Operation(Shape.CALL, CreateVersionRequest, Results),
        "destroy_versions": Operation(Shape.CALL, DestroyVersionsRequest, Results),
    }
)
"""The operations by name: those of version 1 of the wire, and no others."""

_LISTS: Mapping[type[Any], tuple[str, ...]] = MappingProxyType(
    {
        InventoryRequest: ("patterns",),
        Inventory: ("filesystems",),
        SendRequest: ("intermediates",),
        ReceiveRequest: ("intermediates", "rollback"),
        ReceiveResponse: ("warnings",),
        CreateVersionRequest: ("filesystems",),
        DestroyVersionsRequest: ("versions",),
        Results: ("results",),
    }
)
"""The fields whose items may be sent ahead."""


VERSIONS_WITHIN = 128
"""How many versions stand in the item of their filesystem; the others follow it."""
WARNINGS_LIMIT = 16
"""How many warnings one result carries; of more, the last says how many are left out."""


def pack(message: Any) -> Iterator[bytes]:  # noqa: ANN401  (a request or an answer)
    """Give the pieces of a message: the payloads of its parts, then the message itself.

    :raises InvalidRequestError: a string of it may not cross the wire
    """
    lists = _LISTS.get(type(message), ())
    piece, any_part = _Piece(), False
    for field, item in _items(message, lists):
        text = dump_json_text(item)
        if not piece.has_room(len(text)):
            yield from piece.parts()
            piece, any_part = _Piece(), True
        piece.add(field, text)
    body = encode(attrs.evolve(message, **dict.fromkeys(lists, ())))
    texts = {name: dump_json_text(item) for name, item in body.items()}
    if any_part or "versions" in piece.fields - {*lists}:
        yield from piece.parts()
    else:
        texts |= piece.texts()
    yield ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()


@attrs.define
class _Piece:
    """Items, as text, that will travel together: runs of items of one field each."""

    runs: list[tuple[str, list[str]]] = attrs.field(factory=list)
    size_bytes: int = 0

    @property
    def fields(self) -> set[str]:
        return {field for field, _ in self.runs}

    def has_room(self, size_bytes: int) -> bool:
        return not self.runs or self.size_bytes + size_bytes <= PIECE_BYTES

    def add(self, field: str, text: str) -> None:
        if not self.runs or self.runs[-1][0] != field:
            self.runs.append((field, []))
        self.runs[-1][1].append(text)
        self.size_bytes += len(text) + 1

    def texts(self) -> dict[str, str]:
        return {field: f"[{','.join(items)}]" for field, items in self.runs}

    def parts(self) -> Iterator[bytes]:
        for field, items in self.runs:
            yield f'{{"field":"{field}","items":[{",".join(items)}]}}'.encode()


def _items(message: Any, lists: tuple[str, ...]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (see pack)
    for field in lists:
        write = item_writer(type(message), field)
        for item in getattr(message, field):
            match item:
                case Filesystem():
                    within, after = item.versions[:VERSIONS_WITHIN], item.versions[VERSIONS_WITHIN:]
                    yield field, write(attrs.evolve(item, versions=within))
                    yield from (("versions", encode(version)) for version in after)
                case VersionResult():
                    yield field, write(_with_few_warnings(item))
                case _:
                    yield field, write(item)


def _with_few_warnings(result: VersionResult) -> VersionResult:
    count = len(result.warnings)
    if count <= WARNINGS_LIMIT:
        return result
    few = result.warnings[: WARNINGS_LIMIT - 1]
    return attrs.evolve(result, warnings=(*few, f"and {count - len(few)} more warnings"))


@attrs.define(eq=False)
class Unpacker:
    """Puts a message together again as its pieces come."""

    message_class: type[Any]
    """A request or answer class of :data:`OPERATIONS`."""
    _lists: dict[str, list[Any]] = attrs.field(init=False, factory=dict)
    _versions: dict[int, list[Version]] = attrs.field(init=False, factory=dict)
    """Those that came after their filesystem, by its index."""

    def add_part(self, content: bytes) -> None:
        """Take a part.

        :raises WireError: it cannot be read, or the message has no such list
        :raises InvalidRequestError: it holds a name that may not cross the wire
        """
        with self._explaining():
            part = load_json(content)
            if type(part) is not dict or part.keys() != {"field", "items"} or not part["items"]:
                raise MalformedError("a part has the keys field and items, and is not empty")
            field, items = part["field"], part["items"]
            if field == "versions" and self.message_class is Inventory:
                self._add_versions(decode_items(Filesystem, field, items))
            elif field in _LISTS.get(self.message_class, ()):
                read = decode_items(self.message_class, field, items)
                self._lists.setdefault(field, []).extend(read)
            else:
                raise MalformedError("a part is for a list that the message does not have")

    def finish(self, body: bytes) -> Any:  # noqa: ANN401  (an instance of message_class)
        """Take the message itself, which comes last, and give it with all its items.

        :raises WireError: it cannot be read
        :raises InvalidRequestError: it holds a name that may not cross the wire
        """
        with self._explaining():
            raw = load_json(body)
            if type(raw) is dict:
                raw = {**{name: [] for name in self._lists}, **raw}
            message = decode(self.message_class, raw)
        for index, versions in self._versions.items():
            first = self._lists["filesystems"][index]
            whole = attrs.evolve(first, versions=(*first.versions, *versions))
            self._lists["filesystems"][index] = whole
        lists = {name: (*items, *getattr(message, name)) for name, items in self._lists.items()}
        return attrs.evolve(message, **lists)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except MalformedError as error:
            raise WireError(
                f"the peer sent {_name_of(self.message_class)} that cannot be read: {error}",
                temporary=True,
            ) from None

    def _add_versions(self, versions: tuple[Version, ...]) -> None:
        filesystems = self._lists.get("filesystems")
        if not filesystems:
            raise MalformedError("versions came before any filesystem")
        self._versions.setdefault(len(filesystems) - 1, []).extend(versions)


def _name_of(message_class: type[Any]) -> str:
    """``a send request``, ``an inventory``."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", message_class.__name__).lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
