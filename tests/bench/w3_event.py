"""W3: runs that are known to wait for an event; from sending it to the completion seen."""

from __future__ import annotations

from functools import partial

import trio

from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    check,
    latencies,
    limited,
)
from tests.bench._places import Place, Workload, warm_engine
from tests.bench._workflows import GO, waiter

CAP = 50


async def _measure(params: Params, place: Place) -> Figures:
    times_ms: list[float] = []
    async with warm_engine(place, [waiter]) as engine:
        handles = [await engine.client.start(waiter) for _ in range(params["runs"])]
        await limited(len(handles), CAP, lambda number: handles[number].wait("awaiting_event"))
        for number, handle in enumerate(handles):
            watch = Stopwatch.started()
            await handle.send(GO, number)
            check(actual=await handle.result(), expected=number, what=f"result of {handle.id}")
            times_ms.append(watch.wall_ms)
    return latencies(times_ms)


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w3",
    "runs that wait for an event, sent one at a time",
    full={"runs": 100},
    quick={"runs": 5},
    measure=measure,
)
