"""How fast the storage writes: `python tests/bench/storage_micro.py [file | :memory: | memory]`.

Prints, for batches of 1, 10, 50 and 200 changes from one writer that waits for each, appends and
entry rows per second and the latency of an append; then the same with many writers of one change
each, whose appends share transactions; then what a parked run weighs. A change is what a task's
end is: one entry, every fourth with the run's row.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import trio
from attrs import evolve

from aiki_actors.engine import (
    Call,
    Entry,
    Micros,
    Projection,
    RunClaimed,
    RunCompleted,
    RunCreated,
    RunParked,
    SleepStarted,
    TaskSucceeded,
)
from aiki_actors.storage import Appended, Change, MemoryStorage, Storage, open_sqlite
from aiki_sdk.protocol import Priority, RunStatus

SECONDS = 2.0
BATCHES = (1, 10, 50, 200)
NOW = Micros(1_790_000_000_123_456)
HASH = "9f" * 32
CALL = Call(f"task:charge-card:{HASH}")


def row_of(run_id: str) -> Projection:
    """Make the row of a run that a worker executes."""
    return Projection(
        run_id=run_id,
        namespace="default",
        workflow="process-order",
        version="1",
        status=RunStatus.RUNNING,
        pool="default",
        priority=Priority.NORMAL,
        reference_id=None,
        input_hash=HASH,
        parent_id=None,
        labels={},
        attempt=1,
        created_at=NOW,
        started_at=NOW,
        ended_at=None,
        ready_at=None,
        due_at=None,
        worker_id="wrk_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        epoch=1,
    )


def created(run_id: str) -> Change:
    """Make the change that starts a run."""
    body = RunCreated("default", "process-order", "1", {"args": [{"order": 7, "sum": 12.5}]}, HASH)
    claimed = RunClaimed("wrk_01ARZ3NDEKTSV4RRFFQ69G5FAV", 1, "c" * 32)
    entries = (Entry(1, NOW, body), Entry(2, NOW, claimed))
    return Change(run_id, 1, entries, row_of(run_id), create=True)


def step(run_id: str, seq: int) -> Change:
    """Make the change that records a task's result."""
    body = TaskSucceeded(CALL, 1, {"charged": True, "receipt": "r-123456", "sum": 12.5})
    row = evolve(row_of(run_id), attempt=seq, due_at=NOW) if seq % 4 == 0 else None
    return Change(run_id, seq, (Entry(seq, Micros(NOW + seq), body),), row)


def run_ids(count: int, prefix: str) -> list[str]:
    """Make ids that look like real ones."""
    return [f"run_01{prefix}{number:0{24 - len(prefix)}d}" for number in range(count)]


async def measure(storage: Storage, batch: int) -> None:
    """Print the figures of one writer that appends batches."""
    ids = run_ids(max(batch, 50), f"ONE{batch}X")
    await append(storage, [created(run_id) for run_id in ids])
    seqs = dict.fromkeys(ids, 3)
    latencies: list[float] = []
    turn = 0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        changes: list[Change] = []
        for _ in range(batch):
            run_id = ids[turn % len(ids)]
            changes.append(step(run_id, seqs[run_id]))
            seqs[run_id] += 1
            turn += 1
        began = time.perf_counter()
        await append(storage, changes)
        latencies.append(time.perf_counter() - began)
    show(f"batch {batch}", len(latencies), turn, time.perf_counter() - start, latencies)


async def measure_writers(storage: Storage, writers: int) -> None:
    """Print the figures of many writers that append one change at a time."""
    ids = run_ids(writers, f"MANY{writers}X")
    await append(storage, [created(run_id) for run_id in ids])
    latencies: list[float] = []
    start = time.perf_counter()

    async def write(run_id: str) -> None:
        seq = 3
        while time.perf_counter() - start < SECONDS:
            began = time.perf_counter()
            await append(storage, [step(run_id, seq)])
            latencies.append(time.perf_counter() - began)
            seq += 1

    async with trio.open_nursery() as nursery:
        for run_id in ids:
            nursery.start_soon(write, run_id)
    rows = len(latencies)
    show(f"{writers} writers", rows, rows, time.perf_counter() - start, latencies)


async def append(storage: Storage, changes: Sequence[Change]) -> None:
    """Append, and check that everything was taken."""
    results = await storage.append(changes)
    assert all(isinstance(result, Appended) for result in results), results


def show(what: str, appends: int, rows: int, elapsed: float, latencies: list[float]) -> None:
    """Print one line of figures."""
    cuts = [cut * 1000 for cut in quantiles([*latencies, *latencies], n=100)]
    print(
        f"{what:>12}: {appends / elapsed:9,.0f} appends/s {rows / elapsed:9,.0f} rows/s"
        f"   p50 {cuts[49]:7.3f} ms   p99 {cuts[98]:7.3f} ms"
    )


async def weigh(storage: Storage) -> None:
    """Print what a parked run (4 entries) and an ended one add to the database."""
    for what, tail in (
        ("parked", (SleepStarted(CALL, Micros(60_000_000), NOW), RunParked())),
        ("ended", (RunCompleted({"charged": True}),)),
    ):
        before = await storage.size_bytes()
        ids = run_ids(5000, what.upper())
        for start in range(0, len(ids), 500):
            changes: list[Change] = []
            for run_id in ids[start : start + 500]:
                change = created(run_id)
                entries = [Entry(3 + at, NOW, body) for at, body in enumerate(tail)]
                status = RunStatus.SLEEPING if what == "parked" else RunStatus.COMPLETED
                row = evolve(row_of(run_id), status=status, worker_id=None)
                row = evolve(row, due_at=NOW) if what == "parked" else evolve(row, ended_at=NOW)
                changes.append(evolve(change, entries=(*change.entries, *entries), projection=row))
            await append(storage, changes)
        grown = await storage.size_bytes() - before
        print(f"{what:>12}: {grown / len(ids):9,.0f} bytes per run")


async def measure_all(storage: Storage) -> None:
    """Print everything about one storage."""
    for batch in BATCHES:
        await measure(storage, batch)
    for writers in (10, 50, 200):
        await measure_writers(storage, writers)
    await weigh(storage)


async def main(where: str | None) -> None:
    """Measure the storage that was asked for: a new file by default."""
    if where == "memory":
        await measure_all(MemoryStorage())
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.db" if where is None else Path(where)
        async with open_sqlite(None if where == ":memory:" else file) as storage:
            await measure_all(storage)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
