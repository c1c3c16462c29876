"""W2: one-task runs one after another; latency from the start call to the result in hand."""

from __future__ import annotations

from functools import partial

import trio

from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    latencies,
)
from tests.bench._places import Place, Workload, run_chain, warm_engine


async def _measure(params: Params, place: Place) -> Figures:
    times_ms: list[float] = []
    async with warm_engine(place, []) as engine:
        for number in range(params["runs"]):
            watch = Stopwatch.started()
            await run_chain(engine.client, number, 1)
            times_ms.append(watch.wall_ms)
    return latencies(times_ms)


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w2",
    "one-task runs, one after another",
    full={"runs": 200},
    quick={"runs": 10},
    measure=measure,
)
