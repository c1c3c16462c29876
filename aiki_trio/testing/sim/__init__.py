"""The simulator: a whole cluster in one Trio loop, run by seed, held to its promises.

Start reading at `_simulation.py`; what is promised is in `_oracle.py` and `_promises.py`, what goes
wrong in `_nemesis.py`. `python -m aiki_trio.testing.sim --seeds 100` runs it.
"""

from ._effects import TaskAttempt as TaskAttempt
from ._explore import Exploration as Exploration, explore as explore
from ._options import ALL_FAULTS as ALL_FAULTS, Fault as Fault, SimOptions as SimOptions
from ._simulation import (
    SimReport as SimReport,
    Simulation as Simulation,
    SimulationFailed as SimulationFailed,
    Workload as Workload,
    simulate as simulate,
)

__all__ = [
    "ALL_FAULTS",
    "Exploration",
    "Fault",
    "SimOptions",
    "SimReport",
    "Simulation",
    "SimulationFailed",
    "TaskAttempt",
    "Workload",
    "explore",
    "simulate",
]
