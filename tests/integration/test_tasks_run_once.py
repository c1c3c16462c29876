"""What a worker owes to tasks while nothing crashes: each runs once, and a stop is no cancellation.

On the machine's clock, for the runtime's own threads and commits take part in both.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import trio

import aiki_trio
from aiki_sdk import Event, Run, RunStatus, current_task, task, workflow

go_on = Event("go-on", int)
executed: Counter[str] = Counter()


@task
async def note(number: int) -> int:
    executed[current_task().idempotency_key] += 1
    return number


@workflow(name="fan-out", version="1.0.0")
async def fan_out(run: Run, width: int) -> int:
    async with trio.open_nursery() as nursery:
        for number in range(width):
            nursery.start_soon(note, number)
    return width


@workflow(name="holds-something", version="1.0.0", events=[go_on])
async def holds_something(run: Run) -> int:
    try:
        return await run.wait(go_on)
    except BaseException:
        with trio.CancelScope(shield=True):
            await note(-1)
        raise


async def test_a_task_runs_once_when_many_of_one_run_end_together(tmp_path: Path) -> None:
    """Replies of one commit reach the branches in any order; none may take its call for undone."""
    executed.clear()
    url = f"sqlite:///{tmp_path}/runs.db"
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=[fan_out]) as runtime:
            handles = [await runtime.client.start(fan_out, 10) for _ in range(10)]
            for handle in handles:
                await handle.result()
    assert len(executed) == 100
    assert set(executed.values()) == {1}


async def test_stopping_the_runtime_runs_no_compensation_of_a_waiting_run(tmp_path: Path) -> None:
    """The run is not over when its process is: it goes on where it was in the next one."""
    executed.clear()
    url = f"sqlite:///{tmp_path}/runs.db"
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=[holds_something]) as runtime:
            handle = await runtime.client.start(holds_something)
            await handle.wait(RunStatus.AWAITING_EVENT)
        assert not executed
        async with aiki_trio.open_runtime(url, workflows=[holds_something]) as runtime:
            again = await runtime.client.get(handle.id, workflow=holds_something)
            await again.send(go_on, 7)
            assert await again.result() == 7
    assert not executed
