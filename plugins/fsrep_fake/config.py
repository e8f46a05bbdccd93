"""The options of ``memory`` and ``fake``, as a job's configuration names them."""

from __future__ import annotations

import attrs

from fsrep_core import parse_size
from fsrep_fake.faults import Fault, WireFault

__all__ = ["FakeConfig", "MemoryConfig"]


@attrs.frozen(kw_only=True)
class MemoryConfig:
    """Options of the storage ``memory``."""

    store: str
    """Which store of this process: storages with the same name meet in the same data."""
    resumable: bool = True
    """Keep what a cut receive got, and go on from there."""
    estimates: bool = True
    """Say how large a stream will be."""
    batched: bool = True
    """Carry several snapshots in one stream."""
    bookmarks: bool = True
    """Show cursors as bookmarks, which outlive their snapshot as a base."""
    nests: bool = False
    """Receive a filesystem only where its parent exists."""


@attrs.frozen(kw_only=True)
class FakeConfig:
    """Options of the transport ``fake``. Without any, nothing goes wrong."""

    faults: tuple[Fault, ...] = ()
    """What goes wrong, exactly: tables with the fields of :class:`~fsrep_fake.Fault`."""
    wire_faults: tuple[WireFault, ...] = ()
    """What goes wrong with connections: tables with the fields of
    :class:`~fsrep_fake.WireFault`."""
    seed: int | None = attrs.field(default=None)
    """Lets calls fail by chance, the same with the same seed."""
    fault_rate: float = attrs.field(
        default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    """The share of calls that fail, where there is a seed."""
    buffer_bytes: int = attrs.field(
        default=64 * 1024,
        alias="buffer",
        validator=attrs.validators.ge(4),
        metadata={"parse": parse_size},
    )
    """How much a connection holds at most in each direction, such as ``"64 KiB"``."""

    @seed.validator
    def _check_seed(self, _attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and (self.faults or self.wire_faults):
            raise ValueError("give faults or a seed, not both")
