"""A server and its workers in one loop on virtual time, over sockets that break."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from aiki_sdk import Run, UnknownWorkflow, workflow
from aiki_sdk.client import RunHandle
from aiki_sdk.protocol import RunStatus
from aiki_trio import Worker
from tests.integration.runtimes import kinds
from tests.session.clusters import (
    chain,
    cluster,
    everything,
    gated,
    gates,
    impatient,
    log,
    note,
    pay,
    waiter,
)


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()
    gates.clear()


async def _until_lost(handle: RunHandle[Any]) -> None:
    async for update in handle.updates():
        if update.kind == "claim-lost":
            return


async def test_runs_are_executed_over_a_session(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as c:
        await c.start_worker()
        handle = await c.start(chain, 5)
        assert await handle.result(timeout=5) == "01234"
        assert log == list("01234")
        run = await c.start(everything)
        await run.wait(RunStatus.AWAITING_EVENT, timeout=60)
        await run.send(pay, "!")
        assert await run.result(timeout=5) == "ab01!"


async def test_many_runs_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as c:
        await c.start_worker(max_runs=10)
        await c.start_worker(max_runs=10)
        handles = [await c.start(chain, 5) for _ in range(60)]
        for handle in handles:
            assert await handle.result(timeout=30) == "01234"
        assert len(log) == 300


async def test_a_warm_run_goes_on_where_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as c:
        await c.start_worker()
        handle = await c.start(waiter, 1)
        await handle.wait(RunStatus.AWAITING_EVENT, timeout=5)
        (_, down) = c.net.pairs[0]
        before = len(down.frames)
        await handle.send(pay, "yes")
        assert await handle.result(timeout=5) == "firstyeslast"
        told = b"".join(down.frames[before:])
        assert b"run-created" not in told, "no journal was sent again"
        slots = c.runtime.dispatcher.matcher.slots
        assert slots.warm_holder(handle.id) is None, "and nothing is kept of a run that has ended"


def kept(worker: Worker) -> list[str]:
    """Return the runs that a worker has in memory."""
    parts = [worker.tree()]
    while parts[0].name != "executors":
        parts = [*parts[1:], *parts[0].children]
    return [each.name for each in parts[0].children]


async def test_a_run_that_goes_on_elsewhere_is_kept_by_nobody_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        first, _ = await c.start_worker(max_runs=1)
        parked = await c.start(waiter, 1)
        await parked.wait(RunStatus.AWAITING_EVENT, timeout=5)
        gates["x"] = trio.Event()
        busy = await c.start(gated, "x")
        await busy.wait(RunStatus.RUNNING, timeout=5)
        assert set(kept(first)) == {parked.id, busy.id}
        second, _ = await c.start_worker()
        await parked.send(pay, "yes")
        assert await parked.result(timeout=5) == "firstyeslast"
        await trio.sleep(1)
        assert kept(first) == [busy.id]
        assert kept(second) == []


async def test_a_run_that_ends_while_it_is_parked_is_not_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        worker, _ = await c.start_worker()
        parked = await c.start(waiter, 1)
        await parked.wait(RunStatus.AWAITING_EVENT, timeout=5)
        assert kept(worker) == [parked.id]
        await parked.terminate("enough")
        await trio.sleep(1)
        assert kept(worker) == []


async def test_a_blip_of_the_network_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        parked = await c.start(waiter, 1)
        await parked.wait(RunStatus.AWAITING_EVENT, timeout=5)
        for _ in range(3):
            c.net.cut()
            await trio.sleep(2)
        gates["x"].set()
        c.net.cut()
        await parked.send(pay, "yes")
        assert await handle.result(timeout=10) == "beforexafter"
        assert await parked.result(timeout=10) == "firstyeslast"
        assert log.count("x") == 1
        assert "claim-lost" not in await kinds(handle)


async def test_runs_of_a_lost_worker_are_given_to_another_after_the_grace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(1)
        c.net.reachable = False
        c.net.cut()
        begun = trio.current_time()
        await _until_lost(handle)
        assert 14 <= trio.current_time() - begun <= 16.5
        c.net.reachable = True
        await trio.sleep(6)
        gates["x"].set()
        assert await handle.result(timeout=10) == "beforexafter"
        assert log.count("before") == 1


@pytest.mark.parametrize("direction", ["up", "down", "both"])
async def test_a_silent_network_ends_the_worker_before_its_lease(
    direction: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(11)
        assert log.count("x") == 1
        c.net.mute(up=direction != "down", down=direction != "up")
        begun = trio.current_time()
        await _until_lost(handle)
        assert trio.current_time() - begun <= 31
        gates["x"].set()
        assert await handle.result(timeout=60) == "beforexafter"
        assert log.count("before") == 1
        history = await kinds(handle)
        assert history.count("task-succeeded") == 3


async def test_a_restarted_server_finds_its_workers_and_their_claims(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        parked = await c.start(waiter, 1)
        await parked.wait(RunStatus.AWAITING_EVENT, timeout=5)
        c.kill_server()
        await trio.sleep(3)
        await c.start_server()
        await trio.sleep(8)
        handle = await c.get(handle, gated)
        parked = await c.get(parked, waiter)
        assert "claim-lost" not in await kinds(handle)
        gates["x"].set()
        await parked.send(pay, "yes")
        assert await handle.result(timeout=20) == "beforexafter"
        assert await parked.result(timeout=20) == "firstyeslast"
        assert log.count("x") == 1
        assert log.count("first") == 1


async def test_a_result_that_comes_while_the_server_is_away_is_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(1)
        c.kill_server()
        gates["x"].set()
        await trio.sleep(3)
        await c.start_server()
        handle = await c.get(handle, gated)
        assert await handle.result(timeout=20) == "beforexafter"
        assert log == ["before", "x", "after"]


async def test_a_server_killed_again_and_again_under_load_repeats_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        handles = [await c.start(chain, 20) for _ in range(20)]
        for pause in (0.0, 0.001, 0.002, 0.0, 0.001):
            await trio.sleep(pause)
            for _ in range(7):
                await trio.lowlevel.checkpoint()
            c.kill_server()
            await trio.sleep(1)
            await c.start_server()
            await trio.sleep(6)
        for handle in handles:
            again = await c.get(handle, chain)
            assert await again.result(timeout=60) == "".join(str(n) for n in range(20))
            assert (await kinds(again)).count("task-succeeded") == 20
        assert len(log) == 400


async def test_a_stopping_worker_gives_its_runs_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        worker, _ = await c.start_worker(grace_period=3)
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        parked = await c.start(waiter, 1)
        await parked.wait(RunStatus.AWAITING_EVENT, timeout=5)
        worker.stop()
        await trio.sleep(4)
        history = await kinds(handle)
        assert "claim-released" in history
        assert "claim-lost" not in history
        assert c.runtime.sessions.workers("default") == []
        await c.start_worker()
        gates["x"].set()
        assert await handle.result(timeout=5) == "beforexafter"
        await parked.send(pay, "yes")
        assert await parked.result(timeout=5) == "firstyeslast"


async def test_a_cancelled_worker_gives_its_runs_back_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        _, scope = await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(1)
        scope.cancel()
        await trio.sleep(1)
        assert await handle.status() is RunStatus.QUEUED


async def test_cancellation_is_pushed_to_the_worker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(1)
        await handle.cancel("enough")
        await handle.wait(RunStatus.CANCELLED, timeout=1)


async def test_a_workflow_that_was_announced_once_is_known_after_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        with pytest.raises(UnknownWorkflow):
            await c.runtime.client.start("waiter", {"hours": 2})
        _, scope = await c.start_worker()
        scope.cancel()
        c.kill_server()
        await c.start_server()
        handle: RunHandle[Any] = await c.runtime.client.start("waiter", {})
        (created, *_) = await handle.history()
        assert created.body["input"] == {"hours": 1}, "the default was filled in"
        await c.start_worker()
        await handle.wait(RunStatus.AWAITING_EVENT, timeout=5)
        await handle.send("pay", "yes")
        assert await handle.result(timeout=5) == "firstyeslast"


async def test_a_worker_that_was_away_too_long_gives_its_runs_up_and_gets_them_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its claims stand in the database under its name; naming none of them loses them."""
    async with cluster() as c:
        await c.start_worker()
        gates["x"] = trio.Event()
        handle = await c.start(gated, "x")
        await trio.sleep(1)
        c.kill_server()
        await trio.sleep(25)
        await c.start_server()
        await trio.sleep(6)
        gates["x"].set()
        handle = await c.get(handle, gated)
        assert await handle.result(timeout=10) == "beforexafter"
        assert log.count("before") == 1
        assert (await kinds(handle)).count("claim-lost") == 1


@workflow(name="grown", version="1.0.0", events=[pay])
async def before_the_deploy(run: Run) -> str:
    return await note("a") + await run.wait(pay)


@workflow(name="grown", version="1.0.0", events=[pay])
async def after_the_deploy(run: Run) -> str:
    return await note("a") + await run.wait(pay) + await note("new")


async def test_a_rolling_restart_takes_runs_over_to_new_code(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        olds = [await c.start_worker(before_the_deploy) for _ in range(2)]
        handles = [await c.start(before_the_deploy) for _ in range(6)]
        for handle in handles:
            await handle.wait(RunStatus.AWAITING_EVENT, timeout=5)
        for worker, _ in olds:
            await c.start_worker(after_the_deploy)
            worker.stop()
            await trio.sleep(1)
        for handle in handles:
            await handle.send(pay, "!")
            assert await handle.result(timeout=5) == "a!new"
        assert log.count("a") == 6, "what was recorded was not done again"


async def test_code_that_goes_on_by_itself_gets_its_claim_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster() as c:
        await c.start_worker()
        handle = await c.start(impatient)
        assert await handle.result(timeout=5) == "after"
        assert (await kinds(handle)).count("run-claimed") == 2
        broken = await c.start(impatient)
        await broken.wait(RunStatus.AWAITING_EVENT, timeout=5)
        c.kill_server()
        await trio.sleep(0.2)
        await c.start_server()
        again = await c.get(broken, impatient)
        await again.send(pay, "on")
        assert await again.result(timeout=10) == "after", "the parked run was replayed"
        assert log == ["before", "after", "before", "after"]
