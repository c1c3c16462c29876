"""What can have happened to a run: the bodies of its journal entries.

A run *is* its journal. Every class here is one kind of entry, named in the past tense; its
fields are the whole truth about that step, so that state, history, live stream, replay and fork
need nothing else. An entry is never changed once it is durable, and a class or field is never
renamed: old journals must stay readable (`FORMAT` counts changes that older code cannot read).

Times are `Micros`: whole microseconds since the Unix epoch, UTC. Payloads are JSON values.

Length: one class for each kind of entry; a part of them elsewhere would hide what can happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, NewType

from attrs import Factory, frozen

from aiki_sdk import ErrorInfo, JsonValue
from aiki_sdk.protocol import OnConflict, OnParentEnd, Priority, RunStatus, Slept

Micros = NewType("Micros", int)
"""Microseconds: since the Unix epoch (UTC) for a time, a plain count for a duration."""

FORMAT: Final = 1
"""Version of the entry format written by this code; see `docs/decisions/0003-journal-format.md`."""


@frozen(slots=True, cache_hash=True)
class Call:
    """Which durable call of the workflow's code an entry belongs to.

    Attributes:
        address: kind, name and hash of the canonical input, such as `task:charge-card:9f…`.
        branch: path of the nursery child that made the call (`0.2`), empty for the main branch.
        index: how many calls with this address that branch had made before.

    """

    address: str
    branch: str = ""
    index: int = 0

    def __str__(self) -> str:
        return f"{self.address}@{self.branch}#{self.index}"


@frozen
class ParentLink:
    """The run that started this one as its child.

    `child_id` is the id by which the parent knows it, where that is not the run's own: the first
    of the runs that continued as one another.
    """

    run_id: str
    on_parent_end: OnParentEnd = OnParentEnd.ABANDON
    child_id: str | None = None


@frozen
class Fork:
    """Where a forked run's history comes from: a run's entries up to seq `at`."""

    run_id: str
    at: int


class Body:
    """Base of every entry body; `kind` is its name in the database and on the wire."""

    __slots__ = ()
    kind: ClassVar[str]


@frozen
class RunCreated(Body):
    """The run exists: an acknowledged start. Always the entry with seq 1."""

    kind: ClassVar[str] = "run-created"
    namespace: str
    workflow: str
    version: str
    input: JsonValue
    input_hash: str
    reference_id: str | None = None
    parent: ParentLink | None = None
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    labels: Mapping[str, str] = Factory(lambda: dict[str, str]())
    retry: JsonValue = None
    timeout: Micros | None = None
    start_at: Micros | None = None
    cancel_grace: Micros = Micros(60_000_000)
    stall_on_divergence: bool = False
    events: tuple[str, ...] | None = None
    depth: int = 0
    continued_from: str | None = None
    forked_from: Fork | None = None


@frozen
class RunQueued(Body):
    """The run is ready; no worker has it yet."""

    kind: ClassVar[str] = "run-queued"
    reason: str


@frozen
class RunClaimed(Body):
    """A worker executes the run; only words that carry this epoch and claim id count."""

    kind: ClassVar[str] = "run-claimed"
    worker_id: str
    epoch: int
    claim_id: str


@frozen
class RunParked(Body):
    """The code does nothing but wait; the claim is given back."""

    kind: ClassVar[str] = "run-parked"


@frozen
class ClaimReleased(Body):
    """The worker gave the run back unfinished (shutdown, pause)."""

    kind: ClassVar[str] = "claim-released"
    reason: str


@frozen
class ClaimLost(Body):
    """The worker that held the claim is gone."""

    kind: ClassVar[str] = "claim-lost"
    worker_id: str
    reason: str


@frozen
class TaskSucceeded(Body):
    """A task call ended with a value."""

    kind: ClassVar[str] = "task-succeeded"
    call: Call
    attempt: int
    output: JsonValue


@frozen
class TaskFailed(Body):
    """A task call ended with an error; it is not tried again."""

    kind: ClassVar[str] = "task-failed"
    call: Call
    attempt: int
    error: ErrorInfo


@frozen
class AttemptFailed(Body):
    """One attempt of a task call failed; the next one is due at `retry_at`.

    `waits` tells whether the delay is a wait of the run (a long delay) or passes in the worker;
    `details` is what its last heartbeat carried.
    """

    kind: ClassVar[str] = "attempt-failed"
    call: Call
    attempt: int
    error: ErrorInfo
    retry_at: Micros
    waits: bool
    details: JsonValue = None


@frozen
class TaskStarted(Body):
    """An attempt of an at-most-once task begins; should its outcome be lost, none follows it."""

    kind: ClassVar[str] = "task-started"
    call: Call
    attempt: int


@frozen
class HeartbeatRecorded(Body):
    """A running attempt said how far it is; the next attempt is told, should this one be lost."""

    kind: ClassVar[str] = "heartbeat-recorded"
    call: Call
    attempt: int
    details: JsonValue


@frozen
class RetryDue(Body):
    """The delay before a task call's next attempt is over."""

    kind: ClassVar[str] = "retry-due"
    call: Call


@frozen
class SleepStarted(Body):
    """A durable sleep began, or its due time was brought forward by changed code."""

    kind: ClassVar[str] = "sleep-started"
    call: Call
    duration: Micros
    due_at: Micros


@frozen
class SleepEnded(Body):
    """A durable sleep is over, by time or by an operator's wake."""

    kind: ClassVar[str] = "sleep-ended"
    call: Call
    outcome: Slept


@frozen
class EventAccepted(Body):
    """An event was acknowledged; its seq names the item in the mailbox of that event name."""

    kind: ClassVar[str] = "event-accepted"
    name: str
    data: JsonValue
    reference_id: str | None = None


@frozen
class EventWaitStarted(Body):
    """The code waits for the next unread item of an event."""

    kind: ClassVar[str] = "event-wait-started"
    call: Call
    event: str
    due_at: Micros | None = None


@frozen
class EventConsumed(Body):
    """A wait took an item (`item` is the seq of its `EventAccepted`)."""

    kind: ClassVar[str] = "event-consumed"
    call: Call
    event: str
    item: int


@frozen
class EventReturned(Body):
    """An item consumed by a call that was given up goes back to the front of its mailbox."""

    kind: ClassVar[str] = "event-returned"
    call: Call
    event: str
    item: int


@frozen
class ChildWaitStarted(Body):
    """The code waits for a child run to end."""

    kind: ClassVar[str] = "child-wait-started"
    call: Call
    child_id: str
    due_at: Micros | None = None


@frozen
class WaitTimedOut(Body):
    """An event or child wait reached its own timeout; nothing else is touched by that."""

    kind: ClassVar[str] = "wait-timed-out"
    call: Call


@frozen
class WaitAbandoned(Body):
    """The code gave a wait up: another branch won, or the scope around it was cancelled."""

    kind: ClassVar[str] = "wait-abandoned"
    call: Call


@frozen
class TimeoutStarted(Body):
    """The first durable operation inside a durable timeout's scope was met: its time runs."""

    kind: ClassVar[str] = "timeout-started"
    call: Call
    duration: Micros
    due_at: Micros


@frozen
class TimeoutReached(Body):
    """The time of a durable timeout is over; its scope is cancelled in this place of the order."""

    kind: ClassVar[str] = "timeout-reached"
    call: Call


@frozen
class ChildStarted(Body):
    """The run starts a child; written before the child exists, which is created by this id once."""

    kind: ClassVar[str] = "child-started"
    call: Call
    child_id: str
    workflow: str
    version: str
    on_parent_end: OnParentEnd
    spec: RunCreated
    on_conflict: OnConflict = OnConflict.ERROR


@frozen
class ChildEnded(Body):
    """A child reached a terminal status, any of them; resolves every wait for that child."""

    kind: ClassVar[str] = "child-ended"
    child_id: str
    status: RunStatus
    output: JsonValue = None
    error: ErrorInfo | None = None


@frozen
class ValueRecorded(Body):
    """The result of a small local function, kept so that replay does not call it again."""

    kind: ClassVar[str] = "value-recorded"
    call: Call
    value: JsonValue


@frozen
class ValuePublished(Body):
    """The code published a value under a key; clients read the last one, and watch."""

    kind: ClassVar[str] = "value-published"
    call: Call
    key: str
    value: JsonValue


@frozen
class EventSent(Body):
    """The code sends an event to another run; delivered there once."""

    kind: ClassVar[str] = "event-sent"
    call: Call
    target_id: str
    event: str
    data: JsonValue


@frozen
class QuestionAnswered(Body):
    """The code answered a question (`item` is the seq of its acceptance), or rejected it."""

    kind: ClassVar[str] = "question-answered"
    call: Call
    item: int
    answer: JsonValue = None
    rejection: str | None = None


@frozen
class RunPaused(Body):
    """An operator paused the run; waits go on elapsing, events go on arriving."""

    kind: ClassVar[str] = "run-paused"
    reason: str | None = None


@frozen
class RunResumed(Body):
    """An operator lifted the pause."""

    kind: ClassVar[str] = "run-resumed"


@frozen
class CancelRequested(Body):
    """The run is to unwind; it is cancelled without its code's help at `deadline`."""

    kind: ClassVar[str] = "cancel-requested"
    reason: str | None
    deadline: Micros
    ancestor_id: str | None = None


@frozen
class RunAttemptFailed(Body):
    """The workflow's code failed and its retry policy allows another attempt at `retry_at`."""

    kind: ClassVar[str] = "run-attempt-failed"
    attempt: int
    error: ErrorInfo
    retry_at: Micros


@frozen
class RunRetried(Body):
    """An operator sent a failed run round again."""

    kind: ClassVar[str] = "run-retried"


@frozen
class RunStalled(Body):
    """The run cannot go on by itself; an operator requeues or cancels it."""

    kind: ClassVar[str] = "run-stalled"
    reason: str
    error: ErrorInfo | None = None


@frozen
class RunRequeued(Body):
    """An operator lets a stalled run try again."""

    kind: ClassVar[str] = "run-requeued"


@frozen
class RunCompleted(Body):
    """The workflow returned."""

    kind: ClassVar[str] = "run-completed"
    output: JsonValue
    continued_as: str | None = None


@frozen
class RunContinued(Body):
    """The workflow ended and goes on as a new run with a clean journal."""

    kind: ClassVar[str] = "run-continued"
    continued_as: str
    spec: RunCreated


@frozen
class RunForked(Body):
    """A new run was made of this one's history up to seq `at`."""

    kind: ClassVar[str] = "run-forked"
    fork_id: str
    at: int


@frozen
class RunWatched(Body):
    """Another run took this one for its child `child_id`; it is told how this one ends."""

    kind: ClassVar[str] = "run-watched"
    watcher_id: str
    child_id: str


@frozen
class RunFailed(Body):
    """The workflow raised, diverged, hit a limit or ran out of time."""

    kind: ClassVar[str] = "run-failed"
    error: ErrorInfo


@frozen
class RunCancelled(Body):
    """The run ended by cancellation or termination."""

    kind: ClassVar[str] = "run-cancelled"
    reason: str | None
    ancestor_id: str | None = None
    terminated: bool = False
    error: ErrorInfo | None = None


@frozen
class Entry:
    """One journal entry: `seq` is gapless from 1 within its run, `at` the time it was decided."""

    seq: int
    at: Micros
    body: Body


ENTRY_KINDS: Final[Mapping[str, type[Body]]] = {cls.kind: cls for cls in Body.__subclasses__()}
"""Every kind of entry this code can read, by its name."""
