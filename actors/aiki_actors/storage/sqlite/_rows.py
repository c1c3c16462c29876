"""Runs as rows, and the statements that write many rows at once.

A statement with many rows costs one call into SQLite, and so releases and takes the interpreter's
lock once instead of once per row. Their sizes are powers of two, so that a few prepared statements
serve every batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from typing import Final, TypeAlias, cast

from attrs import frozen

from aiki_actors.engine import FORMAT, Micros, Projection
from aiki_actors.storage._run_row import COLUMNS, PRIORITIES, row_of
from aiki_sdk import loads
from aiki_sdk.protocol import RunStatus

Value: TypeAlias = str | int | bytes | None
"""What a column of ours can hold."""

_COLUMNS_TEXT: Final = ", ".join(COLUMNS)
_RUN_WIDTH: Final = len(COLUMNS)
# What a run was created with never changes, so an update leaves it, and its indexes, alone.
_CHANGING: Final = (
    "status", "attempt", "started_at", "ended_at", "ready_at", "due_at", "worker_id", "epoch",
)  # fmt: skip


@frozen
class ManyRows:
    """A statement over many rows: `head`, the rows as a table, `tail`.

    The rows' columns are `column1` and so on. Rows whose first column is NULL fill a statement up
    to its size; `tail` begins with the condition that leaves them out.
    """

    head: str
    width: int
    tail: str = ""
    rows_max: int = 256

    def statement(self, rows: int) -> str:
        """Return the statement for so many rows."""
        row = f"({', '.join('?' * self.width)})"
        table = f"(VALUES {', '.join([row] * rows)}) AS given"
        return f"{self.head} FROM {table} {self.tail}"

    def execute(self, connection: sqlite3.Connection, values: list[Value]) -> None:
        """Write rows, given as one flat list of their values.

        Raises:
            sqlite3.Error: a row was refused, or the driver failed.
        """
        for statement, part in self.portions(values):
            connection.execute(statement, part)

    def portions(self, values: list[Value]) -> Iterator[tuple[str, list[Value]]]:
        """Cut rows into portions, each a power of two and filled up to it, with its statement."""
        step = self.rows_max * self.width
        for start in range(0, len(values), step):
            part = values[start : start + step]
            rows = 1 << (len(part) // self.width - 1).bit_length()
            part += [None] * (rows * self.width - len(part))
            yield _statement(self, rows), part


@cache
def _statement(many: ManyRows, rows: int) -> str:
    return many.statement(rows)


_GIVEN: Final = "WHERE column1 IS NOT NULL"


def _columns(count: int) -> str:
    return ", ".join([f"column{number}" for number in range(1, count + 1)])


JOURNAL: Final = ManyRows(
    f"INSERT INTO journal (run_id, seq, at, kind, body, format) SELECT {_columns(5)}, {FORMAT}",
    5,
    _GIVEN,
)
RUNS: Final = ManyRows(
    f"INSERT INTO runs ({_COLUMNS_TEXT}, reference_current) SELECT {_columns(_RUN_WIDTH + 1)}",
    _RUN_WIDTH + 1,
    f"{_GIVEN} ON CONFLICT (run_id) DO UPDATE SET "
    + ", ".join([f"{column} = excluded.{column}" for column in _CHANGING]),
    rows_max=64,
)
LABELS: Final = ManyRows(
    f"INSERT INTO run_labels (namespace, name, value, created_at, run_id) SELECT {_columns(5)}",
    5,
    _GIVEN,
)
NOTICES: Final = ManyRows(
    "INSERT INTO notices (id, source_id, target_id, kind, body, format)"
    f" SELECT {_columns(5)}, {FORMAT}",
    5,
    f"{_GIVEN} ON CONFLICT (id) DO NOTHING",
)


def run_row(run: Projection, *, create: bool) -> tuple[Value, ...]:
    """Write a run's row for `RUNS`: `COLUMNS`, and whether it holds a reference id.

    Only a new run's row claims its reference id. An update leaves that column as it is, and must
    not claim it in passing: the run may have given it up to another.
    """
    return (*row_of(run), 1 if create and run.reference_id is not None else None)


RunRow: TypeAlias = tuple[
    str, str, str, str, str, str, int, str | None, str, str | None, str | None, int,
    int, int | None, int | None, int | None, int | None, str | None, int,
]  # fmt: skip


def run_of(row: RunRow) -> Projection:
    """Read a run's row, in the order of `COLUMNS`."""
    labels = row[10]
    return Projection(
        run_id=row[0],
        namespace=row[1],
        workflow=row[2],
        version=row[3],
        status=RunStatus(row[4]),
        pool=row[5],
        priority=PRIORITIES[row[6]],
        reference_id=row[7],
        input_hash=row[8],
        parent_id=row[9],
        labels={} if labels is None else cast("dict[str, str]", loads(labels)),
        attempt=row[11],
        created_at=Micros(row[12]),
        started_at=_micros(row[13]),
        ended_at=_micros(row[14]),
        ready_at=_micros(row[15]),
        due_at=_micros(row[16]),
        worker_id=row[17],
        epoch=row[18],
    )


def _micros(value: int | None) -> Micros | None:
    return None if value is None else Micros(value)
