"""Long tasks: heartbeats, what survives of them, and progress for those who watch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

import aiki_trio
from aiki_actors.worker import WorkerSettings
from aiki_sdk import (
    JsonValue,
    NotInTask,
    Retry,
    RunFailed,
    TaskFailed,
    current_task,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import VIRTUAL, bodies, kinds, virtual_runtime

seen: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@task(heartbeat_timeout=10, retry=Retry.fixed(2, 1))
async def copies_rows(steps: int, pause_s: float) -> int:
    me = current_task()
    seen.append(me.last_heartbeat)
    for step in range(steps):
        await trio.sleep(pause_s)
        me.heartbeat({"row": step})
    return steps


@workflow(name="copying", version="1.0.0")
async def copying(run: Run, steps: int, pause_s: float) -> int:
    return await copies_rows(steps, pause_s)


async def test_a_task_that_beats_in_time_may_take_any_time(autojump_clock: object) -> None:
    async with virtual_runtime(copying) as runtime:
        handle = await runtime.client.start(copying, 20, 9.0)
        assert await handle.result() == 20
        assert trio.current_time() >= 180


async def test_a_task_that_goes_silent_is_cancelled_at_once_and_failed(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(copying) as runtime:
        handle = await runtime.client.start(copying, 1, 10.5)
        with pytest.raises(RunFailed, match="HeartbeatTimeout") as failed:
            await handle.result()
        assert "no heartbeat for 10 s" in str(failed.value)
        failures = await bodies(handle, "attempt-failed")
        assert [body["attempt"] for body in failures] == [1]
        assert trio.current_time() == pytest.approx(10 + 1 + 10, abs=0.1)


async def test_a_heartbeat_timeout_can_be_chosen_for_one_call(autojump_clock: object) -> None:
    @workflow(name="patient", version="1.0.0")
    async def patient(run: Run) -> int:
        return await copies_rows.options(heartbeat_timeout=20)(1, 15)

    async with virtual_runtime(patient) as runtime:
        assert await (await runtime.client.start(patient)).result() == 1


async def test_the_next_attempt_is_told_how_far_the_failed_one_came(
    autojump_clock: object,
) -> None:
    @task(retry=Retry.fixed(3, 60))
    async def resumes() -> JsonValue:
        me = current_task()
        seen.append(me.last_heartbeat)
        if me.attempt == 1:
            me.heartbeat({"row": 7})
            me.heartbeat()
        if me.attempt < 3:
            message = "no"
            raise ConnectionError(message)
        return me.last_heartbeat

    @workflow(name="resuming", version="1.0.0")
    async def resuming(run: Run) -> JsonValue:
        return await resumes()

    async with virtual_runtime(resuming) as runtime:
        handle = await runtime.client.start(resuming)
        assert await handle.result() == {"row": 7}
        assert seen == [None, {"row": 7}, {"row": 7}]
        failures = await bodies(handle, "attempt-failed")
        assert [body["details"] for body in failures] == [{"row": 7}, {"row": 7}]


async def test_heartbeats_of_a_running_attempt_are_recorded_seldom(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(copying) as runtime:
        handle = await runtime.client.start(copying, 100, 1.0)
        await handle.result()
        rows = [body["details"] for body in await bodies(handle, "heartbeat-recorded")]
        assert rows == [{"row": 29}, {"row": 59}, {"row": 89}]


async def test_a_short_task_records_no_heartbeat(autojump_clock: object) -> None:
    async with virtual_runtime(copying) as runtime:
        handle = await runtime.client.start(copying, 20, 1.0)
        await handle.result()
        assert "heartbeat-recorded" not in await kinds(handle)


async def test_how_often_heartbeats_are_recorded_is_a_setting(autojump_clock: object) -> None:
    settings = evolve(VIRTUAL, worker=WorkerSettings(heartbeat_record_s=5))
    async with virtual_runtime(copying, settings=settings) as runtime:
        handle = await runtime.client.start(copying, 22, 1.0)
        await handle.result()
        assert len(await bodies(handle, "heartbeat-recorded")) == 4


async def test_a_thread_beats_for_its_task_and_hears_that_it_was_given_up() -> None:
    """On the machine's clock: the thread is real."""
    heard, go_on = threading.Event(), threading.Event()

    @task(heartbeat_timeout=0.3)
    def deaf() -> None:
        me = current_task()
        me.heartbeat({"part": 1})
        go_on.wait(10)
        try:
            me.heartbeat({"part": 2})
        except NotInTask as error:
            seen.append(str(error))
        heard.set()

    @workflow(name="giving-up", version="1.0.0")
    async def giving_up(run: Run) -> str:
        try:
            await deaf()
        except TaskFailed as error:
            return error.error.type
        return ""

    with trio.fail_after(10):
        async with virtual_runtime(giving_up) as runtime:
            handle = await runtime.client.start(giving_up)
            assert (await handle.result()).endswith("HeartbeatTimeout")
            tree = str(runtime.tree())
            assert "1 threads abandoned" in tree
            go_on.set()
            await trio.to_thread.run_sync(heard.wait)
            while "abandoned" in str(runtime.tree()):
                await trio.testing.wait_all_tasks_blocked()
    assert "attempt 1 is over" in seen[0]


async def test_progress_and_beginnings_reach_who_watches_and_no_journal(
    autojump_clock: object,
) -> None:
    @task
    async def shows(parts: int) -> int:
        for part in range(parts):
            await trio.sleep(1)
            current_task().progress({"part": part})
        return parts

    @workflow(name="showing", version="1.0.0")
    async def showing(run: Run, parts: int) -> int:
        await run.sleep("first", seconds=1)
        return await shows(parts)

    async with virtual_runtime(showing) as runtime:
        handle = await runtime.client.start(showing, 3)
        updates = [update async for update in handle.updates()]
        live = [update for update in updates if update.live]
        assert [update.kind for update in live] == ["task-started", *["task-progress"] * 3]
        assert [(update.body or {}).get("value") for update in live[1:]] == [
            {"part": 0},
            {"part": 1},
            {"part": 2},
        ]
        assert {update.status for update in live} == {"running"}
        journal = [update.seq for update in updates if not update.live]
        assert journal == list(range(1, len(journal) + 1)), "the journal's own are without a gap"
        before = [update.seq for update in updates]
        assert before == sorted(before), "live ones carry the seq of the entry before them"
        assert not {"task-progress", "task-started"} & set(await kinds(handle))


async def test_the_next_attempt_is_told_how_far_one_came_that_was_lost_in_a_crash(
    tmp_path: Path,
) -> None:
    """On the machine's clock and a file; the worker's session is cut, as by a kill."""

    @task
    async def long_copy() -> JsonValue:
        me = current_task()
        seen.append((me.attempt, me.last_heartbeat))
        if len(seen) > 1:
            return me.last_heartbeat
        for row in range(10_000):
            await trio.sleep(0.01)
            me.heartbeat({"row": row})
        return None

    @workflow(name="long-copying", version="1.0.0")
    async def long_copying(run: Run) -> JsonValue:
        return await long_copy()

    url = f"sqlite:///{tmp_path}/runs.db"
    quick = WorkerSettings(heartbeat_record_s=0.05, shutdown_grace_s=0.1)
    settings = aiki_trio.RuntimeSettings(worker=quick)
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(
            url, workflows=[long_copying], settings=settings
        ) as runtime:
            handle = await runtime.client.start(long_copying)
            async for update in handle.updates():
                if update.kind == "heartbeat-recorded":
                    break
            assert runtime.session is not None
            runtime.session.cut()
        async with aiki_trio.open_runtime(url, workflows=[long_copying]) as runtime:
            again = await runtime.client.get(handle.id, workflow=long_copying)
            details = await again.result()
            recorded = [body["details"] for body in await bodies(again, "heartbeat-recorded")]
    assert details == recorded[-1]
    assert seen == [(1, None), (1, details)], "a lost attempt costs no attempt"
