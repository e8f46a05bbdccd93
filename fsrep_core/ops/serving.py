"""What the serving side's configuration says: who may ask, for which storage, for what.

``[[identity]]`` tables stand in the same file as jobs and are read as strictly. An
identity is a client that its transport has proved to be who it is: an ssh key with a
forced command, or a certificate. What it is served stands here and nowhere else; nothing
that it says itself about storage, root or permissions counts.

Only the storage of the identity that is wanted is imported: an endpoint that ssh starts
serves one, and has to start fast. ``fsrep check`` looks at all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from fsrep_core.errors import ConfigError, InvalidRequestError
from fsrep_core.ops.checks import check_choice, repeated_names
from fsrep_core.ops.config import PluginChoice, within_entry
from fsrep_core.quantities import parse_rate
from fsrep_core.runtime.options import Mistake, OptionsError, nearest, structure_options
from fsrep_core.runtime.remote.policy import PeerPolicy, Permission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsrep_core.runtime.binding import Endpoint
    from fsrep_core.runtime.registry import Registry
    from fsrep_core.runtime.remote.server import Admission
    from fsrep_core.wire import Hello

__all__ = [
    "IdentityConfig",
    "admit_as_asked",
    "check_identities",
    "find_identity",
    "make_admission",
    "parse_identities",
]

IDENTITY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,252}")
"""A host's name, an address of mail, a word: what certificates and people call a client."""


def _check_name(_instance: object, _attribute: object, name: str) -> None:
    if not IDENTITY_NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" cannot name an identity; use up to 253 letters, digits, ".", "_", "@" '
            'and "-", and begin with a letter or digit'
        )


def _check_permissions(
    _instance: object, _attribute: object, permissions: frozenset[Permission]
) -> None:
    if not permissions:
        known = ", ".join(f'"{each.value}"' for each in Permission)
        raise ValueError(f"grants nothing; write one or more of {known}")


@attrs.frozen(kw_only=True)
class IdentityConfig:
    """One client, and what it may do."""

    name: str = attrs.field(validator=_check_name)
    """Unique in the file; what the transport proves."""
    storage: PluginChoice
    """What it is served, always: its own requests choose neither storage nor root."""
    permissions: frozenset[Permission] = attrs.field(validator=_check_permissions)
    """What it may ask for; everything else is refused."""
    rate_limit_bytes_per_second: int | None = attrs.field(
        default=None, alias="rate_limit", metadata={"parse": parse_rate}
    )
    """The most that is sent to it or received from it, such as ``"50 MiB/s"``, by all streams
    of one serving process together. Each connection over ssh has a process of its own."""


def parse_identities(
    raw_identities: object,
) -> tuple[tuple[IdentityConfig, ...], list[Mistake]]:
    """Read the ``[[identity]]`` tables, as far as they can be read, and list what is wrong.

    :returns: those without mistakes of their own, in their order, and the mistakes of all
    """
    if not isinstance(raw_identities, list):
        mistake = Mistake(
            "identity", "identities are a list of tables", "write [[identity]], not [identity]"
        )
        return (), [mistake]
    identities: list[IdentityConfig] = []
    mistakes = repeated_names(
        "identity", raw_identities, "give each a name of its own; it says who is served what"
    )
    for number, raw in enumerate(raw_identities, start=1):
        try:
            identities.append(structure_options(IdentityConfig, raw, ""))
        except OptionsError as exc:
            mistakes += within_entry("identity", raw, number, exc.mistakes)
    return tuple(identities), mistakes


def check_identities(raw_identities: object, registry: Registry) -> list[Mistake]:
    """List what is wrong with the storages that the identities name."""
    mistakes: list[Mistake] = []
    raw_list = raw_identities if isinstance(raw_identities, list) else []
    for number, raw in enumerate(raw_list, start=1):
        if isinstance(raw, Mapping):
            _, found = check_choice(registry, "storage", raw.get("storage"), "storage")
            mistakes += within_entry("identity", raw, number, found)
    return mistakes


def find_identity(identities: Sequence[IdentityConfig], name: str) -> IdentityConfig:
    """Give the identity of this name.

    :raises ConfigError: there is none; names the nearest
    """
    known = {identity.name: identity for identity in identities}
    identity = known.get(name)
    if identity is not None:
        return identity
    raise ConfigError(
        f'there is no identity "{name}"',
        hint=nearest(name, known) or "write one that begins with [[identity]]",
    )


def make_admission(identity: IdentityConfig, registry: Registry) -> Admission:
    """Open what an identity is served. Its connections may share it.

    :raises PluginError: the storage's plugin is missing or broken
    :raises ConfigError: an option of the storage is wrong
    """
    endpoint = _open_storage(
        registry,
        identity.storage,
        where=f'identity "{identity.name}": storage',
        name=f"{identity.storage.name} for {identity.name}",
        rate_limit_bytes_per_second=identity.rate_limit_bytes_per_second,
    )
    policy = PeerPolicy(identity=identity.name, permissions=identity.permissions)
    return _admission(endpoint, policy)


def admit_as_asked(hello: Hello, registry: Registry) -> Admission:
    """Open what a client asks for, with every permission.

    For clients whose authority is that of the account in which they have started us.

    :raises InvalidRequestError: it does not say what it wants
    :raises PluginError: the storage's plugin is missing or broken
    :raises ConfigError: an option of the storage is wrong
    """
    ask = hello.ask
    if ask is None:
        raise InvalidRequestError(
            "the client does not say which storage it wants",
            local=False,
            hint="start the endpoint with --identity, which says it on this side",
        )
    endpoint = _open_storage(
        registry,
        PluginChoice(name=ask.storage, options=ask.options),
        where=f"{ask.side}.storage",
        name=f"{ask.side} ({ask.storage})",
    )
    return _admission(endpoint, PeerPolicy(identity=hello.identity))


def _open_storage(
    registry: Registry,
    storage: PluginChoice,
    *,
    where: str,
    name: str,
    rate_limit_bytes_per_second: int | None = None,
) -> Endpoint:
    from fsrep_core.runtime.binding import Endpoint

    offer = registry.find("storage", storage.name)
    return Endpoint(
        offer.create(structure_options(offer.config_class, storage.options, where)),
        name=name,
        rate_limit_bytes_per_second=rate_limit_bytes_per_second,
        # The client has a deadline of its own, and heartbeats prove that it lives.
        call_timeout_seconds=math.inf,
    )


def _admission(endpoint: Endpoint, policy: PeerPolicy) -> Admission:
    from fsrep_core.runtime.remote.server import Admission

    return Admission(endpoint=endpoint, policy=policy)
