"""Where tasks run: threads, the asyncio loop, worker processes. On the machine's clock."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import evolve

from aiki_actors.worker import WorkerSettings
from aiki_sdk import OutcomeUnknown, RunFailed, SyncTask, TaskFailed, current_task, task, workflow
from aiki_sdk._run import Run
from tests.integration import process_tasks
from tests.integration.process_tasks import Part
from tests.integration.runtimes import VIRTUAL, bodies, virtual_runtime

seen: list[Any] = []
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@task(pool="gpu")
async def render(page: int) -> int:
    return page


@workflow(name="pooled", version="1.0.0")
async def pooled(run: Run) -> list[int]:
    return [await render(1), await render(2), await render.options(pool="cpu")(3)]


async def test_a_pool_of_a_single_task_is_said_to_have_no_effect_once(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    with caplog.at_level(logging.WARNING, "aiki.worker"):
        async with virtual_runtime(pooled) as runtime:
            handles = [await runtime.client.start(pooled) for _ in range(2)]
            assert [await handle.result() for handle in handles] == [[1, 2, 3], [1, 2, 3]]
    (warning,) = caplog.messages
    assert warning.startswith("task 'render' asks for pool 'gpu'")
    assert "cannot be routed to another pool in this version" in warning


# --- Threads --------------------------------------------------------------------------------------


@task
def in_a_thread(word: str) -> str:
    seen.append((threading.current_thread() is threading.main_thread(), tenant.get()))
    return f"{current_task().name} {current_task().attempt} {word}"


@workflow(name="threading", version="1.0.0")
async def threads(run: Run) -> str:
    tenant.set("ada")
    return await in_a_thread("hello")


async def test_a_thread_has_the_context_of_its_call() -> None:
    with trio.fail_after(10):
        async with virtual_runtime(threads) as runtime:
            handle = await runtime.client.start(threads)
            assert await handle.result() == "in-a-thread 1 hello"
    assert seen == [(False, "ada")]


async def test_a_thread_that_times_out_is_abandoned_and_its_late_result_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = threading.Event()

    @task(timeout=0.1)
    def stuck() -> str:
        go_on.wait(10)
        return "late"

    @workflow(name="stuck", version="1.0.0")
    async def waits(run: Run) -> str:
        try:
            return await stuck()
        except TaskFailed as error:
            return error.error.type

    with trio.fail_after(10), caplog.at_level(logging.WARNING, "aiki.task"):
        async with virtual_runtime(waits) as runtime:
            handle = await runtime.client.start(waits)
            assert (await handle.result()).endswith("TaskTimeout")
            assert "1 threads abandoned" in str(runtime.tree())
            assert "attempt 1 of task 'stuck'" in caplog.text
            go_on.set()
            while "abandoned" in str(runtime.tree()):
                await trio.testing.wait_all_tasks_blocked()
            assert "late result is dropped" in caplog.text
            assert len(await bodies(handle, "task-failed")) == 1
            assert not await bodies(handle, "task-succeeded")


async def test_the_time_of_an_attempt_does_not_run_while_it_waits_for_a_thread() -> None:
    """One thread for three tasks that take almost their timeout each."""

    @task(timeout=2)
    def busy(number: int) -> int:
        threading.Event().wait(0.8)
        return number

    @workflow(name="queueing", version="1.0.0")
    async def queueing(run: Run) -> list[int]:
        return list(await run.gather(busy(1), busy(2), busy(3)))

    settings = evolve(VIRTUAL, worker=WorkerSettings(threads_max=1))
    with trio.fail_after(20):
        async with virtual_runtime(queueing, settings=settings) as runtime:
            handle = await runtime.client.start(queueing)
            assert await handle.result() == [1, 2, 3]


# --- asyncio --------------------------------------------------------------------------------------


@task(runtime="asyncio")
async def under_asyncio(word: str) -> str:
    await asyncio.sleep(0)
    seen.append(asyncio.get_running_loop())
    current_task().heartbeat(word)
    return f"{word} {tenant.get()} {current_task().name}"


@workflow(name="asyncio-caller", version="1.0.0")
async def calls_asyncio(run: Run, word: str) -> str:
    tenant.set("ada")
    return await under_asyncio(word)


async def test_asyncio_coroutines_run_in_one_loop_of_the_worker() -> None:
    with trio.fail_after(10):
        async with virtual_runtime(calls_asyncio) as runtime:
            handles = [await runtime.client.start(calls_asyncio, word) for word in "ab"]
            results = [await handle.result() for handle in handles]
            assert results == ["a ada under-asyncio", "b ada under-asyncio"]
            assert len(set(seen)) == 1
            assert "asyncio" in str(runtime.tree())


async def test_without_an_asyncio_task_no_loop_is_opened() -> None:
    with trio.fail_after(10):
        async with virtual_runtime(threads) as runtime:
            await (await runtime.client.start(threads)).result()
            assert "asyncio" not in str(runtime.tree())


async def test_a_timeout_cancels_the_coroutine() -> None:
    @task(runtime="asyncio", timeout=0.05)
    async def sleeps() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @workflow(name="sleeping", version="1.0.0")
    async def sleeping(run: Run) -> None:
        await sleeps()

    with trio.fail_after(10):
        async with virtual_runtime(sleeping) as runtime:
            with pytest.raises(RunFailed, match="TaskTimeout"):
                await (await runtime.client.start(sleeping)).result()
    assert seen == ["cancelled"]


async def test_a_coroutine_that_was_cancelled_in_its_loop_is_a_failed_attempt() -> None:
    @task(runtime="asyncio")
    async def cancels_itself() -> None:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        await asyncio.sleep(1)

    @workflow(name="self-cancelling", version="1.0.0")
    async def self_cancelling(run: Run) -> str:
        try:
            await cancels_itself()
        except TaskFailed as error:
            return error.error.type
        return ""

    with trio.fail_after(10):
        async with virtual_runtime(self_cancelling) as runtime:
            handle = await runtime.client.start(self_cancelling)
            assert "CancelledError" in await handle.result()


async def test_an_error_in_the_loop_keeps_its_type() -> None:
    @task(runtime="asyncio")
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("not here")

    @workflow(name="failing-asyncio", version="1.0.0")
    async def failing(run: Run) -> None:
        await fails()

    with trio.fail_after(10):
        async with virtual_runtime(failing) as runtime:
            with pytest.raises(RunFailed, match="LookupError: not here"):
                await (await runtime.client.start(failing)).result()


async def test_stopping_the_runtime_ends_the_loop_and_no_outcome_is_recorded() -> None:
    begun = trio.Event()

    @task(runtime="asyncio")
    async def lasts() -> None:
        begun.set()
        await asyncio.sleep(600)

    @workflow(name="lasting", version="1.0.0")
    async def lasting(run: Run) -> None:
        await lasts()

    settings = evolve(VIRTUAL, worker=WorkerSettings(shutdown_grace_s=0.05))
    with trio.fail_after(20):
        async with virtual_runtime(lasting, settings=settings) as runtime:
            handle = await runtime.client.start(lasting)
            await begun.wait()
            assert handle.id


async def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio_asyncio", None)
    with trio.fail_after(10):
        async with virtual_runtime(calls_asyncio) as runtime:
            with pytest.raises(RunFailed, match=r"pip install 'aiki-trio\[asyncio\]'"):
                await (await runtime.client.start(calls_asyncio, "x")).result()


# --- Processes ------------------------------------------------------------------------------------


@workflow(name="parts", version="1.0.0")
async def parts(run: Run, part: Part) -> Part:
    return await process_tasks.doubles(part)


async def test_a_function_runs_in_a_process_with_the_types_of_the_task() -> None:
    part = Part(Decimal("1.50"), timedelta(seconds=3))
    with trio.fail_after(30):
        async with virtual_runtime(parts) as runtime:
            handle = await runtime.client.start(parts, part)
            assert await handle.result() == Part(Decimal("3.00"), timedelta(seconds=6))


async def test_processes_are_kept_bounded_and_end_with_the_worker() -> None:
    @workflow(name="where", version="1.0.0")
    async def asks_where(run: Run) -> list[int]:
        first = await process_tasks.where()
        again = await process_tasks.where()
        assert first == again, "an idle process is used again"
        return list(await run.gather(*(process_tasks.where() for _ in range(6))))

    settings = evolve(VIRTUAL, worker=WorkerSettings(processes_max=2))
    with trio.fail_after(30):
        async with virtual_runtime(asks_where, settings=settings) as runtime:
            pids = set(await (await runtime.client.start(asks_where)).result())
            assert os.getpid() not in pids
            assert 1 <= len(pids) <= 2
            for pid in pids:
                os.kill(pid, 0)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_process_that_dies_is_a_failed_attempt_with_its_exit_code() -> None:
    @workflow(name="dying", version="1.0.0")
    async def dying(run: Run) -> str:
        try:
            await process_tasks.dies(3)
        except TaskFailed as error:
            assert await process_tasks.where(), "the next task gets another process"
            return str(error.error)
        return ""

    with trio.fail_after(30):
        async with virtual_runtime(dying) as runtime:
            said = await (await runtime.client.start(dying)).result()
    assert "TaskProcessDied" in said
    assert "exit code 3" in said


async def test_an_at_most_once_task_whose_process_dies_is_not_run_again() -> None:
    @workflow(name="dying-once", version="1.0.0")
    async def dying_once(run: Run) -> str:
        try:
            await process_tasks.dies_once()
        except OutcomeUnknown as error:
            return str(error)
        return ""

    with trio.fail_after(30):
        async with virtual_runtime(dying_once) as runtime:
            handle = await runtime.client.start(dying_once)
            assert "exit code -9" in await handle.result()
            assert len(await bodies(handle, "task-started")) == 1


async def test_a_process_is_killed_when_its_attempt_times_out(tmp_path: Path) -> None:
    @workflow(name="hanging", version="1.0.0")
    async def hanging(run: Run, path: str) -> None:
        await process_tasks.hangs.options(timeout=3)(path)

    path = tmp_path / "pid"
    with trio.fail_after(30):
        async with virtual_runtime(hanging) as runtime:
            with pytest.raises(RunFailed, match="TaskTimeout"):
                await (await runtime.client.start(hanging, str(path))).result()
            pid = int(await trio.Path(path).read_text())
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.parametrize(
    ("kind", "result"), [("connection", 3), ("later", 2), ("fine", 1), ("value", None)]
)
async def test_retry_policies_know_the_classes_of_an_error_in_a_process(
    kind: str, result: int | None
) -> None:
    """`only=(OSError,)` lets a ConnectionRefusedError pass, and no ValueError."""

    @workflow(name="refusing-in-process", version="1.0.0")
    async def refusing(run: Run, kind: str) -> int:
        return await process_tasks.refuses(kind)

    with trio.fail_after(30):
        async with virtual_runtime(refusing) as runtime:
            handle = await runtime.client.start(refusing, kind)
            if result is None:
                with pytest.raises(RunFailed, match="ValueError: value"):
                    await handle.result()
                assert not await bodies(handle, "attempt-failed")
                return
            assert await handle.result() == result
            for body in await bodies(handle, "attempt-failed"):
                assert body["details"] == {"attempt": 1}


async def test_a_function_is_found_by_its_own_name_whatever_the_task_is_called() -> None:
    @workflow(name="renamed", version="1.0.0")
    async def uses_renamed(run: Run) -> int:
        return await process_tasks.renamed(21)

    with trio.fail_after(30):
        async with virtual_runtime(uses_renamed) as runtime:
            assert await (await runtime.client.start(uses_renamed)).result() == 42


@pytest.mark.parametrize(
    ("module", "told"), [(None, "top of its module"), ("__main__", "a module of its own")]
)
async def test_what_a_process_cannot_import_is_refused_with_the_fix(
    module: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = cast("SyncTask[[], int]", process_tasks.makes_task())
    if module is not None:
        monkeypatch.setattr(nested, "__module__", module)

    @workflow(name="unimportable", version="1.0.0")
    async def unimportable(run: Run) -> int:
        return await nested()

    with trio.fail_after(30):
        async with virtual_runtime(unimportable) as runtime:
            with pytest.raises(RunFailed, match=told):
                await (await runtime.client.start(unimportable)).result()
