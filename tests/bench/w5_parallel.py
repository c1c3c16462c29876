"""W5: one run with parallel tasks; wall time."""

from __future__ import annotations

import statistics
from functools import partial

import trio

from tests.bench._measuring import Figures, Params, Stopwatch, check
from tests.bench._places import Place, Workload, warm_engine
from tests.bench._workflows import fan


async def _measure(params: Params, place: Place) -> Figures:
    width = params["width"]
    times_ms: list[float] = []
    async with warm_engine(place, [fan]) as engine:
        for _ in range(params["times"]):
            watch = Stopwatch.started()
            handle = await engine.client.start(fan, width)
            result = await handle.result()
            times_ms.append(watch.wall_ms)
            check(actual=result, expected=width * (width + 1) // 2, what=f"result of {handle.id}")
    return {"wall_ms": statistics.median(times_ms), "first_ms": times_ms[0]}


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w5",
    "one run with parallel no-op tasks",
    full={"width": 200, "times": 5},
    quick={"width": 20, "times": 2},
    measure=measure,
)
