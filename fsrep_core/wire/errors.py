"""What can go wrong between two peers that read each other's bytes."""

from __future__ import annotations

from fsrep_core.errors import FsrepError

__all__ = ["WireError"]


class WireError(FsrepError):
    """The peer sent what the wire does not allow. The connection cannot be used any more.

    Before the hellos agree, a repetition would end in the same way. After that the bytes
    must have been damaged underway or the peer has a defect, and a new connection may
    fare better: such errors are temporary.
    """

    kind = "wire"
