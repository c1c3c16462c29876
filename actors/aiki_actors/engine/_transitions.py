"""The state machine of a run, as one table.

`TRANSITIONS` is the only place where a run's phase changes: (phase, kind of entry) → phase. An
entry that has no row for the phase it meets is illegal; `evolve` refuses it and `decide` never
produces it. The diagram in `docs/reference/run-states.md` is generated from this table.

A phase is what the machinery knows; the *status* that people see is derived from it (`status_of`
in `_state.py`): `WAITING` shows as the wait that ends first, and an operator's pause lies over
the phase, so that waits elapse and events arrive while a run is paused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from attrs import frozen

from ._entries import (
    AttemptFailed,
    Body,
    CancelRequested,
    ChildEnded,
    ChildStarted,
    ChildWaitStarted,
    ClaimLost,
    ClaimReleased,
    EventAccepted,
    EventConsumed,
    EventReturned,
    EventSent,
    EventWaitStarted,
    HeartbeatRecorded,
    QuestionAnswered,
    RetryDue,
    RunAttemptFailed,
    RunCancelled,
    RunClaimed,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailed,
    RunForked,
    RunParked,
    RunPaused,
    RunQueued,
    RunRequeued,
    RunResumed,
    RunRetried,
    RunStalled,
    RunWatched,
    SleepEnded,
    SleepStarted,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TimeoutReached,
    TimeoutStarted,
    ValuePublished,
    ValueRecorded,
    WaitAbandoned,
    WaitTimedOut,
)


class Phase(StrEnum):
    """Where a run is in its life, as the machinery sees it."""

    NEW = "new"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    STALLED = "stalled"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing but an operator's retry of a failed run can follow."""
        return self in TERMINAL_PHASES


ENDED: Final = (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)
TERMINAL_PHASES: Final = frozenset(ENDED)
LIVE_PHASES: Final = (
    Phase.SCHEDULED,
    Phase.QUEUED,
    Phase.RUNNING,
    Phase.WAITING,
    Phase.STALLED,
)


@frozen
class Transition:
    """One row of the table: in each of `sources`, `entry` leads to `target` (None: stays)."""

    sources: tuple[Phase, ...]
    entry: type[Body]
    target: Phase | None
    cause: str


_RUN_ONLY = (Phase.RUNNING,)

ROWS: Final[tuple[Transition, ...]] = (
    Transition((Phase.NEW,), RunCreated, Phase.SCHEDULED, "start"),
    Transition((Phase.SCHEDULED,), RunQueued, Phase.QUEUED, "start time reached"),
    Transition((Phase.WAITING,), RunQueued, Phase.QUEUED, "a wait is resolved"),
    Transition((Phase.SCHEDULED,), RunClaimed, Phase.RUNNING, "start, a worker is free"),
    Transition((Phase.QUEUED,), RunClaimed, Phase.RUNNING, "claim"),
    Transition((Phase.WAITING,), RunClaimed, Phase.RUNNING, "a wait is resolved, still warm"),
    Transition(_RUN_ONLY, RunParked, Phase.WAITING, "everything waits"),
    Transition(_RUN_ONLY, ClaimReleased, Phase.QUEUED, "the worker gives it back"),
    Transition(_RUN_ONLY, ClaimLost, Phase.QUEUED, "the worker is lost"),
    Transition(_RUN_ONLY, RunAttemptFailed, Phase.WAITING, "failed, retry is due later"),
    Transition(_RUN_ONLY, RunCompleted, Phase.COMPLETED, "the workflow returned"),
    Transition(LIVE_PHASES, RunFailed, Phase.FAILED, "raised, diverged, limit or timeout"),
    Transition(LIVE_PHASES, RunCancelled, Phase.CANCELLED, "cancelled or terminated"),
    Transition((Phase.QUEUED, Phase.RUNNING), RunStalled, Phase.STALLED, "cannot go on by itself"),
    Transition((Phase.STALLED,), RunRequeued, Phase.QUEUED, "requeue by an operator"),
    Transition((Phase.FAILED,), RunRetried, Phase.QUEUED, "retry by an operator"),
    Transition(LIVE_PHASES, RunPaused, None, "pause by an operator"),
    Transition(LIVE_PHASES, RunResumed, None, "resume by an operator"),
    Transition(LIVE_PHASES, CancelRequested, None, "cancel: the code unwinds first"),
    Transition(LIVE_PHASES, EventAccepted, None, "an event arrives"),
    Transition(LIVE_PHASES, EventConsumed, None, "a wait takes an event"),
    Transition(LIVE_PHASES, WaitTimedOut, None, "a wait times out"),
    Transition(LIVE_PHASES, TimeoutReached, None, "a durable timeout is reached"),
    Transition(LIVE_PHASES, SleepEnded, None, "a sleep ends"),
    Transition(LIVE_PHASES, RetryDue, None, "a task's retry is due"),
    Transition((*LIVE_PHASES, Phase.FAILED), ChildEnded, None, "a child ends"),
    Transition(_RUN_ONLY, TaskSucceeded, None, "a task ends"),
    Transition(_RUN_ONLY, TaskFailed, None, "a task fails for good"),
    Transition(_RUN_ONLY, AttemptFailed, None, "an attempt fails"),
    Transition(_RUN_ONLY, TaskStarted, None, "an at-most-once task begins"),
    Transition(_RUN_ONLY, HeartbeatRecorded, None, "a task says how far it is"),
    Transition(_RUN_ONLY, SleepStarted, None, "a sleep is met"),
    Transition(_RUN_ONLY, EventWaitStarted, None, "an event wait is met"),
    Transition(_RUN_ONLY, ChildWaitStarted, None, "a child wait is met"),
    Transition(_RUN_ONLY, TimeoutStarted, None, "a durable timeout begins"),
    Transition(_RUN_ONLY, WaitAbandoned, None, "a wait is given up"),
    Transition(_RUN_ONLY, EventReturned, None, "an item was not used"),
    Transition(_RUN_ONLY, ChildStarted, None, "a child is started"),
    Transition(_RUN_ONLY, ValueRecorded, None, "a local result is recorded"),
    Transition(_RUN_ONLY, ValuePublished, None, "a value is published"),
    Transition(_RUN_ONLY, EventSent, None, "an event is sent to another run"),
    Transition(_RUN_ONLY, QuestionAnswered, None, "a question is answered"),
    Transition(_RUN_ONLY, RunContinued, Phase.COMPLETED, "continues as a new run"),
    Transition((*LIVE_PHASES, *ENDED), RunForked, None, "a new run is made of its history"),
    Transition((*LIVE_PHASES, *ENDED), RunWatched, None, "another run takes it for its child"),
)


def _index() -> dict[tuple[Phase, type[Body]], Phase]:
    table: dict[tuple[Phase, type[Body]], Phase] = {}
    for row in ROWS:
        for source in row.sources:
            key = (source, row.entry)
            assert key not in table, f"two transitions for {source} and {row.entry.kind}"
            table[key] = row.target or source
    return table


TRANSITIONS: Final[Mapping[tuple[Phase, type[Body]], Phase]] = _index()
"""(phase, kind of entry) → phase; what is not here cannot happen."""


def next_phase(phase: Phase, body: Body) -> Phase | None:
    """Return the phase after `body` in `phase`, or None when that entry is illegal there."""
    return TRANSITIONS.get((phase, type(body)))


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram (only the rows that change the phase)."""
    lines = ["stateDiagram-v2", "    direction LR", "    [*] --> scheduled: start"]
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for row in ROWS:
        if row.target is None or row.sources == (Phase.NEW,):
            continue
        for source in row.sources:
            arrows.setdefault((source, row.target), []).append(row.cause)
    lines.extend(
        f"    {source} --> {target}: {' / '.join(causes)}"  # a semicolon would end the label
        for (source, target), causes in arrows.items()
    )
    lines.extend(f"    {phase} --> [*]" for phase in (Phase.COMPLETED, Phase.CANCELLED))
    return "\n".join(lines) + "\n"
