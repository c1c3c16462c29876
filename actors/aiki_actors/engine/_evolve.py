"""`evolve`: the one function that changes a run's state, by one journal entry at a time.

It is a fold and takes its argument over: the state passed in is spent and the returned one is to
be used, so that a journal of n entries costs n steps and not n copies. What an entry means for
the phase stands in the transition table; what else it changes stands in one small function per
kind, below, collected in `CHANGES`. An entry that the table does not allow, or with a wrong seq,
is refused with `IllegalEntry`: that is a damaged journal or a bug, never a user's mistake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from aiki_sdk import AikiError, OutcomeUnknown
from aiki_sdk.protocol import RunStatus, Slept, WaitKind

from . import _entries as e  # pyright: ignore[reportPrivateUsage]
from ._entries import Body, Entry, Micros
from ._state import (
    FAILED,
    RUN_RETRY_CALL,
    SUCCEEDED,
    CancelState,
    Child,
    Claim,
    ClaimRef,
    Outcome,
    RunState,
    Wait,
)
from ._transitions import Phase, next_phase

FOREVER: Final = Micros(1 << 62)
"""What a sleep that was woken counts as: no code can ask for more."""


class IllegalEntry(AikiError):
    """A journal holds an entry that cannot follow what stands before it."""

    code: ClassVar[str] = "illegal-entry"


def evolve(state: RunState, entry: Entry) -> RunState:
    """Return the run after `entry`; `state` is spent by this.

    Raises:
        IllegalEntry: the seq is not the next one, or the transition table has no such row.

    """
    body = entry.body
    phase = next_phase(state.phase, body)
    if phase is None or entry.seq != state.seq + 1:
        msg = (
            f"run {state.run_id}: entry {entry.seq} ({body.kind}) cannot follow entry {state.seq} "
            f"in phase {state.phase}; the journal is damaged"
        )
        raise IllegalEntry(msg)
    state.seq = entry.seq
    state.updated_at = entry.at
    if phase is not state.phase:
        _enter(state, phase, entry.at)
    change = CHANGES.get(type(body))
    if change is not None:
        try:
            change(state, body, entry)
        except LookupError as error:
            msg = f"run {state.run_id}: entry {entry.seq} ({body.kind}) names what is not there"
            raise IllegalEntry(msg) from error
    return state


def fold(run_id: str, entries: Iterable[Entry]) -> RunState:
    """Fold a whole journal into the state it stands for."""
    state = RunState(run_id)
    for entry in entries:
        state = evolve(state, entry)
    return state


def _enter(state: RunState, phase: Phase, at: Micros) -> None:
    """Change the phase, and what belongs to the phase alone."""
    if state.phase is Phase.RUNNING:
        state.claim = None
    state.phase = phase
    state.ready_at = at if phase is Phase.QUEUED else None
    if phase is not Phase.STALLED:
        state.stalled = None
    if phase.terminal:
        state.ended_at = at
        _unpause(state)
        state.waits.clear()


def _unpause(state: RunState) -> None:
    state.paused = False
    state.pause_reason = None


def _progress(state: RunState) -> None:
    state.claims_lost = 0


def _open(state: RunState, call: e.Call, wait: Wait) -> None:
    earlier = state.waits.get(call)
    if earlier is not None:
        wait.since = earlier.since
    state.waits[call] = wait


def _created(state: RunState, body: e.RunCreated, entry: Entry) -> None:
    state.created = body
    state.created_at = entry.at


def _claimed(state: RunState, body: e.RunClaimed, entry: Entry) -> None:
    state.claim = Claim(body.worker_id, ClaimRef(body.epoch, body.claim_id))
    state.epoch = body.epoch
    state.waits.pop(RUN_RETRY_CALL, None)
    if state.started_at is None:
        state.started_at = entry.at


def _claim_lost(state: RunState, _body: e.ClaimLost, _entry: Entry) -> None:
    state.claims_lost += 1


def _task_succeeded(state: RunState, body: e.TaskSucceeded, _entry: Entry) -> None:
    state.begun.pop(body.call, None)
    state.tasks[body.call] = SUCCEEDED
    state.waits.pop(body.call, None)
    _progress(state)


def _task_failed(state: RunState, body: e.TaskFailed, _entry: Entry) -> None:
    if body.error.code != OutcomeUnknown.code:
        state.begun.pop(body.call, None)
    state.tasks[body.call] = FAILED
    state.waits.pop(body.call, None)
    _progress(state)


def _attempt_failed(state: RunState, body: e.AttemptFailed, entry: Entry) -> None:
    state.begun.pop(body.call, None)
    state.tasks[body.call] = body.attempt
    if body.waits:
        wait = Wait(WaitKind.RETRY, body.call.address, body.retry_at, entry.at)
        _open(state, body.call, wait)
    else:
        state.waits.pop(body.call, None)
    _progress(state)


def _task_started(state: RunState, body: e.TaskStarted, _entry: Entry) -> None:
    state.begun[body.call] = body.attempt


def _retry_due(state: RunState, body: e.RetryDue, _entry: Entry) -> None:
    state.waits.pop(body.call, None)


def _sleep_started(state: RunState, body: e.SleepStarted, entry: Entry) -> None:
    wait = Wait(WaitKind.SLEEP, body.call.address, body.due_at, entry.at, body.duration)
    _open(state, body.call, wait)


def _sleep_ended(state: RunState, body: e.SleepEnded, _entry: Entry) -> None:
    wait = state.waits.pop(body.call, None)
    if body.outcome is Slept.WOKEN:
        state.slept[body.call] = FOREVER
    elif wait is not None:
        # The worker counts the same: what the two make of one journal must never differ.
        state.slept[body.call] = Micros(state.slept.get(body.call, 0) + max(wait.duration, 0))
    _progress(state)


def _timeout_started(state: RunState, body: e.TimeoutStarted, entry: Entry) -> None:
    _open(state, body.call, Wait(WaitKind.TIMEOUT, body.call.address, body.due_at, entry.at))


def _timed_out(state: RunState, body: e.WaitTimedOut | e.TimeoutReached, _entry: Entry) -> None:
    state.waits.pop(body.call, None)
    state.settled.add(body.call)
    _progress(state)


def _abandoned(state: RunState, body: e.WaitAbandoned, _entry: Entry) -> None:
    state.waits.pop(body.call, None)
    # A sleep that was given up while its rest was slept has no end any more that a call could get.
    state.slept.pop(body.call, None)


def _event_accepted(state: RunState, body: e.EventAccepted, entry: Entry) -> None:
    state.items[entry.seq] = body
    state.unread.setdefault(body.name, deque()).append(entry.seq)
    if body.reference_id is not None:
        state.references.add((body.name, body.reference_id))


def _event_wait(state: RunState, body: e.EventWaitStarted, entry: Entry) -> None:
    _open(state, body.call, Wait(WaitKind.EVENT, body.event, body.due_at, entry.at))


def _event_consumed(state: RunState, body: e.EventConsumed, _entry: Entry) -> None:
    unread = state.unread[body.event]
    if body.item not in unread:
        raise LookupError(body.item)
    unread.remove(body.item)
    state.consumed[body.call] = (body.event, body.item)
    state.waits.pop(body.call, None)
    _progress(state)


def _event_returned(state: RunState, body: e.EventReturned, _entry: Entry) -> None:
    del state.consumed[body.call]
    items = state.unread.setdefault(body.event, deque())
    items.append(body.item)
    state.unread[body.event] = deque(sorted(items))


def _child_wait(state: RunState, body: e.ChildWaitStarted, entry: Entry) -> None:
    _open(state, body.call, Wait(WaitKind.CHILD, body.child_id, body.due_at, entry.at))


def _child_started(state: RunState, body: e.ChildStarted, _entry: Entry) -> None:
    state.children[body.child_id] = Child(body.call, body.on_parent_end)
    _progress(state)


def _child_ended(state: RunState, body: e.ChildEnded, _entry: Entry) -> None:
    state.children[body.child_id].status = body.status
    resolved = [
        call
        for call, wait in state.waits.items()
        if wait.kind is WaitKind.CHILD and wait.name == body.child_id
    ]
    for call in resolved:
        del state.waits[call]
    _progress(state)


def _value_recorded(state: RunState, body: e.ValueRecorded, _entry: Entry) -> None:
    state.settled.add(body.call)
    _progress(state)


def _said(state: RunState, body: e.EventSent | e.QuestionAnswered, _entry: Entry) -> None:
    state.settled.add(body.call)
    _progress(state)


def _published(state: RunState, body: e.ValuePublished, _entry: Entry) -> None:
    state.settled.add(body.call)
    state.values[body.key] = body.value
    _progress(state)


def _continued(state: RunState, body: e.RunContinued, _entry: Entry) -> None:
    state.outcome = Outcome(continued_as=body.continued_as)


def _forked(state: RunState, body: e.RunForked, _entry: Entry) -> None:
    state.forks[body.fork_id] = body.at


def _watched(state: RunState, body: e.RunWatched, _entry: Entry) -> None:
    state.watchers[body.child_id] = body.watcher_id


def _paused(state: RunState, body: e.RunPaused, _entry: Entry) -> None:
    state.paused = True
    state.pause_reason = body.reason


def _resumed(state: RunState, _body: e.RunResumed, entry: Entry) -> None:
    _unpause(state)
    if state.phase is Phase.QUEUED:
        state.ready_at = entry.at


def _cancel_requested(state: RunState, body: e.CancelRequested, _entry: Entry) -> None:
    state.cancel = CancelState(body.reason, body.deadline, body.ancestor_id)
    _unpause(state)


def _discard_failures(state: RunState) -> None:
    """Forget what the next attempt of the workflow does afresh.

    Completed tasks, ended sleeps, events and successful children are kept; failed and unfinished
    tasks start with attempt 1, and open waits ended with the attempt that was in them.
    """
    state.waits.clear()
    state.settled.clear()
    state.tasks = {call: n for call, n in state.tasks.items() if n == SUCCEEDED}


def _attempt_over(state: RunState, body: e.RunAttemptFailed, entry: Entry) -> None:
    _discard_failures(state)
    state.attempt = body.attempt + 1
    state.waits[RUN_RETRY_CALL] = Wait(WaitKind.RETRY, "run", body.retry_at, entry.at)


def _run_queued(state: RunState, _body: e.RunQueued, _entry: Entry) -> None:
    state.waits.pop(RUN_RETRY_CALL, None)


def _retried(state: RunState, _body: e.RunRetried, entry: Entry) -> None:
    """Start over; neither the old timeout nor an old cancellation may end the run again."""
    _discard_failures(state)
    state.begun.clear()
    state.attempt += 1
    state.retried_at = entry.at
    state.claims_lost = 0
    state.cancel = None
    state.outcome = None
    state.ended_at = None


def _stalled(state: RunState, body: e.RunStalled, _entry: Entry) -> None:
    state.stalled = body.reason


def _requeued(state: RunState, _body: e.RunRequeued, _entry: Entry) -> None:
    state.claims_lost = 0


def _completed(state: RunState, body: e.RunCompleted, _entry: Entry) -> None:
    state.outcome = Outcome(output=body.output, continued_as=body.continued_as)


def _failed(state: RunState, body: e.RunFailed, _entry: Entry) -> None:
    state.outcome = Outcome(error=body.error)


def _cancelled(state: RunState, body: e.RunCancelled, _entry: Entry) -> None:
    state.outcome = Outcome(error=body.error, reason=body.reason, terminated=body.terminated)
    assert RunStatus(state.phase.value).terminal, "a cancelled run has ended"


# The table pairs each kind with the function that takes that very kind; the value type cannot
# say so, hence Any for the body.
CHANGES: Final[Mapping[type[Body], Callable[[RunState, Any, Entry], None]]] = {
    e.RunCreated: _created,
    e.RunQueued: _run_queued,
    e.RunClaimed: _claimed,
    e.ClaimLost: _claim_lost,
    e.TaskSucceeded: _task_succeeded,
    e.TaskFailed: _task_failed,
    e.AttemptFailed: _attempt_failed,
    e.TaskStarted: _task_started,
    e.RetryDue: _retry_due,
    e.SleepStarted: _sleep_started,
    e.SleepEnded: _sleep_ended,
    e.WaitTimedOut: _timed_out,
    e.TimeoutStarted: _timeout_started,
    e.TimeoutReached: _timed_out,
    e.WaitAbandoned: _abandoned,
    e.EventAccepted: _event_accepted,
    e.EventWaitStarted: _event_wait,
    e.EventConsumed: _event_consumed,
    e.EventReturned: _event_returned,
    e.ChildWaitStarted: _child_wait,
    e.ChildStarted: _child_started,
    e.ChildEnded: _child_ended,
    e.ValueRecorded: _value_recorded,
    e.ValuePublished: _published,
    e.EventSent: _said,
    e.QuestionAnswered: _said,
    e.RunContinued: _continued,
    e.RunForked: _forked,
    e.RunWatched: _watched,
    e.RunPaused: _paused,
    e.RunResumed: _resumed,
    e.CancelRequested: _cancel_requested,
    e.RunAttemptFailed: _attempt_over,
    e.RunRetried: _retried,
    e.RunStalled: _stalled,
    e.RunRequeued: _requeued,
    e.RunCompleted: _completed,
    e.RunFailed: _failed,
    e.RunCancelled: _cancelled,
}
"""What each kind of entry changes besides the phase."""
