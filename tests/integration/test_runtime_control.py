"""Cancel, terminate, pause, retry, timeout, references and refusals, on virtual time."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_sdk import (
    AikiError,
    DuplicateName,
    Event,
    IllegalTransition,
    NotFound,
    ReferenceConflict,
    Retry,
    RunCancelled,
    RunFailed,
    RunTerminated,
    TaskFailed,
    UnknownWorkflow,
    task,
    workflow,
)
from aiki_sdk._run import Run
from aiki_sdk.protocol import RunStatus
from tests.integration.runtimes import bodies, kinds, settings_with, virtual_runtime

pay = Event("pay", str)
log: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


@task
async def note(word: str, seconds: float = 0) -> str:
    log.append(f"begin {word}")
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        log.append(f"cancelled {word}")
        raise
    log.append(f"end {word}")
    return word


@workflow(name="careful", version="1.0.0", events=[pay], cancel_grace=30)
async def careful(run: Run, how: str) -> str:
    try:
        if how == "task":
            await note("work", 100)
        elif how == "branches":
            await run.gather(note("one", 100), note("two", 100), run.sleep("s", seconds=500))
        else:
            await run.wait(pay)
    finally:
        with trio.CancelScope(shield=True):
            await note("cleanup", 1000 if how == "stubborn" else 1)
            await run.sleep("settle", seconds=5)
            await note("after", 0)
    return "done"


@pytest.mark.parametrize("how", ["task", "branches", "wait"])
@pytest.mark.parametrize("warm_max", [0, 10])
async def test_a_cancelled_run_cleans_up_durably(
    how: str, warm_max: int, autojump_clock: object
) -> None:
    async with virtual_runtime(careful, settings=settings_with(warm_max=warm_max)) as runtime:
        handle = await runtime.client.start(careful, how)
        await trio.sleep(10)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await handle.result()
        assert trio.current_time() == pytest.approx(16, abs=0.1)
        assert log.index("begin cleanup") < log.index("end cleanup") < log.index("begin after")
        assert log.count("begin cleanup") == log.count("end after") == 1
        assert ("cancelled work" in log) == (how == "task")
        await handle.cancel("again")  # Repeating it changes nothing.


async def test_cleanup_that_takes_too_long_is_ended_after_the_grace(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(careful) as runtime:
        handle = await runtime.client.start(careful, "stubborn")
        await trio.sleep(10)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result()
        assert trio.current_time() == pytest.approx(40, abs=0.1)
        await trio.sleep(1)
        assert log[-1] == "cancelled cleanup"


@pytest.mark.parametrize("how", ["task", "branches", "wait"])
async def test_a_terminated_run_ends_at_once_and_runs_no_more_code(
    how: str, autojump_clock: object
) -> None:
    async with virtual_runtime(careful) as runtime:
        handle = await runtime.client.start(careful, how)
        await trio.sleep(10)
        await handle.terminate("now")
        with pytest.raises(RunTerminated):
            await handle.result()
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        await trio.sleep(10)
        assert "begin cleanup" not in log


@workflow(name="two-steps", version="1.0.0")
async def two_steps(run: Run, parallel: bool) -> str:
    if parallel:
        await run.gather(note("one", 10), run.sleep("s", seconds=10))
    else:
        await note("one", 10)
    return await note("two")


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_pause_lets_the_running_task_finish_and_begins_nothing(
    parallel: bool, autojump_clock: object
) -> None:
    async with virtual_runtime(two_steps) as runtime:
        handle = await runtime.client.start(two_steps, parallel)
        await trio.sleep(5)
        await handle.pause()
        await trio.sleep(100)
        assert await handle.status() is RunStatus.PAUSED
        assert log == ["begin one", "end one"]
        await handle.resume()
        assert await handle.result() == "two"
        assert log.count("begin one") == 1
        with pytest.raises(IllegalTransition, match="completed"):
            await handle.pause()


async def test_the_reason_of_a_pause_shows_while_it_lasts(autojump_clock: object) -> None:
    async with virtual_runtime(two_steps) as runtime:
        handle = await runtime.client.start(two_steps, False)
        for reason in ("audit", None, "audit again"):
            await handle.pause(reason)
            assert (await handle.info()).reason == reason
            await handle.resume()
            assert (await handle.info()).reason is None
        await handle.pause("audit")
        await handle.terminate("over")
        assert (await handle.info()).reason == "over"


async def test_a_pause_that_is_lifted_at_once_interrupts_nothing(autojump_clock: object) -> None:
    async with virtual_runtime(two_steps) as runtime:
        handle = await runtime.client.start(two_steps, False)
        await trio.sleep(5)
        await handle.pause()
        await handle.resume()
        assert await handle.result() == "two"
        assert log == ["begin one", "end one", "begin two", "end two"]


attempts: list[int] = []


@workflow(name="unlucky", version="1.0.0", retry=Retry.fixed(3, 60))
async def unlucky(run: Run, good_from: int) -> int:
    attempts.append(run.attempt)
    await note("kept")
    await run.sleep("kept", seconds=10)
    if run.attempt < good_from:
        message = f"attempt {run.attempt}"
        raise ConnectionError(message)
    return run.attempt


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_a_retry_of_the_run_keeps_what_was_completed(
    warm_max: int, autojump_clock: object
) -> None:
    attempts.clear()
    async with virtual_runtime(unlucky, settings=settings_with(warm_max=warm_max)) as runtime:
        handle = await runtime.client.start(unlucky, 3)
        assert await handle.result() == 3
        assert log == ["begin kept", "end kept"]
        assert trio.current_time() == pytest.approx(130, abs=0.1)


async def test_a_failed_run_can_be_sent_round_again(autojump_clock: object) -> None:
    async with virtual_runtime(unlucky) as runtime:
        handle = await runtime.client.start(unlucky, 4)
        with pytest.raises(RunFailed, match="attempt 3"):
            await handle.result()
        await handle.retry()
        assert await handle.result() == 4
        assert log == ["begin kept", "end kept"]


@workflow(name="bounded", version="1.0.0", timeout=20)
async def bounded(run: Run, busy: bool) -> None:
    if busy:
        await note("busy", 100)
    await run.sleep("s", seconds=100)


@pytest.mark.parametrize("busy", [False, True])
async def test_the_timeout_of_a_run_fails_it_whatever_it_does(
    busy: bool, autojump_clock: object
) -> None:
    async with virtual_runtime(bounded) as runtime:
        handle = await runtime.client.start(bounded, busy)
        with pytest.raises(RunFailed) as caught:
            await handle.result()
        assert caught.value.error.type == "RunTimeout"
        assert trio.current_time() == pytest.approx(20, abs=0.1)


@workflow(name="echo", version="1.0.0")
async def echo(run: Run, word: str) -> str:
    await run.sleep("s", seconds=1)
    return word


async def test_a_reference_id_names_one_run(autojump_clock: object) -> None:
    async with virtual_runtime(echo) as runtime:
        client = runtime.client
        starter = client.options(reference_id="one")
        first = await starter.start(echo, "a")
        assert (await starter.start(echo, "a")).id == first.id
        with pytest.raises(ReferenceConflict):
            await starter.start(echo, "b")
        existing = client.options(reference_id="one", on_conflict="return_existing")
        assert (await existing.start(echo, "b")).id == first.id
        again = client.options(reference_id="one", on_conflict="restart_if_ended")
        assert (await again.start(echo, "a")).id == first.id
        await first.result()
        second = await again.start(echo, "b")
        assert second.id != first.id
        assert await second.result() == "b"
        assert (await client.get(workflow=echo, reference_id="one")).id == second.id


async def test_concurrent_starts_with_one_reference_id_make_one_run(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(echo) as runtime:
        ids: set[str] = set()

        async def start() -> None:
            ids.add((await runtime.client.options(reference_id="one").start(echo, "a")).id)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert len(ids) == 1
        assert await runtime.client.count() == 1


async def test_what_cannot_be_started_is_refused_and_leaves_nothing(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(echo) as runtime:
        with pytest.raises(UnknownWorkflow):
            await runtime.client.start("nobody", {})
        start: Any = runtime.client.start
        with pytest.raises(TypeError):
            await start(echo, "a", "b")
        with pytest.raises(AikiError):
            await runtime.client.start("echo", {"word": 7})
        with pytest.raises(NotFound):
            await (await runtime.client.get("run_01AAAAAAAAAAAAAAAAAAAAAAAA")).result()
        assert await runtime.client.count() == 0


async def test_two_workflows_of_one_name_and_version_are_refused() -> None:
    @workflow(name="echo", version="1.0.0")
    async def another(run: Run) -> None: ...

    with pytest.raises(DuplicateName):
        async with virtual_runtime(echo, another):
            raise AssertionError("unreachable")


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, AssertionError])
async def test_whatever_a_workflow_raises_is_the_end_of_that_run_only(
    kind: type[BaseException], autojump_clock: object
) -> None:
    @workflow(name="rude", version="1.0.0")
    async def rude(run: Run, busy: bool) -> None:
        if busy:
            await note("x")
        message = "rude"
        raise kind(message)

    async with virtual_runtime(rude, echo) as runtime:
        for busy in (False, True):
            handle = await runtime.client.start(rude, busy)
            with pytest.raises(RunFailed, match="rude"):
                await handle.result()
        assert await (await runtime.client.start(echo, "on")).result() == "on"


async def test_what_a_task_raises_is_its_calls_failure(autojump_clock: object) -> None:
    @task
    async def leave() -> None:
        raise SystemExit(3)

    @workflow(name="leaver", version="1.0.0")
    async def leaver(run: Run) -> str:
        try:
            await leave()
        except TaskFailed as error:
            return error.error.type
        return ""

    async with virtual_runtime(leaver) as runtime:
        assert await (await runtime.client.start(leaver)).result() == "SystemExit"


def changing(version: list[str], on_divergence: Any) -> Any:
    """Make a workflow whose code changes when `version` does."""

    @workflow(name="changing", version="1.0.0", on_divergence=on_divergence, events=[pay])
    async def code(run: Run) -> str:
        if version[0] == "new":
            await note("inserted")
        first = await note("old")
        return first + await run.wait(pay)

    return code


async def test_a_divergence_fails_the_run_before_the_call_and_says_where(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    version = ["old"]
    code = changing(version, "fail")
    async with virtual_runtime(code, settings=settings_with(warm_max=0)) as runtime:
        handle = await runtime.client.start(code)
        await handle.wait("awaiting_event", timeout=5)
        version[0] = "new"
        with caplog.at_level(logging.CRITICAL, "aiki.worker"):
            await handle.send(pay, "x")
            with pytest.raises(RunFailed) as caught:
                await handle.result()
    message = str(caught.value)
    assert "task 'note'" in message
    assert "test_runtime_control.py:" in message
    assert "begin inserted" not in log


async def test_a_diverged_run_stalls_and_goes_on_once_the_code_is_mended(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    version = ["old"]
    code = changing(version, "stall")
    async with virtual_runtime(code, settings=settings_with(warm_max=0)) as runtime:
        handle = await runtime.client.start(code)
        await handle.wait("awaiting_event", timeout=5)
        version[0] = "new"
        with caplog.at_level(logging.CRITICAL, "aiki.worker"):
            await handle.send(pay, "x")
            await handle.wait("stalled", timeout=5)
        version[0] = "old"
        await handle.requeue()
        assert await handle.result() == "oldx"
        assert log == ["begin old", "end old"]


async def test_what_a_divergence_does_follows_the_settings_where_the_workflow_does_not_say(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    version = ["old"]
    code = changing(version, None)
    settings = evolve(settings_with(warm_max=0), on_divergence="stall")
    async with virtual_runtime(code, settings=settings) as runtime:
        handle = await runtime.client.start(code)
        await handle.wait("awaiting_event", timeout=5)
        version[0] = "new"
        with caplog.at_level(logging.CRITICAL, "aiki.worker"):
            await handle.send(pay, "x")
            await handle.wait("stalled", timeout=5)


async def test_the_stream_of_updates_is_complete_and_without_a_gap(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(two_steps) as runtime:
        handle = await runtime.client.start(two_steps, True)
        updates = [update async for update in handle.updates()]
        history = await handle.history()
        # Live updates (a task was begun) are no entries and carry the seq that they came after.
        recorded = {entry.kind for entry in history}
        seqs = [update.seq for update in updates if update.kind in recorded]
        assert seqs == [entry.seq for entry in history] == list(range(1, len(history) + 1))
        assert [u.seq async for u in handle.updates(after=3)] == seqs[3:]


@pytest.mark.parametrize("steps", range(12))
async def test_a_client_cancelled_in_any_call_harms_nothing(
    steps: int, autojump_clock: object
) -> None:
    """Cancelled after so many checkpoints, wherever in its call that is."""
    async with virtual_runtime(careful, echo) as runtime:
        run = await runtime.client.start(careful, "wait")
        calls = (
            lambda: runtime.client.start(echo, "a"),
            lambda: run.send(pay, "x", reference_id="one"),
            run.pause,
            run.resume,
            run.info,
            run.history,
            lambda: runtime.client.count(),
            run.result,
        )
        for call in calls:
            async with trio.open_nursery() as nursery:

                async def make(call: Any = call) -> None:
                    await call()

                nursery.start_soon(make)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await run.resume()
        await run.send(pay, "x", reference_id="one")
        assert await run.result() == "done"
        assert len(await bodies(run, "event-accepted")) == 1
        assert (await kinds(run)).count("run-completed") == 1
        await trio.sleep(10)
        assert await runtime.client.count(status="running") == 0
