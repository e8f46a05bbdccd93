"""Replication without disks, networks or clocks: for tests, demos and plugin authors.

Two parts that are useful on their own: the storage ``memory`` keeps the whole endpoint
contract over data of this process, and the transport ``fake`` reaches any storage over the
real wire, which fails on purpose, by a script that can be repeated.

Names are imported on first use, so that a command which selects neither stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fsrep_core import hookimpl

if TYPE_CHECKING:
    from fsrep_core import Registry
    from fsrep_fake.config import FakeConfig, MemoryConfig
    from fsrep_fake.content import Generated
    from fsrep_fake.fake import FakeEndpoint, FakeTransport
    from fsrep_fake.faults import (
        ACTIONS,
        DIRECTIONS,
        FRAMES,
        OPERATIONS,
        WIRE_ACTIONS,
        Fault,
        Script,
        SeededFaults,
        WireFault,
    )
    from fsrep_fake.journal import Call
    from fsrep_fake.memory import MemoryStorage
    from fsrep_fake.stores import MemoryStore, named_store, reset_stores

_HOMES = {
    "config": "FakeConfig MemoryConfig",
    "content": "Generated",
    "fake": "FakeEndpoint FakeTransport",
    "faults": (
        "ACTIONS DIRECTIONS FRAMES OPERATIONS WIRE_ACTIONS Fault Script SeededFaults WireFault"
    ),
    "journal": "Call",
    "memory": "MemoryStorage",
    "stores": "MemoryStore named_store reset_stores",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "ACTIONS",
    "DIRECTIONS",
    "FRAMES",
    "OPERATIONS",
    "WIRE_ACTIONS",
    "Call",
    "FakeConfig",
    "FakeEndpoint",
    "FakeTransport",
    "Fault",
    "Generated",
    "MemoryConfig",
    "MemoryStorage",
    "MemoryStore",
    "Script",
    "SeededFaults",
    "WireFault",
    "named_store",
    "plugin",
    "reset_stores",
]


class FakePlugin:
    """Registers the storage ``memory`` and the transport ``fake``."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """Add both under their names."""
        from fsrep_fake.config import FakeConfig, MemoryConfig

        registry.add_storage(
            "memory",
            _create_memory,
            config_class=MemoryConfig,
            summary="Versions exist only in this process, for tests.",
        )
        registry.add_transport(
            "fake",
            _create_fake,
            config_class=FakeConfig,
            summary="The storage is in this process; the way to it fails by a script, for tests.",
        )


plugin = FakePlugin()


def _create_memory(config: MemoryConfig) -> MemoryStorage:
    from fsrep_fake.memory import MemoryStorage
    from fsrep_fake.stores import named_store

    return MemoryStorage(
        named_store(config.store),
        resumable=config.resumable,
        estimates=config.estimates,
        batched=config.batched,
        bookmarks=config.bookmarks,
        nests=config.nests,
    )


def _create_fake(config: FakeConfig) -> FakeTransport:
    from fsrep_fake.fake import FakeTransport
    from fsrep_fake.faults import SeededFaults

    script: Script | tuple[Fault | WireFault, ...] = (
        (*config.faults, *config.wire_faults)
        if config.seed is None
        else SeededFaults(config.seed, rate=config.fault_rate)
    )
    return FakeTransport(script, buffer_bytes=config.buffer_bytes)


def __getattr__(name: str) -> Any:  # noqa: ANN401  (the type is that of the name)
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
