"""Continue-as-new, forks and retries: runs that go on as other runs, on virtual time."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio

from aiki_sdk import (
    Event,
    InvalidRequest,
    NonRetryable,
    NotFound,
    Question,
    RunCancelled,
    UnknownWorkflow,
    task,
    workflow,
)
from aiki_sdk._run import Run
from aiki_sdk.protocol import ForkRequest
from tests.integration.runtimes import bodies, file_runtime, kinds, settings_with, virtual_runtime

item = Event("item", int)
total_of = Question("total", answer_type=int)


@task
async def add(a: int, b: int) -> int:
    return a + b


@workflow(name="loop", version="1.0.0")
async def loop(run: Run, left: int, total: int = 0) -> int:
    total = await add(total, left)
    await run.publish("total", total)
    await run.sleep("tick", seconds=60)
    if left:
        await run.continue_as_new(left - 1, total)
    return total


async def test_a_run_continues_as_new_with_a_clean_journal(autojump_clock: object) -> None:
    """Handles follow, and the reference id moves on; no journal is longer than the first."""
    async with virtual_runtime(loop) as runtime:
        client = runtime.client
        handle = await client.start(loop, 3, reference_id="the-loop", labels={"team": "a"})
        first = handle.id
        assert await handle.result() == 6
        last = await handle.info()
        assert last.id != first
        assert last.reference_id == "the-loop"
        assert last.labels == {"team": "a"}
        assert (await client.get(workflow=loop, reference_id="the-loop")).id == last.id
        old = await handle.info(follow=False)
        assert old.status == "completed"
        assert old.continued_as is not None
        assert (
            await (await client.get(old.continued_as)).info(follow=False)
        ).continued_from == first
        assert (await kinds(handle))[-1] == "run-continued"
        assert await client.count(workflow=loop) == 4
        assert trio.current_time() < 4 * 60 + 5


async def test_a_thousand_continuations_leave_nothing_in_memory(autojump_clock: object) -> None:
    """Neither actors nor executors nor timers stay; the objects grow by the journals alone."""
    async with virtual_runtime(loop) as runtime:
        handle = await runtime.client.start(loop, 1_000)
        counts: list[int] = []
        for stop in (500, 999):
            await trio.sleep(stop * 60 + 1 - trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            counts.append(len(gc.get_objects()))
            assert runtime.runs.active <= 1
        assert await handle.result() == sum(range(1_001))
        # Memory storage keeps the journals: a few objects for each of 499 runs.
        assert counts[1] - counts[0] < 499 * 20, counts


@workflow(name="restless", version="1.0.0")
async def restless(run: Run, left: int, total: int = 0) -> int:
    total = await add(total, left)
    if left:
        await run.continue_as_new(left - 1, total)
    return total


async def test_a_chain_of_runs_goes_on_after_every_stop(tmp_path: Path) -> None:
    """On a file, in real time, stopped again and again wherever it happens to be."""
    path = tmp_path / "aiki.db"
    async with file_runtime(path, restless) as runtime:
        await runtime.client.start(restless, 60, reference_id="chain")
    for _ in range(5):
        async with file_runtime(path, restless) as runtime:
            await runtime.client.list()
            await trio.lowlevel.checkpoint()
    async with file_runtime(path, restless) as runtime:
        await runtime.recovered()
        handle = await runtime.client.get(workflow=restless, reference_id="chain")
        assert await handle.result(timeout=30) == sum(range(61))
        assert await runtime.client.count(workflow=restless) == 61


@workflow(name="drain", version="1.0.0", events=[item], questions=[total_of])
async def drain(run: Run, wanted: int, total: int = 0) -> int:
    total += await run.wait(item)
    if wanted > 1:
        await run.continue_as_new(wanted - 1, total)
    await run.answer(total_of, lambda _data: total)
    return total


async def test_unread_events_and_questions_move_on(autojump_clock: object) -> None:
    async with virtual_runtime(drain) as runtime:
        handle = await runtime.client.start(drain, 4)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await handle.ask(total_of))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            for number in (1, 2, 4, 8):
                await handle.send(item, number)
        assert answers == [15]
        assert await handle.result() == 15


@workflow(name="branches", version="1.0.0", events=[item])
async def branches(run: Run, again: bool) -> int:
    async def leave() -> None:
        await run.sleep("soon", seconds=5)
        await run.continue_as_new(False)

    if again:
        await run.gather(leave(), run.wait(item), run.sleep("late", days=1))
    return await run.wait(item)


async def test_continuing_in_one_branch_ends_the_others(autojump_clock: object) -> None:
    """What another branch waits for is for the next run."""
    async with virtual_runtime(branches) as runtime:
        handle = await runtime.client.start(branches, True)
        await trio.sleep(6)
        await handle.send(item, 7)
        assert await handle.result() == 7
        assert trio.current_time() < 10


@workflow(name="parent", version="1.0.0")
async def parent(run: Run, left: int) -> int:
    return await run.call(loop, left)


async def test_a_parent_waits_for_the_last_of_the_runs_that_continued(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(loop, parent, settings=settings_with(warm_max=0)) as runtime:
        handle = await runtime.client.start(parent, 3)
        assert await handle.result() == 6


async def test_a_cancelled_parent_cancels_the_run_that_its_child_became(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(loop, parent) as runtime:
        handle = await runtime.client.start(parent, 100)
        await trio.sleep(60 * 5 + 10)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()
        await trio.sleep(10)
        assert await runtime.client.count(workflow=loop, status="sleeping") == 0
        assert await runtime.client.count(workflow=loop, status="cancelled") == 1


@workflow(name="poster", version="1.0.0")
async def poster(run: Run, target: str) -> None:
    await run.send(target, item, 5)


async def test_an_event_sent_by_the_old_id_reaches_the_run_that_goes_on(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(drain, poster) as runtime:
        handle = await runtime.client.start(drain, 3)
        first = handle.id
        await handle.send(item, 1)
        await trio.sleep(1)
        await (await runtime.client.start(poster, first)).result()
        await handle.send(item, 10)
        assert await handle.ask(total_of) == 16


# --- Forks ----------------------------------------------------------------------------------------

calls: list[tuple[int, int]] = []


@task
async def multiply(a: int, b: int) -> int:
    calls.append((a, b))
    return a * b


@workflow(name="chain", version="1.0.0", events=[item])
async def chain(run: Run, start: int, fails: bool = False) -> int:
    value = await multiply(start, 2)
    value = await multiply(value, 3)
    await run.sleep("rest", hours=1)
    value += await run.wait(item)
    if fails:
        raise NonRetryable("as told")
    return await multiply(value, 5)


@workflow(name="chain", version="1.1.0", events=[item])
async def chain_next(run: Run, start: int, fails: bool = False) -> int:
    value = await multiply(start, 2)
    value = await multiply(value, 3)
    await run.sleep("rest", hours=1)
    value += await run.wait(item)
    return value


async def test_a_fork_keeps_what_was_recorded_and_does_the_rest(autojump_clock: object) -> None:
    async with virtual_runtime(chain, chain_next) as runtime:
        handle = await runtime.client.start(chain, 1)
        await handle.send(item, 4)
        assert await handle.result() == 50
        history = await handle.history()
        results = [entry.seq for entry in history if entry.kind == "task-succeeded"]
        calls.clear()

        whole = await handle.fork(len(history))
        assert await whole.result() == 50
        assert calls == []

        other = await handle.fork(results[1], overrides={results[1]: 1_000})
        assert await other.result() == 5_020
        assert calls == [(1_004, 5)]

        info = await other.info()
        assert info.forked_from is not None
        assert (info.forked_from.run_id, info.forked_from.at) == (handle.id, results[1])
        await trio.testing.wait_all_tasks_blocked()
        forks = (await handle.info()).forks
        assert [(fork.run_id, fork.at) for fork in forks] == [
            (whole.id, len(history)),
            (other.id, results[1]),
        ]
        assert await handle.result() == 50


async def test_a_fork_can_have_another_input_and_version(autojump_clock: object) -> None:
    async with virtual_runtime(chain, chain_next) as runtime:
        handle = await runtime.client.start(chain, 1, True)
        await handle.send(item, 4)
        await handle.wait("failed")
        at = (await handle.history())[-2].seq
        again = await handle.fork(at, input=(1, False))
        assert await again.result() == 50
        newer = await handle.fork(at, version="1.1.0")
        assert await newer.result() == 10
        assert (await newer.info()).version == "1.1.0"
        named = await handle.fork(1, input={"start": 10, "fails": False}, version="1.1.0")
        await named.send(item, 1)
        assert await named.result() == 61


async def test_a_fork_that_cannot_be_made_is_refused(autojump_clock: object) -> None:
    async with virtual_runtime(chain) as runtime:
        handle = await runtime.client.start(chain, 1)
        await handle.wait("sleeping", timeout=5)
        with pytest.raises(InvalidRequest, match="ends with entry"):
            await handle.fork(1_000)
        with pytest.raises(InvalidRequest, match="at=0"):
            await handle.fork(0)
        with pytest.raises(InvalidRequest, match="no task result"):
            await handle.fork(3, overrides={1: "x"})
        with pytest.raises(UnknownWorkflow):
            await handle.fork(3, version="9.9.9")
        with pytest.raises(TypeError):
            await handle.fork(3, input=(1, 2, 3, 4))
        foreign = await runtime.client_for("other").start(chain, 1)
        with pytest.raises(NotFound):
            await runtime.port_for("default").fork(foreign.id, ForkRequest(at=1))
        assert (await handle.info()).forks == ()


async def test_a_failed_run_goes_round_again_and_keeps_what_it_completed(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(chain) as runtime:
        handle = await runtime.client.start(chain, 1, True)
        await handle.send(item, 4)
        await handle.wait("failed")
        calls.clear()
        await handle.retry()
        await handle.wait("failed")
        assert calls == []
        assert len(await bodies(handle, "run-failed")) == 2
