"""What a client may ask a server for, decided in one place, before the storage hears of it.

That names cannot leave the storage's root is seen to when a request is read
(:mod:`fsrep_core.wire`); which root that is, is the storage's own configuration. Here is
decided whether this client may ask for this operation at all, and whether a resume token
that it presents means what the rest of its request means.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from fsrep_core.errors import PermissionDeniedError, StaleTokenError
from fsrep_core.values import ReceiveRequest, SendRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PeerPolicy", "Permission", "check_request"]


class Permission(enum.Enum):
    """What a client can be granted."""

    SEND = "send"
    """Read: list filesystems, estimate, fetch streams, move the cursors of jobs."""
    RECEIVE = "receive"
    """Write: list filesystems and push streams, which destroy nothing."""
    CREATE = "create"
    """Make new versions."""
    DESTROY = "destroy"
    """Destroy versions; also those that stand in the way of a receive (rollback)."""


@attrs.frozen(kw_only=True)
class PeerPolicy:
    """Who a client is, as its transport has proved, and what it may ask for."""

    identity: str
    permissions: frozenset[Permission] = frozenset(Permission)


_SUFFICIENT: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {
        "inventory": frozenset(Permission),
        "size_estimate": frozenset({Permission.SEND}),
        "send": frozenset({Permission.SEND}),
        "replication_cursor": frozenset({Permission.SEND}),
        "receive": frozenset({Permission.RECEIVE}),
        "create_version": frozenset({Permission.CREATE}),
        "destroy_versions": frozenset({Permission.DESTROY}),
    }
)
"""Any one of these lets a client ask for the operation."""


def check_request(policy: PeerPolicy, operation: str, request: Any) -> None:  # noqa: ANN401  (the operation's request)
    """Return if this client may ask for this.

    :raises PermissionDeniedError: it may not
    :raises StaleTokenError: its resume token means something else than its request
    """
    sufficient = _SUFFICIENT[operation]
    if not sufficient & policy.permissions:
        raise _denied(policy, operation, next(iter(sufficient)))
    rollback = isinstance(request, ReceiveRequest) and request.rollback
    if rollback and Permission.DESTROY not in policy.permissions:
        raise _denied(policy, "receive with rollback", Permission.DESTROY)
    if isinstance(request, SendRequest | ReceiveRequest):
        _check_token(request)


def _denied(policy: PeerPolicy, operation: str, needed: Permission) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"{policy.identity} may not ask for {operation}",
        local=False,
        hint=f"grant it {needed.value!r} on the serving side",
    )


def _check_token(request: SendRequest | ReceiveRequest) -> None:
    token = request.resume_token
    if token is None:
        return
    base = request.from_version.guid if request.from_version is not None else request.origin
    if (token.from_guid, token.to_guid) != (base, request.to_version.guid):
        raise StaleTokenError(
            f"{request.filesystem}{request.to_version.relative_name}: the resume token is of "
            "another step than the request",
            hint="plan again; discard the partial receive if this goes on",
        )
