"""Everything that is read: each question one query, each query answered by an index.

The queries about many runs name their index (`INDEXED BY`), so that no plan depends on statistics.
A listing is led by its most selective filter; the others are checked on the rows that it leads to.
Several statuses are as many ordered searches, each of which gives a page at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, cast

from attrs import frozen

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage._codec import decode_entry, decode_notice
from aiki_actors.storage._listing import created_bounds, read_cursor, words_of, write_cursor
from aiki_actors.storage._port import (
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    RunFilter,
    RunPage,
)
from aiki_actors.storage._run_row import COLUMNS, PRIORITIES
from aiki_sdk import JsonValue, dumps, loads

from ._rows import Value, run_of

_NEWEST_FIRST: Final = "ORDER BY created_at DESC, run_id DESC"
_COLUMNS: Final = ", ".join(COLUMNS)
_RUN_COLUMNS: Final = ", ".join(f"runs.{column}" for column in COLUMNS)


@frozen
class Query:
    """A statement and its values."""

    text: str
    values: tuple[Value, ...]


# --- One run --------------------------------------------------------------------------------------

# S608: what is put into these texts are constants of this package; values are always bound.
JOURNAL: Final = (
    "SELECT seq, at, kind, format, body FROM journal WHERE run_id = ? AND seq > ?"
    " ORDER BY seq LIMIT ?"
)
ONE_RUN: Final = f"SELECT {_COLUMNS} FROM runs WHERE run_id = ?"  # noqa: S608
FIND: Final = (
    f"SELECT {_COLUMNS} FROM runs INDEXED BY runs_by_current_reference WHERE namespace = ?"  # noqa: S608
    " AND workflow = ? AND reference_id = ? AND reference_current = 1"
)


def journal(
    connection: sqlite3.Connection, run_id: str, after: int, limit: int | None
) -> list[Entry]:
    """Return a run's entries behind `after`."""
    values = (run_id, after, -1 if limit is None else limit)
    rows = connection.execute(JOURNAL, values).fetchall()
    return [decode_entry(run_id, *row) for row in rows]


def one_run(connection: sqlite3.Connection, run_id: str) -> Projection | None:
    """Return a run's row, or None."""
    row = connection.execute(ONE_RUN, (run_id,)).fetchone()
    return None if row is None else run_of(row)


def find(
    connection: sqlite3.Connection, namespace: str, workflow: str, reference_id: str
) -> Projection | None:
    """Return the run that holds a reference id, or None."""
    row = connection.execute(FIND, (namespace, workflow, reference_id)).fetchone()
    return None if row is None else run_of(row)


# --- Listings -------------------------------------------------------------------------------------


def runs(
    connection: sqlite3.Connection, where: RunFilter, limit: int, cursor: str | None
) -> RunPage:
    """Return a page of runs, newest first."""
    query = listing(where, limit + 1, None if cursor is None else read_cursor(cursor))
    if query is None:
        return RunPage((), None)
    rows = connection.execute(query.text, query.values).fetchall()
    found = tuple([run_of(row) for row in rows[:limit]])
    return RunPage(found, write_cursor(found[-1]) if len(rows) > limit else None)


def count(connection: sqlite3.Connection, where: RunFilter) -> int:
    """Count the runs that a filter selects."""
    query = counting(where)
    if query is None:
        return 0
    return int(connection.execute(query.text, query.values).fetchone()[0])


_SEARCHED: Final = (
    "lower(runs.run_id || ' ' || runs.workflow || ' ' || coalesce(runs.reference_id, ''))"
)


def listing(where: RunFilter, limit: int, end: tuple[int, str] | None) -> Query | None:
    """Ask for the runs of a filter that were created before `end`; None: there can be none."""
    texts: list[str] = []
    values: list[Value] = []
    leader = _leader(where)
    order = f"ORDER BY {leader}.created_at DESC, {leader}.run_id DESC LIMIT ?"
    for arm in _arms(where, end):
        texts.append(f"SELECT * FROM (SELECT {_RUN_COLUMNS} FROM {arm.text} {order})")  # noqa: S608
        values += (*arm.values, limit)
    if not texts:
        return None
    if len(texts) == 1:
        return Query(texts[0], tuple(values))
    return Query(f"{' UNION ALL '.join(texts)} {_NEWEST_FIRST} LIMIT ?", (*values, limit))


def counting(where: RunFilter) -> Query | None:
    """Ask how many runs a filter selects; None: there can be none."""
    arms = _arms(where, None)
    if not arms:
        return None
    text = " + ".join([f"(SELECT count(*) FROM {arm.text})" for arm in arms])  # noqa: S608
    return Query(f"SELECT {text}", tuple([value for arm in arms for value in arm.values]))


def _leader(where: RunFilter) -> str:
    """Name the table whose index leads, and gives the order."""
    led_by_label = where.labels and where.reference_id is None and where.parent_id is None
    return "run_labels" if led_by_label else "runs"


def _arms(where: RunFilter, end: tuple[int, str] | None) -> list[Query]:
    """Return what follows FROM, once for each search that the filter takes."""
    conditions, values = _conditions(where)
    leader = _leader(where)
    _add_bounds(where, end, leader, conditions, values)
    if leader == "run_labels":
        name, label = where.labels[0]
        source = "run_labels CROSS JOIN runs ON runs.run_id = run_labels.run_id"
        lead = "run_labels.namespace = ? AND run_labels.name = ? AND run_labels.value = ?"
        text = f"{source} WHERE {' AND '.join([lead, *conditions])}"
        arms = [Query(text, (where.namespace, name, label, *values))]
    else:
        text = f"runs INDEXED BY {_index(where)} WHERE {' AND '.join(conditions)}"
        arms = [Query(text, tuple(values))]
    if where.status is None:
        return arms
    return [
        Query(f"{arm.text} AND runs.status = ?", (*arm.values, status.value))
        for arm in arms
        for status in dict.fromkeys(where.status)
    ]


def _index(where: RunFilter) -> str:
    if where.reference_id is not None:
        return "runs_by_reference"
    if where.parent_id is not None:
        return "runs_by_parent"
    if where.status is not None:
        return "runs_by_status"
    if where.workflow is not None:
        return "runs_by_workflow"
    return "runs_by_creation"


def _conditions(where: RunFilter) -> tuple[list[str], list[Value]]:
    """Return the conditions on the row itself, but for the status."""
    conditions: list[str] = ["runs.namespace = ?"]
    values: list[Value] = [where.namespace]
    for column, value in (
        ("workflow", where.workflow),
        ("version", where.version),
        ("reference_id", where.reference_id),
        ("parent_id", where.parent_id),
    ):
        if value is not None:
            conditions.append(f"runs.{column} = ?")
            values.append(value)
    for name, label in where.labels:
        conditions.append(
            "EXISTS (SELECT 1 FROM run_labels AS also WHERE also.namespace = runs.namespace"
            " AND also.name = ? AND also.value = ? AND also.created_at = runs.created_at"
            " AND also.run_id = runs.run_id)"
        )
        values += (name, label)
    for word in words_of(where):
        conditions.append(f"instr({_SEARCHED}, ?) > 0")
        values.append(word)
    return conditions, values


def _add_bounds(
    where: RunFilter,
    end: tuple[int, str] | None,
    leader: str,
    conditions: list[str],
    values: list[Value],
) -> None:
    after, before = created_bounds(where)
    if after is not None:
        conditions.append(f"{leader}.created_at >= ?")
        values.append(after)
    if before is not None:
        conditions.append(f"{leader}.created_at < ?")
        values.append(before)
    if end is not None:
        conditions.append(f"({leader}.created_at, {leader}.run_id) < (?, ?)")
        values += end


# --- Sweeps ---------------------------------------------------------------------------------------

READY: Final = (
    "SELECT run_id, namespace, workflow, version, pool, priority, ready_at"
    " FROM runs INDEXED BY runs_by_readiness WHERE ready_at IS NOT NULL"
    " AND run_id NOT IN (SELECT value FROM json_each(?))"
    " ORDER BY priority, ready_at, run_id LIMIT ?"
)
DUE: Final = (
    "SELECT run_id, due_at FROM runs INDEXED BY runs_by_due_time"
    " WHERE due_at IS NOT NULL AND due_at < ? ORDER BY due_at, run_id LIMIT ?"
)
DUE_AFTER: Final = (
    "SELECT run_id, due_at FROM runs INDEXED BY runs_by_due_time"
    " WHERE due_at IS NOT NULL AND due_at < ? AND (due_at, run_id) > (?, ?)"
    " ORDER BY due_at, run_id LIMIT ?"
)
CLAIMED: Final = (
    "SELECT run_id, worker_id, epoch FROM runs INDEXED BY runs_by_claim"
    " WHERE worker_id IS NOT NULL AND run_id > ? ORDER BY run_id LIMIT ?"
)
NOTICES: Final = (
    "SELECT id, source_id, target_id, kind, format, body FROM notices"
    " WHERE id > ? ORDER BY id LIMIT ?"
)
NEXT_ENDED_WORKFLOW: Final = (
    "SELECT workflow FROM runs INDEXED BY runs_by_workflow_end"
    " WHERE ended_at IS NOT NULL AND workflow > ? ORDER BY workflow LIMIT 1"
)
ENDED: Final = (
    "SELECT ended_at, run_id FROM runs INDEXED BY runs_by_workflow_end"
    " WHERE workflow = ? AND ended_at IS NOT NULL AND ended_at < ?"
    " ORDER BY ended_at, run_id LIMIT ?"
)
ENDED_IN: Final = (
    "SELECT ended_at, run_id FROM runs INDEXED BY runs_by_workflow_end"
    " WHERE workflow = ? AND ended_at IS NOT NULL AND ended_at < ?"
    " AND namespace = ? ORDER BY ended_at, run_id LIMIT ?"
)


def ready(connection: sqlite3.Connection, limit: int, exclude: Sequence[str]) -> list[ReadyRun]:
    """Return runs that stand in the queue, by priority, then oldest first."""
    rows = connection.execute(READY, (dumps(list(exclude)).decode(), limit)).fetchall()
    return [
        ReadyRun(run_id, namespace, workflow, version, pool, PRIORITIES[rank], Micros(ready_at))
        for run_id, namespace, workflow, version, pool, rank, ready_at in rows
    ]


def due(
    connection: sqlite3.Connection, before: Micros, limit: int, after: DueRun | None
) -> list[DueRun]:
    """Return runs due before a time, from behind `after`."""
    if after is None:
        rows = connection.execute(DUE, (before, limit)).fetchall()
    else:
        values = (before, after.due_at, after.run_id, limit)
        rows = connection.execute(DUE_AFTER, values).fetchall()
    return [DueRun(run_id, Micros(due_at)) for run_id, due_at in rows]


def claimed(connection: sqlite3.Connection, limit: int, after: str | None) -> list[ClaimedRun]:
    """Return claimed runs in order of run id, from behind `after`."""
    rows = connection.execute(CLAIMED, (after or "", limit)).fetchall()
    return [ClaimedRun(*row) for row in rows]


def notices(connection: sqlite3.Connection, limit: int, after: str | None) -> list[Notice]:
    """Return notices that are still owed, in order of id, from behind `after`."""
    rows = connection.execute(NOTICES, (after or "", limit)).fetchall()
    return [decode_notice(*row) for row in rows]


PUT_WORKFLOW: Final = (
    "INSERT INTO workflows (namespace, name, version, definition) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (namespace, name, version) DO UPDATE SET definition = excluded.definition"
)
WORKFLOWS: Final = (
    "SELECT namespace, name, version, definition FROM workflows ORDER BY namespace, name, version"
)

WorkflowRow: TypeAlias = tuple[str, str, str, bytes]


def put_workflows(connection: sqlite3.Connection, rows: Sequence[WorkflowRow]) -> None:
    """Keep workflows in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(PUT_WORKFLOW, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def workflows(connection: sqlite3.Connection) -> list[KnownWorkflow]:
    """Return every workflow that is kept."""
    rows = connection.execute(WORKFLOWS).fetchall()
    return [
        KnownWorkflow(namespace, name, version, loads(definition))
        for namespace, name, version, definition in rows
    ]


def size_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database without its write-ahead log, free pages included."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)


# --- Deleting -------------------------------------------------------------------------------------

# Labels are found by their key, which is made from the row; so they go before it.
_DELETE_LABELS: Final = (
    "DELETE FROM run_labels WHERE (namespace, name, value, created_at, run_id) IN ("
    "SELECT runs.namespace, label.key, label.value, runs.created_at, runs.run_id"
    " FROM runs, json_each(runs.labels) AS label"
    " WHERE runs.run_id IN (SELECT value FROM json_each(?)))"
)
DELETIONS: Final = (
    _DELETE_LABELS,
    "DELETE FROM journal WHERE run_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM runs WHERE run_id IN (SELECT value FROM json_each(?))",
)


@frozen
class Deletion:
    """Which ended runs are deleted; see `Storage.delete_ended`."""

    before: Micros
    limit: int
    namespace: str | None = None
    workflow: str | None = None
    excluding: tuple[str, ...] = ()


def ended_workflows(connection: sqlite3.Connection) -> Iterator[str]:
    """Return the workflows that have ended runs: one step of the index each, however many runs."""
    name = ""
    while row := connection.execute(NEXT_ENDED_WORKFLOW, (name,)).fetchone():
        name = cast("str", row[0])
        yield name


def _ended(connection: sqlite3.Connection, which: Deletion) -> list[str]:
    """Return the ids of the runs to delete, the oldest of all workflows first.

    Workflow by workflow: what is excluded is never read, however much of it has piled up.
    """
    found: list[tuple[int, str]] = []
    names = ended_workflows(connection) if which.workflow is None else (which.workflow,)
    for name in [name for name in names if name not in which.excluding]:
        if which.namespace is None:
            rows = connection.execute(ENDED, (name, which.before, which.limit))
        else:
            rows = connection.execute(ENDED_IN, (name, which.before, which.namespace, which.limit))
        found.extend(rows)
    return [run_id for _, run_id in sorted(found)[: which.limit]]


def delete_ended(connection: sqlite3.Connection, which: Deletion) -> int:
    """Delete ended runs, in one transaction; return how many."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        run_ids = _ended(connection, which)
        if run_ids:
            listed = dumps(list[JsonValue](run_ids)).decode()
            for statement in DELETIONS:
                connection.execute(statement, (listed,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return len(run_ids)
