"""Where tasks run: Trio, asyncio, threads and processes, side by side in one workflow.

A task is what its function is: `async def` runs under Trio, or with `runtime="asyncio"` under an
asyncio loop (the extra `asyncio`), for libraries that know nothing else; `def` runs in a thread, or
with `runtime="process"` in a process of its own, for work that needs a whole core. In a workflow
all of them are awaited. Run it with `python -m examples.task_runtimes`.
"""

from __future__ import annotations

import asyncio
import os
import threading

import trio

import aiki_trio
from aiki_sdk import Run, current_task, task, workflow

MAIN_PROCESS = os.getpid()
MAIN_THREAD = threading.get_ident()


@task
async def in_trio(text: str) -> str:
    await trio.sleep(0.001)
    return f"{text} under Trio, on the main thread: {_on_main_thread()}"


@task(runtime="asyncio", timeout=5)
async def in_asyncio(text: str) -> str:
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        part = group.create_task(asyncio.sleep(0, text))
    return f"{part.result()} under asyncio, on the main thread: {_on_main_thread()}"


@task
def in_thread(text: str) -> str:
    current_task().logger.info("a thread may take its time; it holds up nobody")
    return f"{text} in a thread, on the main thread: {_on_main_thread()}"


@task(runtime="process", timeout=60)
def in_process(numbers: list[int], parent: int) -> str:
    total = sum(number * number for number in numbers)
    return f"summed up to {total} in a process, the main process: {os.getpid() == parent}"


def _on_main_thread() -> bool:
    return threading.get_ident() == MAIN_THREAD


@workflow("all-runtimes", "1.0.0")
async def all_runtimes(run: Run, text: str) -> list[str]:
    here = await run.gather(in_trio(text), in_asyncio(text), in_thread(text))
    return [*here, await in_process(list(range(10)), MAIN_PROCESS)]


async def main() -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[all_runtimes]) as runtime:
        handle = await runtime.client.start(all_runtimes, "done")
        for line in await handle.result():
            print(line)
    # Outside a workflow a task is just its function, so it is tested like one.
    print(in_thread.function.__name__, "is called", in_thread.name)


if __name__ == "__main__":
    # Processes find a task by its module's name, which the program that is started does not have.
    from examples import task_runtimes  # noqa: PLW0406

    trio.run(task_runtimes.main)
