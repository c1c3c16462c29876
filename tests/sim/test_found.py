"""Bugs that seeds found, each with the shortest scenario that shows it; see also `seeds/`.

One that only several workers show stands among the planted bugs: a worker that goes on from what it
kept in memory although another has executed the run since (`stale_memory_resumed`); another one,
branches that every worker of a loop names, in `tests/unit/worker/test_two_workers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from aiki_actors import engine as e
from aiki_actors.storage import AppendResult, Change
from aiki_actors.storage._memory import MemoryStorage
from aiki_sdk import (
    Event,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    SeededIds,
    SeededRng,
    StorageLocked,
    TrioClock,
    Unavailable,
    UnknownOutcome,
    WorkflowRegistry,
    current_task,
    task,
    workflow,
)
from aiki_sdk.protocol import Slept
from aiki_trio._runtime import Runtime, running
from aiki_trio.testing import START, TEST_SETTINGS, Aiki, SimOptions, Simulation, simulate

NOW = e.Micros(1_000_000_000)
CALL = e.Call("sleep:a")
CLAIM = e.ClaimRef(1, "c")
SPEC = e.RunCreated("default", "w", "1", None, "h")

never = Event("never", int)


@workflow(name="found-waiting", version="1.0.0", events=[never], cancel_grace=60)
async def waiting(run: Run) -> int:
    return await run.wait(never)


@workflow(name="found-timed", version="1.0.0", events=[never], timeout=5)
async def timed(run: Run) -> int:
    return await run.wait(never, timeout=2)


async def test_a_paused_run_that_is_cancelled_unwinds_at_once(aiki: Aiki) -> None:
    """It was claimed and given back without end, until the cancellation's grace was over."""
    handle = await aiki.start(waiting)
    await aiki.settle()
    await handle.pause()
    begun = aiki.now()
    await handle.cancel("enough")
    with pytest.raises(RunCancelled):
        await handle.result()
    assert (aiki.now() - begun).total_seconds() < 1
    assert len(await handle.history()) == 10


async def test_a_run_that_failed_while_it_was_paused_runs_when_it_is_retried(aiki: Aiki) -> None:
    """The pause ended with the run; the worker that took the retry knew only of the pause."""
    handle = await aiki.start(timed)
    await aiki.settle()
    await handle.pause()
    with pytest.raises(RunFailed):
        await handle.result()
    await aiki.restart()
    await handle.retry()
    await handle.send(never, 7)
    assert await handle.result(timeout=60) == 7


def after(*bodies: e.Body) -> e.RunState:
    """Return a run after these entries."""
    return e.fold("run_1", [e.Entry(n, NOW, body) for n, body in enumerate(bodies, 1)])


def test_a_sleep_given_up_while_its_rest_was_slept_can_be_slept_by_another_call() -> None:
    """The server took it for slept, the worker for open: nobody ended it, and the run hung."""
    state = after(
        SPEC,
        e.RunClaimed("w1", 1, "c"),
        e.SleepStarted(CALL, e.Micros(0), NOW),
        e.SleepEnded(CALL, Slept.ELAPSED),
        e.SleepStarted(CALL, e.Micros(5_000_000), e.Micros(NOW + 5_000_000)),
        e.WaitAbandoned(CALL),
    )
    made = e.decide(state, e.StartSleep(CALL, e.Micros(0), claim=CLAIM), NOW)
    assert isinstance(made, tuple)
    assert [body.kind for body in made] == ["sleep-started", "sleep-ended"]


class Broken(Exception):
    """What the task below fails with at first."""


@task(name="found-flaky", retry=Retry.fixed(4, 0.05))
async def flaky() -> int:
    await trio.sleep(0.01)
    if current_task().attempt < 4:
        raise Broken
    return 1


@workflow(name="found-retrying", version="1.0.0")
async def retrying(_run: Run) -> int:
    return await flaky()


async def retry_once(sim: Simulation) -> None:
    """Run it, and see that it does not take long."""
    begun = trio.current_time()
    handle: Any = await sim.client.start(retrying, reference_id="r")
    assert await handle.result() == 1
    assert trio.current_time() - begun < 1


def test_a_worker_with_a_wrong_clock_waits_no_longer_for_a_short_retry() -> None:
    """The delay lasted as long as the clocks of worker and server were apart."""
    for seed in range(6):
        options = SimOptions(skew_s=300.0, safety_s=1.0)
        simulate(seed, retry_once, workflows=[retrying], options=options)


def a_runtime(storage: MemoryStorage) -> Runtime:
    """Return a runtime that is not running yet."""
    return Runtime(
        settings=TEST_SETTINGS,
        registry=WorkflowRegistry([plain]),
        storage=storage,
        clock=TrioClock(START),
        ids=SeededIds(1),
        rng=SeededRng(1),
        namespace="default",
    )


async def test_a_request_that_comes_while_the_server_stops_is_told_to_come_again(
    autojump_clock: object,
) -> None:
    """It was told, in words of the actor library's own, that some actor had stopped."""
    runtime = a_runtime(MemoryStorage())
    async with running(runtime):
        handle = await runtime.client.start(plain)
        await handle.result()
    with pytest.raises(Unavailable, match="stopping"):
        await runtime.client.start(plain)
    with pytest.raises(Unavailable, match="stopping"):
        await handle.cancel()


@workflow(name="found-plain", version="1.0.0")
async def plain(_run: Run) -> int:
    return 1


class Forgetful(MemoryStorage):
    """Loses the reply to the write that ends a run, and cannot be read for a while after."""

    silent = -1

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        results = await super().append(changes)
        ends = any(
            isinstance(entry.body, e.RunCompleted) for change in changes for entry in change.entries
        )
        if ends and self.silent < 0:
            self.silent = 4
            raise UnknownOutcome("the reply was lost")
        return results

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[e.Entry]:
        if self.silent > 0:
            self.silent -= 1
            raise StorageLocked("not now")
        return await super().journal(run_id, after=after, limit=limit)


async def test_an_end_that_is_durable_is_told_although_reading_it_back_failed_at_first(
    autojump_clock: object,
) -> None:
    """Nobody was told: who waited for the result waited on, and watchers missed the entry."""
    runtime = a_runtime(Forgetful())
    with trio.fail_after(30):
        async with running(runtime):
            handle = await runtime.client.start(plain)
            assert await handle.result() == 1
