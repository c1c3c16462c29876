"""A user's cancellation reaches running tasks at once, on the real clock and a real database."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

import aiki_trio
from aiki_sdk import Run, RunCancelled, task, workflow

LIMIT_S = 0.1
"""Within this a running task learns of the cancellation of its run."""

begun = trio.Event()
told: list[float] = []
release = threading.Event()
thread_begun = threading.Event()


@task
async def long_task() -> None:
    """Wait for ever; note when the cancellation comes."""
    begun.set()
    try:
        await trio.sleep_forever()
    finally:
        told.append(trio.current_time())


@task
def blocking_task() -> str:
    """Block a thread that nobody can interrupt."""
    thread_begun.set()
    release.wait(10)
    return "late"


@workflow(name="long", version="1.0.0")
async def long(run: Run) -> None:
    """Run the task in a branch beside another."""
    await run.gather(long_task(), run.sleep("hour", hours=1))


@workflow(name="blocked", version="1.0.0")
async def blocked(run: Run) -> str:
    """Run the thread task."""
    return await blocking_task()


async def test_a_running_task_is_cancelled_within_a_tenth_of_a_second(tmp_path: Path) -> None:
    async with aiki_trio.open_runtime(f"sqlite:///{tmp_path}/a.db", workflows=[long]) as runtime:
        handle = await runtime.client.start(long)
        await begun.wait()
        asked = trio.current_time()
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()
        assert told[0] - asked < LIMIT_S


async def test_a_task_in_a_thread_is_abandoned_within_a_tenth_of_a_second(tmp_path: Path) -> None:
    """The run ends though the thread goes on; the thread's late result changes nothing."""
    async with aiki_trio.open_runtime(f"sqlite:///{tmp_path}/a.db", workflows=[blocked]) as runtime:
        handle = await runtime.client.start(blocked)
        await trio.to_thread.run_sync(thread_begun.wait)
        asked = trio.current_time()
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()
        assert trio.current_time() - asked < LIMIT_S
        release.set()
        with pytest.raises(RunCancelled):
            await handle.result()
