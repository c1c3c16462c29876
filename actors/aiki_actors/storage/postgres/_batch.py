"""A batch of changes as the values of one statement: arrays, which the server turns into rows.

The common case is that every change fits; then `append_all` writes the batch with a statement per
table, or `append_entries`, where there is nothing but entries. Only where something in it is
refused, or where the order of its changes counts, they are written one by one (`append_each`), the
refused ones told from the others.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from attrs import define

from aiki_actors.engine import FORMAT, Projection
from aiki_actors.storage._changes import EncodedChange
from aiki_actors.storage._port import Appended, AppendResult, ReferenceTaken, SeqConflict
from aiki_actors.storage._run_row import COLUMNS, row_of
from aiki_sdk import JsonValue, StorageCorrupt, dumps, loads

# What a run was created with never changes.
_CHANGING: Final = tuple(
    COLUMNS.index(name)
    for name in (
        "run_id", "status", "attempt", "started_at", "ended_at", "ready_at", "due_at",
        "worker_id", "epoch",
    )
)  # fmt: skip

ALL_FIT: Final = "[]"
"""The outcome of a batch none of whose changes was refused."""

_APPENDED: Final = Appended()


@define(eq=False)
class Batch:
    """The changes of one transaction, by the call of `append` that each came with."""

    calls: Sequence[Sequence[EncodedChange]]

    @property
    def changes(self) -> list[EncodedChange]:
        """All changes, in order."""
        return [one for call in self.calls for one in call]


# --- All at once ----------------------------------------------------------------------------------


def columns_of(changes: Sequence[EncodedChange]) -> tuple[str, list[object]] | None:
    """Return the function that writes the changes, and its arrays.

    None: they have to be written one by one.
    """
    before: list[tuple[object, ...]] = []
    empty: list[tuple[object, ...]] = []
    entries: list[tuple[object, ...]] = []
    notices: list[tuple[object, ...]] = []
    settled: list[str] = []
    last: dict[str, int] = {}
    for one in changes:
        change = one.change
        run_id = change.run_id
        if change.supersedes is not None:
            return None  # the old run must give its reference id up before the new one takes it
        previous = last.get(run_id)
        if previous is not None:
            if change.first_seq != previous + 1 or change.create:
                return None
        elif not one.rows:
            empty.append((run_id, change.first_seq - 1))
        elif not change.create:
            before.append((run_id, change.first_seq - 1))
        last[run_id] = one.last_seq
        entries += [(run_id, *row) for row in one.rows]
        notices += one.notices
        settled += change.settled
    if settled and not set(settled).isdisjoint([notice[0] for notice in notices]):
        return None  # one settles what another owes; the order tells what is left
    new, updated, labels = _rows(changes)
    columns: list[object] = [*_transposed(before, 2), *_transposed(entries, 5)]
    if not (empty or new or updated or notices or settled):
        return "append_entries", columns
    return "append_all", [
        *columns,
        *_transposed(empty, 2),
        *_transposed(new, len(COLUMNS)),
        *_transposed(updated, len(_CHANGING)),
        *_transposed(labels, 5),
        *_transposed(_first_of_each(notices), 5),
        settled,
    ]


def _rows(
    changes: Sequence[EncodedChange],
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Return rows of new runs, rows that change, and labels; the last word on each run counts."""
    rows: dict[str, Projection] = {}
    created: dict[str, Projection] = {}
    for one in changes:
        run = one.change.projection
        if run is not None:
            rows[run.run_id] = run
            if one.change.create:
                created[run.run_id] = run
    labels: list[tuple[object, ...]] = [
        (run.namespace, name, value, run.created_at, run_id)
        for run_id, run in created.items()
        for name, value in run.labels.items()
    ]
    new: list[tuple[object, ...]] = []
    updated: list[tuple[object, ...]] = []
    # In order of id, so that two transactions take their locks in the same order.
    for run_id in sorted(rows):
        row = row_of(rows[run_id])
        if run_id in created:
            new.append(row)
        else:
            updated.append(tuple([row[column] for column in _CHANGING]))
    return new, updated, labels


def _first_of_each(notices: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Keep the first of the notices with one id."""
    return list({notice[0]: notice for notice in reversed(notices)}.values())[::-1]


def _transposed(rows: list[tuple[object, ...]], width: int) -> list[list[object]]:
    """Turn rows into columns."""
    if not rows:
        return [[] for _ in range(width)]
    return [list(column) for column in zip(*rows, strict=True)]


# --- One by one -----------------------------------------------------------------------------------


def document_of(batch: Batch) -> str:
    """Write a batch for `append_each`: a JSON array of its changes."""
    items: list[JsonValue] = []
    for call, changes in enumerate(batch.calls):
        items += [_change_document(call, one) for one in changes]
    return dumps(items).decode()


def _change_document(call: int, one: EncodedChange) -> JsonValue:
    change = one.change
    run = change.projection
    labels: Mapping[str, str] = {}
    if run is not None and change.create:
        labels = run.labels
    document: dict[str, JsonValue] = {
        "call": call,
        "run": change.run_id,
        "first": change.first_seq,
        "create": change.create,
        "supersedes": change.supersedes,
        "entries": [[seq, at, kind, b64encode(body).decode()] for seq, at, kind, body in one.rows],
        "labels": [[name, value] for name, value in labels.items()],
        "notices": [[*texts, b64encode(body).decode()] for *texts, body in one.notices],
        "settled": list(change.settled),
    }
    if run is not None:
        row: dict[str, JsonValue] = dict(zip(COLUMNS, row_of(run), strict=True))
        # Only a new run's row claims its reference id; an update leaves that column as it is.
        row["reference_current"] = True if run.reference_id is not None else None
        document["row"] = row
    return document


def results_of(batch: Batch, outcome: str) -> list[list[AppendResult]]:
    """Read what the server told of a batch: the results of each call.

    Raises:
        StorageCorrupt: it is no outcome.
    """
    refused = _refusals(outcome)
    results: list[list[AppendResult]] = []
    index = 0
    for changes in batch.calls:
        part: list[AppendResult] = []
        for one in changes:
            why = refused.get(index)
            if why is None:
                part.append(_APPENDED)
            elif len(why) == 1:
                part.append(SeqConflict(one.change.run_id, one.change.first_seq))
            else:
                part.append(ReferenceTaken(str(why[1]), str(why[2])))
            index += 1
        results.append(part)
    return results


def _refusals(outcome: str) -> Mapping[int, list[JsonValue]]:
    found: dict[int, list[JsonValue]] = {}
    if outcome == ALL_FIT:
        return found
    document = loads(outcome)
    items = document if isinstance(document, list) else [None]
    for item in items:
        match item:
            case [int(index)] | [int(index), str(), str()]:
                found[index] = item
            case _:
                message = f"the outcome of a batch is {outcome!r}, which is no list of refusals"
                raise StorageCorrupt(message)
    return found


@cache
def statement(function: str, values: int) -> str:
    """Return the call of one of the functions in the schema; `values` with the first three."""
    marks = ", ".join([f"${number}" for number in range(1, values + 1)])
    return f"SELECT {function}({marks})"  # a constant of this package


FORMAT_OF_ENTRIES: Final = FORMAT
