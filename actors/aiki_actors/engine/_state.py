"""What a run *is* after some entries: the state, and what follows from it.

Only `evolve` (in `_evolve.py`) changes a state, and only by a journal entry; the functions here
derive from it what people and machinery want to know: its status and when it is due next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from attrs import Factory, define, frozen

from aiki_sdk import ErrorInfo, JsonValue
from aiki_sdk.protocol import OnParentEnd, RunStatus, WaitKind

from ._entries import Call, EventAccepted, Micros, RunCreated
from ._transitions import Phase


@frozen
class ClaimRef:
    """What every word of a worker about a run must carry to count.

    The epoch alone is not enough: after a database loses its last commits the same numbers are
    given out again; the claim id is random and never is.
    """

    epoch: int
    claim_id: str


@frozen
class Claim:
    """Who executes the run now."""

    worker_id: str
    ref: ClaimRef


@define(eq=False)
class Wait:
    """One open wait: what for, until when (None: no time of its own), since when.

    Attributes:
        duration: of a sleep, how long it is. Not always from `since` to `due_at`: a fork's entries
            are of the time of the fork, and its deadlines are those of the run that it is made of.

    """

    kind: WaitKind
    name: str
    due_at: Micros | None
    since: Micros
    duration: Micros = Micros(0)


@define(eq=False)
class Child:
    """A child as its parent knows it; `status` None while it lives."""

    call: Call
    on_parent_end: OnParentEnd
    status: RunStatus | None = None


@frozen
class CancelState:
    """A cancellation that was asked for and is being carried out."""

    reason: str | None
    deadline: Micros
    ancestor_id: str | None


@frozen
class Outcome:
    """How an ended run ended."""

    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: str | None = None
    continued_as: str | None = None
    terminated: bool = False


SUCCEEDED: Final = 0
FAILED: Final = -1
"""What `RunState.tasks` holds for a call that ended; above zero: attempts that failed so far."""

RUN_RETRY_CALL: Final = Call("run-retry")
"""The wait that stands for the delay before a workflow's next attempt."""


@define(eq=False)
class RunState:
    """A run, folded from its journal. Owned by one run actor; never shared, never copied.

    Attributes:
        seq: seq of the last entry; the next one has `seq + 1`.
        claim: set exactly while `phase` is RUNNING.
        epoch: epoch of the last claim, 0 before the first.
        claims_lost: claims lost in a row without any progress between them.
        attempt: attempt of the whole run, from 1.
        tasks: per task call the attempts that failed so far, or SUCCEEDED or FAILED.
        pause_reason: why, while `paused` and if the operator gave one.
        begun: per at-most-once task call the attempt that began and of which nobody knows how it
            ended; only an operator's retry of the run lets it begin again.
        settled: calls of this attempt that recorded a value or timed out; said again, they do
            nothing.
        waits: open waits, in the order in which they were met.
        unread: per event name the items (seq of `EventAccepted`) nobody took yet, oldest first.
        items: what was accepted, by seq; an item that was consumed may yet be returned.
        values: the last value published under each key.
        references: (event name, reference id) pairs accepted so far.
        watchers: other runs that took this one for their child, by the child id they know it by.
        forks: runs that were made of this one's history, and up to which seq.

    """

    run_id: str
    seq: int = 0
    phase: Phase = Phase.NEW
    paused: bool = False
    pause_reason: str | None = None
    created: RunCreated | None = None
    created_at: Micros = Micros(0)
    updated_at: Micros = Micros(0)
    started_at: Micros | None = None
    ended_at: Micros | None = None
    retried_at: Micros | None = None
    ready_at: Micros | None = None
    claim: Claim | None = None
    epoch: int = 0
    claims_lost: int = 0
    attempt: int = 1
    tasks: dict[Call, int] = Factory(lambda: dict[Call, int]())
    begun: dict[Call, int] = Factory(lambda: dict[Call, int]())
    settled: set[Call] = Factory(lambda: set[Call]())
    slept: dict[Call, Micros] = Factory(lambda: dict[Call, Micros]())
    waits: dict[Call, Wait] = Factory(lambda: dict[Call, Wait]())
    consumed: dict[Call, tuple[str, int]] = Factory(lambda: dict[Call, tuple[str, int]]())
    items: dict[int, EventAccepted] = Factory(lambda: dict[int, EventAccepted]())
    values: dict[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())
    unread: dict[str, deque[int]] = Factory(lambda: dict[str, deque[int]]())
    references: set[tuple[str, str]] = Factory(lambda: set[tuple[str, str]]())
    children: dict[str, Child] = Factory(lambda: dict[str, Child]())
    watchers: dict[str, str] = Factory(lambda: dict[str, str]())
    forks: dict[str, int] = Factory(lambda: dict[str, int]())
    cancel: CancelState | None = None
    stalled: str | None = None
    outcome: Outcome | None = None

    @property
    def spec(self) -> RunCreated:
        """What the run was created with; a journal without it is no run."""
        assert self.created is not None, f"run {self.run_id} has no RunCreated entry"
        return self.created

    @property
    def ready(self) -> bool:
        """Whether the run stands in the queue: ready, claimed by nobody and not paused."""
        return self.phase is Phase.QUEUED and not self.paused

    @property
    def deadline(self) -> Micros | None:
        """When the run fails with `RunTimeout`, if it has a timeout; a retry starts it afresh."""
        if self.created is None or self.created.timeout is None:
            return None
        begun = self.retried_at or self.created.start_at or self.created_at
        return Micros(begun + self.created.timeout)

    @property
    def live_children(self) -> list[str]:
        """Ids of the children that have not ended, in order of their start."""
        return [child_id for child_id, child in self.children.items() if child.status is None]


def next_due(state: RunState) -> Micros | None:
    """Return when something of this run is due by itself next, or None: it needs a push.

    The earliest of its start time, its open waits, its own timeout and its cancellation's end.
    """
    if state.phase.terminal or state.phase is Phase.NEW:
        return None
    times: list[Micros] = [wait.due_at for wait in state.waits.values() if wait.due_at is not None]
    if state.phase is Phase.SCHEDULED:
        times.append(state.spec.start_at or state.created_at)
    if (deadline := state.deadline) is not None:
        times.append(deadline)
    if state.cancel is not None:
        times.append(state.cancel.deadline)
    return min(times, default=None)


_WAITING_STATUS: Final = {
    WaitKind.SLEEP: RunStatus.SLEEPING,
    WaitKind.EVENT: RunStatus.AWAITING_EVENT,
    WaitKind.CHILD: RunStatus.AWAITING_CHILD,
    WaitKind.RETRY: RunStatus.AWAITING_RETRY,
}
_PHASE_STATUS: Final[Mapping[Phase, RunStatus]] = {
    phase: RunStatus(phase.value) for phase in Phase if phase not in (Phase.NEW, Phase.WAITING)
}
_OPEN_ENDED: Final = (WaitKind.EVENT, WaitKind.CHILD)


def status_of(state: RunState) -> RunStatus:
    """Return what people see: the pause, else the phase, else the wait that ends first."""
    if state.paused:
        return RunStatus.PAUSED
    if state.phase is not Phase.WAITING:
        return _PHASE_STATUS[state.phase]
    # A durable timeout is no wait of its own: it bounds those inside it, and they say what goes on.
    waits = [wait for wait in state.waits.values() if wait.kind is not WaitKind.TIMEOUT]
    timed = [wait for wait in waits if wait.due_at is not None]
    if timed:
        first = min(timed, key=lambda wait: wait.due_at or 0)
        return _WAITING_STATUS[first.kind]
    kinds = {wait.kind for wait in waits}
    for kind in _OPEN_ENDED:
        if kind in kinds:
            return _WAITING_STATUS[kind]
    if state.waits:
        return RunStatus.SLEEPING
    # Its last wait was resolved by the entry before the one that makes it ready.
    return RunStatus.QUEUED
