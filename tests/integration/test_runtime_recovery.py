"""Restarts, failures of the database, and ends from outside, in a whole runtime."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_actors.storage import AppendResult, Change, MemoryStorage
from aiki_sdk import (
    AikiError,
    Event,
    Retry,
    RunFailed,
    StorageLocked,
    UnknownOutcome,
    task,
    workflow,
)
from aiki_sdk._run import Run
from aiki_sdk.protocol import RunStatus
from tests.integration.runtimes import VIRTUAL, file_runtime, kinds, virtual_runtime

pay = Event("pay", str)
log: list[str] = []
gate: list[trio.Event] = []
begun = trio.Event()


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()
    gate.clear()


@task
async def note(word: str) -> str:
    log.append(word)
    return word


@task
async def held(word: str) -> str:
    log.append(word)
    begun.set()
    if gate:
        await gate[0].wait()
    return word


@task(retry=Retry.fixed(3, 0.3))
async def flaky() -> str:
    log.append("flaky")
    if log.count("flaky") == 1:
        message = "once"
        raise ConnectionError(message)
    return "flaky"


@workflow(name="child", version="1.0.0", events=[pay])
async def child(run: Run) -> str:
    return await run.wait(pay)


@workflow(name="any", version="1.0.0", events=[pay])
async def any_status(run: Run, how: str) -> str:
    first = await note(f"first {how}")
    match how:
        case "sleeping":
            await run.sleep("s", seconds=0.2)
        case "awaiting_event" | "paused" | "cancelled":
            return first + await run.wait(pay)
        case "awaiting_child":
            started = await run.start_child(child)
            return first + await started.result()
        case "awaiting_retry":
            return first + await flaky()
        case "running":
            await held("held")
        case "failed":
            raise ValueError(how)
        case _:
            pass
    return first


STATUSES = (
    "sleeping",
    "awaiting_event",
    "awaiting_child",
    "awaiting_retry",
    "running",
    "paused",
    "completed",
    "failed",
    "cancelled",
)


async def test_runs_in_every_status_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "aiki.db"
    gate.append(trio.Event())
    ids: dict[str, str] = {}
    with trio.CancelScope() as killed:
        async with file_runtime(path, any_status, child) as runtime:
            for status in STATUSES:
                handle = await runtime.client.start(any_status, status)
                ids[status] = handle.id
                if status in {"paused", "cancelled"}:
                    await handle.wait("awaiting_event", timeout=5)
                    await (handle.pause() if status == "paused" else handle.cancel())
                await handle.wait(status, timeout=5)
            scheduled = await runtime.client.options(delay=0.2).start(any_status, "plain")
            ids["scheduled"] = scheduled.id
            await begun.wait()
            killed.cancel()
    gate.clear()
    async with file_runtime(path, any_status, child) as runtime:
        handles = {status: await runtime.client.get(ids[status]) for status in ids}
        for status in ("paused", "completed", "failed", "cancelled"):
            assert await handles[status].status() == status
        await handles["paused"].resume()
        for status in ("awaiting_event", "paused"):
            await handles[status].send("pay", "!")
            assert await handles[status].result(timeout=5) == f"first {status}!"
        (born,) = [run async for run in runtime.client.list(workflow=child)]
        await (await runtime.client.get(born.id)).send("pay", "?")
        assert await handles["awaiting_child"].result(timeout=5) == "first awaiting_child?"
        assert await handles["awaiting_retry"].result(timeout=5) == "first awaiting_retryflaky"
        assert await handles["running"].result(timeout=5) == "first running"
        assert await handles["sleeping"].result(timeout=5) == "first sleeping"
        assert await handles["scheduled"].result(timeout=5) == "first plain"
        with pytest.raises(RunFailed):
            await handles["failed"].result()
    for status in STATUSES:
        assert log.count(f"first {status}") == 1
    assert log.count("held") == 2  # It was running, and its worker was lost.


@pytest.mark.parametrize("moment", range(0, 60, 3))
async def test_a_runtime_cancelled_at_any_moment_leaves_a_file_that_goes_on(
    moment: int, tmp_path: Path
) -> None:
    path = tmp_path / "aiki.db"
    with trio.CancelScope() as killed:
        async with file_runtime(path, any_status, child) as runtime, trio.open_nursery() as nursery:

            async def start(status: str) -> None:
                await runtime.client.options(reference_id=status).start(any_status, status)

            for status in ("sleeping", "awaiting_retry", "plain"):
                nursery.start_soon(start, status)
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            await trio.sleep(moment / 4_000)
            killed.cancel()
    async with file_runtime(path, any_status, child) as runtime:
        for status in ("sleeping", "awaiting_retry", "plain"):
            starter = runtime.client.options(reference_id=status)
            handle = await starter.start(any_status, status)
            assert (await handle.result(timeout=5)).startswith(f"first {status}")
            history = await kinds(handle)
            assert history.count("run-completed") == 1


class Unkind:
    """Make the writes of a storage fail as a plan says: 'before', 'after', or not."""

    def __init__(self, plan: Sequence[str]) -> None:
        self.plan = list(plan)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        append = MemoryStorage.append
        plan = self.plan

        async def failing(storage: Any, changes: Sequence[Change]) -> list[AppendResult]:
            kind = plan.pop(0) if plan else ""
            if kind == "before":
                await trio.lowlevel.checkpoint()
                raise StorageLocked("the database is locked")
            results: list[AppendResult] = await append(storage, changes)
            if kind == "after":
                raise UnknownOutcome("the connection was lost at the commit")
            return results

        monkeypatch.setattr(MemoryStorage, "append", failing)


@workflow(name="steady", version="1.0.0", events=[pay])
async def steady(run: Run) -> list[str]:
    first = await note("one")
    await run.sleep("s", seconds=1)
    second, third = await run.gather(note("two"), note("three"))
    return [first, second, third, await run.wait(pay)]


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 12))
async def test_a_write_that_fails_or_whose_outcome_is_unknown_loses_nothing(
    kind: str,
    number: int,
    autojump_clock: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.CRITICAL):
        async with virtual_runtime(steady) as runtime:
            handle = await runtime.client.options(reference_id="one").start(steady)
            await handle.send(pay, "paid", reference_id="one")
            Unkind([""] * (number - 1) + [kind] * 2).install(monkeypatch)
            assert await handle.result(timeout=600) == ["one", "two", "three", "paid"]
            history = await handle.history()
            assert [entry.seq for entry in history] == list(range(1, len(history) + 1))
            assert [e.kind for e in history].count("run-completed") == 1
            assert sorted(log) == ["one", "three", "two"]


async def test_who_only_looks_at_a_run_is_not_told_of_the_failed_write_of_another(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        async with virtual_runtime(steady) as runtime:
            handle = await runtime.client.start(steady)
            await handle.wait("awaiting_event", timeout=10)
            Unkind(["before"]).install(monkeypatch)
            refused: list[AikiError] = []

            async def send() -> None:
                try:
                    await handle.send(pay, "paid")
                except AikiError as error:
                    refused.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(handle.info)
            assert [type(error) for error in refused] == [StorageLocked]
            assert (await handle.info()).status == "awaiting_event"


async def test_code_that_blocks_the_loop_is_reported_with_its_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow(name="blocking", version="1.0.0")
    async def blocking(run: Run) -> None:
        time.sleep(0.35)  # noqa: ASYNC251  (the mistake that is to be reported)

    settings = evolve(VIRTUAL, blocked_after=timedelta(seconds=0.1))
    with caplog.at_level(logging.ERROR, "aiki.watchdog"):
        async with virtual_runtime(blocking, settings=settings) as runtime:
            handle = await runtime.client.start(blocking)
            await handle.result()
    assert handle.id in caplog.text
    assert "test_runtime_recovery.py" in caplog.text


async def test_slots_of_a_worker_are_given_back_whatever_ends_a_claim(
    autojump_clock: object,
) -> None:
    """With one slot, a slot that is lost would stop everything."""
    from aiki_actors.worker import WorkerSettings

    settings = evolve(VIRTUAL, worker=WorkerSettings(runs_max=1, warm_max=1))
    async with virtual_runtime(steady, any_status, child, settings=settings) as runtime:
        first = await runtime.client.start(any_status, "failed")
        waiting = [await runtime.client.start(steady) for _ in range(5)]
        await waiting[0].cancel()
        await waiting[1].terminate()
        await waiting[2].pause()
        await waiting[2].resume()
        for handle in waiting[2:]:
            await handle.send(pay, "paid")
        for handle in waiting[2:]:
            assert (await handle.result(timeout=100))[-1] == "paid"
        assert await first.status() is RunStatus.FAILED
