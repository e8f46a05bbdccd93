"""The public kit for authors of plugins, and for test suites.

:func:`check_storage` and :func:`check_transport` check a plugin against the contract, law
by law. They are plain async functions that take a maker and need no pytest. What they
are made of is public as well: the comparison of trees, the search for leaks, and the
streams that go wrong on purpose.
"""

from __future__ import annotations

from fsrep_core.testing.laws import Deviations, Law, LawBook, LawBroken, Verdict
from fsrep_core.testing.leaks import Resources, find_leaks, no_leaks, open_resources
from fsrep_core.testing.probe import ProbeStorage
from fsrep_core.testing.probing import reach_probe
from fsrep_core.testing.storage_trial import StorageHarness, StorageMaker
from fsrep_core.testing.storages import STORAGE_LAWS, check_storage
from fsrep_core.testing.tampering import CutStream, HookedStream, PieceStream, drain
from fsrep_core.testing.transport_trial import EndpointOpener, TransportMaker
from fsrep_core.testing.transports import TRANSPORT_LAWS, check_transport
from fsrep_core.testing.trees import ASPECTS, Entry, compare_trees, differences, read_tree

__all__ = [
    "ASPECTS",
    "STORAGE_LAWS",
    "TRANSPORT_LAWS",
    "CutStream",
    "Deviations",
    "EndpointOpener",
    "Entry",
    "HookedStream",
    "Law",
    "LawBook",
    "LawBroken",
    "PieceStream",
    "ProbeStorage",
    "Resources",
    "StorageHarness",
    "StorageMaker",
    "TransportMaker",
    "Verdict",
    "check_storage",
    "check_transport",
    "compare_trees",
    "differences",
    "drain",
    "find_leaks",
    "no_leaks",
    "open_resources",
    "reach_probe",
    "read_tree",
]
