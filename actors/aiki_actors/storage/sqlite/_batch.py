"""Writing changes inside one transaction: all at once, and one by one where that fails.

The common case is that every change fits; then a batch is a handful of statements. Only when
something in it is refused are the changes written again one by one, each inside a savepoint, so
that the refused ones are told from the others and never spoil them.

How a change is fenced: `(run_id, seq)` is unique, so nobody can write a seq twice; and the entry
before the first one must exist, so that no gap can be made. Both together mean that a change is
written exactly when the run's last seq is what its owner believes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from aiki_actors.engine import Projection
from aiki_actors.storage._changes import EncodedChange
from aiki_actors.storage._port import Appended, AppendResult, ReferenceTaken, SeqConflict

from ._rows import JOURNAL, LABELS, NOTICES, RUNS, ManyRows, Value, run_row

_APPENDED = Appended()


class Refused(Exception):
    """A change does not continue its run's journal."""


# A join in this order, from each given row to the journal, is one look-up each.
_PREDECESSORS = ManyRows(
    "SELECT count(*)",
    2,
    "CROSS JOIN journal ON journal.run_id = given.column1 AND journal.seq = given.column2",
)


def write_all(connection: sqlite3.Connection, changes: Sequence[EncodedChange]) -> None:
    """Write changes; in a transaction that the caller ends, and rolls back on any error.

    Raises:
        Refused: a change does not continue its run's journal.
        sqlite3.IntegrityError: a seq is written already, or a reference id is taken.
        sqlite3.Error: the driver failed.
    """
    _check_predecessors(connection, changes)
    journal: list[Value] = []
    notices: list[Value] = []
    settled: list[str] = []
    for one in changes:
        change = one.change
        run_id = change.run_id
        for row in one.rows:
            journal.append(run_id)
            journal += row
        for notice in one.notices:
            notices += notice
        settled += change.settled
    JOURNAL.execute(connection, journal)
    _write_rows(connection, changes)
    if notices:
        NOTICES.execute(connection, notices)
    if settled:
        connection.executemany("DELETE FROM notices WHERE id = ?", [(one,) for one in settled])


def _check_predecessors(connection: sqlite3.Connection, changes: Sequence[EncodedChange]) -> None:
    """Check that each change begins where its run's journal, or its change before, ends."""
    last: dict[str, int] = {}
    wanted: list[Value] = []
    for one in changes:
        change = one.change
        before = last.get(change.run_id)
        if before is not None:
            if change.first_seq != before + 1 or change.create:
                raise Refused
        elif not one.rows:
            # Nothing of it would meet the unique key, so the last seq is looked up.
            if last_seq(connection, change.run_id) != change.first_seq - 1:
                raise Refused
        elif not change.create:
            wanted += (change.run_id, change.first_seq - 1)
        last[change.run_id] = one.last_seq
    found = 0
    for query, part in _PREDECESSORS.portions(wanted):
        found += connection.execute(query, part).fetchone()[0]
    if found != len(wanted) // _PREDECESSORS.width:
        raise Refused


def last_seq(connection: sqlite3.Connection, run_id: str) -> int:
    """Return the seq of the run's last entry, 0 if it has none."""
    query = "SELECT coalesce(max(seq), 0) FROM journal WHERE run_id = ?"
    return int(connection.execute(query, (run_id,)).fetchone()[0])


def _write_rows(connection: sqlite3.Connection, changes: Sequence[EncodedChange]) -> None:
    rows: dict[str, Projection] = {}
    created: set[str] = set()
    labels: list[Value] = []

    def flush() -> None:
        values: list[Value] = []
        for run_id, run in rows.items():
            values += run_row(run, create=run_id in created)
        rows.clear()
        RUNS.execute(connection, values)

    for one in changes:
        change = one.change
        if change.supersedes is not None:
            # The order counts here: the old run has its row, and gives its reference up, first.
            flush()
            release = "UPDATE runs SET reference_current = NULL WHERE run_id = ?"
            connection.execute(release, (change.supersedes,))
        run = change.projection
        if run is not None:
            rows[change.run_id] = run
            if change.create:
                created.add(change.run_id)
                for name, value in run.labels.items():
                    labels += (run.namespace, name, value, run.created_at, run.run_id)
    flush()
    if labels:
        LABELS.execute(connection, labels)


def write_each(
    connection: sqlite3.Connection, changes: Sequence[EncodedChange]
) -> list[AppendResult]:
    """Write the changes of one append that fit, and say why the others do not.

    What follows a refused change of a run is refused too: it was decided upon entries that are
    not there.

    Raises:
        sqlite3.Error: the driver failed; the caller rolls back.
    """
    results: list[AppendResult] = []
    refused: set[str] = set()
    for one in changes:
        run_id = one.change.run_id
        result: AppendResult = SeqConflict(run_id, one.change.first_seq)
        if run_id not in refused:
            result = _write_one(connection, one)
        if result is not _APPENDED:
            refused.add(run_id)
        results.append(result)
    return results


def _write_one(connection: sqlite3.Connection, one: EncodedChange) -> AppendResult:
    connection.execute("SAVEPOINT one_change")
    try:
        write_all(connection, (one,))
    except (Refused, sqlite3.IntegrityError) as error:
        connection.execute("ROLLBACK TO one_change")
        connection.execute("RELEASE one_change")
        return _refusal(connection, one, error)
    connection.execute("RELEASE one_change")
    return _APPENDED


def _refusal(
    connection: sqlite3.Connection, one: EncodedChange, error: Exception
) -> SeqConflict | ReferenceTaken:
    change = one.change
    if isinstance(error, Refused) or last_seq(connection, change.run_id) != change.first_seq - 1:
        return SeqConflict(change.run_id, change.first_seq)
    run = change.projection
    if run is not None and run.reference_id is not None:
        holder = connection.execute(
            "SELECT run_id, input_hash FROM runs WHERE namespace = ? AND workflow = ?"
            " AND reference_id = ? AND reference_current = 1",
            (run.namespace, run.workflow, run.reference_id),
        ).fetchone()
        if holder is not None:
            return ReferenceTaken(*holder)
    raise error
