"""Random histories, played on every adapter and on a model that is simple enough to be right.

The model keeps lists and dicts and looks at everything; whatever an adapter answers must be what
the model answers, after each operation, for every read that the port has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from hypothesis import given, settings, strategies as st

from aiki_actors.engine import Entry, Micros, Notice, Projection, RunQueued
from aiki_actors.storage import (
    Appended,
    AppendResult,
    Change,
    ClaimedRun,
    DueRun,
    ReadyRun,
    ReferenceTaken,
    RunFilter,
    SeqConflict,
    Storage,
)
from aiki_sdk.protocol import Priority, RunStatus
from tests.contract.storage_cases import ADAPTERS, NOW, at, notice, row, spec_of

RUNS: Final = ("run_a", "run_b", "run_c", "run_d")
RANK: Final = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


@attrs.define(eq=False)
class Model:
    """The port, by brute force."""

    journals: dict[str, list[Entry]] = attrs.Factory(lambda: dict[str, list[Entry]]())
    rows: dict[str, Projection] = attrs.Factory(lambda: dict[str, Projection]())
    holders: set[str] = attrs.Factory(lambda: set[str]())
    owed: dict[str, Notice] = attrs.Factory(lambda: dict[str, Notice]())

    def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        results: list[AppendResult] = []
        for change in changes:
            refused = any(
                earlier.run_id == change.run_id and not isinstance(result, Appended)
                for earlier, result in zip(changes, results, strict=False)
            )
            results.append(self.refusal(change, refused) or self.apply(change))
        return results

    def refusal(self, change: Change, refused: bool) -> AppendResult | None:
        last = len(self.journals.get(change.run_id, ()))
        missing = last == 0 and not change.create and change.entries
        if refused or missing or change.first_seq != last + 1:
            return SeqConflict(change.run_id, change.first_seq)
        if change.create and change.projection is not None:
            holder = self.find(change.projection)
            if holder is not None and holder.run_id != change.supersedes:
                return ReferenceTaken(holder.run_id, holder.input_hash)
        return None

    def find(self, like: Projection) -> Projection | None:
        for run_id in sorted(self.holders):
            held = self.rows[run_id]
            if like.reference_id is not None and _key(held) == _key(like):
                return held
        return None

    def apply(self, change: Change) -> Appended:
        self.holders.discard(change.supersedes or "")
        if change.entries:
            self.journals.setdefault(change.run_id, []).extend(change.entries)
        if change.projection is not None:
            self.rows[change.run_id] = change.projection
        if change.create and change.projection and change.projection.reference_id is not None:
            self.holders.add(change.run_id)
        for one in change.notices:
            self.owed.setdefault(one.id, one)
        for settled in change.settled:
            self.owed.pop(settled, None)
        return Appended()

    def delete_ended(self, which: Deletion) -> int:
        ended = sorted(
            (run.ended_at or 0, run.run_id) for run in self.rows.values() if which.takes(run)
        )[: which.limit]
        for _, run_id in ended:
            del self.rows[run_id], self.journals[run_id]
            self.holders.discard(run_id)
        return len(ended)

    def select(self, where: RunFilter) -> list[Projection]:
        def fits(run: Projection) -> bool:
            return (
                run.namespace == where.namespace
                and (where.status is None or run.status in where.status)
                and where.workflow in {None, run.workflow}
                and where.version in {None, run.version}
                and where.reference_id in {None, run.reference_id}
                and where.parent_id in {None, run.parent_id}
                and all(label in run.labels.items() for label in where.labels)
                and (where.query or "").lower() in f"{run.run_id} {run.workflow} {run.reference_id}"
                and (where.created_after is None or moment(run.created_at) >= where.created_after)
                and (where.created_before is None or moment(run.created_at) < where.created_before)
            )

        found = [run for run in self.rows.values() if fits(run)]
        return sorted(found, key=lambda run: (run.created_at, run.run_id), reverse=True)


def _key(run: Projection) -> tuple[str, str, str | None]:
    return run.namespace, run.workflow, run.reference_id


def moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


# --- What is played -------------------------------------------------------------------------------

offsets: Final = st.integers(0, 3).map(at)
maybe: Final = st.none() | offsets
creations: Final = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(("default", "other")),
        "workflow": st.sampled_from(("order", "refund")),
        "version": st.sampled_from(("1", "2")),
        "priority": st.sampled_from(Priority),
        "reference_id": st.sampled_from((None, "ref", "ref", "réf")),
        "input_hash": st.sampled_from(("00", "ff")),
        "parent_id": st.sampled_from((None, *RUNS)),
        "labels": st.dictionaries(st.sampled_from("kl"), st.sampled_from("vw"), max_size=2),
        "created_at": offsets,
    }
)
updates: Final = st.fixed_dictionaries(
    {
        "status": st.sampled_from((RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.FAILED)),
        "attempt": st.integers(1, 3),
        "started_at": maybe,
        "ended_at": maybe,
        "ready_at": maybe,
        "due_at": maybe,
        "worker_id": st.sampled_from((None, "w1", "w2")),
        "epoch": st.integers(0, 3),
    }
)


@attrs.frozen
class Move:
    """A change to make: seqs are filled in when it is played, off by `error`."""

    run_id: str
    fields: dict[str, Any]
    changed: dict[str, Any] | None
    entries: int
    error: int
    create: bool
    supersedes: str | None
    tells: tuple[str, ...]
    settles: tuple[int, ...]


moves: Final = st.builds(
    Move,
    run_id=st.sampled_from(RUNS),
    fields=creations,
    changed=st.none() | updates,
    entries=st.integers(0, 3),
    error=st.sampled_from((0, 0, 0, 0, 0, 0, 0, 1, -1)),
    create=st.sampled_from((None, None, None, True)).map(bool),
    supersedes=st.sampled_from((None, None, *RUNS)),
    tells=st.lists(st.sampled_from(RUNS), max_size=2).map(tuple),
    settles=st.lists(st.integers(0, 3), max_size=2).map(tuple),
)


@attrs.frozen
class Deletion:
    """Delete what ended."""

    before: Micros
    limit: int
    namespace: str | None
    workflow: str | None
    excluding: tuple[str, ...]

    def takes(self, run: Projection) -> bool:
        """Whether it is about this run."""
        return (
            run.ended_at is not None
            and run.ended_at < self.before
            and self.namespace in {None, run.namespace}
            and self.workflow in {None, run.workflow}
            and run.workflow not in self.excluding
        )


operations: Final = st.lists(
    st.lists(moves, min_size=1, max_size=6)
    | st.builds(
        Deletion,
        offsets,
        st.integers(1, 3),
        st.sampled_from((None, "default", "other")),
        st.sampled_from((None, None, "order", "refund")),
        st.sampled_from(((), (), ("order",), ("refund", "unknown"))),
    ),
    max_size=8,
)
filters: Final = st.builds(
    RunFilter,
    namespace=st.sampled_from(("default", "other")),
    status=st.none()
    | st.lists(st.sampled_from((RunStatus.QUEUED, RunStatus.RUNNING)), max_size=2).map(tuple),
    workflow=st.sampled_from((None, None, "order")),
    version=st.sampled_from((None, None, "2")),
    reference_id=st.sampled_from((None, None, "ref")),
    parent_id=st.sampled_from((None, None, "run_a")),
    labels=st.sampled_from(((), (), (("k", "v"),), (("k", "v"), ("l", "w")))),
    query=st.sampled_from((None, None, "REF", "order", "n_a", "x")),
    created_after=st.none() | offsets.map(moment),
    created_before=st.none() | offsets.map(moment),
)


def changes_of(batch: Sequence[Move], model: Model) -> list[Change]:
    """Fill in what depends on the state: seqs, the rows' fixed part, which notices are owed."""
    last = {run_id: len(model.journals.get(run_id, ())) for run_id in RUNS}
    rows = dict(model.rows)
    owed = sorted(model.owed)
    found: list[Change] = []
    for move in batch:
        run_id = move.run_id
        create = move.create or last[run_id] == 0
        changed = move.changed or {}
        if create:
            run = attrs.evolve(row(run_id, **move.fields), **changed)
            first, bodies = 1, [spec_of(run), *[RunQueued("more")] * move.entries]
        else:
            run = attrs.evolve(rows[run_id], **changed)
            first = max(1, last[run_id] + 1 + move.error)
            bodies = [RunQueued(f"again {number}") for number in range(move.entries)]
        entries = tuple(Entry(seq, at(seq), body) for seq, body in enumerate(bodies, first))
        told = [notice(run_id, first, number, to) for number, to in enumerate(move.tells)]
        found.append(
            Change(
                run_id,
                first,
                entries,
                run if create or (changed and entries) else None,
                create=create,
                supersedes=move.supersedes if create else None,
                notices=tuple(told) if entries else (),
                settled=tuple(owed[number] for number in move.settles if number < len(owed)),
            )
        )
        if first == last[run_id] + 1 and entries:
            last[run_id] += len(entries)
            rows[run_id] = run
    return found


async def check(storage: Storage, model: Model, wheres: Sequence[RunFilter]) -> None:
    """Compare everything that can be read."""
    for run_id in RUNS:
        assert await storage.journal(run_id) == model.journals.get(run_id, [])
        assert await storage.run(run_id) == model.rows.get(run_id)
    for like in list(model.rows.values()):
        if like.reference_id is not None:
            found = await storage.find(like.namespace, like.workflow, like.reference_id)
            assert found == model.find(like)
    for where in wheres:
        expected = model.select(where)
        assert await storage.count(where) == len(expected)
        listed: list[Projection] = []
        page = await storage.runs(where, limit=2)
        while page.cursor is not None:
            listed += page.runs
            page = await storage.runs(where, limit=2, cursor=page.cursor)
        assert [*listed, *page.runs] == expected
    await check_sweeps(storage, model)


async def check_sweeps(storage: Storage, model: Model) -> None:
    runs = list(model.rows.values())
    ready = sorted(
        (RANK[run.priority], run.ready_at, run.run_id) for run in runs if run.ready_at is not None
    )
    found = await storage.ready(limit=9, exclude=["run_a"])
    expected = [model.rows[run_id] for _, _, run_id in ready if run_id != "run_a"]
    assert found == [
        ReadyRun(
            run.run_id,
            run.namespace,
            run.workflow,
            run.version,
            run.pool,
            run.priority,
            run.ready_at or NOW,
        )
        for run in expected
    ]
    due = sorted((run.due_at, run.run_id) for run in runs if run.due_at is not None)
    dues = [DueRun(run_id, due_at) for due_at, run_id in due if due_at < at(3)]
    assert await storage.due(before=at(3), limit=9) == dues
    if dues:
        assert await storage.due(before=at(3), limit=9, after=dues[0]) == dues[1:]
    claimed = [
        ClaimedRun(run.run_id, run.worker_id, run.epoch)
        for run in sorted(runs, key=lambda run: run.run_id)
        if run.worker_id is not None
    ]
    assert await storage.claimed(limit=9) == claimed
    assert await storage.notices(limit=99) == [model.owed[one] for one in sorted(model.owed)]


async def play_deletion(operation: Deletion, model: Model, storages: Sequence[Storage]) -> None:
    answer = model.delete_ended(operation)
    for storage in storages:
        deleted = await storage.delete_ended(
            before=operation.before,
            limit=operation.limit,
            namespace=operation.namespace,
            workflow=operation.workflow,
            excluding=operation.excluding,
        )
        assert deleted == answer


async def play(history: Sequence[Sequence[Move] | Deletion], wheres: Sequence[RunFilter]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            storages = [
                await stack.enter_async_context(opens(Path(folder))) for opens in ADAPTERS.values()
            ]
            model = Model()
            for operation in history:
                if isinstance(operation, Deletion):
                    await play_deletion(operation, model, storages)
                else:
                    changes = changes_of(operation, model)
                    answer = model.append(changes)
                    for storage in storages:
                        assert await storage.append(changes) == answer
            for storage in storages:
                await check(storage, model, wheres)


@settings(max_examples=100, deadline=None)
@given(history=operations, wheres=st.lists(filters, min_size=1, max_size=4))
def test_every_adapter_answers_what_the_model_answers(
    history: list[list[Move] | Deletion], wheres: list[RunFilter]
) -> None:
    trio.run(play, history, wheres)
