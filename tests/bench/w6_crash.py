"""W6: a process is killed half-way and started again; seconds until everything is complete.

The only process, or where server and worker are apart, the worker.

A task notes each of its executions in a file, so the ones beyond the minimum can be counted. The
kill comes when half of the tasks have run and every start call has returned.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import trio

from aiki_sdk import Client
from aiki_trio import open_runtime
from tests.bench._measuring import (
    Figures,
    Params,
    Stopwatch,
    WrongResult,
    check,
)
from tests.bench._places import Place, Workload, local_cluster
from tests.bench._workflows import slow_chain

LOOK_S: Final = 0.005
DEADLINE_S: Final = 120.0


async def _start_all(folder: Path, params: Params) -> None:
    """Start the runs and wait for them, until killed."""
    url = Place(folder).database_url()
    async with open_runtime(url, workflows=[slow_chain]) as runtime:
        await _start(runtime.client, folder, params)
        (folder / "started").touch()
        await trio.sleep_forever()


async def _complete_all(folder: Path, params: Params) -> None:
    """Wait for the runs that an earlier process has started."""
    url = Place(folder).database_url()
    async with open_runtime(url, workflows=[slow_chain]) as runtime:
        await _complete(runtime.client, params)


async def _start(client: Client, folder: Path, params: Params) -> None:
    log = str(folder / "tasks.log")
    for number in range(params["runs"]):
        starter = client.options(reference_id=str(number))
        await starter.start(slow_chain, log, number, params["steps"], params["pause_ms"])


async def _complete(client: Client, params: Params) -> None:
    steps = params["steps"]
    for number in range(params["runs"]):
        handle = await client.get(workflow=slow_chain, reference_id=str(number))
        result = await handle.result()
        check(actual=result, expected=steps * (steps - 1) // 2, what=f"result of {handle.id}")


def _child(role: str, folder: Path, params: Params) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.bench.w6_crash", role, str(folder)]
    return subprocess.Popen([*command, json.dumps(dict(params))])


def _executed(folder: Path) -> list[str]:
    log = folder / "tasks.log"
    return log.read_text().splitlines() if log.exists() else []


def measure(params: Params, place: Place) -> Figures:
    """Measure once."""
    if place.topology != "embedded":
        return trio.run(partial(_measure_apart, params, place))
    return _measure_embedded(params, place.folder)


async def _measure_apart(params: Params, place: Place) -> Figures:
    """Kill a worker and start another; the server and the client live on."""
    folder = place.folder
    minimum = params["runs"] * params["steps"]
    with local_cluster(place) as cluster:
        async with Client(cluster.url, workflows=[slow_chain]) as client:
            watch = Stopwatch.started()
            await _start(client, folder, params)
            # The tasks note that they ran in a file, which tells nobody: look at it.
            while len(_executed(folder)) < minimum // 2:
                if watch.wall_s > DEADLINE_S:
                    message = f"half of the tasks did not run: {len(_executed(folder))}"
                    raise WrongResult(message)
                await trio.sleep(LOOK_S)
            worker = cluster.workers[0]
            worker.kill()
            at_kill, since_kill = len(_executed(folder)), Stopwatch.started()
            worker.start()
            await _complete(client, params)
            complete_s, total_s = since_kill.wall_s, watch.wall_s
    return _figures(folder, minimum, at_kill, complete_s, total_s)


def _measure_embedded(params: Params, folder: Path) -> Figures:
    minimum = params["runs"] * params["steps"]
    watch = Stopwatch.started()
    first = _child("start", folder, params)
    try:
        while len(_executed(folder)) < minimum // 2 or not (folder / "started").exists():
            if watch.wall_s > DEADLINE_S or first.poll() is not None:
                message = f"half of the tasks did not run: {len(_executed(folder))} of {minimum}"
                raise WrongResult(message)
            time.sleep(LOOK_S)
    finally:
        first.kill()
        first.wait()
    at_kill, since_kill = len(_executed(folder)), Stopwatch.started()
    second = _child("complete", folder, params)
    try:
        check(actual=second.wait(DEADLINE_S), expected=0, what="exit code of the second process")
    finally:
        second.kill()
    complete_s = since_kill.wall_s
    return _figures(folder, minimum, at_kill, complete_s, watch.wall_s)


def _figures(
    folder: Path, minimum: int, at_kill: int, complete_s: float, total_s: float
) -> Figures:
    executed = _executed(folder)
    check(actual=len(set(executed)), expected=minimum, what="number of different tasks that ran")
    return {
        "kill_to_complete_s": complete_s,
        "total_s": total_s,
        "executed_at_kill": at_kill,
        "extra_executions": len(executed) - minimum,
    }


WORKLOAD = Workload(
    "w6",
    "runs of slow sequential tasks; kill -9 half-way, then a restart",
    full={"runs": 50, "steps": 20, "pause_ms": 50},
    quick={"runs": 5, "steps": 4, "pause_ms": 50},
    measure=measure,
)


def main(role: str, folder: str, params: str) -> None:
    """Be one of the two processes."""
    work = {"start": _start_all, "complete": _complete_all}[role]
    trio.run(partial(work, Path(folder), json.loads(params)))


if __name__ == "__main__":
    main(*sys.argv[1:])
