"""`MemoryStorage`: runs in this process only, for tests and simulation.

It keeps entries as the same encoded bytes that a database would hold, so that a value that cannot
be stored, or does not come back as it was, shows here too. Nothing it returns is shared with it.
The indexes are sorted lists: inserting moves memory, which is fast enough for 100,000 runs.

Invariants: `append` yields before and after, and never in the middle; every index holds exactly
what the rows say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

import trio
from attrs import Factory, define, field

from aiki_actors.engine import FORMAT, Entry, Micros, Notice, Projection
from aiki_sdk import dumps, loads
from aiki_sdk.protocol import Priority

from ._changes import EncodedChange, NoticeRow, encode_change
from ._codec import EntryRow, decode_entry, decode_notice
from ._listing import check_limit, created_bounds, folded, read_cursor, words_of, write_cursor
from ._port import (
    Appended,
    AppendResult,
    Change,
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    ReferenceTaken,
    RunFilter,
    RunPage,
    SeqConflict,
)

PRIORITY_RANK: Final = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""The order in which ready runs are handed out."""

_ReferenceKey: TypeAlias = tuple[str, str, str]
_Key = TypeVar("_Key", tuple[int, str], tuple[int, int, str], str)


@define(eq=False)
class _SortedKeys(Generic[_Key]):
    """An index: distinct keys in order."""

    keys: list[_Key] = Factory(lambda: list[_Key]())

    def add(self, key: _Key) -> None:
        insort(self.keys, key)

    def discard(self, key: _Key) -> None:
        at = bisect_left(self.keys, key)
        assert self.keys[at] == key, f"{key} is missing from its index"
        del self.keys[at]

    def after(self, key: _Key | None) -> Iterator[_Key]:
        start = 0 if key is None else bisect_right(self.keys, key)
        return (self.keys[at] for at in range(start, len(self.keys)))


def _reference(row: Projection) -> _ReferenceKey | None:
    if row.reference_id is None:
        return None
    return row.namespace, row.workflow, row.reference_id


def _created(row: Projection) -> tuple[int, str]:
    return row.created_at, row.run_id


@define(eq=False)
class MemoryStorage:
    """A `Storage` without a disk: all is lost with the object."""

    _journals: dict[str, list[EntryRow]] = field(
        factory=lambda: dict[str, list[EntryRow]](), init=False
    )
    _rows: dict[str, Projection] = field(factory=lambda: dict[str, Projection](), init=False)
    _references: dict[_ReferenceKey, str] = field(
        factory=lambda: dict[_ReferenceKey, str](), init=False
    )
    _notices: dict[str, NoticeRow] = field(factory=lambda: dict[str, NoticeRow](), init=False)
    _workflows: dict[tuple[str, str, str], bytes] = field(
        factory=lambda: dict[tuple[str, str, str], bytes](), init=False
    )
    _size_bytes: int = field(default=0, init=False)
    _by_creation: _SortedKeys[tuple[int, str]] = field(factory=lambda: _SortedKeys(), init=False)
    _by_due: _SortedKeys[tuple[int, str]] = field(factory=lambda: _SortedKeys(), init=False)
    _by_end: _SortedKeys[tuple[int, str]] = field(factory=lambda: _SortedKeys(), init=False)
    _by_ready: _SortedKeys[tuple[int, int, str]] = field(factory=lambda: _SortedKeys(), init=False)
    _by_claim: _SortedKeys[str] = field(factory=lambda: _SortedKeys(), init=False)
    _by_notice: _SortedKeys[str] = field(factory=lambda: _SortedKeys(), init=False)

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Apply the changes; see `Storage.append`."""
        encoded = [encode_change(change) for change in changes]
        await trio.lowlevel.checkpoint_if_cancelled()
        refused: set[str] = set()
        results: list[AppendResult] = []
        for one in encoded:
            result = self._refusal(one, refused)
            if result is None:
                self._apply(one)
            else:
                refused.add(one.change.run_id)
            results.append(Appended() if result is None else result)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return results

    def _refusal(
        self, one: EncodedChange, refused: set[str]
    ) -> SeqConflict | ReferenceTaken | None:
        change = one.change
        last = len(self._journals.get(change.run_id, ()))
        fits = change.first_seq == last + 1 and (change.create or last > 0 or not one.rows)
        if change.run_id in refused or not fits:
            return SeqConflict(change.run_id, change.first_seq)
        if change.create and change.projection is not None:
            key = _reference(change.projection)
            holder = None if key is None else self._references.get(key)
            if holder is not None and holder != change.supersedes:
                return ReferenceTaken(holder, self._rows[holder].input_hash)
        return None

    def _apply(self, one: EncodedChange) -> None:
        change = one.change
        if change.supersedes is not None and change.supersedes in self._rows:
            self._give_up_reference(self._rows[change.supersedes])
        if one.rows:
            self._journals.setdefault(change.run_id, []).extend(one.rows)
        self._size_bytes += sum(len(data) for *_, data in one.rows)
        if change.projection is not None:
            self._write_row(change.projection)
        for notice in one.notices:
            if notice[0] not in self._notices:
                self._notices[notice[0]] = notice
                self._by_notice.add(notice[0])
        for notice_id in change.settled:
            if self._notices.pop(notice_id, None) is not None:
                self._by_notice.discard(notice_id)

    def _give_up_reference(self, row: Projection) -> None:
        key = _reference(row)
        if key is not None and self._references.get(key) == row.run_id:
            del self._references[key]

    def _write_row(self, row: Projection) -> None:
        old = self._rows.get(row.run_id)
        if old is None:
            self._by_creation.add(_created(row))
            key = _reference(row)
            if key is not None:
                self._references[key] = row.run_id
        else:
            assert _created(old) == _created(row), f"run {row.run_id} was created only once"
            self._unindex(old)
        self._rows[row.run_id] = row
        if row.ready_at is not None:
            self._by_ready.add((PRIORITY_RANK[row.priority], row.ready_at, row.run_id))
        if row.due_at is not None:
            self._by_due.add((row.due_at, row.run_id))
        if row.ended_at is not None:
            self._by_end.add((row.ended_at, row.run_id))
        if row.worker_id is not None:
            self._by_claim.add(row.run_id)

    def _unindex(self, row: Projection) -> None:
        if row.ready_at is not None:
            self._by_ready.discard((PRIORITY_RANK[row.priority], row.ready_at, row.run_id))
        if row.due_at is not None:
            self._by_due.discard((row.due_at, row.run_id))
        if row.ended_at is not None:
            self._by_end.discard((row.ended_at, row.run_id))
        if row.worker_id is not None:
            self._by_claim.discard(row.run_id)

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`."""
        await trio.lowlevel.checkpoint()
        end = None if limit is None else after + limit
        rows = self._journals.get(run_id, [])[after:end]
        return [decode_entry(run_id, seq, at, kind, FORMAT, data) for seq, at, kind, data in rows]

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        await trio.lowlevel.checkpoint()
        return self._rows.get(run_id)

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        await trio.lowlevel.checkpoint()
        run_id = self._references.get((namespace, workflow, reference_id))
        return None if run_id is None else self._rows[run_id]

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        check_limit(limit)
        end = None if cursor is None else read_cursor(cursor)
        await trio.lowlevel.checkpoint()
        found: list[Projection] = []
        for row in self._selected(where, end):
            if len(found) == limit:
                return RunPage(tuple(found), write_cursor(found[-1]))
            found.append(row)
        return RunPage(tuple(found), None)

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        await trio.lowlevel.checkpoint()
        return sum(1 for _ in self._selected(where, None))

    def _selected(self, where: RunFilter, end: tuple[int, str] | None) -> Iterator[Projection]:
        after, before = created_bounds(where)
        keys = self._by_creation.keys
        for at in range((len(keys) if end is None else bisect_left(keys, end)) - 1, -1, -1):
            created_at, run_id = keys[at]
            if after is not None and created_at < after:
                return
            if before is not None and created_at >= before:
                continue
            row = self._rows[run_id]
            if _matches(row, where):
                yield row

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        excluded = frozenset(exclude)
        found: list[ReadyRun] = []
        for _, ready_at, run_id in self._by_ready.keys:
            if len(found) == limit:
                break
            if run_id not in excluded:
                row = self._rows[run_id]
                found.append(
                    ReadyRun(
                        run_id,
                        row.namespace,
                        row.workflow,
                        row.version,
                        row.pool,
                        row.priority,
                        Micros(ready_at),
                    )
                )
        return found

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        found: list[DueRun] = []
        for due_at, run_id in self._by_due.after(None if after is None else _due_key(after)):
            if due_at >= before or len(found) == limit:
                break
            found.append(DueRun(run_id, Micros(due_at)))
        return found

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        found: list[ClaimedRun] = []
        for run_id in self._by_claim.after(after):
            if len(found) == limit:
                break
            row = self._rows[run_id]
            assert row.worker_id is not None, f"run {run_id} is in the index of claims without one"
            found.append(ClaimedRun(run_id, row.worker_id, row.epoch))
        return found

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        found: list[Notice] = []
        for notice_id in self._by_notice.after(after):
            if len(found) == limit:
                break
            _, source_id, target_id, kind, data = self._notices[notice_id]
            found.append(decode_notice(notice_id, source_id, target_id, kind, FORMAT, data))
        return found

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete ended runs; see `Storage.delete_ended`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        doomed: list[Projection] = []
        for ended_at, run_id in self._by_end.keys:
            if ended_at >= before or len(doomed) == limit:
                break
            row = self._rows[run_id]
            wanted = namespace in {None, row.namespace} and workflow in {None, row.workflow}
            if wanted and row.workflow not in excluding:
                doomed.append(row)
        for row in doomed:
            self._unindex(row)
            self._by_creation.discard(_created(row))
            self._give_up_reference(row)
            del self._rows[row.run_id]
            entries = self._journals.pop(row.run_id)
            self._size_bytes -= sum(len(data) for *_, data in entries)
        return len(doomed)

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows; see `Storage.put_workflows`."""
        rows = {(one.namespace, one.name, one.version): dumps(one.definition) for one in workflows}
        await trio.lowlevel.checkpoint_if_cancelled()
        self._workflows.update(rows)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        await trio.lowlevel.checkpoint()
        return [KnownWorkflow(*key, loads(data)) for key, data in sorted(self._workflows.items())]

    async def size_bytes(self) -> int:
        """Return the length of all entry bodies that are kept."""
        await trio.lowlevel.checkpoint()
        return self._size_bytes


def _due_key(run: DueRun) -> tuple[int, str]:
    return run.due_at, run.run_id


def _matches(row: Projection, where: RunFilter) -> bool:
    return (
        row.namespace == where.namespace
        and (where.status is None or row.status in where.status)
        and where.workflow in {None, row.workflow}
        and where.version in {None, row.version}
        and where.reference_id in {None, row.reference_id}
        and where.parent_id in {None, row.parent_id}
        and all(row.labels.get(name) == value for name, value in where.labels)
        and all(word in _searched(row) for word in words_of(where))
    )


def _searched(row: Projection) -> str:
    return folded(f"{row.run_id} {row.workflow} {row.reference_id or ''}")
