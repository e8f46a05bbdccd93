"""The first bytes in each direction: who speaks here, and in which versions of the wire.

Both sides send their hello at once, without waiting for the other's: eight bytes that no
text and no other protocol begins with, a length, and a JSON object. A peer that speaks
something else is found out at its first byte, and the error quotes what it said.

This part of the wire never changes, so that two releases which have nothing else in
common can still say so. Unknown keys of the object are therefore ignored here, and only
here: everything after the hello belongs to one version that both sides know.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.wire.errors import WireError
from fsrep_core.wire.text import MalformedError, dump_json, is_printable, load_json

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "HELLO_LIMIT_BYTES",
    "MAGIC",
    "PROTOCOL_VERSIONS",
    "Hello",
    "HelloDecoder",
    "StorageAsk",
    "choose_protocol",
    "encode_hello",
]

MAGIC = b"\xfffsrep\r\n"
"""Not text (no UTF-8 has the byte FF), and damaged by whatever translates line ends."""

PROTOCOL_VERSIONS = frozenset({1})
"""The versions of the wire that this code speaks."""

HELLO_LIMIT_BYTES = 1 << 16
_LENGTH = struct.Struct(">I")
_PREFIX_BYTES = len(MAGIC) + _LENGTH.size
WORD_LIMIT = 256
LIST_LIMIT = 64
_QUOTE_LIMIT_BYTES = 120

_STRANGERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"SSH-": "an SSH server answers there: use the transport ssh, or another port",
        b"HTTP/": "a web server answers there: check host and port",
        b"GET ": "a web browser or a probe called",
        b"POST ": "a web client called",
        b"\x16\x03": "the peer speaks TLS: use the transport tls on both sides",
        b"\x15\x03": "the peer speaks TLS: use the transport tls on both sides",
        b"220": "a mail or FTP server answers there: check host and port",
    }
)


@attrs.frozen(kw_only=True)
class StorageAsk:
    """What a client would like to be served, where the serving side lets it choose."""

    job: str
    side: str
    """``sender`` or ``receiver``."""
    storage: str
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """As configured; the serving side checks them as it would its own."""


@attrs.frozen(kw_only=True)
class Hello:
    """How one side introduces itself."""

    protocols: frozenset[int] = PROTOCOL_VERSIONS
    capabilities: frozenset[str] = frozenset()
    """What this side can beyond the version of the wire. One that the other side does not
    name as well is not used; see :attr:`~fsrep_core.wire.Connection.capabilities`."""
    software: str
    """Such as ``fsrep 1.2.0``; for messages, never decided upon."""
    identity: str = ""
    """Who the peer says that it is: for logs. Only the transport can prove it."""
    ask: StorageAsk | None = None


def encode_hello(hello: Hello) -> bytes:
    """Give the bytes of a hello.

    :raises ValueError: the storage's options make it too long, or are no JSON
    """
    fields: dict[str, Any] = {
        "protocols": sorted(hello.protocols),
        "capabilities": sorted(hello.capabilities),
        "software": hello.software,
        "identity": hello.identity,
    }
    if hello.ask is not None:
        fields["ask"] = {
            "job": hello.ask.job,
            "side": hello.ask.side,
            "storage": hello.ask.storage,
            "options": dict(hello.ask.options),
        }
    payload = dump_json(fields)
    if len(payload) > HELLO_LIMIT_BYTES:
        raise ValueError(f"a hello has at most {HELLO_LIMIT_BYTES} bytes, not {len(payload)}")
    return MAGIC + _LENGTH.pack(len(payload)) + payload


def choose_protocol(ours: Hello, theirs: Hello) -> int:
    """Give the newest version of the wire that both sides speak.

    :raises WireError: there is none; names the versions of both sides
    """
    common = ours.protocols & theirs.protocols
    if common:
        return max(common)
    raise WireError(
        f"no common version of the wire: this side ({ours.software}) speaks "
        f"{_listed(ours.protocols)}, the peer ({theirs.software}) speaks "
        f"{_listed(theirs.protocols)}",
        hint="install the same release of fsrep on both sides",
    )


@attrs.define(eq=False)
class HelloDecoder:
    """Takes bytes until the peer's hello is whole."""

    _buffer: bytearray = attrs.field(init=False, factory=bytearray)

    @property
    def buffered_bytes(self) -> int:
        """How much was fed and is not used up."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        self._buffer += data

    def next_hello(self) -> tuple[Hello, bytes] | None:
        """Give the hello and the bytes after it; ``None`` = more bytes are needed.

        :raises WireError: this is no hello of fsrep, or one that cannot be used
        """
        start = bytes(self._buffer[: len(MAGIC)])
        if not MAGIC.startswith(start):
            raise self._stranger()
        if len(self._buffer) < _PREFIX_BYTES:
            return None
        (size_bytes,) = _LENGTH.unpack_from(self._buffer, len(MAGIC))
        if not 2 <= size_bytes <= HELLO_LIMIT_BYTES:  # noqa: PLR2004  (an empty object)
            raise WireError(
                f"the peer announced a hello of {size_bytes} bytes; "
                f"it may have 2 to {HELLO_LIMIT_BYTES}"
            )
        end = _PREFIX_BYTES + size_bytes
        if len(self._buffer) < end:
            return None
        try:
            hello = _read_hello(load_json(bytes(self._buffer[_PREFIX_BYTES:end])))
        except MalformedError as error:
            raise WireError(f"the peer's hello cannot be read: {error}") from None
        return hello, bytes(self._buffer[end:])

    def _stranger(self) -> WireError:
        said = bytes(self._buffer[:_QUOTE_LIMIT_BYTES])
        hint = next(
            (hint for start, hint in _STRANGERS.items() if said.startswith(start)),
            "nothing but fsrep may write there: look at the port, and with ssh at what the "
            "shell's startup files print",
        )
        quoted = said.splitlines()[0].decode("ascii", "backslashreplace") if said.strip() else ""
        quoted = "".join(each if each.isprintable() else "." for each in quoted)
        return WireError(
            f"the peer does not speak fsrep's wire: it began with {quoted!r}", hint=hint
        )


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(str(version) for version in sorted(versions)) or "none"


def _read_hello(fields: Any) -> Hello:  # noqa: ANN401  (as JSON gave it)
    if not isinstance(fields, dict):
        raise MalformedError("it is no object")
    return Hello(
        protocols=frozenset(_read_list(fields, "protocols", int)),
        capabilities=frozenset(_read_list(fields, "capabilities", str)),
        software=_read_word(fields, "software"),
        identity=_read_word(fields, "identity"),
        ask=_read_ask(fields.get("ask")),
    )


def _read_ask(fields: Any) -> StorageAsk | None:  # noqa: ANN401  (as JSON gave it)
    if fields is None:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("options"), dict):
        raise MalformedError("what it asks for is no object with options")
    return StorageAsk(
        job=_read_word(fields, "job"),
        side=_read_word(fields, "side"),
        storage=_read_word(fields, "storage"),
        options=fields["options"],
    )


def _read_word(fields: dict[str, Any], key: str) -> str:
    word = fields.get(key)
    if not isinstance(word, str) or len(word) > WORD_LIMIT or not is_printable(word):
        raise MalformedError(f"{key} is not a word of at most {WORD_LIMIT} printable characters")
    return word


def _read_list(fields: dict[str, Any], key: str, kind: type) -> list[Any]:
    items = fields.get(key)
    if (
        not isinstance(items, list)
        or len(items) > LIST_LIMIT
        or any(type(item) is not kind for item in items)
        or any(isinstance(item, str) and len(item) > WORD_LIMIT for item in items)
    ):
        raise MalformedError(f"{key} is not a list of at most {LIST_LIMIT} {kind.__name__}")
    return items
