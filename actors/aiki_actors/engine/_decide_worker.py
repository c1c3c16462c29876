"""The rules for what the worker that executes a run says about it.

Every such command carries the claim it is spoken under; `decide` has checked it (`stale`) before
a rule is asked. A command said twice (a reply was lost, a session was resumed) finds its effect
in the state and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiki_sdk import ErrorInfo, Retry
from aiki_sdk.protocol import Slept, WaitKind

from . import _commands as c, _entries as e  # pyright: ignore[reportPrivateUsage]
from ._decision import (
    NOTHING,
    Circumstances,
    Decision,
    Rejected,
    Rule,
    become_ready,
    illegal,
    undeclared,
)
from ._entries import Call, Micros
from ._limits import SECOND
from ._state import FAILED, SUCCEEDED, RunState


def stale(state: RunState, command: c.WorkerCommand) -> bool:
    """Whether the claim that `command` carries is not the one that counts."""
    return state.claim is None or state.claim.ref != command.claim


def _too_long(state: RunState, by: Circumstances) -> Decision | None:
    """End a run whose journal reached its limit, instead of letting it grow on."""
    if state.seq < by.limits.entries_max:
        return None
    message = (
        f"the journal of run {state.run_id} has {state.seq} entries, the limit entries_max; "
        "split the work into child runs or continue as a new run"
    )
    error = ErrorInfo(type="LimitExceeded", message=message, code="limit-exceeded")
    return (e.RunFailed(error),)


def _success(state: RunState, command: c.RecordSuccess, by: Circumstances) -> Decision:
    if state.tasks.get(command.call) in (SUCCEEDED, FAILED):
        return NOTHING
    succeeded = e.TaskSucceeded(command.call, command.attempt, command.output)
    return _too_long(state, by) or (succeeded,)


def _failure(state: RunState, command: c.RecordFailure, by: Circumstances) -> Decision:
    failed = state.tasks.get(command.call)
    if failed is not None and (failed in (SUCCEEDED, FAILED) or failed >= command.attempt):
        return NOTHING
    if command.retry_after is None:
        failure = e.TaskFailed(command.call, command.attempt, command.error)
        return _too_long(state, by) or (failure,)
    attempt = e.AttemptFailed(
        command.call,
        command.attempt,
        command.error,
        retry_at=Micros(by.now + command.retry_after),
        waits=command.retry_after > by.limits.local_retry_max,
        details=command.details,
    )
    return _too_long(state, by) or (attempt,)


def _over(state: RunState, call: Call, attempt: int) -> bool:
    """Whether that attempt of a task call has an outcome already."""
    failed = state.tasks.get(call)
    return failed is not None and (failed in (SUCCEEDED, FAILED) or failed >= attempt)


def _task_start(state: RunState, command: c.RecordStart, by: Circumstances) -> Decision:
    if _over(state, command.call, command.attempt):
        return NOTHING
    if state.begun.get(command.call, 0) >= command.attempt:
        return NOTHING
    return _too_long(state, by) or (e.TaskStarted(command.call, command.attempt),)


def _heartbeat(state: RunState, command: c.RecordHeartbeat, by: Circumstances) -> Decision:
    """Record how far an attempt is; said late, or near the journal's limit, it means nothing."""
    if _over(state, command.call, command.attempt) or state.seq >= by.limits.entries_max:
        return NOTHING
    return (e.HeartbeatRecorded(command.call, command.attempt, command.details),)


def _check_length(what: str, length: Micros | None, by: Circumstances) -> Rejected | None:
    if length is None or length <= by.limits.wait_max:
        return None
    years = by.limits.wait_max / (365.25 * 24 * 3600 * SECOND)
    message = (
        f"{what} of {length / SECOND:g} s is too long; the limit wait_max is {years:.0f} years"
    )
    return Rejected("invalid-request", message)


def _start_sleep(state: RunState, command: c.StartSleep, by: Circumstances) -> Decision:
    """Sleep what is left of the time asked for; said again, or asking for less, it adds nothing.

    An open sleep whose code now asks for less ends earlier; one that was slept shorter than the
    code asks now is slept on.
    """
    refused = _check_length(f"sleep {command.call.address!r}", command.duration, by)
    if refused is not None:
        return refused
    slept = state.slept.get(command.call)
    rest = Micros(max(command.duration - (slept or 0), 0))
    if slept is not None and not rest:
        return NOTHING
    open_wait = state.waits.get(command.call)
    due = Micros((by.now if open_wait is None else open_wait.since) + rest)
    if open_wait is not None and open_wait.due_at is not None and open_wait.due_at <= due:
        return NOTHING
    if too_long := _too_long(state, by):
        return too_long
    started = e.SleepStarted(command.call, rest, due)
    if due <= by.now:
        return (started, e.SleepEnded(command.call, Slept.ELAPSED))
    return (started,)


def _due(timeout: Micros | None, by: Circumstances) -> Micros | None:
    return None if timeout is None else Micros(by.now + timeout)


def _await_event(state: RunState, command: c.AwaitEvent, by: Circumstances) -> Decision:
    declared = state.spec.events
    if declared is not None and command.event not in declared:
        return undeclared(state, command.event, "is waited for")
    refused = _check_length(f"timeout of event {command.event!r}", command.timeout, by)
    if refused is not None:
        return refused
    if command.call in state.settled:
        return NOTHING
    if command.call in state.waits or command.call in state.consumed:
        return NOTHING
    if too_long := _too_long(state, by):
        return too_long
    unread = state.unread.get(command.event)
    if unread:
        return (e.EventConsumed(command.call, command.event, unread[0]),)
    if command.timeout is not None and command.timeout <= 0:
        return (e.WaitTimedOut(command.call),)
    return (e.EventWaitStarted(command.call, command.event, _due(command.timeout, by)),)


def _await_child(state: RunState, command: c.AwaitChild, by: Circumstances) -> Decision:
    child = state.children.get(command.child_id)
    if child is None:
        message = f"run {state.run_id} has no child {command.child_id}"
        return Rejected("not-found", message)
    refused = _check_length(f"timeout of child {command.child_id}", command.timeout, by)
    if refused is not None:
        return refused
    if child.status is not None or command.call in state.waits or command.call in state.settled:
        return NOTHING
    if too_long := _too_long(state, by):
        return too_long
    if command.timeout is not None and command.timeout <= 0:
        return (e.WaitTimedOut(command.call),)
    return (e.ChildWaitStarted(command.call, command.child_id, _due(command.timeout, by)),)


def _start_timeout(state: RunState, command: c.StartTimeout, by: Circumstances) -> Decision:
    refused = _check_length(f"timeout {command.call.address!r}", command.duration, by)
    if refused is not None:
        return refused
    if command.call in state.waits or command.call in state.settled:
        return NOTHING
    if too_long := _too_long(state, by):
        return too_long
    if command.duration <= 0:
        return (e.TimeoutReached(command.call),)
    due = Micros(by.now + command.duration)
    return (e.TimeoutStarted(command.call, command.duration, due),)


def _abandon(state: RunState, command: c.AbandonWait, _by: Circumstances) -> Decision:
    if command.call in state.waits:
        return (e.WaitAbandoned(command.call),)
    taken = state.consumed.get(command.call)
    if taken is None:
        return NOTHING
    event, item = taken
    returned = e.EventReturned(command.call, event, item)
    heir = _first_waiting(state, event)
    if heir is None:
        return (returned,)
    return (returned, e.EventConsumed(heir, event, item))


def _first_waiting(state: RunState, event: str) -> Call | None:
    for call, wait in state.waits.items():
        if wait.kind is WaitKind.EVENT and wait.name == event:
            return call
    return None


def _start_child(state: RunState, command: c.StartChild, by: Circumstances) -> Decision:
    if command.child_id in state.children:
        return NOTHING
    parent = command.spec.parent
    if parent is None or parent.run_id != state.run_id:
        message = f"child {command.child_id} does not name run {state.run_id} as its parent"
        return Rejected("invalid-request", message)
    limits = by.limits
    if len(state.live_children) >= limits.children_max:
        message = (
            f"run {state.run_id} has {limits.children_max} live children, the limit children_max"
        )
        return Rejected("limit-exceeded", message)
    if command.spec.depth > limits.depth_max:
        message = (
            f"a child of run {state.run_id} would be generation {command.spec.depth}; "
            f"the limit depth_max is {limits.depth_max}"
        )
        return Rejected("limit-exceeded", message)
    started = e.ChildStarted(
        command.call,
        command.child_id,
        command.spec.workflow,
        command.spec.version,
        command.on_parent_end,
        command.spec,
        command.on_conflict,
    )
    return _too_long(state, by) or (started,)


def _record_value(state: RunState, command: c.RecordValue, by: Circumstances) -> Decision:
    if command.call in state.settled:
        return NOTHING
    return _too_long(state, by) or (e.ValueRecorded(command.call, command.value),)


def _publish(state: RunState, command: c.PublishValue, by: Circumstances) -> Decision:
    if command.call in state.settled:
        return NOTHING
    return _too_long(state, by) or (e.ValuePublished(command.call, command.key, command.value),)


def _send(state: RunState, command: c.SendEvent, by: Circumstances) -> Decision:
    if command.call in state.settled:
        return NOTHING
    sent = e.EventSent(command.call, command.target_id, command.event, command.data)
    return _too_long(state, by) or (sent,)


def _answer(state: RunState, command: c.AnswerQuestion, by: Circumstances) -> Decision:
    if command.call in state.settled:
        return NOTHING
    answered = e.QuestionAnswered(command.call, command.item, command.answer, command.rejection)
    return _too_long(state, by) or (answered,)


def _continue(state: RunState, command: c.ContinueRun, _by: Circumstances) -> Decision:
    if state.cancel is not None:
        return (e.RunCancelled(state.cancel.reason, state.cancel.ancestor_id),)
    return (e.RunContinued(command.new_id, command.spec),)


def _park(state: RunState, command: c.ParkRun, _by: Circumstances) -> Decision:
    """Park only if nothing happened on the way that the code is about to go on with."""
    if not command.waiting:
        return illegal(state, "park", "it waits for nothing, so nothing could wake it")
    resolved = any(call not in state.waits for call in command.waiting)
    cancelled = state.cancel is not None and not command.unwinding
    if resolved or cancelled:
        return NOTHING
    return (e.RunParked(),)


def _release(_state: RunState, command: c.ReleaseClaim, _by: Circumstances) -> Decision:
    return (e.ClaimReleased(command.reason),)


def _complete(_state: RunState, command: c.CompleteRun, _by: Circumstances) -> Decision:
    return (e.RunCompleted(command.output),)


def _fail(state: RunState, command: c.FailRun, by: Circumstances) -> Decision:
    if state.cancel is not None:
        return (e.RunCancelled(state.cancel.reason, state.cancel.ancestor_id, error=command.error),)
    delay = None
    if command.retryable and isinstance(state.spec.retry, dict):
        delay = Retry.from_json(state.spec.retry).delay_after(state.attempt, command.chance)
    if delay is None:
        return (e.RunFailed(command.error),)
    retry_at = Micros(by.now + round(delay * SECOND))
    failed = e.RunAttemptFailed(state.attempt, command.error, retry_at)
    if retry_at <= by.now:
        return (failed, *become_ready(state, "retry", by))
    return (failed,)


def _diverge(state: RunState, command: c.Diverge, _by: Circumstances) -> Decision:
    if state.spec.stall_on_divergence:
        return (e.RunStalled("the workflow's code diverges from its journal", command.error),)
    return (e.RunFailed(command.error),)


def _finish_cancel(state: RunState, command: c.FinishCancel, _by: Circumstances) -> Decision:
    if state.cancel is None:
        return illegal(state, "finish the cancellation of", "none was asked for")
    cancel = state.cancel
    return (e.RunCancelled(cancel.reason, cancel.ancestor_id, error=command.error),)


WORKER_RULES: Final[Mapping[type[Any], Rule]] = {
    c.RecordSuccess: _success,
    c.RecordFailure: _failure,
    c.RecordStart: _task_start,
    c.RecordHeartbeat: _heartbeat,
    c.StartSleep: _start_sleep,
    c.AwaitEvent: _await_event,
    c.AwaitChild: _await_child,
    c.StartTimeout: _start_timeout,
    c.AbandonWait: _abandon,
    c.StartChild: _start_child,
    c.RecordValue: _record_value,
    c.PublishValue: _publish,
    c.SendEvent: _send,
    c.AnswerQuestion: _answer,
    c.ContinueRun: _continue,
    c.ParkRun: _park,
    c.ReleaseClaim: _release,
    c.CompleteRun: _complete,
    c.FailRun: _fail,
    c.Diverge: _diverge,
    c.FinishCancel: _finish_cancel,
}
"""One rule per command of a worker."""
