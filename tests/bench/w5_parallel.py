"""W5: one run with parallel tasks; wall time."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

import trio

from tests.bench._measuring import Figures, Params, Stopwatch, Workload, check, warm_runtime
from tests.bench._workflows import fan


async def _measure(params: Params, folder: Path) -> Figures:
    width = params["width"]
    times_ms: list[float] = []
    async with warm_runtime(folder, [fan]) as runtime:
        for _ in range(params["times"]):
            watch = Stopwatch.started()
            handle = await runtime.client.start(fan, width)
            result = await handle.result()
            times_ms.append(watch.wall_ms)
            check(actual=result, expected=width * (width + 1) // 2, what=f"result of {handle.id}")
    return {"wall_ms": statistics.median(times_ms), "first_ms": times_ms[0]}


def measure(params: Params, folder: Path) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, folder))


WORKLOAD = Workload(
    "w5",
    "one run with parallel no-op tasks",
    full={"width": 200, "times": 5},
    quick={"width": 20, "times": 2},
    measure=measure,
)
