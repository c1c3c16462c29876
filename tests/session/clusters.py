"""A server and its workers in one loop, on sockets that a test can break, and their workflows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import trio
from attrs import define, field, frozen

from aiki_actors.storage import MemoryStorage, Storage
from aiki_sdk import Event, Retry, SeededIds, SeededRng, TrioClock, task, workflow
from aiki_sdk._run import Run
from aiki_sdk.client import RunHandle
from aiki_trio._runtime import Runtime
from aiki_trio._server import serving
from aiki_trio._worker import Worker
from tests.integration.runtimes import EPOCH, VIRTUAL
from tests.session.wires import Net

pay = Event("pay", str)
log: list[str] = []
"""What tasks did, in order."""

gates: dict[str, trio.Event] = {}
"""What slow tasks wait for."""


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


@workflow(name="impatient", version="1.0.0", events=[pay])
async def impatient(run: Run) -> str:
    """Go on by itself, without any wait of the run resolved."""
    await note("before")
    with trio.move_on_after(1):
        await run.wait(pay)
    return await note("after")


ALL = (impatient, chain, gated, waiter, everything)


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

    async def start_worker(
        self, *workflows: Any, **options: Any
    ) -> tuple[Worker, trio.CancelScope]:
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
