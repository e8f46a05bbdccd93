"""The state machines: one step, one filesystem's replication, one run.

Pure: no input or output, no clock, no trio. Each machine is an enum of states, frozen
events and one transition table that *is* the machine; the classes around the tables
hold what goes with a state (problem, bytes, dates) and make the reports. Whoever drives
them acts first and tells the machine afterwards what happened. The interpreter of the
tables is :mod:`fsrep_core.table`.

=============  ==========================================================
module         what it holds
=============  ==========================================================
``step``       one send/receive and the move of the cursor after it
``replication``  the steps of one filesystem, in order, and their builder
``queue``      whose step is next: oldest first, parents before children
``run``        all filesystems of one job, once
=============  ==========================================================
"""

from fsrep_core.machines.queue import WorkQueue
from fsrep_core.machines.replication import Replication, ReplicationBuilder, ReplicationState
from fsrep_core.machines.run import Run, RunState
from fsrep_core.machines.step import Step, StepState
from fsrep_core.table import IllegalTransitionError, advance

__all__ = [
    "IllegalTransitionError",
    "Replication",
    "ReplicationBuilder",
    "ReplicationState",
    "Run",
    "RunState",
    "Step",
    "StepState",
    "WorkQueue",
    "advance",
]
