"""A server and its workers in one loop on virtual time, over sockets that break."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import trio
from attrs import define, field, frozen

from aiki_actors.storage import MemoryStorage, Storage
from aiki_sdk import Event, Retry, SeededIds, SeededRng, TrioClock, UnknownWorkflow, task, workflow
from aiki_sdk._run import Run
from aiki_sdk.client import RunHandle
from aiki_sdk.protocol import RunStatus
from aiki_trio._runtime import Runtime
from aiki_trio._server import serving
from aiki_trio._worker import Worker
from tests.integration.runtimes import EPOCH, VIRTUAL, kinds
from tests.session.wires import Net

pay = Event("pay", str)
log: list[str] = []
gates: dict[str, trio.Event] = {}


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()
    gates.clear()


@task
async def note(word: str) -> str:
    log.append(word)
    return word


@task
async def slow(word: str) -> str:
    log.append(word)
    gate = gates.get(word)
    if gate is not None:
        await gate.wait()
    return word


@task(retry=Retry.fixed(3, 1))
async def flaky(word: str) -> str:
    log.append(word)
    if log.count(word) == 1:
        message = "once"
        raise ConnectionError(message)
    return word


@workflow(name="chain", version="1.0.0")
async def chain(run: Run, words: int) -> str:
    told = ""
    for number in range(words):
        told += await note(f"{number}")
    return told


@workflow(name="gated", version="1.0.0")
async def gated(run: Run, word: str) -> str:
    return await note("before") + await slow(word) + await note("after")


@workflow(name="waiter", version="1.0.0", events=[pay])
async def waiter(run: Run, hours: int = 1) -> str:
    first = await note("first")
    paid = await run.wait(pay, timeout=timedelta(hours=hours))
    return first + paid + await note("last")


@workflow(name="everything", version="1.0.0", events=[pay])
async def everything(run: Run) -> str:
    got = await run.gather(note("a"), flaky("b"), run.call(chain, 2))
    await run.sleep("nap", seconds=5)
    return "".join(str(one) for one in got) + await run.wait(pay)


ALL = (chain, gated, waiter, everything)


@frozen
class Address:
    """What a worker needs of a client."""

    url: str | None = None
    api_key: str | None = None
    namespace: str = "default"


@define(eq=False)
class Cluster:
    """A server that can be killed and started again, and its workers."""

    net: Net
    storage: Storage
    nursery: trio.Nursery
    _seed: int = field(default=0, init=False)
    _server: trio.CancelScope | None = field(default=None, init=False)

    @property
    def runtime(self) -> Runtime:
        assert self.net.runtime is not None
        return self.net.runtime

    async def start_server(self) -> None:
        self._seed += 1
        self._server = trio.CancelScope()
        await self.nursery.start(self._serve, self._server, self._seed)

    async def _serve(
        self, scope: trio.CancelScope, seed: int, task_status: trio.TaskStatus[None]
    ) -> None:
        with scope:
            async with serving(
                self.storage,
                settings=VIRTUAL,
                clock=TrioClock(EPOCH),
                ids=SeededIds(f"server {seed}"),
                rng=SeededRng(seed),
            ) as runtime:
                self.net.runtime = runtime
                task_status.started()
                await trio.sleep_forever()

    def kill_server(self) -> None:
        """Forget everything but the database; what was not sent yet is lost."""
        self.net.cut()
        runtime = self.runtime
        self.net.runtime = None
        for session in list(runtime.sessions._sessions.values()):
            session.ended = True  # a killed process gives nothing back
        assert self._server is not None
        self._server.cancel()

    async def start_worker(self, *workflows: Any, **options: Any) -> tuple[Worker, trio.CancelScope]:
        self._seed += 1
        worker = Worker(
            Address(),
            workflows=workflows or ALL,
            clock=TrioClock(EPOCH),
            ids=SeededIds(f"worker {self._seed}"),
            rng=SeededRng(self._seed),
            dial=self.net.dial,
            **options,
        )
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await worker.run(handle_signals=False, task_status=task_status)

        await self.nursery.start(run)
        await trio.testing.wait_all_tasks_blocked(0.01)
        return worker, scope

    async def start(self, flow: Any, *args: Any, **options: Any) -> RunHandle[Any]:
        handle: RunHandle[Any] = await self.runtime.client.options(**options).start(flow, *args)
        return handle

    async def get(self, handle: RunHandle[Any], flow: Any) -> RunHandle[Any]:
        return await self.runtime.client.get(handle.id, workflow=flow)


@asynccontextmanager
async def cluster() -> AsyncGenerator[Cluster]:
    async with trio.open_nursery() as nursery:
        one = Cluster(Net(nursery), MemoryStorage(), nursery)
        await one.start_server()
        try:
            yield one
        finally:
            nursery.cancel_scope.cancel()


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
        (up, down) = c.net.pairs[0]
        before = len(down.frames)
        await handle.send(pay, "yes")
        assert await handle.result(timeout=5) == "firstyeslast"
        told = b"".join(down.frames[before:])
        assert b"run-created" not in told, "no journal was sent again"


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
        while "claim-lost" not in await kinds(handle):
            await trio.sleep(0.5)
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
        while "claim-lost" not in await kinds(handle):
            await trio.sleep(0.5)
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
