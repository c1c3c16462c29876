"""Clients of a real server on a real port: under Trio, under asyncio, and without either."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from attrs import frozen

import aiki_trio
from aiki_gateway import GatewaySettings
from aiki_sdk import (
    AnyWorkflow,
    Client,
    Event,
    InvalidRequest,
    LimitExceeded,
    PayloadError,
    Question,
    ReferenceConflict,
    ResultTimeout,
    Run,
    RunFailed,
    SyncClient,
    Unauthorized,
    Unavailable,
    UnknownEvent,
    UnknownWorkflow,
    Update,
    task,
    workflow,
)
from aiki_sdk.client import AllUpdates
from aiki_sdk.http import HttpSettings
from aiki_trio._runtime import Runtime

T = TypeVar("T")

paid = Event("paid/by-card", int)
approve = Question("approve", int, bool)
QUICK = HttpSettings(backoff_s=0.02, backoff_max_s=0.1, stream_idle_s=5.0)


@frozen
class Order:
    id: str
    amount: int


@frozen
class Receipt:
    order: Order
    paid: int


@task
async def charge(order: Order) -> int:
    return order.amount


@workflow("orders/process", "1.0.0", events=[paid], questions=[approve])
async def process(run: Run, order: Order) -> Receipt:
    await run.publish("amount", await charge(order))
    async for ask in run.asks(approve):
        await ask.answer(ask.data <= order.amount)
        break
    return Receipt(order, await run.wait(paid))


@workflow("failing", "1.0.0")
async def failing(run: Run) -> None:
    message = "no such luck"
    raise ValueError(message)


ORDER = Order("ö-1", 500)
WORKFLOWS: list[AnyWorkflow] = [process, failing]


@asynccontextmanager
async def served(
    url: str = "memory://", *, port: int = 0, settings: GatewaySettings | None = None
) -> AsyncGenerator[tuple[Runtime, str]]:
    """Serve a runtime; gives it and its URL."""
    async with aiki_trio.open_runtime(url, workflows=WORKFLOWS) as runtime:
        bound = await runtime.serve(port=port, settings=settings)
        yield runtime, bound.url


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


async def tour(url: str) -> None:
    """Do everything once; under Trio or asyncio."""
    async with Client(url, workflows=WORKFLOWS, http=QUICK) as client:
        assert (await client.health()).ok
        handle = await client.start(process, ORDER, reference_id="ö-1", labels={"team": "red"})
        await handle.wait("awaiting_event", timeout=10)
        assert await handle.value("amount", int) == 500
        assert await handle.ask(approve, 400, timeout=10)
        with pytest.raises(ResultTimeout):
            await handle.result(timeout=0.05)
        assert not (await handle.send(paid, 500, reference_id="once")).duplicate
        assert (await handle.send(paid, 500, reference_id="once")).duplicate
        assert await handle.result(timeout=10) == Receipt(ORDER, 500)
        seen = [update.seq async for update in handle.updates()]
        assert seen == [entry.seq for entry in await handle.history()]
        assert [value async for value in handle.watch("amount", int)] == [500]

        again = await client.start(process, ORDER, reference_id="ö-1")
        assert again.id == handle.id
        with pytest.raises(ReferenceConflict):
            await client.start(process, Order("ö-1", 1), reference_id="ö-1")
        with pytest.raises(UnknownEvent):
            await handle.send("nothing")
        with pytest.raises(PayloadError):
            await client.start("orders/process", {"order": 5})
        with pytest.raises(RunFailed, match="no such luck"):
            await (await client.start(failing)).result(timeout=10)

        found = await client.get(workflow=process, reference_id="ö-1")
        assert found.id == handle.id
        assert await client.count(workflow=process, labels={"team": "red"}) == 1
        many = await client.start_many([(process, Order(str(n), n)) for n in range(30)])
        listed = [run.id async for run in client.list(workflow=process, limit=7)]
        assert listed[:-1] == [run.id for run in reversed(many)] or len(listed) == 31
        told = await client.bulk("cancel", reason="over", run_ids=[run.id for run in many])
        assert all(outcome.ok for outcome in told)
        fork = await handle.fork(at=3)
        assert (await fork.info()).forked_from is not None
        assert {known.name for known in await client.workflows()} >= {"failing"}


def plain_tour(url: str) -> None:
    """Do what scripts do."""
    with SyncClient(url, workflows=WORKFLOWS, http=QUICK) as client:
        handle = client.start(process, ORDER, reference_id="ö-1")
        kinds: list[str] = []
        with handle.updates() as updates:
            for update in updates:
                kinds.append(update.kind)
                if update.status == "awaiting_event":
                    break
        assert kinds[0] == "run-created"
        with pytest.raises(ResultTimeout):
            handle.wait("completed", timeout=0.3)
        assert handle.ask(approve, 400, timeout=10)
        handle.send(paid, 500)
        assert handle.result(timeout=10) == Receipt(ORDER, 500)
        assert list(handle.watch("amount", int)) == [500]
        assert [run.id for run in client.list()] == [handle.id]


def under_asyncio(make: Callable[[str], Awaitable[T]]) -> Callable[[str], T]:
    """Return a call that runs it under asyncio."""

    async def main(url: str) -> T:
        return await make(url)

    return lambda url: asyncio.run(main(url))


async def test_a_client_under_trio_does_all_that_one_in_the_servers_process_does() -> None:
    async with served() as (_, url):
        await tour(url)


async def test_a_client_under_asyncio_does_the_same() -> None:
    async with served() as (_, url):
        await trio.to_thread.run_sync(under_asyncio(tour), url)


async def test_a_client_without_a_loop_does_the_same() -> None:
    async with served() as (_, url):
        await trio.to_thread.run_sync(plain_tour, url)


async def test_who_waits_for_results_does_not_keep_a_command_from_going_out() -> None:
    """More waiters than there are connections for commands."""
    settings = HttpSettings(connections_max=1, waiting_max=40)
    async with served() as (_, url), Client(url, http=settings) as client:
        handles = [await client.start(process, Order(str(n), n)) for n in range(30)]
        results: list[Receipt] = []

        async def wait(number: int) -> None:
            results.append(await handles[number].result(timeout=20))

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(wait, number)
            for handle in handles:
                assert await handle.ask(approve, 0, timeout=10)
                await handle.send(paid, 1)

        assert len(results) == 30


async def test_waits_and_streams_outlast_a_restart_of_the_server(tmp_path: Path) -> None:
    """Stopped and started again on the same database and port, while three clients wait."""
    port, url = free_port(), f"sqlite:///{tmp_path / 'aiki.db'}"
    seen: list[int] = []
    results: list[Receipt] = []
    watched, waited = trio.Event(), trio.Event()

    async with (
        Client(f"http://127.0.0.1:{port}", workflows=WORKFLOWS, http=QUICK) as client,
        trio.open_nursery() as nursery,
    ):
        async with served(url, port=port):
            handle = await client.start(process, ORDER)
            await handle.wait("awaiting_event", timeout=10)

            async def watch() -> None:
                seen.extend([update.seq async for update in handle.updates()])
                watched.set()

            async def wait() -> None:
                results.append(await handle.result())
                waited.set()

            nursery.start_soon(watch)
            nursery.start_soon(wait)
            await handle.ask(approve, 1, timeout=10)
        async with served(url, port=port):
            with trio.fail_after(20):
                await handle.send(paid, 500)
                assert await handle.result() == Receipt(ORDER, 500)
                await watched.wait()
                await waited.wait()
                seqs = [entry.seq for entry in await handle.history()]

    assert results == [Receipt(ORDER, 500)]
    assert seen == seqs


async def test_a_key_opens_the_server_and_another_does_not() -> None:
    settings = GatewaySettings(api_key_hashes=(hashlib.sha256(b"sesame").hexdigest(),))
    async with served(settings=settings) as (_, url):
        async with Client(url, api_key="sesame") as client:
            await client.start(failing)
        for key in ("parsley", None):
            async with Client(url, api_key=key) as client:
                with pytest.raises(Unauthorized) as refused:
                    await client.start(failing)
                assert "sesame" not in str(refused.value)


# --- All runs of a namespace ----------------------------------------------------------------------


async def until_failed(client: Client, ready: trio.Event, **which: Any) -> list[Update]:
    """Return a namespace's updates up to the first after which a run has failed."""
    seen: list[Update] = []
    async with client.updates(**which) as updates:
        ready.set()
        async for update in updates:
            seen.append(update)
            if has_failed(seen):
                break
    return seen


def has_failed(seen: list[Update]) -> bool:
    """Tell whether a failure was seen."""
    return seen[-1].status == "failed"


async def drained(updates: AllUpdates) -> None:
    """Read for ever."""
    async for _ in updates:
        continue


@pytest.mark.parametrize("way", ["here", "http"])
async def test_a_namespaces_updates_are_those_of_its_runs_from_now_on(way: str) -> None:
    async with served() as (runtime, url), Client(url, http=QUICK) as remote:
        client = runtime.client if way == "here" else remote
        before = await runtime.client.start(failing)
        with pytest.raises(RunFailed):
            await before.result()
        found: dict[str, list[Update]] = {}

        async def collect(name: str, ready: trio.Event, **which: Any) -> None:
            found[name] = await until_failed(client, ready, **which)

        async with trio.open_nursery() as nursery:
            selected = {"workflow": [failing, "orders/process"], "status": "failed"}
            for name, which in (("all", dict[str, Any]()), ("failed", selected)):
                ready = trio.Event()
                nursery.start_soon(partial(collect, name, ready, **which))
                await ready.wait()
            handle = await client.start(process, ORDER)
            await handle.cancel("over")
            await handle.wait("cancelled")
            other = await client.start(failing)

        assert [(update.run_id, update.status) for update in found["failed"]] == [
            (other.id, "failed")
        ]
        told = [update for update in found["all"] if not update.live]
        mine = [update.seq for update in told if update.run_id == handle.id]
        assert mine == [entry.seq for entry in await handle.history()]
        assert before.id not in {update.run_id for update in told}


async def test_a_cancelled_read_of_a_namespaces_updates_loses_none() -> None:
    async with (
        served() as (_, url),
        Client(url, http=QUICK) as client,
        client.updates() as updates,
    ):
        first = await client.start(failing)
        seen = [await anext(updates)]
        while not has_failed(seen):
            with trio.CancelScope() as scope:
                scope.cancel()
                seen.append(await anext(updates))  # it may be there already
            if not has_failed(seen):
                seen.append(await anext(updates))
        seqs = [entry.seq for entry in await first.history()]

    assert [update.seq for update in seen if not update.live] == seqs


async def test_a_namespaces_stream_that_lost_its_place_says_so_and_goes_on(tmp_path: Path) -> None:
    """What happened while nobody listened cannot be told by a server that was restarted."""
    port, url = free_port(), f"sqlite:///{tmp_path / 'aiki.db'}"
    async with (
        Client(f"http://127.0.0.1:{port}", http=QUICK) as client,
        AsyncExitStack() as stack,
    ):
        async with served(url, port=port):
            updates = await stack.enter_async_context(client.updates())
            handle = await client.start(failing)
            assert (await anext(updates)).run_id == handle.id
            with pytest.raises(RunFailed):
                await handle.result()
        async with served(url, port=port):
            with trio.fail_after(10):
                with pytest.raises(Unavailable, match="may have been missed"):
                    await drained(updates)
                later = await client.start(failing)
                assert (await anext(updates)).run_id == later.id


async def test_a_namespaces_updates_are_a_plain_iterator_too() -> None:
    def plain(url: str) -> list[str]:
        kinds: list[str] = []
        with SyncClient(url) as client, client.updates(workflow="failing") as updates:
            handle = client.start(failing)
            for update in updates:
                assert update.run_id == handle.id
                kinds.append(update.kind)
                if update.status == "failed":
                    break
        return kinds

    async with served() as (_, url):
        assert "run-failed" in await trio.to_thread.run_sync(plain, url)


async def test_what_is_no_filter_of_updates_is_refused() -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequest, match="run_ids="):
            client.updates(run_ids="run_1")
        with pytest.raises(InvalidRequest, match="status="):
            client.updates(status="splendid")
        with pytest.raises(InvalidRequest, match="workflow="):
            client.updates(workflow=5)  # type: ignore[arg-type]
        with pytest.raises(LimitExceeded):
            client.updates(run_ids=[str(number) for number in range(51)])


async def test_a_workflow_that_the_server_has_not_met_is_told_with_the_start(
    tmp_path: Path,
) -> None:
    """A server without any code takes the start of one whose workers will come later."""
    async with aiki_trio.open_runtime(f"sqlite:///{tmp_path / 'aiki.db'}") as runtime:
        bound = await runtime.serve(port=0)
        async with Client(bound.url) as client:
            with pytest.raises(UnknownWorkflow):
                await client.start("orders/process", order={"id": "1", "amount": 1})
            handle = await client.start(process, ORDER)
            assert await handle.status() == "queued"
            many = await client.start_many([(failing,), (process, ORDER)])
            assert [await one.status() for one in many] == ["queued", "queued"]
