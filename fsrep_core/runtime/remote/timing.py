"""How long the remote runtime waits for what, in one place."""

from __future__ import annotations

import attrs
from attrs import validators

__all__ = ["Timing"]


@attrs.frozen(kw_only=True)
class Timing:
    """Deadlines and intervals of connections, in seconds of trio's clock.

    Both sides of a connection should agree on the heartbeats. None of these limits how
    long an operation takes: its caller, and the watchdog of a step, know that.
    """

    connect_seconds: float = attrs.field(default=30.0, validator=validators.gt(0))
    """From the start of connecting until the peer's hello is there."""
    heartbeat_interval_seconds: float = attrs.field(default=5.0, validator=validators.gt(0))
    """After so long without anything else sent, a heartbeat is."""
    silence_seconds: float = attrs.field(default=30.0, validator=validators.gt(0))
    """A peer from which nothing came for so long, while it was waited for, is gone."""
    abort_seconds: float = attrs.field(default=5.0, validator=validators.gt(0))
    """How long the peer may take to end a dialogue that was cancelled. After that the
    connection is closed."""
    drain_seconds: float = attrs.field(default=60.0, validator=validators.gt(0))
    """How long a client may go on sending a stream that was answered already."""
    farewell_seconds: float = attrs.field(default=2.0, validator=validators.gt(0))
    """How long the peer may take to end its side of a connection that is not needed."""
