"""From the engine's state and entries to the wire views that clients see."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from aiki_actors import engine as e
from aiki_actors.storage import entry_to_json
from aiki_sdk import JsonValue
from aiki_sdk.protocol import (
    ForkPoint,
    JournalEntry,
    Outcome,
    RunInfo,
    RunStatus,
    RunSummary,
    Update,
    WaitInfo,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at: e.Micros) -> datetime:
    """Convert the engine's time to an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=at)


def _optional(at: e.Micros | None) -> datetime | None:
    return None if at is None else to_datetime(at)


def run_info(state: e.RunState) -> RunInfo:
    """Describe a run completely, its journal aside."""
    spec = state.spec
    outcome = state.outcome or e.Outcome()
    cancel = state.cancel
    fork = spec.forked_from
    asked = state.pause_reason or (cancel.reason if cancel else None)
    reason = outcome.reason or asked or state.stalled
    return RunInfo(
        id=state.run_id,
        namespace=spec.namespace,
        workflow=spec.workflow,
        version=spec.version,
        status=e.status_of(state),
        reference_id=spec.reference_id,
        parent_id=None if spec.parent is None else spec.parent.run_id,
        pool=spec.pool,
        priority=spec.priority,
        labels=spec.labels,
        attempt=state.attempt,
        created_at=to_datetime(state.created_at),
        started_at=_optional(state.started_at),
        ended_at=_optional(state.ended_at),
        due_at=_optional(e.next_due(state)),
        waits=tuple(_wait_info(wait) for wait in state.waits.values()),
        input=spec.input,
        output=outcome.output,
        error=outcome.error,
        reason=reason,
        continued_as=outcome.continued_as,
        continued_from=spec.continued_from,
        forked_from=None if fork is None else ForkPoint(fork.run_id, fork.at),
        forks=tuple(ForkPoint(fork_id, at) for fork_id, at in state.forks.items()),
        values=dict(state.values),
        terminated=outcome.terminated,
        worker_id=None if state.claim is None else state.claim.worker_id,
        epoch=state.epoch,
        seq=state.seq,
        children=tuple(state.children),
    )


def _wait_info(wait: e.Wait) -> WaitInfo:
    name = wait.name.removeprefix("sleep:").removeprefix("timeout:")
    return WaitInfo(
        kind=wait.kind, name=name, due_at=_optional(wait.due_at), since=to_datetime(wait.since)
    )


def run_summary(row: e.Projection) -> RunSummary:
    """Describe a run as a row of a list."""
    return RunSummary(
        id=row.run_id,
        namespace=row.namespace,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        reference_id=row.reference_id,
        parent_id=row.parent_id,
        pool=row.pool,
        priority=row.priority,
        labels=row.labels,
        attempt=row.attempt,
        created_at=to_datetime(row.created_at),
        started_at=_optional(row.started_at),
        ended_at=_optional(row.ended_at),
        due_at=_optional(row.due_at),
    )


def outcome_of(state: e.RunState) -> Outcome | None:
    """Say how a run ended; None while it has not."""
    if state.outcome is None:
        return None
    outcome = state.outcome
    return Outcome(
        status=e.status_of(state),
        output=outcome.output,
        error=outcome.error,
        reason=outcome.reason,
        continued_as=outcome.continued_as,
        terminated=outcome.terminated,
    )


def journal_entry(entry: e.Entry) -> JournalEntry:
    """Describe one journal entry."""
    return JournalEntry(entry.seq, to_datetime(entry.at), entry.body.kind, entry_body(entry))


def entry_body(entry: e.Entry) -> Mapping[str, JsonValue]:
    """Return the facts of an entry as JSON."""
    body = entry_to_json(entry)["body"]
    assert isinstance(body, dict), "an entry's body is a JSON object"
    return body


def live_update(state: e.RunState, kind: str, body: Mapping[str, JsonValue]) -> Update:
    """Describe something that no journal keeps, for those who watch the run now."""
    return Update(
        run_id=state.run_id,
        seq=state.seq,
        at=to_datetime(state.updated_at),
        kind=kind,
        status=e.status_of(state),
        workflow=state.spec.workflow,
        reference_id=state.spec.reference_id,
        body=body,
        live=True,
    )


def update_of(state: e.RunState, entry: e.Entry, status: RunStatus) -> Update:
    """Describe one change for those who watch the run; `status` is the one after it."""
    spec = state.spec
    return Update(
        run_id=state.run_id,
        seq=entry.seq,
        at=to_datetime(entry.at),
        kind=entry.body.kind,
        status=status,
        workflow=spec.workflow,
        reference_id=spec.reference_id,
        body=entry_body(entry),
    )
