"""W4: parking runs on a long durable sleep; what each of them costs, and waking some.

Memory is read twice, half-way and at the end: what the second half added is the cost of a run that
is only parked, free of what the runtime keeps anyway (caches, a bounded number of warm runs).
"""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from aiki_sdk import Client
from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    check,
    database_bytes,
    limited,
    memory,
)
from tests.bench._places import Place, Workload, warm_engine
from tests.bench._workflows import sleeper

LOOK_S: Final = 0.05
"""Between two looks at how many are parked; outside the runtime nothing says so."""


async def _park(client: Client, first: int, count: int, cap: int, every: int) -> dict[int, str]:
    """Start so many sleepers, wait until all are parked; returns the ids of every n-th."""
    kept: dict[int, str] = {}

    async def start(number: int) -> None:
        handle = await client.start(sleeper, number)
        if number % every == 0:
            kept[number] = handle.id

    await limited(count, cap, start, first=first)
    # Nothing outside the runtime announces that the last of many runs is parked: look until it is.
    parked = 0
    while parked < first + count:
        await trio.sleep(LOOK_S)
        parked = await client.count(workflow=sleeper.name, status="sleeping")
    return kept


async def _wake(client: Client, kept: dict[int, str], cap: int) -> float:
    """Wake runs and await them all; returns seconds."""
    chosen = sorted(kept.items())

    async def wake(place: int) -> None:
        number, run_id = chosen[place]
        handle = await client.get(run_id, workflow=sleeper)
        await handle.wake("long")
        check(actual=await handle.result(), expected=number, what=f"result of {run_id}")

    watch = Stopwatch.started()
    await limited(len(chosen), cap, wake)
    return watch.wall_s


async def _measure(params: Params, place: Place) -> Figures:
    runs, cap, wake = params["runs"], params["cap"], min(params["wake"], params["runs"])
    half = runs // 2
    async with warm_engine(place, [sleeper]) as engine:
        client = engine.client
        # The server's memory is what grows with what is parked; a worker keeps a bounded number.
        server = engine.processes.get("server")
        pid = None if server is None else server.pid
        disk_before, before = database_bytes(place.folder), memory(pid)
        watch = Stopwatch.started()
        kept = await _park(client, 0, half, cap, runs // wake)
        wall_s, cpu_s, middle = watch.wall_s, watch.cpu_s, memory(pid)
        watch = Stopwatch.started()
        kept |= await _park(client, half, runs - half, cap, runs // wake)
        wall_s, cpu_s = wall_s + watch.wall_s, cpu_s + watch.cpu_s
        after, disk_after = memory(pid), database_bytes(place.folder)
        kept = dict(sorted(kept.items())[:wake])
        wake_s = await _wake(client, kept, cap)
    return {
        "park_s": wall_s,
        "parked_per_s": runs / wall_s,
        "cpu_s": cpu_s,
        "memory_before_mib": before.anonymous / 2**20,
        "memory_after_mib": after.anonymous / 2**20,
        "mapped_after_mib": after.mapped / 2**20,
        "memory_bytes_per_run": (after.anonymous - before.anonymous) / runs,
        "memory_bytes_per_run_second_half": (after.anonymous - middle.anonymous) / (runs - half),
        "db_bytes_per_run": (disk_after - disk_before) / runs,
        "wake_s": wake_s,
        "woken_per_s": wake / wake_s,
    }


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w4",
    "runs parked on a durable sleep of one hour",
    full={"runs": 5_000, "cap": 50, "wake": 1_000},
    quick={"runs": 100, "cap": 50, "wake": 10},
    measure=measure,
)
