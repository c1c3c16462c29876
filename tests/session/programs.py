"""The processes of the real cluster: a server and workers, started as `python -m`."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

import trio

from aiki_actors.session import SessionLimits
from aiki_sdk import AnyWorkflow, Client, Event, Run, task, workflow
from aiki_trio import RuntimeSettings
from aiki_trio._server import open_server
from aiki_trio._worker import Worker

go = Event("go", str)


@task
async def effect(sink: str, run: str, step: int, pause_ms: int) -> int:
    """Note the execution where every process sees it, then take a while."""
    line = f"{run}:{step}\n".encode()
    file = os.open(sink, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)
    await trio.sleep(pause_ms / 1000)
    return step


@workflow(name="steps", version="1.0.0", events=[go])
async def steps(run: Run, sink: str, name: str, count: int, pause_ms: int) -> int:
    """Take effect step by step."""
    total = 0
    for step in range(count):
        total += await effect(sink, name, step, pause_ms)
    return total


@workflow(name="waits", version="1.0.0", events=[go])
async def waits(run: Run, sink: str, name: str) -> str:
    """Take effect before and after an event."""
    await effect(sink, name, 0, 0)
    word = await run.wait(go)
    await effect(sink, name, 1, 0)
    return word


@workflow(name="steps", version="2.0.0", events=[go])
async def steps_2(run: Run, sink: str, name: str, count: int, pause_ms: int) -> int:
    """Do the same, and say that it is the second version."""
    for step in range(count):
        await effect(sink, f"{name}-v2", step, pause_ms)
    return -1


async def serve(database: str, port: str, grace_s: str, lease_s: str) -> None:
    """Run a server until killed; workers take its intervals over."""
    limits = SessionLimits(beat_s=0.3, grace_s=float(grace_s), lease_s=float(lease_s))
    settings = RuntimeSettings(sessions=limits, blocked_after=None)
    async with open_server(f"sqlite:///{database}", settings=settings) as runtime:
        bound = await runtime.serve(port=int(port))
        print(bound.url, flush=True)  # noqa: T201
        await trio.sleep_forever()


CODE: dict[str, list[AnyWorkflow]] = {
    "1": [steps, waits],
    "2": [steps_2],
    "both": [steps, waits, steps_2],
}
"""What a worker has the code of, by the word that it is started with."""


async def work(url: str, version: str, grace_s: str) -> None:
    """Run a worker until told to stop."""
    flows = CODE[version]
    async with Client(url) as client:
        worker = Worker(client, workflows=flows, max_runs=50, grace_period=float(grace_s))
        print(worker.id, flush=True)  # noqa: T201
        await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("AIKI_LOG_LEVEL", "WARNING"))
    if sys.argv[1] == "serve":
        trio.run(partial(serve, *sys.argv[2:]))
    else:
        trio.run(partial(work, *sys.argv[2:]))
