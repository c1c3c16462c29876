"""What follows from a run's entries outside the run: its row in the database, and its notices.

A `Projection` is the searchable summary of a run; it is written in the transaction of the entries
that change it and never decides anything by itself. A `Notice` is a command that one run's entries
mean for *another* run: start this child, your child ended, you are cancelled. It is stored with
the entries that caused it and deleted with the entries that it causes, so that no crash between
two runs loses it; delivering one twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from aiki_sdk.protocol import OnParentEnd, Priority, RunStatus

from ._commands import CancelRun, CreateRun, EndChild
from ._entries import CancelRequested, ChildStarted, Entry, Micros, RunCancelled
from ._state import RunState, next_due, status_of


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


NoticeCommand = CreateRun | EndChild | CancelRun
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


def notices(state: RunState, entries: Iterable[Entry]) -> tuple[Notice, ...]:
    """Return what `entries`, the last of `state`, mean for other runs.

    A child is created; an ended run tells its parent and cancels the children that must not
    outlive it; a cancellation reaches every live descendant, one generation at a time.
    """
    found: list[Notice] = []

    def add(entry: Entry, target_id: str, command: NoticeCommand) -> None:
        # Numbered within its entry, so that the id does not depend on what else is asked about.
        number = len(found) - first
        found.append(
            Notice(f"{state.run_id}:{entry.seq:08}:{number:05}", state.run_id, target_id, command)
        )

    for entry in entries:
        body = entry.body
        first = len(found)
        if isinstance(body, ChildStarted):
            add(entry, body.child_id, CreateRun(body.spec))
        elif isinstance(body, CancelRequested | RunCancelled):
            ancestor = body.ancestor_id or state.run_id
            for child_id in state.live_children:
                add(entry, child_id, CancelRun(body.reason, ancestor))
        elif state.phase.terminal and entry.seq == state.seq:
            for child_id in state.live_children:
                if state.children[child_id].on_parent_end is OnParentEnd.CANCEL:
                    add(entry, child_id, CancelRun("its parent ended", state.run_id))
        if state.phase.terminal and entry.seq == state.seq and state.spec.parent is not None:
            add(entry, state.spec.parent.run_id, _ended(state))
    return tuple(found)


def _ended(state: RunState) -> EndChild:
    outcome = state.outcome
    assert outcome is not None, f"run {state.run_id} ended without an outcome"
    return EndChild(state.run_id, status_of(state), outcome.output, outcome.error)
