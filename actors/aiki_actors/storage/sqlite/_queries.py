"""Everything that is read, each question as one query that an index answers.

Listings name the index that they use (`INDEXED BY`), so that a plan never depends on statistics:
the most selective filter chooses it, the others are checked on the rows that it leads to. Several
statuses are as many ordered searches, of which each gives a page at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import cast

from aiki_sdk import dumps
from attrs import frozen

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage._codec import decode_entry, decode_notice
from aiki_actors.storage._listing import created_bounds, read_cursor, write_cursor
from aiki_actors.storage._port import ClaimedRun, DueRun, ReadyRun, RunFilter, RunPage

from ._rows import COLUMNS, PRIORITIES, RunRow, Value, run_of


@frozen
class Query:
    """A statement and its values."""

    text: str
    values: tuple[Value, ...]

    def rows(self, connection: sqlite3.Connection) -> list[tuple[Value, ...]]:
        """Run it."""
        return connection.execute(self.text, self.values).fetchall()


def journal(
    connection: sqlite3.Connection, run_id: str, after: int, limit: int | None
) -> list[Entry]:
    """Return a run's entries behind `after`."""
    rows = connection.execute(
        "SELECT seq, at, kind, format, body FROM journal WHERE run_id = ? AND seq > ?"
        " ORDER BY seq LIMIT ?",
        (run_id, after, -1 if limit is None else limit),
    ).fetchall()
    return [decode_entry(run_id, *row) for row in rows]


def one_run(connection: sqlite3.Connection, run_id: str) -> Projection | None:
    """Return a run's row, or None."""
    row = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return None if row is None else run_of(row)


def find_query(namespace: str, workflow: str, reference_id: str) -> Query:
    """Ask for the run that holds a reference id."""
    return Query(
        f"SELECT {COLUMNS} FROM runs INDEXED BY runs_by_current_reference WHERE namespace = ?"
        " AND workflow = ? AND reference_id = ? AND reference_current = 1",
        (namespace, workflow, reference_id),
    )


def find(
    connection: sqlite3.Connection, namespace: str, workflow: str, reference_id: str
) -> Projection | None:
    """Return the run that holds a reference id, or None."""
    rows = find_query(namespace, workflow, reference_id).rows(connection)
    return run_of(cast("RunRow", rows[0])) if rows else None


# --- Listings -------------------------------------------------------------------------------------


@frozen
class _Source:
    """Where a listing's rows come from: tables in order, what leads into them, and its alias."""

    tables: str
    conditions: tuple[str, ...]
    values: tuple[Value, ...]
    ordered_by: str


def _source(where: RunFilter) -> _Source:
    """Choose the index, by the filter that leaves the fewest runs."""
    namespace = ("runs.namespace = ?",)
    values: tuple[Value, ...] = (where.namespace,)
    if where.reference_id is not None:
        index, extra, key = "reference", namespace, where.reference_id
        return _indexed(index, (*extra, "runs.reference_id = ?"), (*values, key))
    if where.parent_id is not None:
        conditions = ("runs.parent_id = ?", "runs.namespace = ?")
        return _indexed("parent", conditions, (where.parent_id, where.namespace))
    if where.labels:
        name, value = where.labels[0]
        return _Source(
            "run_labels CROSS JOIN runs ON runs.run_id = run_labels.run_id",
            ("run_labels.namespace = ?", "run_labels.name = ?", "run_labels.value = ?"),
            (where.namespace, name, value),
            "run_labels",
        )
    if where.status is not None:
        return _indexed("status", (*namespace, "runs.status = ?"), values)
    if where.workflow is not None:
        return _indexed("workflow", (*namespace, "runs.workflow = ?"), (*values, where.workflow))
    return _indexed("creation", namespace, values)
