"""W1: many runs of sequential tasks; throughput."""

from __future__ import annotations

from functools import partial

import trio

from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    limited,
)
from tests.bench._places import Engine, Place, Workload, run_chain, warm_engine


async def throughput(engine: Engine, params: Params) -> Figures:
    """Run them all and say how fast that was."""
    runs, steps = params["runs"], params["steps"]
    elsewhere = engine.cpu_s()
    watch = Stopwatch.started()
    await limited(runs, params["cap"], lambda number: run_chain(engine.client, number, steps))
    wall_s = watch.wall_s
    return {
        "tasks_per_s": runs * steps / wall_s,
        "runs_per_s": runs / wall_s,
        "wall_s": wall_s,
        "cpu_s": watch.cpu_s,
        **{name: cpu_s - elsewhere[name] for name, cpu_s in engine.cpu_s().items()},
    }


async def _measure(params: Params, place: Place) -> Figures:
    async with warm_engine(place, []) as engine:
        return await throughput(engine, params)


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w1",
    "runs of sequential no-op tasks, all awaited",
    full={"runs": 300, "steps": 10, "cap": 50},
    quick={"runs": 20, "steps": 5, "cap": 10},
    measure=measure,
)
