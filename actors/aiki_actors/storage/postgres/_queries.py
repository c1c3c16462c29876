"""Everything that is read: each question one statement, each statement answered by an index.

A listing is led by its most selective filter; the others are checked on the rows that it leads to.
Several statuses are as many ordered searches, each of which gives a page at most.
`tests/postgres/test_plans.py` holds every statement to its index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from attrs import define, field, frozen

from aiki_actors.engine import Micros, Projection
from aiki_actors.storage._listing import created_bounds, words_of
from aiki_actors.storage._port import RunFilter
from aiki_actors.storage._run_row import COLUMNS, PRIORITIES
from aiki_sdk import loads
from aiki_sdk.protocol import RunStatus

from ._connection import Row

_COLUMNS: Final = ", ".join(COLUMNS)
_RUN_COLUMNS: Final = ", ".join([f"runs.{name}" for name in COLUMNS])
_NEWEST_FIRST: Final = "ORDER BY created_at DESC, run_id DESC"

# S608: what is put into these texts are constants of this package; values are always bound.
JOURNAL: Final = (
    "SELECT seq, at, kind, format, body FROM journal WHERE run_id = $1 AND seq > $2"
    " ORDER BY seq LIMIT $3"
)
ONE_RUN: Final = f"SELECT {_COLUMNS} FROM runs WHERE run_id = $1"  # noqa: S608
FIND: Final = (
    f"SELECT {_COLUMNS} FROM runs WHERE namespace = $1"  # noqa: S608
    " AND workflow = $2 AND reference_id = $3 AND reference_current"
)
READY: Final = (
    "SELECT run_id, namespace, workflow, version, pool, priority, ready_at"
    " FROM runs WHERE ready_at IS NOT NULL AND NOT run_id IN (SELECT unnest($2::text[]))"
    " ORDER BY priority, ready_at, run_id LIMIT $1"
)
READY_ALL: Final = (
    "SELECT run_id, namespace, workflow, version, pool, priority, ready_at"
    " FROM runs WHERE ready_at IS NOT NULL ORDER BY priority, ready_at, run_id LIMIT $1"
)
DUE: Final = (
    "SELECT run_id, due_at FROM runs WHERE due_at IS NOT NULL AND due_at < $1"
    " ORDER BY due_at, run_id LIMIT $2"
)
DUE_AFTER: Final = (
    "SELECT run_id, due_at FROM runs WHERE due_at IS NOT NULL AND due_at < $1"
    " AND (due_at, run_id) > ($3, $4) ORDER BY due_at, run_id LIMIT $2"
)
CLAIMED: Final = (
    "SELECT run_id, worker_id, epoch FROM runs WHERE worker_id IS NOT NULL AND run_id > $1"
    " ORDER BY run_id LIMIT $2"
)
NOTICES: Final = (
    "SELECT id, source_id, target_id, kind, format, body FROM notices WHERE id > $1"
    " ORDER BY id LIMIT $2"
)
WORKFLOWS: Final = (
    "SELECT namespace, name, version, definition FROM workflows ORDER BY namespace, name, version"
)
# What the tables and their indexes take; other schemas of the same database are not ours.
SIZE: Final = (
    "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
    " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
)


@frozen
class Query:
    """A statement and its values."""

    text: str
    values: tuple[object, ...]


@define(eq=False)
class _Values:
    """The values of a statement as they are met; `bind` gives each its number."""

    values: list[object] = field(factory=lambda: list[object]())

    def bind(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


# By the rules of "C" only ASCII letters have another case, as with the other adapters.
_SEARCHED: Final = (
    "lower((runs.run_id || ' ' || runs.workflow || ' ' || coalesce(runs.reference_id, ''))"
    ' COLLATE "C")'
)


def listing(where: RunFilter, limit: int, end: tuple[int, str] | None) -> Query | None:
    """Ask for the runs of a filter that were created before `end`; None: there can be none."""
    values = _Values()
    leader = _leader(where)
    most = values.bind(limit)
    order = f"ORDER BY {leader}.created_at DESC, {leader}.run_id DESC LIMIT {most}"
    arms = [
        f"(SELECT {_RUN_COLUMNS} FROM {arm} {order})"  # noqa: S608
        for arm in _arms(where, end, values)
    ]
    if not arms:
        return None
    if len(arms) == 1:
        return Query(arms[0], tuple(values.values))
    text = f"SELECT * FROM ({' UNION ALL '.join(arms)}) AS runs {_NEWEST_FIRST} LIMIT {most}"  # noqa: S608
    return Query(text, tuple(values.values))


def counting(where: RunFilter) -> Query | None:
    """Ask how many runs a filter selects; None: there can be none."""
    values = _Values()
    arms = _arms(where, None, values)
    if not arms:
        return None
    text = " + ".join([f"(SELECT count(*) FROM {arm})" for arm in arms])  # noqa: S608
    return Query(f"SELECT {text}", tuple(values.values))


def _leader(where: RunFilter) -> str:
    """Name the table whose index leads, and gives the order."""
    led_by_label = where.labels and where.reference_id is None and where.parent_id is None
    return "run_labels" if led_by_label else "runs"


def _arms(where: RunFilter, end: tuple[int, str] | None, values: _Values) -> list[str]:
    """Return what follows FROM, once for each search that the filter takes."""
    leader = _leader(where)
    conditions = _conditions(where, leader, values)
    conditions += _bounds(where, end, leader, values)
    if leader == "run_labels":
        name, label = where.labels[0]
        lead = f"run_labels.namespace = {values.bind(where.namespace)}"
        lead += f" AND run_labels.name = {values.bind(name)}"
        lead += f" AND run_labels.value = {values.bind(label)}"
        source = f"run_labels JOIN runs ON runs.run_id = run_labels.run_id WHERE {lead} AND "
    else:
        source = "runs WHERE "
    text = source + " AND ".join(conditions)
    if where.status is None:
        return [text]
    statuses = dict.fromkeys(where.status)
    return [f"{text} AND runs.status = {values.bind(status.value)}" for status in statuses]


def _conditions(where: RunFilter, leader: str, values: _Values) -> list[str]:
    """Return the conditions on the row itself, but for the status."""
    conditions = [f"runs.namespace = {values.bind(where.namespace)}"]
    for column, value in (
        ("workflow", where.workflow),
        ("version", where.version),
        ("reference_id", where.reference_id),
        ("parent_id", where.parent_id),
    ):
        if value is not None:
            conditions.append(f"runs.{column} = {values.bind(value)}")
    # The label that leads is the join's condition already.
    for name, label in where.labels[1:] if leader == "run_labels" else where.labels:
        conditions.append(
            "EXISTS (SELECT 1 FROM run_labels AS also WHERE also.namespace = runs.namespace"  # noqa: S608
            f" AND also.name = {values.bind(name)} AND also.value = {values.bind(label)}"
            " AND also.created_at = runs.created_at AND also.run_id = runs.run_id)"
        )
    conditions += [f"strpos({_SEARCHED}, {values.bind(word)}) > 0" for word in words_of(where)]
    return conditions


def _bounds(
    where: RunFilter, end: tuple[int, str] | None, leader: str, values: _Values
) -> list[str]:
    bounds: list[str] = []
    after, before = created_bounds(where)
    if after is not None:
        bounds.append(f"{leader}.created_at >= {values.bind(after)}")
    if before is not None:
        bounds.append(f"{leader}.created_at < {values.bind(before)}")
    if end is not None:
        key = f"{values.bind(end[0])}, {values.bind(end[1])}"
        bounds.append(f"({leader}.created_at, {leader}.run_id) < ({key})")
    return bounds


def run_of(row: Row) -> Projection:
    """Read a run's row."""
    labels = cast("str | None", row["labels"])
    return Projection(
        run_id=row["run_id"],
        namespace=row["namespace"],
        workflow=row["workflow"],
        version=row["version"],
        status=RunStatus(row["status"]),
        pool=row["pool"],
        priority=PRIORITIES[row["priority"]],
        reference_id=row["reference_id"],
        input_hash=row["input_hash"],
        parent_id=row["parent_id"],
        labels={} if labels is None else cast("dict[str, str]", loads(labels)),
        attempt=row["attempt"],
        created_at=Micros(row["created_at"]),
        started_at=_micros(row["started_at"]),
        ended_at=_micros(row["ended_at"]),
        ready_at=_micros(row["ready_at"]),
        due_at=_micros(row["due_at"]),
        worker_id=row["worker_id"],
        epoch=row["epoch"],
    )


def _micros(value: int | None) -> Micros | None:
    return None if value is None else Micros(value)


def runs_of(rows: Sequence[Row]) -> tuple[Projection, ...]:
    """Read runs' rows."""
    return tuple([run_of(row) for row in rows])
