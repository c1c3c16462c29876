"""What requests and answers hold beyond the wire types of `aiki_sdk.protocol`: small wrappers."""

from __future__ import annotations

from attrs import frozen

from aiki_sdk import JsonValue
from aiki_sdk.protocol import (
    ControlRequest,
    EventReceipt,
    JournalEntry,
    RunQuery,
    RunStatus,
    SendRequest,
    StartRequest,
    StartResult,
    WorkflowInfo,
)

from ._engine import WorkerInfo
from ._problems import ProblemBody


@frozen(kw_only=True)
class SendBody:
    """What an event or a question carries, and the sender's own name for this sending."""

    data: JsonValue = None
    reference_id: str | None = None


@frozen(kw_only=True)
class ReasonBody:
    """Why it is done; kept in the journal."""

    reason: str | None = None


@frozen(kw_only=True)
class WakeBody:
    """Which sleep ends, by name; without one, that which ends first."""

    sleep: str | None = None


@frozen(kw_only=True)
class EmptyBody:
    """Nothing needs to be said."""


@frozen
class StartBatch:
    """Runs to start; each succeeds or fails by itself."""

    runs: tuple[StartRequest, ...]


@frozen(kw_only=True)
class StartAnswer:
    """What came of one start of a batch: exactly one of the two is there."""

    result: StartResult | None = None
    error: ProblemBody | None = None


@frozen
class StartAnswers:
    """One answer per start, in order."""

    results: tuple[StartAnswer, ...]


@frozen(kw_only=True)
class BulkBody:
    """One thing done to many runs: those of `run_ids`, or a page of those that `filter` selects."""

    run_ids: tuple[str, ...] | None = None
    filter: RunQuery | None = None
    control: ControlRequest | None = None
    event: SendRequest | None = None


@frozen(kw_only=True)
class BulkAnswer:
    """What came of it for one run."""

    run_id: str
    ok: bool
    receipt: EventReceipt | None = None
    error: ProblemBody | None = None


@frozen
class BulkAnswers:
    """One answer per run; with a cursor, there are more runs that the filter selects."""

    results: tuple[BulkAnswer, ...]
    cursor: str | None = None


@frozen
class Pending:
    """The run has not ended; this is what it is doing."""

    status: RunStatus


@frozen
class Count:
    """How many runs match."""

    count: int


@frozen
class Journal:
    """A part of a run's journal, in order."""

    entries: tuple[JournalEntry, ...]


@frozen
class Workflows:
    """The workflows that the server knows, by name, then version."""

    workflows: tuple[WorkflowInfo, ...]


@frozen
class Workers:
    """The workers that are connected, by id."""

    workers: tuple[WorkerInfo, ...]


@frozen
class Alive:
    """The process answers."""

    status: str
