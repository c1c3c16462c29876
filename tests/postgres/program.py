"""A program whose runs live in PostgreSQL: it starts what is missing and waits for all to end.

`python -m tests.postgres.program URL EFFECTS RUNS`: each task writes a line to the file EFFECTS. It
may be killed at any moment and started again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from aiki_sdk import Event, OnConflict, Retry, Run, task, workflow
from aiki_trio import RuntimeSettings, open_runtime

STEPS = 4
EFFECTS: list[Path] = []
go = Event("go", int)


@task(retry=Retry.fixed(3, 0.01))
async def step(run: str, number: int) -> int:
    with EFFECTS[0].open("a", encoding="utf-8") as effects:
        effects.write(f"{run} {number}\n")
    return number


@workflow(name="child", version="1")
async def child(run: Run, name: str) -> int:
    return await step(name, 100)


@workflow(name="steps", version="1", events=[go])
async def steps(run: Run, name: str) -> int:
    total = 0
    for number in range(STEPS):
        total += await step(name, number)
    await run.sleep("a-while", seconds=0.02)
    total += await run.wait(go)
    handle = await run.start_child(child, name)
    return total + await handle.result()


EXPECTED = sum(range(STEPS)) + 1_000 + 100
WORKFLOWS = (steps, child)


async def run_all(url: str, effects: Path, runs: int) -> list[int]:
    """Start the runs that do not exist yet, and wait for the results of all."""
    EFFECTS[:] = [effects]
    results: list[int] = []
    settings = RuntimeSettings(blocked_after=None)
    async with open_runtime(url, workflows=WORKFLOWS, settings=settings) as runtime:

        async def one(number: int) -> None:
            name = f"name-{number}"
            handle = await runtime.client.start(
                steps, name, reference_id=name, on_conflict=OnConflict.RETURN_EXISTING
            )
            if (await handle.status()).terminal:
                results.append(await handle.result())
                return
            await handle.send(go, 1_000, reference_id="once")
            results.append(await handle.result())

        async with trio.open_nursery() as nursery:
            for number in range(runs):
                nursery.start_soon(one, number)
    return results


if __name__ == "__main__":
    trio.run(run_all, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
