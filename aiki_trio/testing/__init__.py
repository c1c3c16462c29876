"""Test kit: a whole system in one test, crashes, replay, journals as files, and the simulator.

Start reading at `_kit.py`; the simulator of whole clusters is `sim/`. The pytest plugin
(`plugin.py`) makes the fixture `aiki` of the kit.
"""

from ._crashes import (
    CrashReport as CrashReport,
    EndState as EndState,
    OutcomeDiffers as OutcomeDiffers,
    Sending as Sending,
    crash_everywhere as crash_everywhere,
)
from ._disk import KillPlan as KillPlan
from ._journal import (
    Journal as Journal,
    Scrub as Scrub,
    export_journal as export_journal,
    load_journal as load_journal,
)
from ._kit import (
    START as START,
    TEST_SETTINGS as TEST_SETTINGS,
    Aiki as Aiki,
    NotOpen as NotOpen,
)
from ._patience import NothingHappens as NothingHappens
from ._replay import (
    ReplayOutcome as ReplayOutcome,
    ReplayReport as ReplayReport,
    replay as replay,
)
from ._run import run as run
from ._tasks import InjectedFailure as InjectedFailure, TaskCall as TaskCall
from ._world import Done as Done
from .sim import (
    Exploration as Exploration,
    Fault as Fault,
    SimOptions as SimOptions,
    SimReport as SimReport,
    Simulation as Simulation,
    SimulationFailed as SimulationFailed,
    TaskAttempt as TaskAttempt,
    explore as explore,
    simulate as simulate,
)

__all__ = [
    "START",
    "TEST_SETTINGS",
    "Aiki",
    "CrashReport",
    "Done",
    "EndState",
    "Exploration",
    "Fault",
    "InjectedFailure",
    "Journal",
    "KillPlan",
    "NotOpen",
    "NothingHappens",
    "OutcomeDiffers",
    "ReplayOutcome",
    "ReplayReport",
    "Scrub",
    "Sending",
    "SimOptions",
    "SimReport",
    "Simulation",
    "SimulationFailed",
    "TaskAttempt",
    "TaskCall",
    "crash_everywhere",
    "explore",
    "export_journal",
    "load_journal",
    "replay",
    "run",
    "simulate",
]
