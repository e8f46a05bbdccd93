"""From two inventories to steps, or to a conflict that explains itself.

Pure: no input or output, no clock, no trio. What comes in are the values that the two
endpoints answered; what goes out are values that say what to do, and why.

==============  ==================================================================
module          what it holds
==============  ==================================================================
``patterns``    which filesystems a job means
``policy``      what a job allows and prefers
``plan``        the outcome: steps or a conflict for each filesystem
``comparison``  one filesystem on both sides: the base, and what follows it
``filesystem``  the plan of one filesystem: every rule, in order
``conflicts``   the words of every conflict
``reasons``     the words of every choice
``origins``     which clone begins as the difference from its origin
``inventory``   the plan of a job: selection, children after their parents
==============  ==================================================================
"""

from fsrep_core.planning.filesystem import plan_filesystem
from fsrep_core.planning.inventory import make_plan
from fsrep_core.planning.patterns import check_pattern, parse_pattern, select_filesystems
from fsrep_core.planning.plan import Conflict, ConflictKind, FilesystemPlan, Plan, TokenKey
from fsrep_core.planning.policy import Base, Diverged, Initial, Policy, StaleToken, Steps

__all__ = [
    "Base",
    "Conflict",
    "ConflictKind",
    "Diverged",
    "FilesystemPlan",
    "Initial",
    "Plan",
    "Policy",
    "StaleToken",
    "Steps",
    "TokenKey",
    "check_pattern",
    "make_plan",
    "parse_pattern",
    "plan_filesystem",
    "select_filesystems",
]
