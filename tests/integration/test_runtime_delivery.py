"""Who gets which run: pools and priorities, end to end."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from aiki_actors.engine import Entry
from aiki_actors.server import _run_actor
from aiki_actors.storage import MemoryStorage
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


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note whose journals are read."""
    runs: list[str] = []
    journal = MemoryStorage.journal

    async def noted(
        storage: MemoryStorage, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        runs.append(run_id)
        return await journal(storage, run_id, after=after, limit=limit)

    monkeypatch.setattr(MemoryStorage, "journal", noted)
    return runs


@workflow(name="slow", version="1.0.0")
async def slow(run: Run) -> None:
    await trio.sleep(1)


async def test_runs_that_stand_in_the_queue_are_not_loaded_to_be_claimed(
    autojump_clock: object, loaded: list[str]
) -> None:
    settings = evolve(VIRTUAL, worker=WorkerSettings(runs_max=1))
    async with virtual_runtime(slow, settings=settings) as runtime:
        handles = [await runtime.client.start(slow) for _ in range(5)]
        assert runtime.runs.active == 5
        for handle in handles:
            await handle.result(timeout=60)
        assert loaded == []
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.runs.active == 0


async def test_of_the_runs_in_the_queue_a_bounded_number_keeps_its_actor(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run_actor, "IDLE_MAX", 2)
    settings = evolve(VIRTUAL, worker=WorkerSettings(runs_max=1))
    async with virtual_runtime(slow, settings=settings) as runtime:
        handles = [await runtime.client.start(slow) for _ in range(6)]
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.runs.active == 3  # the one that is executed, and two
        for handle in handles:
            await handle.result(timeout=60)
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.runs.active == 0
