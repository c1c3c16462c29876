"""The rules for what clients, operators and the machinery ask of a run.

Each rule is a pure function (state, command, circumstances) → decision; `CLIENT_RULES` pairs them
with their commands. The worker's commands are in `_decide_worker.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiki_sdk import ErrorInfo
from aiki_sdk.protocol import Slept, WaitKind

from . import _commands as c, _entries as e  # pyright: ignore[reportPrivateUsage]
from ._decision import (
    NOTHING,
    Circumstances,
    Decision,
    Rejected,
    Rule,
    become_ready,
    forbidden,
    illegal,
    mailbox_words,
    undeclared,
    wake,
)
from ._entries import Body, Micros
from ._limits import SECOND
from ._state import RUN_RETRY_CALL, RunState, Wait, status_of
from ._transitions import Phase


def _create(state: RunState, command: c.CreateRun, by: Circumstances) -> Decision:
    spec = command.spec
    if state.phase is not Phase.NEW:
        if state.spec == spec:
            return NOTHING
        return Rejected("reference-conflict", f"run {state.run_id} exists with another input")
    if spec.depth > by.limits.depth_max:
        message = (
            f"run {state.run_id} would be generation {spec.depth} of children; "
            f"depth_max is {by.limits.depth_max}"
        )
        return Rejected("limit-exceeded", message)
    if spec.start_at is not None and spec.start_at > by.now:
        return (spec,)
    return (spec, *become_ready(state, "start", by))


def _fork(state: RunState, command: c.ForkRun, _by: Circumstances) -> Decision:
    if state.phase is not Phase.NEW:
        return NOTHING
    return (command.spec, *command.history)


def _accept_event(state: RunState, command: c.AcceptEvent, by: Circumstances) -> Decision:
    if command.namespace not in (None, state.spec.namespace):
        message = f"run {state.run_id} does not exist in namespace {command.namespace!r}"
        return Rejected("not-found", message)
    key = (command.name, command.reference_id)
    if command.reference_id is not None and key in state.references:
        return NOTHING
    if state.phase.terminal:
        what = f"send {mailbox_words(command.name)}"
        message = f"cannot {what} to run {state.run_id}: it is {status_of(state)}"
        return forbidden(state, what, message)
    declared = state.spec.events
    if declared is not None and command.name not in declared:
        return undeclared(state, command.name, "is sent")
    if sum(map(len, state.unread.values())) >= by.limits.unread_max:
        message = (
            f"run {state.run_id} has {by.limits.unread_max} unread events, the limit unread_max"
        )
        return Rejected("limit-exceeded", message)
    accepted = e.EventAccepted(command.name, command.data, command.reference_id)
    if state.unread.get(command.name):
        return (accepted,)
    for call, wait in state.waits.items():
        # A wait that is due has timed out, however late its timer is; the item stays unread.
        if wait.kind is WaitKind.EVENT and wait.name == command.name and not is_due(wait, by):
            consumed = e.EventConsumed(call, command.name, state.seq + 1)
            return wake(state, (accepted, consumed), "event", by)
    return (accepted,)


def _pause(state: RunState, command: c.PauseRun, _by: Circumstances) -> Decision:
    if state.phase.terminal:
        return illegal(state, "pause")
    if state.cancel is not None:
        return illegal(state, "pause", "it is being cancelled")
    return NOTHING if state.paused else (e.RunPaused(command.reason),)


def _resume(state: RunState, _command: c.ResumeRun, by: Circumstances) -> Decision:
    if state.phase.terminal:
        return illegal(state, "resume")
    if not state.paused:
        return NOTHING
    if state.phase is Phase.QUEUED and by.offer is not None:
        claimed = e.RunClaimed(by.offer.worker_id, state.epoch + 1, by.offer.claim_id)
        return (e.RunResumed(), claimed)
    return (e.RunResumed(),)


def _cancel(state: RunState, command: c.CancelRun, by: Circumstances) -> Decision:
    if state.phase is Phase.CANCELLED or state.cancel is not None:
        return NOTHING
    if state.phase.terminal:
        return illegal(state, "cancel")
    if state.epoch == 0 or state.phase is Phase.STALLED:
        return (e.RunCancelled(command.reason, command.ancestor_id),)
    deadline = Micros(by.now + state.spec.cancel_grace)
    requested = e.CancelRequested(command.reason, deadline, command.ancestor_id)
    if state.phase is Phase.WAITING:
        # The request lifts a pause, so the run may be taken at once whatever it was before.
        if by.offer is not None:
            offer = by.offer
            return (requested, e.RunClaimed(offer.worker_id, state.epoch + 1, offer.claim_id))
        return (requested, e.RunQueued("cancel"))
    return (requested,)


def _terminate(state: RunState, command: c.TerminateRun, _by: Circumstances) -> Decision:
    if state.phase is Phase.CANCELLED:
        return NOTHING
    if state.phase.terminal:
        return illegal(state, "terminate")
    return (e.RunCancelled(command.reason, terminated=True),)


def _wake(state: RunState, command: c.WakeRun, by: Circumstances) -> Decision:
    if state.phase.terminal:
        return illegal(state, "wake")
    if state.phase is Phase.SCHEDULED and command.sleep is None:
        return become_ready(state, "wake", by)
    name = None if command.sleep is None else f"sleep:{command.sleep}"
    sleeps = [
        (wait.due_at or 0, number, call)
        for number, (call, wait) in enumerate(state.waits.items())
        if wait.kind is WaitKind.SLEEP and name in (None, wait.name)
    ]
    if not sleeps:
        what = "no sleep" if name is None else f"no sleep named {command.sleep!r}"
        return illegal(state, "wake", f"{what} is open in it")
    _due, _number, call = min(sleeps)
    return wake(state, (e.SleepEnded(call, Slept.WOKEN),), "wake", by)


def _retry(state: RunState, _command: c.RetryRun, _by: Circumstances) -> Decision:
    if state.phase is not Phase.FAILED:
        return illegal(state, "retry", "only a failed run can be retried")
    return (e.RunRetried(),)


def _requeue(state: RunState, _command: c.RequeueRun, _by: Circumstances) -> Decision:
    if state.phase is Phase.STALLED:
        return (e.RunRequeued(),)
    if state.phase is Phase.QUEUED:
        return NOTHING
    return illegal(state, "requeue", "only a stalled run can be requeued")


def _elapse(state: RunState, _command: c.Elapse, by: Circumstances) -> Decision:
    """Resolve what is due; a timer that came late or twice finds nothing and changes nothing."""
    if state.phase.terminal:
        return NOTHING
    deadline, cancel = state.deadline, state.cancel
    # However late the timer comes, whichever was due first is what ended the run.
    times_out = deadline is not None and (cancel is None or deadline < cancel.deadline)
    if cancel is not None and not times_out and cancel.deadline <= by.now:
        return (e.RunCancelled(cancel.reason, cancel.ancestor_id),)
    if deadline is not None and deadline <= by.now:
        seconds = (state.spec.timeout or 0) / SECOND
        message = f"run {state.run_id} did not end within its timeout of {seconds:g} s"
        return (e.RunFailed(ErrorInfo(type="RunTimeout", message=message, code="run-timeout")),)
    if state.phase is Phase.SCHEDULED:
        reached = (state.spec.start_at or state.created_at) <= by.now
        return become_ready(state, "start", by) if reached else NOTHING
    due = [(wait.due_at or 0, n, call, wait) for n, (call, wait) in enumerate(state.waits.items())]
    due = [item for item in due if is_due(item[3], by)]
    due.sort(key=lambda item: item[:2])
    resolved: list[Body] = []
    for _at, _n, call, wait in due:
        if wait.kind is WaitKind.SLEEP:
            resolved.append(e.SleepEnded(call, Slept.ELAPSED))
        elif wait.kind is WaitKind.RETRY:
            resolved.append(e.RetryDue(call))
        elif wait.kind is WaitKind.TIMEOUT:
            resolved.append(e.TimeoutReached(call))
        else:
            resolved.append(e.WaitTimedOut(call))
    return wake(state, tuple(resolved), "time", by)


def is_due(wait: Wait, by: Circumstances) -> bool:
    """Whether a wait's own time has come."""
    return wait.due_at is not None and wait.due_at <= by.now


def _claim(state: RunState, command: c.ClaimRun, _by: Circumstances) -> Decision:
    claim = state.claim
    if claim is not None and claim.ref.claim_id == command.claim_id:
        return NOTHING
    if not state.ready:
        return illegal(state, "claim", "only a queued run can be claimed")
    return (e.RunClaimed(command.worker_id, state.epoch + 1, command.claim_id),)


def _unpark(state: RunState, _command: c.UnparkRun, by: Circumstances) -> Decision:
    # Between two attempts of the workflow no code is alive that could go on: that word came late.
    if state.phase is not Phase.WAITING or RUN_RETRY_CALL in state.waits:
        return NOTHING
    return become_ready(state, "code", by)


def _lose_claim(state: RunState, command: c.LoseClaim, by: Circumstances) -> Decision:
    claim = state.claim
    if claim is None or claim.ref.epoch != command.epoch:
        return NOTHING
    lost = e.ClaimLost(claim.worker_id, command.reason)
    times = state.claims_lost + 1
    if times >= by.limits.claims_lost_max and state.cancel is None:
        reason = (
            f"{times} claims lost in a row without progress, the last by worker "
            f"{claim.worker_id}: {command.reason}"
        )
        return (lost, e.RunStalled(reason))
    return (lost,)


def _stall(state: RunState, command: c.StallRun, _by: Circumstances) -> Decision:
    if state.phase is Phase.STALLED:
        return NOTHING
    if state.phase is not Phase.QUEUED:
        return illegal(state, "stall")
    return (e.RunStalled(command.reason),)


def _watch(state: RunState, command: c.WatchRun, _by: Circumstances) -> Decision:
    if command.child_id in state.watchers:
        return NOTHING
    return (e.RunWatched(command.watcher_id, command.child_id),)


def _note_fork(state: RunState, command: c.NoteFork, _by: Circumstances) -> Decision:
    if command.fork_id in state.forks:
        return NOTHING
    return (e.RunForked(command.fork_id, command.at),)


def _end_child(state: RunState, command: c.EndChild, by: Circumstances) -> Decision:
    child = state.children.get(command.child_id)
    # A failed run may be retried, and must know by then how its children ended.
    deaf = state.phase.terminal and state.phase is not Phase.FAILED
    if deaf or child is None or child.status is not None:
        return NOTHING
    ended = e.ChildEnded(command.child_id, command.status, command.output, command.error)
    waited = any(
        wait.kind is WaitKind.CHILD and wait.name == command.child_id
        for wait in state.waits.values()
    )
    return wake(state, (ended,), "child", by) if waited else (ended,)


CLIENT_RULES: Final[Mapping[type[Any], Rule]] = {
    c.CreateRun: _create,
    c.ForkRun: _fork,
    c.AcceptEvent: _accept_event,
    c.PauseRun: _pause,
    c.ResumeRun: _resume,
    c.CancelRun: _cancel,
    c.TerminateRun: _terminate,
    c.WakeRun: _wake,
    c.RetryRun: _retry,
    c.RequeueRun: _requeue,
    c.Elapse: _elapse,
    c.ClaimRun: _claim,
    c.UnparkRun: _unpark,
    c.LoseClaim: _lose_claim,
    c.StallRun: _stall,
    c.NoteFork: _note_fork,
    c.WatchRun: _watch,
    c.EndChild: _end_child,
}
"""One rule per command of a client, an operator or the machinery."""
