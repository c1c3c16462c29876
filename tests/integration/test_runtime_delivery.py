"""Who gets which run: pools and priorities, end to end."""

from __future__ import annotations

import trio
from attrs import evolve

from aiki_actors.worker import WorkerSettings
from aiki_sdk import Run, workflow
from tests.integration.runtimes import VIRTUAL, virtual_runtime


async def test_a_run_waits_for_a_worker_that_serves_its_pool(autojump_clock: object) -> None:
    @workflow(name="pooled", version="1.0.0")
    async def pooled(run: Run) -> str:
        return "done"

    settings = evolve(VIRTUAL, worker=WorkerSettings(pools=("gpu",)))
    async with virtual_runtime(pooled, settings=settings) as runtime:
        elsewhere = await runtime.client.start(pooled)
        here = await runtime.client.start(pooled, pool="gpu")
        assert await here.result(timeout=10) == "done"
        await trio.sleep(60)
        info = await elsewhere.info()
        assert (info.status, info.pool) == ("queued", "default")


async def test_of_the_runs_that_wait_for_a_slot_the_urgent_go_first(autojump_clock: object) -> None:
    order: list[str] = []

    @workflow(name="slow", version="1.0.0")
    async def slow(run: Run, name: str) -> None:
        order.append(name)
        await trio.sleep(1)

    settings = evolve(VIRTUAL, worker=WorkerSettings(runs_max=1))
    async with virtual_runtime(slow, settings=settings) as runtime:
        first = await runtime.client.start(slow, "first")
        rest = [
            await runtime.client.start(slow, "low", priority="low"),
            await runtime.client.start(slow, "normal"),
            await runtime.client.start(slow, "high", priority="high"),
        ]
        for handle in (first, *rest):
            await handle.result(timeout=60)
    assert order == ["first", "high", "normal", "low"]
