"""W1: many runs of sequential tasks; throughput."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from aiki_trio import Runtime
from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    Workload,
    limited,
    run_chain,
    warm_runtime,
)


async def throughput(runtime: Runtime, params: Params) -> Figures:
    """Run them all and say how fast that was."""
    runs, steps = params["runs"], params["steps"]
    watch = Stopwatch.started()
    await limited(runs, params["cap"], lambda number: run_chain(runtime, number, steps))
    wall_s = watch.wall_s
    return {
        "tasks_per_s": runs * steps / wall_s,
        "runs_per_s": runs / wall_s,
        "wall_s": wall_s,
        "cpu_s": watch.cpu_s,
    }


async def _measure(params: Params, folder: Path) -> Figures:
    async with warm_runtime(folder, []) as runtime:
        return await throughput(runtime, params)


def measure(params: Params, folder: Path) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, folder))


WORKLOAD = Workload(
    "w1",
    "runs of sequential no-op tasks, all awaited",
    full={"runs": 300, "steps": 10, "cap": 50},
    quick={"runs": 20, "steps": 5, "cap": 10},
    measure=measure,
)
