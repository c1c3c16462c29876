"""A run's row as every database keeps it: its columns, in order, and their values."""

from __future__ import annotations

from typing import Final, TypeAlias

from aiki_actors.engine import Projection
from aiki_sdk import dumps
from aiki_sdk.protocol import Priority

RowValue: TypeAlias = str | int | None

RANKS: Final = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""The order in which ready runs are handed out; stored, and so never changed."""

PRIORITIES: Final = {rank: priority for priority, rank in RANKS.items()}

COLUMNS: Final = (
    "run_id", "namespace", "workflow", "version", "status", "pool", "priority", "reference_id",
    "input_hash", "parent_id", "labels", "attempt", "created_at", "started_at", "ended_at",
    "ready_at", "due_at", "worker_id", "epoch",
)  # fmt: skip
"""The columns of a run's row, as `row_of` gives them."""


def row_of(run: Projection) -> tuple[RowValue, ...]:
    """Write a run's row, in the order of `COLUMNS`."""
    return (
        run.run_id,
        run.namespace,
        run.workflow,
        run.version,
        run.status.value,
        run.pool,
        RANKS[run.priority],
        run.reference_id,
        run.input_hash,
        run.parent_id,
        dumps(dict(run.labels)).decode() if run.labels else None,
        run.attempt,
        run.created_at,
        run.started_at,
        run.ended_at,
        run.ready_at,
        run.due_at,
        run.worker_id,
        run.epoch,
    )
