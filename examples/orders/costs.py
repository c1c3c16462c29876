"""What the kills cost: work done again, and time."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from .effects import Execution
from .evidence import ENDS, Evidence, History, Kill


@frozen
class Repeats:
    """What the kills cost.

    Attributes:
        cut_off: executions that a kill cut off in the middle and that were run again.
        not_durable: executions that had ended, but their outcome was not durable yet: run again.

    """

    cut_off: int
    not_durable: int


@frozen
class Recovery:
    """How long the system took after a kill.

    Attributes:
        kill: the kill.
        interrupted: runs that were neither waiting nor ended when the process was killed.
        first_entry_s: seconds from starting the process again to the next entry of any run.
        all_going_s: seconds until every interrupted run was executed again, where the process that
            was killed executed them all.

    """

    kill: Kill
    interrupted: int
    first_entry_s: float
    all_going_s: float


def repeats_of(evidence: Evidence, executions: list[Execution]) -> Repeats:
    """Count what ran again because a process was killed."""
    last = {
        (execution.begun.key, execution.begun.attempt): number
        for number, execution in enumerate(executions)
    }
    repeated = [
        execution
        for number, execution in enumerate(executions)
        if execution.begun.pid in evidence.killed_workers
        and last[execution.begun.key, execution.begun.attempt] > number
    ]
    return Repeats(
        cut_off=sum(execution.ended is None for execution in repeated),
        not_durable=sum(execution.ended is not None for execution in repeated),
    )


def recovery_of(evidence: Evidence, kill: Kill) -> Recovery:
    """Measure how long it took after a kill until all went on."""
    interrupted = [run_id for run_id, run in kill.journals.items() if _was_executing(run)]
    start = kill.restarted_at
    next_times = [
        entry.at
        for history in evidence.journals.values()
        for entry in history.entries
        if entry.at >= start
    ]
    going = [
        at
        for run_id in interrupted
        if run_id in evidence.journals
        for at in _going_again(evidence.journals[run_id], kill.journals[run_id])
    ]
    return Recovery(
        kill=kill,
        interrupted=len(interrupted),
        first_entry_s=(min(next_times, default=start) - start).total_seconds(),
        all_going_s=(max(going, default=start) - start).total_seconds(),
    )


def _was_executing(history: History) -> bool:
    """Whether the run was being executed, or ready to be, when its journal stopped."""
    for entry in reversed(history.entries):
        if entry.kind == "run-parked" or entry.kind in ENDS:
            return False
        if entry.kind in {"run-created", "run-claimed"}:
            return True
    return False


def _going_again(after: History, before: History) -> list[datetime]:
    """Return when the run was claimed again, or ended without that."""
    for entry in after.entries[len(before.entries) :]:
        if entry.kind == "run-claimed" or entry.kind in ENDS:
            return [entry.at]
    return []
