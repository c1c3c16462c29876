"""A script that is a client of a server: no loop, no `await`; so do Django and notebooks.

It serves itself: the server and the worker run in a thread here, and elsewhere in real life. Run it
with `python -m examples.sync_client`.
"""

from __future__ import annotations

from threading import Event as Flag, Thread

import trio

import aiki_trio
from aiki_sdk import Event, Run, SyncClient, task, workflow

shipped = Event("shipped", str)


@task
async def reserve(item: str) -> str:
    return f"{item} is reserved"


@workflow("delivery", "1.0.0", events=[shipped])
async def delivery(run: Run, item: str) -> str:
    await run.publish("state", await reserve(item))
    carrier = await run.wait(shipped)
    return f"{item} left with {carrier}"


async def serve(url: list[str], ready: Flag, stop: Flag) -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[delivery]) as runtime:
        url.append((await runtime.serve(port=0)).url)
        ready.set()
        await trio.to_thread.run_sync(stop.wait)


def order(url: str) -> None:
    with SyncClient(url) as client:
        handle = client.start(delivery, "lamp", reference_id="order-1")
        with handle.watch("state", str) as states:
            print(next(states))
        handle.send(shipped, "the noon train", reference_id="order-1-shipped")
        print(handle.result(timeout=10))
        print([str(update.status) for update in handle.updates()][-1])


def main() -> None:
    url: list[str] = []
    ready, stop = Flag(), Flag()
    server = Thread(target=trio.run, args=(serve, url, ready, stop))
    server.start()
    try:
        ready.wait(10)
        order(url[0])
    finally:
        stop.set()
        server.join()


if __name__ == "__main__":
    main()
