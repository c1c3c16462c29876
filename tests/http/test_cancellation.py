"""Requests that are given up half-way: nothing is leaked, and the next one goes through."""

from __future__ import annotations

import asyncio

import pytest
import trio
import trio.testing
from attrs import evolve

from aiki_sdk import Client, Unavailable
from aiki_sdk.http import HttpPort, HttpSettings
from tests.http.test_end_to_end import ORDER, process, served
from tests.http.test_sockets import scripted

ONE = HttpSettings(connections_max=1, waiting_max=1, timeout_s=5.0)
"""One connection of each sort: one that is leaked is the last."""


@pytest.mark.parametrize("what", ["health", "start", "result", "updates"])
async def test_a_request_that_is_cancelled_at_any_step_leaves_the_connection_free(
    what: str,
) -> None:
    async with served() as (_, url), Client(url, http=ONE) as client:
        handle = await client.start(process, ORDER)

        async def once() -> None:
            if what == "health":
                await client.health()
            elif what == "start":
                await client.start(process, ORDER, reference_id="r")
            elif what == "result":
                await handle.result()
            else:
                async with handle.updates() as updates:
                    async for _ in updates:
                        continue

        for steps in range(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(once)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            assert (await client.health()).ok
            await handle.cancel()
            assert [update async for update in handle.updates()][-1].status == "cancelled"


async def test_who_gets_no_connection_in_time_is_told_which_limit_it_was() -> None:
    """The one connection is held by a request that is never answered."""
    settings = HttpSettings(connections_max=1, timeout_s=0.2, attempts_max=1)
    async with (
        scripted("silent") as (_, url),
        Client(url, http=evolve(settings, timeout_s=30.0)) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.health)
        await trio.testing.wait_all_tasks_blocked()
        port = client._port
        assert isinstance(port, HttpPort)
        port._caller.settings = settings
        with pytest.raises(Unavailable, match="raise connections_max"):
            await client.health()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["health", "result", "updates"])
async def test_the_same_under_asyncio(what: str) -> None:
    async def main(url: str) -> None:
        async with Client(url, http=ONE) as client:
            handle = await client.start(process, ORDER)

            async def once() -> None:
                if what == "health":
                    await client.health()
                elif what == "result":
                    await handle.result()
                else:
                    async with handle.updates() as updates:
                        async for _ in updates:
                            continue

            for steps in range(60):
                task = asyncio.create_task(once())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(5):
                assert (await client.health()).ok
                await handle.cancel()
                assert [update async for update in handle.updates()][-1].status == "cancelled"

    async with served() as (_, url):
        await trio.to_thread.run_sync(asyncio.run, main(url))
