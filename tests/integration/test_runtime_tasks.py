"""Tasks in a whole runtime: retries, timeouts, threads, payloads; on virtual time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from aiki_sdk import (
    NonRetryable,
    PayloadTooLarge,
    Retry,
    RunFailed,
    TaskFailed,
    current_task,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import bodies, kinds, virtual_runtime

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


async def flaky(failures: int) -> int:
    """Fail so many times, then return the attempt."""
    attempt = current_task().attempt
    calls.append(f"{attempt} at {trio.current_time():.2f}")
    if attempt <= failures:
        message = f"attempt {attempt}"
        raise ConnectionError(message)
    return attempt


short = task(name="short", retry=Retry.fixed(4, 0.05))(flaky)
long = task(name="long", retry=Retry.fixed(4, 10))(flaky)


@workflow(name="retrying", version="1.0.0")
async def retrying(run: Run, failures: int, slow: bool) -> int:
    return await (long if slow else short)(failures)


async def test_a_short_retry_delay_passes_in_the_worker(autojump_clock: object) -> None:
    async with virtual_runtime(retrying) as runtime:
        handle = await runtime.client.start(retrying, 2, False)
        assert await handle.result() == 3
        assert "run-parked" not in await kinds(handle)
        assert [body["attempt"] for body in await bodies(handle, "attempt-failed")] == [1, 2]


async def test_a_long_retry_delay_is_a_wait_of_its_own_and_parks_the_run(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(retrying) as runtime:
        handle = await runtime.client.start(retrying, 2, True)
        await handle.wait("awaiting_retry", timeout=5)
        assert runtime.runs.active == 0
        assert await handle.result() == 3
    assert calls == ["1 at 0.00", "2 at 10.00", "3 at 20.00"]


async def test_when_attempts_are_used_up_the_failure_reaches_the_code(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(retrying) as runtime:
        handle = await runtime.client.start(retrying, 9, False)
        with pytest.raises(RunFailed, match="attempt 4"):
            await handle.result()
    assert len(calls) == 4


@workflow(name="siblings", version="1.0.0")
async def siblings(run: Run) -> list[int]:
    first, second = await run.gather(long(1), long.options(retry=Retry.fixed(4, 25))(2))
    return [first, second]


async def test_retries_of_siblings_keep_their_own_times(autojump_clock: object) -> None:
    async with virtual_runtime(siblings) as runtime:
        handle = await runtime.client.start(siblings)
        assert await handle.result() == [2, 3]
    assert sorted(calls) == ["1 at 0.00", "1 at 0.00", "2 at 10.00", "2 at 25.00", "3 at 50.00"]


@task(retry=Retry.fixed(5, 1))
async def hopeless() -> None:
    calls.append("hopeless")
    raise NonRetryable("no use")


@task(timeout=2, retry=Retry.fixed(2, 0))
async def endless() -> None:
    calls.append("endless")
    await trio.sleep_forever()


@workflow(name="failing", version="1.0.0")
async def failing(run: Run, which: str) -> str:
    try:
        await (hopeless() if which == "hopeless" else endless())
    except TaskFailed as error:
        return f"{error.error.type.rpartition('.')[2]}"
    return "no failure"


async def test_a_non_retryable_error_ends_the_retries(autojump_clock: object) -> None:
    async with virtual_runtime(failing) as runtime:
        handle = await runtime.client.start(failing, "hopeless")
        assert await handle.result() == "NonRetryable"
    assert calls == ["hopeless"]


async def test_an_attempt_that_times_out_is_a_failed_attempt(autojump_clock: object) -> None:
    async with virtual_runtime(failing) as runtime:
        handle = await runtime.client.start(failing, "endless")
        assert await handle.result() == "TaskTimeout"
        assert trio.current_time() >= 4
    assert calls == ["endless"] * 2


@task
def in_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@task
async def large() -> str:
    return "x" * 3_000_000


@workflow(name="mixed", version="1.0.0")
async def mixed(run: Run, which: str) -> Any:
    if which == "thread":
        return await in_thread()
    if which == "large":
        return await large()
    return "y" * 3_000_000


async def test_a_plain_function_runs_in_a_thread() -> None:
    async with virtual_runtime(mixed) as runtime:
        handle = await runtime.client.start(mixed, "thread")
        assert await handle.result() is False


@pytest.mark.parametrize("which", ["large", "output"])
async def test_a_result_that_is_too_large_fails_what_made_it(which: str) -> None:
    async with virtual_runtime(mixed) as runtime:
        handle = await runtime.client.start(mixed, which)
        with pytest.raises(RunFailed, match="limit of 2,097,152"):
            await handle.result()


async def test_an_input_that_is_too_large_is_refused_at_the_start() -> None:
    async with virtual_runtime(mixed) as runtime:
        with pytest.raises(PayloadTooLarge):
            await runtime.client.start(mixed, "z" * 3_000_000)
        assert await runtime.client.count() == 0
