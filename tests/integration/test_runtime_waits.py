"""Sleeps, events, children and branches in a whole runtime, on virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from aiki_sdk import (
    ChildFailed,
    Event,
    RunCancelled,
    RunEnded,
    RunFailed,
    UnknownEvent,
    WaitTimeout,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import kinds, settings_with, virtual_runtime

pay = Event("pay", str)
other = Event("other", int)


@task
async def step(n: int) -> int:
    return n + 1


@workflow(name="sleeper", version="1.0.0")
async def sleeper(run: Run, seconds: float) -> str:
    return str(await run.sleep("nap", seconds=seconds))


async def test_a_sleep_ends_at_its_time_and_holds_nothing(autojump_clock: object) -> None:
    async with virtual_runtime(sleeper) as runtime:
        handle = await runtime.client.start(sleeper, 86_400)
        await handle.wait("sleeping", timeout=5)
        await trio.lowlevel.checkpoint()
        assert runtime.runs.active == 0
        assert await handle.result() == "elapsed"
        assert 86_400 <= trio.current_time() < 86_401


async def test_an_operator_ends_a_sleep_early(autojump_clock: object) -> None:
    async with virtual_runtime(sleeper) as runtime:
        handle = await runtime.client.start(sleeper, 86_400)
        await handle.wait("sleeping", timeout=5)
        await handle.wake("nap")
        assert await handle.result() == "woken"
        assert trio.current_time() < 10


@pytest.mark.parametrize("seconds", [0, -5])
async def test_no_time_is_slept_at_once_and_recorded(seconds: int, autojump_clock: object) -> None:
    async with virtual_runtime(sleeper) as runtime:
        handle = await runtime.client.start(sleeper, seconds)
        assert await handle.result() == "elapsed"
        assert "run-parked" not in await kinds(handle)


@workflow(name="payee", version="1.0.0", events=[pay, other])
async def payee(run: Run, count: int, timeout: float | None) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        try:
            found.append(await run.wait(pay, timeout))
        except WaitTimeout:
            found.append("late")
    return found


async def test_events_sent_before_and_after_the_wait_come_in_order(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(payee, settings=settings_with(warm_max=0)) as runtime:
        handle = await runtime.client.start(payee, 3, None)
        for word in ("a", "b"):
            await handle.send(pay, word)
        await handle.wait("awaiting_event", timeout=5)
        await handle.send(pay, "c")
        assert await handle.result() == ["a", "b", "c"]


async def test_a_wait_times_out_and_a_later_event_is_kept(autojump_clock: object) -> None:
    async with virtual_runtime(payee) as runtime:
        handle = await runtime.client.start(payee, 2, 60)
        await trio.sleep(70)
        await handle.send(pay, "later")
        assert await handle.result() == ["late", "later"]


async def test_a_repeated_reference_id_is_acknowledged_and_dropped(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(payee) as runtime:
        handle = await runtime.client.start(payee, 2, 60)
        await handle.send(pay, "a", reference_id="one")
        await handle.send(pay, "b", reference_id="one")
        assert await handle.result() == ["a", "late"]


async def test_an_undeclared_event_is_refused(autojump_clock: object) -> None:
    async with virtual_runtime(payee) as runtime:
        handle = await runtime.client.start(payee, 1, 60)
        with pytest.raises(UnknownEvent, match="pay"):
            await handle.send("nonsense", 1)


async def test_an_event_for_an_ended_run_is_refused(autojump_clock: object) -> None:
    async with virtual_runtime(payee) as runtime:
        handle = await runtime.client.start(payee, 0, None)
        await handle.result()
        with pytest.raises(RunEnded):
            await handle.send(pay, "x")


@workflow(name="child", version="1.0.0")
async def child(run: Run, seconds: float, fails: bool) -> str:
    await run.sleep("life", seconds=seconds)
    if fails:
        message = "child's fault"
        raise ValueError(message)
    return run.parent_id or "none"


@workflow(name="parent", version="1.0.0")
async def parent(run: Run, how: str) -> str:
    if how == "call":
        return await run.call(child, 5, False)
    if how == "abandon":
        return (await run.start_child(child, 50, False)).id
    if how == "cancel":
        return (await run.start_child(child, 50, False, on_parent_end="cancel")).id
    if how == "deep":
        return await run.call(parent, "call")
    started = await run.start_child(child, 5, how == "fails")
    try:
        return await started.result(1 if how == "timeout" else None)
    except ChildFailed as error:
        return f"failed: {error.error.message}"
    except WaitTimeout:
        return f"late, then {await started.result()}"


async def test_a_child_gives_its_result_to_its_parent(autojump_clock: object) -> None:
    async with virtual_runtime(parent, child, settings=settings_with(warm_max=1)) as runtime:
        for how in ("result", "call"):
            handle = await runtime.client.start(parent, how)
            assert await handle.result() == handle.id


async def test_a_childs_failure_is_its_parents_to_handle(autojump_clock: object) -> None:
    async with virtual_runtime(parent, child) as runtime:
        handle = await runtime.client.start(parent, "fails")
        assert await handle.result() == "failed: child's fault"


async def test_a_wait_for_a_child_can_time_out_and_be_repeated(autojump_clock: object) -> None:
    async with virtual_runtime(parent, child) as runtime:
        handle = await runtime.client.start(parent, "timeout")
        assert await handle.result() == f"late, then {handle.id}"


@pytest.mark.parametrize(("how", "end"), [("abandon", "completed"), ("cancel", "cancelled")])
async def test_what_becomes_of_a_child_when_its_parent_ends(
    how: str, end: str, autojump_clock: object
) -> None:
    async with virtual_runtime(parent, child) as runtime:
        handle = await runtime.client.start(parent, how)
        orphan = await runtime.client.get(await handle.result())
        assert await orphan.wait(end, timeout=100) == end


async def test_a_cancellation_reaches_all_descendants(autojump_clock: object) -> None:
    async with virtual_runtime(parent, child) as runtime:
        handle = await runtime.client.start(parent, "deep")
        await trio.sleep(1)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled):
            await handle.result()
        await trio.sleep(1)
        assert await runtime.client.count(status="cancelled") == 3


@workflow(name="racer", version="1.0.0", events=[pay])
async def racer(run: Run, seconds: float) -> list[object]:
    first, second = await run.gather(step(1), step(2))
    winner, value = await run.race(paid=run.wait(pay), late=run.sleep("late", seconds=seconds))
    return [first, second, winner, str(value)]


@pytest.mark.parametrize("warm_max", [0, 1, 1_000])
async def test_a_race_has_the_winner_that_came_first(warm_max: int, autojump_clock: object) -> None:
    async with virtual_runtime(racer, settings=settings_with(warm_max=warm_max)) as runtime:
        paid = await runtime.client.start(racer, 100)
        late = await runtime.client.start(racer, 10)
        await trio.sleep(5)
        await paid.send(pay, "cash")
        assert await paid.result() == [2, 3, "paid", "cash"]
        assert await late.result() == [2, 3, "late", "elapsed"]


@workflow(name="many", version="1.0.0", events=[pay])
async def many(run: Run, n: int) -> str:
    await step(n)
    return await run.wait(pay)


async def test_parked_runs_have_no_actors_and_wake_by_replay(autojump_clock: object) -> None:
    async with virtual_runtime(many, settings=settings_with(warm_max=1)) as runtime:
        handles = [await runtime.client.start(many, n) for n in range(30)]
        for handle in handles:
            await handle.wait("awaiting_event", timeout=5)
        await trio.sleep(1)
        assert runtime.runs.active == 0
        executors = runtime.system.supervisor("worker/executors")
        assert len(executors.children()) <= 1
        for number, handle in enumerate(handles):
            await handle.send(pay, str(number))
        assert [await handle.result() for handle in handles] == [str(n) for n in range(30)]
        for handle in handles:
            assert (await kinds(handle)).count("task-succeeded") == 1


@workflow(name="plain-wait", version="1.0.0")
async def plain_wait(run: Run) -> int:
    async with trio.open_nursery() as nursery:

        async def nap() -> None:
            await run.sleep("nap", seconds=60)

        nursery.start_soon(nap)
        await trio.sleep(5)
        value = await step(1)
        nursery.cancel_scope.cancel()
    return value


async def test_code_that_goes_on_by_itself_gets_its_claim_back(autojump_clock: object) -> None:
    """A branch in a plain `trio.sleep` is nothing that the server watches; the run parks."""
    async with virtual_runtime(plain_wait) as runtime:
        handle = await runtime.client.start(plain_wait)
        assert await handle.result(timeout=50) == 2


async def test_a_failing_branch_fails_the_run_with_its_own_error(autojump_clock: object) -> None:
    @workflow(name="failing-branch", version="1.0.0")
    async def failing_branch(run: Run) -> None:
        async def fail() -> int:
            await step(1)
            message = "from a branch"
            raise ValueError(message)

        await run.gather(fail(), step(2), step(3))

    async with virtual_runtime(failing_branch) as runtime:
        handle = await runtime.client.start(failing_branch)
        with pytest.raises(RunFailed, match="from a branch"):
            await handle.result()
