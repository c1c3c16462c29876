"""W8: live streams while W1 runs: updates delivered, their delay, and what it does to W1.

Twice: subscribers that each follow one run of W1 (`handle.updates()`), and subscribers that each
get everything (the worst case: every update is delivered to all of them). The delay counts from
the time in the journal entry, so writing it to the disk is in it.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final

import trio
import trio.testing
from attrs import define, field

from aiki_sdk import Client, Unavailable
from aiki_sdk.client import AllUpdates
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
    """Do the same over HTTP with a tenth of the subscribers, for this process reads all streams."""
    seen = Seen()
    cut_off = 0

    async def listen(updates: AllUpdates) -> None:
        nonlocal cut_off
        left = params["runs"]
        try:
            while left:
                update = await anext(updates)
                seen.take(update)
                left -= update.status.terminal and not update.live
        except Unavailable:
            cut_off += 1

    async with AsyncExitStack() as opened:
        streams = [
            await opened.enter_async_context(engine.client.updates(workflow=chain))
            for _ in range(max(1, params["subscribers"] // 10))
        ]
        async with trio.open_nursery() as nursery:
            for updates in streams:
                nursery.start_soon(listen, updates)
            watch = Stopwatch.started()
            figures = await throughput(engine, params)
        wall_s = watch.wall_s
    return {
        "broadcast_tasks_per_s": figures["tasks_per_s"],
        **seen.figures("broadcast", wall_s),
        "broadcast_cut_off": cut_off,
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
