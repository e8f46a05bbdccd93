"""fsrep: replicates the versions of filesystems from a sender to a receiver.

These are the public names; a plugin needs no others. They are imported on first use, so
that a command which needs few of them starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsrep_core.errors import (
        BrokenEndpointError,
        BusyError,
        ConfigError,
        ConflictError,
        ConnectivityError,
        FsrepError,
        InterruptedStreamError,
        InvalidRequestError,
        OutOfSpaceError,
        PermissionDeniedError,
        PluginError,
        StaleTokenError,
        StorageError,
        TimeoutExpiredError,
        VersionMissingError,
    )
    from fsrep_core.events import (
        BytesMoved,
        Event,
        ExpiriesKnown,
        FilesystemFinished,
        FilesystemPlanned,
        RunFinished,
        RunStarted,
        RunStateChanged,
        StepAborted,
        StepFinished,
        StepStarted,
        StepStateChanged,
        Warned,
    )
    from fsrep_core.hookspecs import EndpointSpec, ObserverSpec, PluginSpec, hookimpl
    from fsrep_core.quantities import parse_duration, parse_rate, parse_size
    from fsrep_core.reports import ReplicationReport, RunReport, StepReport
    from fsrep_core.runtime.processes import (
        Explain,
        ProcessOutput,
        feed_process,
        open_process_stream,
        run_process,
    )
    from fsrep_core.runtime.pump import pump
    from fsrep_core.runtime.registry import Offer, PluginStatus, Registry
    from fsrep_core.runtime.remote.carrier import Carrier, DescriptorStream, Mover, Way
    from fsrep_core.runtime.remote.server import serve_endpoint
    from fsrep_core.runtime.remote.timing import Timing
    from fsrep_core.runtime.remote.transport import StreamTransport
    from fsrep_core.streams import ByteStream
    from fsrep_core.transports import (
        Caller,
        EndpointContext,
        Expiry,
        Identified,
        Listener,
        StorageChoice,
        Transport,
    )
    from fsrep_core.values import (
        Capabilities,
        CreateVersionRequest,
        CursorRequest,
        DestroyVersionsRequest,
        Filesystem,
        Inventory,
        InventoryRequest,
        Origin,
        Problem,
        ReceiveRequest,
        ReceiveResponse,
        ResumeToken,
        SendRequest,
        SendResponse,
        Side,
        SizeEstimate,
        Version,
        VersionKind,
        VersionResult,
    )
    from fsrep_core.wire.watch import FrameWatch, PassingFrame

__version__ = "0.1.0"

_HOMES = {
    "errors": (
        "BrokenEndpointError BusyError ConfigError ConflictError ConnectivityError FsrepError "
        "InterruptedStreamError InvalidRequestError OutOfSpaceError PermissionDeniedError "
        "PluginError StaleTokenError StorageError TimeoutExpiredError VersionMissingError"
    ),
    "events": (
        "BytesMoved Event ExpiriesKnown FilesystemFinished FilesystemPlanned RunFinished "
        "RunStarted RunStateChanged StepAborted StepFinished StepStarted StepStateChanged Warned"
    ),
    "hookspecs": "EndpointSpec ObserverSpec PluginSpec hookimpl",
    "quantities": "parse_duration parse_rate parse_size",
    "reports": "ReplicationReport RunReport StepReport",
    "runtime.processes": "Explain ProcessOutput feed_process open_process_stream run_process",
    "runtime.pump": "pump",
    "runtime.registry": "Offer PluginStatus Registry",
    "runtime.remote.carrier": "Carrier DescriptorStream Mover Way",
    "runtime.remote.server": "serve_endpoint",
    "runtime.remote.timing": "Timing",
    "runtime.remote.transport": "StreamTransport",
    "streams": "ByteStream",
    "transports": ("Caller EndpointContext Expiry Identified Listener StorageChoice Transport"),
    "values": (
        "Capabilities CreateVersionRequest CursorRequest DestroyVersionsRequest Filesystem "
        "Inventory InventoryRequest Origin Problem ReceiveRequest ReceiveResponse ResumeToken "
        "SendRequest SendResponse Side SizeEstimate Version VersionKind VersionResult"
    ),
    "wire.watch": "FrameWatch PassingFrame",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "BrokenEndpointError",
    "BusyError",
    "ByteStream",
    "BytesMoved",
    "Caller",
    "Capabilities",
    "Carrier",
    "ConfigError",
    "ConflictError",
    "ConnectivityError",
    "CreateVersionRequest",
    "CursorRequest",
    "DescriptorStream",
    "DestroyVersionsRequest",
    "EndpointContext",
    "EndpointSpec",
    "Event",
    "ExpiriesKnown",
    "Expiry",
    "Explain",
    "Filesystem",
    "FilesystemFinished",
    "FilesystemPlanned",
    "FrameWatch",
    "FsrepError",
    "Identified",
    "InterruptedStreamError",
    "InvalidRequestError",
    "Inventory",
    "InventoryRequest",
    "Listener",
    "Mover",
    "ObserverSpec",
    "Offer",
    "Origin",
    "OutOfSpaceError",
    "PassingFrame",
    "PermissionDeniedError",
    "PluginError",
    "PluginSpec",
    "PluginStatus",
    "Problem",
    "ProcessOutput",
    "ReceiveRequest",
    "ReceiveResponse",
    "Registry",
    "ReplicationReport",
    "ResumeToken",
    "RunFinished",
    "RunReport",
    "RunStarted",
    "RunStateChanged",
    "SendRequest",
    "SendResponse",
    "Side",
    "SizeEstimate",
    "StaleTokenError",
    "StepAborted",
    "StepFinished",
    "StepReport",
    "StepStarted",
    "StepStateChanged",
    "StorageChoice",
    "StorageError",
    "StreamTransport",
    "TimeoutExpiredError",
    "Timing",
    "Transport",
    "Version",
    "VersionKind",
    "VersionMissingError",
    "VersionResult",
    "Warned",
    "Way",
    "feed_process",
    "hookimpl",
    "open_process_stream",
    "parse_duration",
    "parse_rate",
    "parse_size",
    "pump",
    "run_process",
    "serve_endpoint",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (the type is that of the name)
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
