"""What follows from a run's entries outside the run: its row in the database, and its notices.

A `Projection` is the searchable summary of a run; it is written in the transaction of the entries
that change it and never decides anything by itself. A `Notice` is a command that one run's entries
mean for *another* run: start this child, your child ended, you are cancelled. It is stored with
the entries that caused it and deleted with the entries that it causes, so that no crash between
two runs loses it; delivering one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from aiki_sdk.protocol import OnParentEnd, Priority, RunStatus

from ._commands import AcceptEvent, CancelRun, CreateRun, EndChild, NoteFork, WatchRun
from ._entries import (
    Body,
    CancelRequested,
    ChildStarted,
    Entry,
    EventSent,
    Fork,
    Micros,
    RunCancelled,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailed,
    RunWatched,
)
from ._state import Outcome, RunState, next_due, status_of


@frozen
class Projection:
    """One run's row: everything that runs are searched, listed and swept by.

    Attributes:
        status: the status people see.
        ready_at: since when the run stands in the queue; None while it does not.
        due_at: when something of it is due next by itself; None: it needs a push.
        worker_id, epoch: who holds the claim; None and the last epoch while nobody does.

    """

    run_id: str
    namespace: str
    workflow: str
    version: str
    status: RunStatus
    pool: str
    priority: Priority
    reference_id: str | None
    input_hash: str
    parent_id: str | None
    labels: Mapping[str, str]
    attempt: int
    created_at: Micros
    started_at: Micros | None
    ended_at: Micros | None
    ready_at: Micros | None
    due_at: Micros | None
    worker_id: str | None
    epoch: int


def project(state: RunState) -> Projection:
    """Summarise a run; two equal projections mean that its row need not be written again."""
    spec = state.spec
    return Projection(
        run_id=state.run_id,
        namespace=spec.namespace,
        workflow=spec.workflow,
        version=spec.version,
        status=status_of(state),
        pool=spec.pool,
        priority=spec.priority,
        reference_id=spec.reference_id,
        input_hash=spec.input_hash,
        parent_id=None if spec.parent is None else spec.parent.run_id,
        labels=spec.labels,
        attempt=state.attempt,
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
        ready_at=state.ready_at if state.ready else None,
        due_at=next_due(state),
        worker_id=None if state.claim is None else state.claim.worker_id,
        epoch=state.epoch,
    )


NoticeCommand = CreateRun | EndChild | CancelRun | AcceptEvent | NoteFork | WatchRun
"""What one run can ask of another by what happened to it."""


@frozen
class Notice:
    """A command for another run, owed by what happened to the one in `source_id`.

    `id` is `<source run>:<seq of the causing entry>:<number>`, so the same cause is the same
    notice; the numbers are padded, so that order by id is the order in which things happened.
    """

    id: str
    source_id: str
    target_id: str
    command: NoticeCommand


def notices(state: RunState, entries: Sequence[Entry]) -> tuple[Notice, ...]:
    """Return what `entries`, the last of `state`, mean for other runs, in order.

    A child is created; an ended run tells its parent and cancels the children that must not
    outlive it; a cancellation reaches every live descendant, one generation at a time; a run that
    continues as another hands over what it has not read.
    """
    if _OWING.isdisjoint([type(entry.body) for entry in entries]):
        return ()
    run_id = state.run_id
    return tuple(
        Notice(f"{run_id}:{entry.seq:08}:{number:05}", run_id, target_id, command)
        for entry in entries
        for number, (target_id, command) in enumerate(_owed(state, entry))
    )


_OWING: Final[frozenset[type[Body]]] = frozenset(
    {
        ChildStarted,
        CancelRequested,
        EventSent,
        RunCancelled,
        RunCompleted,
        RunContinued,
        RunCreated,
        RunFailed,
        RunWatched,
    }
)
"""The kinds of entries that may owe something, those of `_owed`: most entries do not."""


def _owed(state: RunState, entry: Entry) -> Iterator[tuple[str, NoticeCommand]]:
    body = entry.body
    match body:
        case ChildStarted():
            yield body.child_id, CreateRun(body.spec, body.on_conflict)
        case CancelRequested():
            yield from _cancel_children(state, body.reason, body.ancestor_id)
        case RunCancelled():
            yield from _cancel_children(state, body.reason, body.ancestor_id)
            yield from _tell_parent(state)
        case RunCompleted() | RunFailed():
            yield from _cancel_orphans(state)
            yield from _tell_parent(state)
        case RunContinued():
            yield from _cancel_orphans(state)
            yield body.continued_as, CreateRun(body.spec)
            yield from _hand_over(state, body.continued_as)
            for child_id, watcher_id in state.watchers.items():
                yield body.continued_as, WatchRun(watcher_id, child_id)
        case EventSent():
            reference = f"sent:{state.run_id}:{entry.seq}"
            sent = AcceptEvent(body.event, body.data, reference, state.spec.namespace)
            yield body.target_id, sent
        case RunCreated(forked_from=Fork(run_id=source_id, at=at)):
            yield source_id, NoteFork(state.run_id, at)
        case RunWatched() if state.outcome is not None and state.outcome.continued_as is None:
            yield body.watcher_id, _ended(state, state.outcome, body.child_id)
        case _:
            return


def _cancel_children(
    state: RunState, reason: str | None, ancestor_id: str | None
) -> Iterator[tuple[str, NoticeCommand]]:
    for child_id in state.live_children:
        yield child_id, CancelRun(reason, ancestor_id or state.run_id)


def _cancel_orphans(state: RunState) -> Iterator[tuple[str, NoticeCommand]]:
    """Cancel the live children that must not outlive their parent."""
    for child_id in state.live_children:
        if state.children[child_id].on_parent_end is OnParentEnd.CANCEL:
            yield child_id, CancelRun("its parent ended", state.run_id)


def _tell_parent(state: RunState) -> Iterator[tuple[str, NoticeCommand]]:
    parent, outcome = state.spec.parent, state.outcome
    if outcome is None:
        return
    if parent is not None:
        yield parent.run_id, _ended(state, outcome, parent.child_id or state.run_id)
    for child_id, watcher_id in state.watchers.items():
        yield watcher_id, _ended(state, outcome, child_id)


def _ended(state: RunState, outcome: Outcome, child_id: str) -> EndChild:
    return EndChild(child_id, status_of(state), outcome.output, outcome.error)


def _hand_over(state: RunState, successor_id: str) -> Iterator[tuple[str, NoticeCommand]]:
    """Send the unread events on, in the order in which they were accepted."""
    unread = sorted(item for items in state.unread.values() for item in items)
    for item in unread:
        event = state.items[item]
        reference = event.reference_id or f"continued:{state.run_id}:{item}"
        yield successor_id, AcceptEvent(event.name, event.data, reference)
