"""Tasks that may begin once only: what is journaled, and what becomes of them in a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import aiki_trio
from aiki_actors.worker import WorkerSettings
from aiki_sdk import OutcomeUnknown, Retry, RunFailed, current_task, task, workflow
from aiki_sdk._run import Run
from tests.integration.runtimes import bodies, kinds, virtual_runtime

begun: list[int] = []


@pytest.fixture(autouse=True)
def _none_begun() -> None:
    begun.clear()


@task(at_most_once=True, retry=Retry.fixed(5, 0.01))
async def pays(amount: int, hangs_first: bool) -> int:
    begun.append(current_task().attempt)
    if hangs_first and len(begun) == 1:
        await trio.sleep_forever()
    return amount


@workflow(name="paying", version="1.0.0", retry=Retry.fixed(3, 0.01))
async def paying(run: Run, hangs_first: bool, catches: bool) -> str:
    try:
        paid = await pays(5, hangs_first)
    except OutcomeUnknown as error:
        if not catches:
            raise
        return str(error)
    return f"paid {paid}"


async def killed_while_it_pays(url: str, *, catches: bool) -> Any:
    """Run until the payment has begun, lose the process, and go on in the next one."""
    settings = aiki_trio.RuntimeSettings(worker=WorkerSettings(shutdown_grace_s=0.1))
    async with aiki_trio.open_runtime(url, workflows=[paying], settings=settings) as runtime:
        handle = await runtime.client.start(paying, True, catches)
        async for update in handle.updates():
            if update.kind == "task-started":
                break
        await trio.testing.wait_all_tasks_blocked()
        while not begun:
            await trio.lowlevel.checkpoint()
        # As after a kill: no word of the worker reaches the server any more.
        assert runtime.session is not None
        runtime.session.cut()
    async with aiki_trio.open_runtime(url, workflows=[paying]) as runtime:
        again = await runtime.client.get(handle.id, workflow=paying)
        try:
            return await again.result(timeout=10), await kinds(again)
        except RunFailed as error:
            return error, await kinds(again)


async def test_a_call_lost_with_its_worker_is_not_made_again_but_fails(tmp_path: Path) -> None:
    """Although its retry policy would allow four more attempts."""
    with trio.fail_after(20):
        said, entries = await killed_while_it_pays(f"sqlite:///{tmp_path}/runs.db", catches=True)
    assert "may have had its effect" in said
    assert begun == [1]
    assert entries.count("task-started") == 1


async def test_a_run_that_fails_of_it_is_not_retried_by_itself(tmp_path: Path) -> None:
    with trio.fail_after(20):
        error, entries = await killed_while_it_pays(f"sqlite:///{tmp_path}/runs.db", catches=False)
    assert error.error.type.endswith("OutcomeUnknown")
    assert begun == [1]
    assert "run-attempt-failed" not in entries


async def test_the_start_is_durable_before_the_function_begins(autojump_clock: object) -> None:
    async with virtual_runtime(paying) as runtime:
        handle = await runtime.client.start(paying, False, False)
        assert await handle.result() == "paid 5"
        found = await kinds(handle)
        assert found.index("task-started") < found.index("task-succeeded")


async def test_a_known_failure_is_tried_again_as_the_policy_says(autojump_clock: object) -> None:
    @task(at_most_once=True, retry=Retry.fixed(3, 10))
    async def refused() -> int:
        begun.append(current_task().attempt)
        if len(begun) < 3:
            message = "refused: nothing was done"
            raise ConnectionError(message)
        return len(begun)

    @workflow(name="refusing", version="1.0.0")
    async def refusing(run: Run) -> int:
        return await refused()

    async with virtual_runtime(refusing) as runtime:
        handle = await runtime.client.start(refusing)
        assert await handle.result() == 3
        assert [body["attempt"] for body in await bodies(handle, "task-started")] == [1, 2, 3]


async def test_a_timeout_leaves_the_outcome_unknown_and_ends_the_retries(
    autojump_clock: object,
) -> None:
    @task(at_most_once=True, timeout=5, retry=Retry.fixed(3, 1))
    async def slow() -> None:
        begun.append(1)
        await trio.sleep(60)

    @workflow(name="slow", version="1.0.0")
    async def slowly(run: Run) -> str:
        try:
            await slow()
        except OutcomeUnknown as error:
            return str(error)
        return ""

    async with virtual_runtime(slowly) as runtime:
        handle = await runtime.client.start(slowly)
        assert "timeout of 5 s" in await handle.result()
        assert begun == [1]


async def test_the_next_attempt_of_the_run_does_not_begin_it_again_but_a_person_may(
    autojump_clock: object,
) -> None:
    """A sibling fails the run while the payment is under way."""

    @task(at_most_once=True)
    async def lasts() -> str:
        begun.append(1)
        if len(begun) == 1:
            await trio.sleep(60)
        return "done"

    @workflow(name="siblings", version="1.0.0", retry=Retry.fixed(2, 10))
    async def siblings(run: Run) -> str:
        async def fails() -> None:
            await run.sleep("a-little", seconds=1)
            message = "sibling"
            raise ConnectionError(message)

        if run.attempt == 1:
            await run.gather(lasts(), fails())
        return await lasts()

    async with virtual_runtime(siblings) as runtime:
        handle = await runtime.client.start(siblings)
        with pytest.raises(RunFailed):
            await handle.result()
        first = len(begun)
        await handle.retry()
        assert await handle.result() == "done"
        assert len(begun) == first + 1
