"""The workflows that the workloads run: the same shapes as the peers run."""

from __future__ import annotations

import os
from datetime import timedelta

import trio

from aiki_sdk import Event, Run, task, workflow

GO = Event("go", int)
"""What the waiting workflows wait for."""


@task
async def add_one(value: int) -> int:
    """Do nothing, durably."""
    return value + 1


@task
async def slow_step(log: str, run: int, step: int, pause_ms: int) -> int:
    """Note the execution in a file before a pause, so that repetitions show."""
    with open(log, "ab", buffering=0) as file:  # noqa: ASYNC230, PTH123  # one short append
        os.write(file.fileno(), f"{run}:{step}\n".encode())
    await trio.sleep(pause_ms / 1000)
    return step


@workflow(name="bench-chain", version="1.0.0")
async def chain(run: Run, value: int, steps: int) -> int:
    """Run tasks one after another, each with the result of the one before."""
    for _ in range(steps):
        value = await add_one(value)
    return value


@workflow(name="bench-fan", version="1.0.0")
async def fan(run: Run, width: int) -> int:
    """Run tasks in parallel."""
    return sum(await run.gather(*[add_one(number) for number in range(width)]))


@workflow(name="bench-waiter", version="1.0.0", events=[GO])
async def waiter(run: Run) -> int:
    """Wait for an event."""
    return await run.wait(GO)


@workflow(name="bench-sleeper", version="1.0.0")
async def sleeper(run: Run, number: int) -> int:
    """Sleep for an hour."""
    await run.sleep("long", timedelta(hours=1))
    return number


@workflow(name="bench-slow-chain", version="1.0.0")
async def slow_chain(run: Run, log: str, number: int, steps: int, pause_ms: int) -> int:
    """Run slow tasks one after another."""
    total = 0
    for step in range(steps):
        total += await slow_step(log, number, step, pause_ms)
    return total


@workflow(name="bench-long-journal", version="1.0.0", events=[GO])
async def long_journal(run: Run, entries: int) -> int:
    """Record so many results, then wait for an event."""
    total = 0
    for number in range(entries):
        total += await add_one(number)
    return total + await run.wait(GO)
