"""Embedding: durable workflows inside a Trio application that has been there before.

The application serves lines over TCP; a line starts a run. `open_runtime` is one `async with` among
others: all of its tasks live inside the block, leaving it stops them in order, and if the runtime
fails the block ends with one clean exception. Nothing listens on a port but the application
itself. Run it with `python -m examples.embedded`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import trio

import aiki_trio
from aiki_sdk import Client, Retry, Run, task, workflow


@task(retry=Retry.exponential(max_attempts=5, base_delay=0.1), timeout=10)
async def brew(drink: str) -> str:
    await trio.sleep(0.01)
    return f"a cup of {drink}"


@workflow("serve-drink", "1.0.0")
async def serve_drink(run: Run, drink: str) -> str:
    return await brew(drink)


async def answer(client: Client, stream: trio.SocketStream) -> None:
    """Answer one connection: every line `<order number> <drink>` with what was brewed."""
    async with stream:
        buffer = b""
        async for chunk in stream:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                number, drink = line.decode().split(maxsplit=1)
                # The same number again, after a lost connection say, is the same run.
                handle = await client.start(
                    serve_drink, drink, reference_id=number, on_conflict="return_existing"
                )
                await stream.send_all(f"{number}: {await handle.result()}\n".encode())


async def order(port: int, lines: str) -> None:
    """Be a customer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(lines.encode())
        await stream.send_eof()
        async for chunk in stream:
            print(chunk.decode(), end="")


async def main() -> None:
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            aiki_trio.open_runtime("memory://", workflows=[serve_drink])
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        serve = partial(trio.serve_tcp, partial(answer, runtime.client), 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        port: int = listeners[0].socket.getsockname()[1]
        await order(port, "order-1 tea\norder-2 coffee\n")
        await order(port, "order-1 tea\n")
        print(f"runs: {await runtime.client.count()}")
        nursery.cancel_scope.cancel()  # the server stops first, the runtime after it
    print("everything has stopped")


if __name__ == "__main__":
    trio.run(main)
