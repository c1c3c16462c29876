"""W8: live streams while W1 runs: updates delivered, their delay, and what it does to W1.

Twice: subscribers that each follow one run of W1 (`handle.updates()`), and subscribers that each
get everything (the worst case: every update is delivered to all of them). The delay counts from
the time in the journal entry, so writing it to the disk is in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Final

import trio
import trio.testing
from attrs import define, field

from aiki_sdk import Client, Unavailable
from aiki_sdk.protocol import Update
from aiki_trio import Runtime
from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    check,
    limited,
    percentile,
)
from tests.bench._places import Engine, Place, Workload, warm_engine
from tests.bench._workflows import chain
from tests.bench.w1_sequential import throughput

SAMPLED: Final = 16
"""Every so many updates the delay is taken."""


@define(eq=False)
class Seen:
    """What subscribers were given."""

    updates: int = 0
    delays_ms: list[float] = field(factory=lambda: list[float]())

    def take(self, update: Update) -> None:
        """Count an update."""
        self.updates += 1
        if self.updates % SAMPLED == 0:
            self.delays_ms.append((time.time() - update.at.timestamp()) * 1e3)

    def figures(self, prefix: str, wall_s: float) -> Figures:
        """Return rate and delay."""
        return {
            f"{prefix}_updates_per_s": self.updates / wall_s,
            f"{prefix}_p50_delay_ms": percentile(self.delays_ms or [0.0], 50),
            f"{prefix}_p99_delay_ms": percentile(self.delays_ms or [0.0], 99),
        }


async def _followed(client: Client, params: Params) -> Figures:
    """W1 where the first runs are followed by one subscriber each."""
    runs, steps, followers = params["runs"], params["steps"], params["subscribers"]
    seen = Seen()
    ended: list[int] = []

    async def run_one(number: int, nursery: trio.Nursery) -> None:
        handle = await client.start(chain, number, steps)
        if number < followers:

            async def follow() -> None:
                async for update in handle.updates():
                    seen.take(update)
                ended.append(number)

            nursery.start_soon(follow)
        check(actual=await handle.result(), expected=number + steps, what=f"result of {number}")

    watch = Stopwatch.started()
    async with trio.open_nursery() as nursery:
        await limited(runs, params["cap"], lambda number: run_one(number, nursery))
        wall_s = watch.wall_s
    check(actual=len(ended), expected=min(runs, followers), what="streams that came to their end")
    return {"followed_tasks_per_s": runs * steps / wall_s} | seen.figures("followed", watch.wall_s)


async def _broadcast(engine: Engine, runtime: Runtime, params: Params) -> Figures:
    """W1 where every subscriber gets everything."""
    seen = Seen()
    cut_off = runtime.hub.cut_off

    async def listen() -> None:
        with runtime.hub.subscribe() as subscription, suppress(Unavailable):
            while True:
                for update in await subscription.next_batch():
                    seen.take(update)

    async with trio.open_nursery() as nursery:
        for _ in range(params["subscribers"]):
            nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        watch = Stopwatch.started()
        figures = await throughput(engine, params)
        await trio.testing.wait_all_tasks_blocked()
        wall_s = watch.wall_s
        nursery.cancel_scope.cancel()
    check(actual=runtime.hub.cut_off - cut_off, expected=0, what="number of subscribers cut off")
    return {"broadcast_tasks_per_s": figures["tasks_per_s"]} | seen.figures("broadcast", wall_s)


async def _broadcast_apart(engine: Engine, params: Params) -> Figures:
    """Do the same over HTTP, with readers in a process of their own."""
    url = engine.client.url
    assert url is not None, "a server somewhere else has a URL"
    sizes = (params["subscribers"], params["runs"], params["steps"])
    command = [sys.executable, "-m", "tests.bench.wide_readers", url, *map(str, sizes)]
    async with trio.open_nursery() as nursery:
        readers = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE))
        await readers.stdout.receive_some()  # that it is ready
        elsewhere = engine.cpu_s()
        watch = Stopwatch.started()
        figures = await throughput(engine, params)
        told = b""
        async for part in readers.stdout:
            told += part
        wall_s = watch.wall_s
    seen = json.loads(told)
    spent_s = engine.cpu_s()["server_cpu_s"] - elsewhere["server_cpu_s"]
    return {
        "broadcast_tasks_per_s": figures["tasks_per_s"],
        "broadcast_updates_per_s": seen["updates"] / wall_s,
        "broadcast_p50_delay_ms": seen["p50_delay_ms"],
        "broadcast_p99_delay_ms": seen["p99_delay_ms"],
        "broadcast_updates_per_read": seen["updates"] / seen["reads"],
        "broadcast_server_us_per_update": spent_s / seen["updates"] * 1e6,
        "broadcast_readers_cpu_s": seen["cpu_s"],
    }


async def _measure(params: Params, place: Place) -> Figures:
    async with warm_engine(place, []) as engine:
        alone = (await throughput(engine, params))["tasks_per_s"]
        figures = await _followed(engine.client, params)
        if engine.runtime is None:
            figures |= await _broadcast_apart(engine, params)
        else:
            figures |= await _broadcast(engine, engine.runtime, params)
    return {
        "alone_tasks_per_s": alone,
        **figures,
        "followed_slowdown": alone / figures["followed_tasks_per_s"],
        "broadcast_slowdown": alone / figures["broadcast_tasks_per_s"],
    }


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    return trio.run(partial(_measure, params, place))


WORKLOAD = Workload(
    "w8",
    "live subscribers while W1 runs",
    full={"runs": 300, "steps": 10, "cap": 50, "subscribers": 200},
    quick={"runs": 20, "steps": 5, "cap": 10, "subscribers": 5},
    measure=measure,
)
