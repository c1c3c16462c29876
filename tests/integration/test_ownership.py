"""A worker is told of a run what happened while it held the run's claim: all of it, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.storage import AppendResult, Change, MemoryStorage
from aiki_actors.worker import WorkerSettings
from aiki_sdk import Event, Run, RunHandle, task, workflow
from aiki_trio._local_session import LocalSession
from tests.integration.runtimes import VIRTUAL, bodies, settled, virtual_runtime

other = Event("other", str)
item = Event("item", str)


@task
async def use(word: str) -> str:
    return word


@workflow(name="taker", version="1.0.0", events=[other, item])
async def taker(run: Run) -> str:
    return await use(await run.wait(item))


async def test_what_wakes_a_run_in_the_write_that_parks_it_is_not_told_to_its_last_worker(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on without a claim, beside the worker that is given the run next."""
    append, push = MemoryStorage.append, LocalSession.push
    held: list[trio.Event] = []
    pushed: list[str] = []

    async def gated(self: Any, changes: Sequence[Change]) -> list[AppendResult]:
        if held:
            await held[0].wait()
        results: list[AppendResult] = await append(self, changes)
        return results

    def noted(self: LocalSession, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        pushed.extend(entry.body.kind for entry in entries)
        push(self, run_id, entries)

    monkeypatch.setattr(MemoryStorage, "append", gated)
    monkeypatch.setattr(LocalSession, "push", noted)
    settings = evolve(VIRTUAL, worker=WorkerSettings(runs_max=1))
    async with virtual_runtime(taker, settings=settings) as runtime:
        await settled()  # the worker has joined, and is given the run in the write that creates it
        handle = await runtime.client.start(taker)
        gate = trio.Event()
        held.append(gate)
        async with trio.open_nursery() as nursery:
            # This write waits; the parking and the event meet in the mailbox behind it.
            nursery.start_soon(handle.send, other, "unread")
            await settled()
            nursery.start_soon(handle.send, item, "taken")
            await settled()
            held.clear()
            gate.set()
        assert await handle.result(timeout=60) == "taken"
        assert len(await bodies(handle, "run-parked")) == 1
    assert "run-queued" not in pushed
    assert "event-consumed" not in pushed


@task
async def slow() -> str:
    begun.set()
    await trio.sleep(1)
    return "slow"


begun = trio.Event()


@workflow(name="slow-taker", version="1.0.0", events=[item])
async def slow_taker(run: Run) -> str:
    return await slow() + await run.wait(item)


async def test_what_happens_to_a_run_while_its_worker_stops_holds_the_stop_up_for_nothing(
    autojump_clock: object,
) -> None:
    """The worker hears of it, for it comes before the result of the task that it waits for."""

    async def send(handle: RunHandle[str]) -> None:
        await trio.sleep(0.5)
        await handle.send(item, "while it stopped")

    async with trio.open_nursery() as nursery:
        async with virtual_runtime(slow_taker) as runtime:
            handle = await runtime.client.start(slow_taker)
            await begun.wait()
            nursery.start_soon(send, handle)
            began = trio.current_time()
        assert trio.current_time() - began < 2


@pytest.mark.parametrize("steps", range(12))
async def test_a_runtime_that_is_left_at_once_has_nothing_to_report(
    steps: int, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker may not have begun yet, and must neither fail nor hold anything up."""
    with caplog.at_level("WARNING"):
        async with virtual_runtime(taker):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
    assert caplog.text == ""
