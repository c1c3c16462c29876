"""W7: how long a run with a long journal takes to go on in a runtime that has it not in memory.

One runtime records the results and is closed. A second one is sent the event that each run waits
for: it reads the journal, folds it, replays the code up to the wait and completes. The same of a
run with one result is taken off. Reading and folding alone are measured as well.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import Final

import trio

from aiki_actors.engine import fold
from aiki_trio import Runtime
from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    check,
    limited,
)
from tests.bench._places import Place, Workload, warm_runtime
from tests.bench._workflows import GO, long_journal

BASELINE: Final = 1


async def _record(place: Place, sizes: list[int]) -> list[str]:
    """Make the runs; returns their ids."""
    async with warm_runtime(place, [long_journal]) as runtime:
        handles = [await runtime.client.start(long_journal, size) for size in sizes]
        await limited(
            len(handles), len(handles), lambda number: handles[number].wait("awaiting_event")
        )
        return [handle.id for handle in handles]


async def _resume(runtime: Runtime, run_id: str, size: int) -> float:
    """Send the event and await the run; returns milliseconds."""
    handle = await runtime.client.get(run_id, workflow=long_journal)
    watch = Stopwatch.started()
    await handle.send(GO, 7)
    result = await handle.result()
    passed_ms = watch.wall_ms
    check(actual=result, expected=size * (size + 1) // 2 + 7, what=f"result of {run_id}")
    return passed_ms


async def _read_and_fold(runtime: Runtime, run_id: str) -> tuple[float, float]:
    watch = Stopwatch.started()
    entries = await runtime.storage.journal(run_id)
    read_ms, watch = watch.wall_ms, Stopwatch.started()
    fold(run_id, entries)
    return read_ms, watch.wall_ms


async def _measure(params: Params, place: Place) -> Figures:
    sizes = [BASELINE, params["small"], params["large"]]
    every = [size for size in sizes for _ in range(params["times"])]
    run_ids = await _record(place, every)
    times_ms: dict[int, list[float]] = {size: [] for size in sizes}
    parts_ms: dict[int, tuple[float, float]] = {}
    async with warm_runtime(place, [long_journal]) as runtime:
        await runtime.recovered()
        for size, run_id in zip(every, run_ids, strict=True):
            parts_ms[size] = await _read_and_fold(runtime, run_id)
            times_ms[size].append(await _resume(runtime, run_id, size))
    baseline_ms, small_ms, large_ms = (statistics.median(times_ms[size]) for size in sizes)
    return {
        "baseline_ms": baseline_ms,
        "small_ms": small_ms - baseline_ms,
        "large_ms": large_ms - baseline_ms,
        "growth": (large_ms - baseline_ms) / (small_ms - baseline_ms),
        "large_read_ms": parts_ms[params["large"]][0],
        "large_fold_ms": parts_ms[params["large"]][1],
    }


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w7",
    "replay of a small and a large journal",
    full={"small": 1_000, "large": 10_000, "times": 3},
    quick={"small": 20, "large": 200, "times": 1},
    measure=measure,
    topologies=("embedded",),
)
