"""An asyncio program that is a client of a server; `Client` works there as it does under Trio.

It serves itself: the server and the worker run in a thread here, and elsewhere in real life. Run it
with `python -m examples.asyncio_client`.
"""

from __future__ import annotations

import asyncio
from threading import Event as Flag, Thread

import trio

import aiki_trio
from aiki_sdk import Client, Run, Update, workflow


@workflow("greet", "1.0.0")
async def greet(run: Run, name: str) -> str:
    return f"hello {name}"


async def serve(url: list[str], ready: Flag, stop: Flag) -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[greet]) as runtime:
        url.append((await runtime.serve(port=0)).url)
        ready.set()
        await trio.to_thread.run_sync(stop.wait)


async def completions(client: Client, count: int, listening: asyncio.Event) -> list[Update]:
    """Collect what the whole namespace tells, until so many runs have completed."""
    seen: list[Update] = []
    async with client.updates(workflow=greet, status="completed") as updates:
        listening.set()
        async for update in updates:
            seen.append(update)
            if len(seen) == count:
                break
    return seen


async def main(url: str) -> None:
    names = ["Ada", "Ben", "Cleo"]
    async with Client(url) as client:
        listening = asyncio.Event()
        watching = asyncio.create_task(completions(client, len(names), listening))
        await listening.wait()
        handles = await client.start_many([(greet, name) for name in names])
        print(await asyncio.gather(*(handle.result(timeout=10) for handle in handles)))
        print(len(await watching), "runs were seen to complete")


if __name__ == "__main__":
    urls: list[str] = []
    ready, stop = Flag(), Flag()
    server = Thread(target=trio.run, args=(serve, urls, ready, stop))
    server.start()
    try:
        ready.wait(10)
        asyncio.run(main(urls[0]))
    finally:
        stop.set()
        server.join()
