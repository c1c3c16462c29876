"""Named points in the code at which a process can be told to die, stop or be asked to end.

They are for the kill tests: `AIKI_FAULT=task.done:3` lets the process kill itself when it comes to
the point `task.done` for the third time. Without that variable a point is a call of a function that
does nothing. Every other package of `aiki_actors` may import this one; it imports none of them.
"""

from aiki_actors.faults._points import FAULT_POINTS as FAULT_POINTS, FaultPoint as FaultPoint
from aiki_actors.faults._trigger import (
    VARIABLE as VARIABLE,
    FaultPlanError as FaultPlanError,
    PlannedFault as PlannedFault,
    arm_faults as arm_faults,
    fault_passings as fault_passings,
    fault_point as fault_point,
    parse_faults as parse_faults,
)

__all__ = [
    "FAULT_POINTS",
    "VARIABLE",
    "FaultPlanError",
    "FaultPoint",
    "PlannedFault",
    "arm_faults",
    "fault_passings",
    "fault_point",
    "parse_faults",
]
