"""Server and workers with a real Redis between them: who gets which run, whatever Redis does.

The server decides each claim; the tests look at what was executed, at the journals, and at what is
left in Redis.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from aiki_actors.queue.redis import GROUP, RedisSettings
from aiki_actors.server import KeeperSettings
from aiki_actors.session import SessionLimits
from aiki_sdk import Client, Event, InvalidRequest, Run, task, workflow
from aiki_sdk.client import RunHandle
from aiki_sdk.protocol import HealthStatus, RunStatus
from aiki_sdk.pubsub import subscribe_updates
from aiki_trio import Runtime, RuntimeSettings, Worker, open_runtime
from aiki_trio._server import open_server
from tests.redis.fleet import fast, until
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.redis

WITHIN_S = 30.0
ONCE = {"redelivery_s": 60.0, "redelivery_max_s": 60.0}
"""Nothing is published a second time, however slow this machine is."""
STREAM = "aiki:default:errand:1.0.0"

go = Event("go", int)
effects: Counter[int] = Counter()


@task
async def effect(number: int) -> int:
    effects[number] += 1
    await trio.sleep(0.01)
    return number


@workflow(name="errand", version="1.0.0")
async def errand(run: Run, number: int) -> int:
    return await effect(number)


@workflow(name="wait", version="1.0.0", events=[go])
async def wait(run: Run, number: int) -> int:
    return await effect(number) + await run.wait(go)


@workflow(name="other", version="1.0.0")
async def other(run: Run) -> str:
    return "other"


@pytest.fixture(autouse=True)
def no_effects() -> None:
    effects.clear()


@define(eq=False)
class Cluster:
    """A server, and workers beside it that speak to it over websockets."""

    runtime: Runtime
    client: Client
    redis: RedisSettings
    nursery: trio.Nursery
    workers: list[Worker] = field(factory=lambda: list[Worker]())

    async def worker(self, *workflows: Any, pulls: bool = True, max_runs: int = 10) -> Worker:
        """Start a worker, and wait until it has its place."""
        worker = Worker(
            self.client,
            workflows=workflows or (errand, wait),
            max_runs=max_runs,
            redis=self.redis if pulls else None,
        )
        self.workers.append(worker)
        await self.nursery.start(lambda task_status: worker.run(task_status=task_status))
        await until(lambda: worker.id in self.joined(), "the worker has joined", WITHIN_S)
        if pulls:
            await until(lambda: worker.id in self.pulling(), "the worker pulls", WITHIN_S)
        return worker

    def joined(self) -> Sequence[str]:
        return self.runtime.dispatcher.matcher.slots.workers()

    def pulling(self) -> list[str]:
        dispatcher = self.runtime.dispatcher
        return [
            one.id
            for one in self.workers
            if dispatcher._pulling.get(one.id, False) and dispatcher.published
        ]

    async def start(self, flow: Any, count: int, first: int = 0) -> list[RunHandle[Any]]:
        return [await self.client.start(flow, number) for number in range(first, first + count)]

    def wants_to_pull(self) -> list[bool]:
        pulling = self.runtime.dispatcher._pulling
        return [pulling.get(one.id, False) for one in self.workers]

    def published(self) -> int:
        assert self.runtime.redis is not None
        return self.runtime.redis.publisher.counts.get("published", 0)


async def results(handles: Sequence[RunHandle[Any]]) -> list[Any]:
    with trio.fail_after(WITHIN_S):
        return [await handle.result() for handle in handles]


@asynccontextmanager
async def cluster(server: RedisServer | str, **changes: Any) -> AsyncGenerator[Cluster]:
    """Run a server on memory and Redis, with a client; its workers end with the block."""
    redis = fast(server if isinstance(server, str) else server.url, **changes)
    settings = RuntimeSettings(
        redis=redis,
        sessions=SessionLimits(beat_s=0.5),
        keeper=KeeperSettings(sweep_s=0.5),
        blocked_after=None,
    )
    async with open_server("memory://", settings=settings) as runtime:
        bound = await runtime.serve(port=0)
        async with Client(bound.url) as client, trio.open_nursery() as nursery:
            one = Cluster(runtime, client, redis, nursery)
            assert runtime.redis is not None
            publisher = runtime.redis.publisher
            await until(lambda: publisher.health.ok, "the server publishes", WITHIN_S)
            yield one
            for worker in one.workers:
                worker.stop()


async def settled(server: RedisServer, *streams: str) -> None:
    """Wait until nothing is left in the streams, delivered or not."""
    for stream in streams:

        def empty(stream: str = stream) -> bool:
            length = server.command("XLEN", stream)
            pending = server.command("XPENDING", stream, GROUP)
            return length.startswith(b":0") and b":0" in pending

        await until(empty, f"{stream} is empty", WITHIN_S)


async def test_runs_reach_their_worker_through_the_streams_and_leave_nothing_there(
    server: RedisServer,
) -> None:
    async with cluster(server, **ONCE) as c:
        await c.worker(max_runs=4)
        handles = await c.start(errand, 20)
        assert await results(handles) == list(range(20))
        assert c.published() == 20, "each run went through Redis once"
        await settled(server, STREAM)
    assert effects == Counter(range(20))


async def test_a_warm_run_goes_on_over_the_session_without_another_message(
    server: RedisServer,
) -> None:
    async with cluster(server, **ONCE) as c:
        await c.worker()
        handles = await c.start(wait, 5)
        for handle in handles:
            await handle.wait(RunStatus.AWAITING_EVENT)
        before = c.published()
        for handle in handles:
            await handle.send(go, 100)
        assert await results(handles) == [100, 101, 102, 103, 104]
        assert c.published() == before == 5
        await settled(server, "aiki:default:wait:1.0.0")
    assert effects == Counter(range(5)), "nothing was replayed by a second execution"


async def test_two_workers_share_what_is_published_and_no_run_is_executed_twice(
    server: RedisServer,
) -> None:
    async with cluster(server) as c:
        waiting = await c.start(errand, 30)  # a backlog that nobody serves yet
        first, second = await c.worker(max_runs=3), await c.worker(max_runs=3)
        assert await results(waiting) == list(range(30))
        claimed: Counter[str] = Counter()
        for handle in waiting:
            history = await handle.history()
            claimed.update(str(e.body["worker_id"]) for e in history if e.kind == "run-claimed")
        assert claimed.total() == 30
        assert set(claimed) == {first.id, second.id}
    assert effects == Counter(range(30))


async def test_without_redis_runs_are_handed_over_sessions_and_pulled_again_when_it_is_back(
    server: RedisServer,
) -> None:
    async with cluster(server, **ONCE) as c:
        await c.worker()
        assert await results(await c.start(errand, 3)) == [0, 1, 2]
        server.kill()
        later = await c.start(errand, 3, 3)
        assert await results(later) == [3, 4, 5]
        await until(lambda: "redis" in c.runtime.problems(), "the server knows", WITHIN_S)
        await until(lambda: not any(c.wants_to_pull()), "the worker knows", WITHIN_S)
        health = await c.client.health()
        assert health.status is HealthStatus.DEGRADED
        assert "over workers' sessions" in health.problems["redis"]
        assert server.url.rpartition("@")[0] == "", "no password could have been shown"
        server.start()
        await until(lambda: bool(c.pulling()), "the worker pulls again", WITHIN_S)
        before = c.published()
        assert await results(await c.start(errand, 3, 6)) == [6, 7, 8]
        assert c.published() >= before + 3
        await until(lambda: not c.runtime.problems(), "all is well again", WITHIN_S)
        assert (await c.client.health()).ok
    assert effects == Counter(range(9))


async def test_a_worker_alone_without_redis_is_handed_runs_while_others_pull(
    server: RedisServer,
) -> None:
    async with cluster(server, **ONCE) as c:
        await c.worker(pulls=False)
        await c.worker(other)
        assert await results(await c.start(errand, 5)) == list(range(5))
        assert c.published() == 0, "a free slot is better than a message"


async def test_what_redis_forgot_is_published_again_from_what_the_database_knows(
    server: RedisServer,
) -> None:
    async with cluster(server) as c:
        handles = await c.start(errand, 10)
        await until(lambda: c.published() >= 10, "the backlog is published", WITHIN_S)
        server.command("FLUSHALL")
        await c.worker()
        assert await results(handles) == list(range(10))
    assert effects == Counter(range(10))


async def test_a_worker_that_looks_into_another_redis_is_handed_what_it_cannot_find(
    server: RedisServer, start_server: Callable[..., RedisServer]
) -> None:
    elsewhere = fast(start_server().url)
    async with cluster(server, late_s=0.1) as c:
        c.redis = elsewhere
        await c.worker()
        handles = await c.start(errand, 5)
        assert await results(handles) == list(range(5))
    assert effects == Counter(range(5))


async def test_messages_that_are_doubled_stale_or_lead_astray_change_nothing(
    server: RedisServer,
) -> None:
    async with cluster(server) as c:
        (done,) = await c.start(errand, 1)
        (foreign,) = [await c.client.start(other)]  # served by nobody here
        worker = await c.worker()
        assert await results([done]) == [0]
        (running,) = await c.start(wait, 1, 1)
        await running.wait(RunStatus.AWAITING_EVENT)
        for run_id in (done.id, done.id, running.id, foreign.id, "run_01NOSUCHRUN", "!", "x" * 200):
            server.command("XADD", STREAM, "*", "v", "1", "run", run_id, "at", "0")
        server.command("XADD", STREAM, "*", "v", "7", "something", "else")
        await settled(server, STREAM)
        assert await foreign.status() is RunStatus.QUEUED, "a worker claims only what it serves"
        assert worker.id in c.pulling(), "and goes on"
        await running.send(go, 1)
        assert await results([running]) == [2]
        assert [e.kind for e in await done.history()].count("run-claimed") == 1
    assert effects == Counter([0, 1])


async def test_a_message_that_was_delivered_too_often_stalls_its_run_and_says_why(
    server: RedisServer,
) -> None:
    async with cluster(server, deliveries_max=3, **ONCE) as c:
        (handle,) = await c.start(errand, 1)
        await until(lambda: c.published() == 1, "it is published", WITHIN_S)
        server.command("XGROUP", "CREATE", STREAM, GROUP, "0")
        server.command("XREADGROUP", "GROUP", GROUP, "wrk_dead", "STREAMS", STREAM, ">")
        for _ in range(3):  # what takeovers by workers do that die of it
            server.command("XAUTOCLAIM", STREAM, GROUP, "wrk_dead", "0", "0")
        await c.worker()
        with trio.fail_after(WITHIN_S):
            await handle.wait(RunStatus.STALLED)
        assert "delivered" in ((await handle.info()).reason or "")
        assert effects == Counter()
        await handle.requeue()
        assert await results([handle]) == [0]
    assert effects == Counter([0])


async def test_what_a_dead_worker_had_been_delivered_is_executed_by_another(
    server: RedisServer,
) -> None:
    async with cluster(server, **ONCE) as c:
        handles = await c.start(errand, 5)
        await until(lambda: c.published() == 5, "the backlog is published", WITHIN_S)
        # Delivered, and never claimed: its worker died in between.
        server.command("XGROUP", "CREATE", STREAM, GROUP, "0")
        server.command("XREADGROUP", "GROUP", GROUP, "wrk_dead", "STREAMS", STREAM, ">")
        await c.worker()
        assert await results(handles) == list(range(5))
        await settled(server, STREAM)
    assert effects == Counter(range(5))


async def test_a_stopped_worker_gives_its_runs_back_to_the_streams(server: RedisServer) -> None:
    async with cluster(server) as c:
        first = await c.worker(max_runs=2)
        handles = await c.start(errand, 12)
        await until(lambda: effects.total() > 0, "some have begun", WITHIN_S)
        first.stop()
        await c.worker(max_runs=2)
        assert await results(handles) == list(range(12))
        await settled(server, STREAM)
    assert effects == Counter(range(12)), "what had begun was finished first"


async def test_a_redis_that_takes_no_writes_costs_no_start(server: RedisServer) -> None:
    async with cluster(server) as c:
        await c.worker()
        server.command("CONFIG", "SET", "maxmemory", "1")
        handles = await c.start(errand, 5)
        assert await results(handles) == list(range(5))
        await until(lambda: "redis" in c.runtime.problems(), "the server knows", WITHIN_S)
        assert (await c.client.health()).status is HealthStatus.DEGRADED
        server.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: bool(c.pulling()), "it is used again", WITHIN_S)
    assert effects == Counter(range(5))


async def test_updates_of_every_run_reach_backend_services_without_a_gap(
    server: RedisServer,
) -> None:
    async with cluster(server) as c:
        await c.worker()
        async with subscribe_updates(server.url, "default", client=c.client) as updates:
            handles = await c.start(errand, 3)
            await results(handles)
            wanted = {h.id: [e.seq for e in await h.history()] for h in handles}
            seen: dict[str, list[int]] = {h.id: [] for h in handles}
            with trio.fail_after(WITHIN_S):
                while seen != wanted:
                    update = await anext(updates)
                    if not update.live:
                        seen[update.run_id].append(update.seq)


async def test_an_embedded_runtime_hands_its_runs_out_through_redis_too(
    server: RedisServer,
) -> None:
    settings = RuntimeSettings(redis=fast(server.url, **ONCE))
    async with open_runtime("memory://", workflows=[errand], settings=settings) as runtime:
        assert runtime.redis is not None
        publisher, session = runtime.redis.publisher, runtime.session
        assert session is not None
        pulling = runtime.dispatcher._pulling
        await until(lambda: pulling.get(session.worker_id, False), "it pulls", WITHIN_S)
        handles = [await runtime.client.start(errand, number) for number in range(8)]
        assert await results(handles) == list(range(8))
        assert publisher.counts["published"] == 8
        runtime.register(other)
        assert await results([await runtime.client.start(other)]) == ["other"]
        assert publisher.counts["published"] == 9, "what is registered later is pulled too"
        await settled(server, STREAM)
        names = [child.name for child in runtime.tree().children]
        assert {"publisher", "updates"} <= set(names)
    assert effects == Counter(range(8))


async def test_a_user_with_the_documented_rights_and_no_others_is_enough(
    server: RedisServer,
) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/use-redis.md").read_text()
    rights = re.search(r"ACL `([^`]+)`", page)
    assert rights is not None
    granted = rights[1].split()
    server.command(
        "ACL", "SETUSER", "aiki", "on", ">secret", "resetkeys", "resetchannels", "-@all", *granted
    )
    url = f"redis://aiki:secret@127.0.0.1:{server.port}/0"
    async with cluster(url, tidy_every_s=0.05) as c:
        await c.worker()
        assert await results(await c.start(errand, 5)) == list(range(5))
        server.command("FLUSHALL")
        assert await results(await c.start(errand, 5, 5)) == list(range(5, 10))
        await settled(server, STREAM)
        assert not c.runtime.problems()
        said = server.command("ACL", "LOG")
        assert said.startswith(b"*0"), said


@pytest.mark.parametrize("url", ["http://localhost", "redis://", "localhost:6379"])
async def test_an_address_that_is_none_of_redis_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidRequest, match="redis_url is not valid"):
        async with open_runtime("memory://", redis_url=url):
            raise AssertionError("it was opened")
    settings = evolve(RuntimeSettings(), redis=RedisSettings("redis://:hidden@localhost/0"))
    assert "hidden" not in repr(settings)


async def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "redis" else real(name)
    )
    with pytest.raises(InvalidRequest, match=r"aiki-trio\[redis\]"):
        async with open_runtime("memory://", redis_url="redis://localhost"):
            raise AssertionError("it was opened")
