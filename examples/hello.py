"""Hello: one task, one workflow, one process. Run it with `python -m examples.hello`."""

import trio

from aiki_trio import Run, open_runtime, task, workflow


@task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow("hello", "1.0.0")
async def hello(run: Run, name: str) -> str:
    return await greet(name)


async def main() -> None:
    async with open_runtime("memory://", workflows=[hello]) as runtime:
        handle = await runtime.client.start(hello, "world")
        print(await handle.result())


if __name__ == "__main__":
    trio.run(main)
