"""The words for what a run is doing, what it waits for, and how urgent it is.

These are the values on the wire, in the database, in the docs and in the user interface; there
is no second spelling of any of them. `RunStatus` is a projection of the journal: nothing sets
it, it follows from the entries (see `aiki_actors.engine`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RunStatus(StrEnum):
    """What a run is doing; the words of the transition table's projection."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SLEEPING = "sleeping"
    AWAITING_EVENT = "awaiting_event"
    AWAITING_CHILD = "awaiting_child"
    AWAITING_RETRY = "awaiting_retry"
    PAUSED = "paused"
    STALLED = "stalled"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the run has ended; an ended run's outcome never changes."""
        return self in TERMINAL_STATUSES


TERMINAL_STATUSES: Final = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class Slept(StrEnum):
    """How a durable sleep ended."""

    ELAPSED = "elapsed"
    WOKEN = "woken"


class Priority(StrEnum):
    """Which ready runs are handed out first; within a class the oldest goes first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class WaitKind(StrEnum):
    """What an open wait waits for."""

    SLEEP = "sleep"
    EVENT = "event"
    CHILD = "child"
    RETRY = "retry"
    TIMEOUT = "timeout"


class OnConflict(StrEnum):
    """What a start does when its reference id names a run already."""

    ERROR = "error"
    RETURN_EXISTING = "return_existing"
    RESTART_IF_ENDED = "restart_if_ended"


class OnParentEnd(StrEnum):
    """What happens to a live child when its parent ends."""

    ABANDON = "abandon"
    CANCEL = "cancel"
