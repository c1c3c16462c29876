"""What can be asked of a run: commands, in the imperative.

A command changes nothing by itself: `decide` says which journal entries it means in a state, or
why it is refused. Commands of a worker carry the claim (`ClaimRef`) under which they are spoken.
Durations and times are `Micros`.
"""

from __future__ import annotations

from attrs import field, frozen

from aiki_sdk import ErrorInfo, JsonValue
from aiki_sdk.protocol import OnConflict, OnParentEnd, RunStatus

from ._entries import Body, Call, Micros, RunCreated
from ._state import ClaimRef


@frozen
class CreateRun:
    """Start a run; legal once, on a run without a journal.

    `on_conflict` is for a child whose reference id names a run already; a client's start settles
    that before.
    """

    spec: RunCreated
    on_conflict: OnConflict = OnConflict.ERROR


@frozen
class ForkRun:
    """Start a run with what another one had recorded (see `_fork.py`); legal once, as a start."""

    spec: RunCreated
    history: tuple[Body, ...]


@frozen
class NoteFork:
    """A new run was made of this one's history up to seq `at`."""

    fork_id: str
    at: int


@frozen
class WatchRun:
    """Tell another run, which takes this one for its child `child_id`, how this one ends."""

    watcher_id: str
    child_id: str


@frozen
class AcceptEvent:
    """Acknowledge an event for the run; never refused because of what the run is doing.

    `namespace` is that of the run which sent it, if one did: others are not found from there.
    """

    name: str
    data: JsonValue
    reference_id: str | None = None
    namespace: str | None = None


@frozen
class PauseRun:
    """Let nothing of the run be executed until it is resumed."""

    reason: str | None = None


@frozen
class ResumeRun:
    """Lift a pause."""


@frozen
class CancelRun:
    """Ask the run to unwind and end as cancelled."""

    reason: str | None = None
    ancestor_id: str | None = None


@frozen
class TerminateRun:
    """End the run at once without running any of its code."""

    reason: str | None = None


@frozen
class WakeRun:
    """End the sleep that ends first, or the first one with this name."""

    sleep: str | None = None


@frozen
class RetryRun:
    """Send a failed run round again."""


@frozen
class RequeueRun:
    """Let a stalled run try again."""


@frozen
class Elapse:
    """Time has come: resolve whatever of the run is due by now."""


@frozen
class ClaimRun:
    """A worker wants to execute the run."""

    worker_id: str
    claim_id: str


@frozen
class UnparkRun:
    """The code of a parked run that is kept warm goes on by itself: no wait was resolved."""


@frozen
class LoseClaim:
    """The worker that holds the claim with this epoch is gone."""

    epoch: int
    reason: str


@frozen
class StallRun:
    """Take the run out of delivery: nobody can execute it."""

    reason: str


@frozen
class EndChild:
    """A child of the run has ended."""

    child_id: str
    status: RunStatus
    output: JsonValue = None
    error: ErrorInfo | None = None


@frozen
class WorkerCommand:
    """Base of everything a worker says about a run that it executes."""

    claim: ClaimRef = field(kw_only=True)


@frozen
class RecordSuccess(WorkerCommand):
    """A task call returned."""

    call: Call
    attempt: int
    output: JsonValue


@frozen
class RecordFailure(WorkerCommand):
    """An attempt of a task call failed; `retry_after` None: for good.

    `details` is what its last heartbeat carried.
    """

    call: Call
    attempt: int
    error: ErrorInfo
    retry_after: Micros | None = None
    details: JsonValue = None


@frozen
class RecordStart(WorkerCommand):
    """An attempt of an at-most-once task is about to begin."""

    call: Call
    attempt: int


@frozen
class RecordHeartbeat(WorkerCommand):
    """A running attempt said how far it is."""

    call: Call
    attempt: int
    details: JsonValue


@frozen
class StartSleep(WorkerCommand):
    """The code met a durable sleep; `duration` is all that it asks for, slept before or not."""

    call: Call
    duration: Micros


@frozen
class AwaitEvent(WorkerCommand):
    """The code waits for the next item of an event."""

    call: Call
    event: str
    timeout: Micros | None = None


@frozen
class AwaitChild(WorkerCommand):
    """The code waits for a child to end."""

    call: Call
    child_id: str
    timeout: Micros | None = None


@frozen
class StartTimeout(WorkerCommand):
    """The code does something durable inside a durable timeout; `duration` from now on."""

    call: Call
    duration: Micros


@frozen
class AbandonWait(WorkerCommand):
    """The code gave a wait up; what it may have consumed meanwhile goes back."""

    call: Call


@frozen
class StartChild(WorkerCommand):
    """The code starts a child run."""

    call: Call
    child_id: str
    spec: RunCreated
    on_parent_end: OnParentEnd
    on_conflict: OnConflict = OnConflict.ERROR


@frozen
class RecordValue(WorkerCommand):
    """The code asked to keep the result of a local function."""

    call: Call
    value: JsonValue


@frozen
class PublishValue(WorkerCommand):
    """The code publishes a value."""

    call: Call
    key: str
    value: JsonValue


@frozen
class SendEvent(WorkerCommand):
    """The code sends an event to another run."""

    call: Call
    target_id: str
    event: str
    data: JsonValue


@frozen
class AnswerQuestion(WorkerCommand):
    """The code answers a question, or (`rejection`) refuses it."""

    call: Call
    item: int
    answer: JsonValue = None
    rejection: str | None = None


@frozen
class ContinueRun(WorkerCommand):
    """The workflow ends here and goes on as a new run."""

    new_id: str
    spec: RunCreated


@frozen
class ParkRun(WorkerCommand):
    """Everything in the code waits, for nothing but `waiting`.

    `unwinding` tells whether the worker knows of the cancellation, if there is one.
    """

    waiting: tuple[Call, ...]
    unwinding: bool = False


@frozen
class ReleaseClaim(WorkerCommand):
    """The worker gives the run back unfinished."""

    reason: str


@frozen
class CompleteRun(WorkerCommand):
    """The workflow returned."""

    output: JsonValue


@frozen
class FailRun(WorkerCommand):
    """The workflow raised; `chance` (0 to 1) feeds a jittered retry delay."""

    error: ErrorInfo
    retryable: bool
    chance: float = 0.0


@frozen
class Diverge(WorkerCommand):
    """Replay and journal do not fit together."""

    error: ErrorInfo


@frozen
class FinishCancel(WorkerCommand):
    """The code has unwound after a cancellation."""

    error: ErrorInfo | None = None


Command = (
    CreateRun
    | ForkRun
    | AcceptEvent
    | PauseRun
    | ResumeRun
    | CancelRun
    | TerminateRun
    | WakeRun
    | RetryRun
    | RequeueRun
    | Elapse
    | ClaimRun
    | UnparkRun
    | LoseClaim
    | StallRun
    | NoteFork
    | WatchRun
    | EndChild
    | RecordSuccess
    | RecordFailure
    | RecordStart
    | RecordHeartbeat
    | StartSleep
    | AwaitEvent
    | AwaitChild
    | StartTimeout
    | AbandonWait
    | StartChild
    | RecordValue
    | PublishValue
    | SendEvent
    | AnswerQuestion
    | ContinueRun
    | ParkRun
    | ReleaseClaim
    | CompleteRun
    | FailRun
    | Diverge
    | FinishCancel
)
"""The closed union of everything that can be asked of a run."""
