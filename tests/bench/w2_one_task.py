"""W2: one-task runs one after another; latency from the start call to the result in hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    Workload,
    latencies,
    run_chain,
    warm_runtime,
)


async def _measure(params: Params, folder: Path) -> Figures:
    times_ms: list[float] = []
    async with warm_runtime(folder, []) as runtime:
        for number in range(params["runs"]):
            watch = Stopwatch.started()
            await run_chain(runtime, number, 1)
            times_ms.append(watch.wall_ms)
    return latencies(times_ms)


def measure(params: Params, folder: Path) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, folder))


WORKLOAD = Workload(
    "w2",
    "one-task runs, one after another",
    full={"runs": 200},
    quick={"runs": 10},
    measure=measure,
)
