"""Chaos in a cluster: a server, workers and what they stand on, killed and frozen under load.

`python -m tests.chaos --only cluster [--postgres] [--redis]`. Every 0.2 to 3 s a process is chosen
and killed, frozen for a while, or told to end, and started again; then all is left alone, must come
to rest, and is checked from the database.

With
`--kill-workers` it is always a worker that is chosen, and always SIGKILL; `--in-flight 200` has so
many cases under way at the same time.

`python -m tests.chaos --only points`. At each fault point that is passed on the one side or the
other a process kills itself once, by script.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from aiki_actors.faults import FAULT_POINTS, VARIABLE
from aiki_sdk import SyncClient
from aiki_trio.testing.cluster import LocalCluster, Managed

from .processes import Child, spawn
from .program import LIVE, Report
from .scenario import Named, Stage
from .worker_code import EFFECTS

LOOPBACK: Final = "127.0.0.1"
CODE: Final = "tests.chaos.worker_code"
QUIET_S: Final = 60.0
FROZEN_MAX_S: Final = 4.0
STRUCK_S: Final = 60.0
USUAL_GRACE_S: Final = 15.0
SHORT_GRACE_S: Final = 3.0
"""How long the server waits for a worker that is gone, where many are: their runs soon go on."""
PASSING: Final = 2
"""Which passing of a point kills."""

ELSEWHERE: Final = frozenset(
    {
        "schema.migrating",
        "retention.deleting",
        "recovery.claims",
        "recovery.notices",
        "worker.stopping",
        "run.released",
    }
)
"""Points that are passed once in a process's life, or not at all under this load; the scripted part
with one process strikes them."""

ON_WORKER: Final = frozenset(
    {
        "run.assigned",
        "run.replayed",
        "run.parked",
        "run.ended",
        "task.begun",
        "task.done",
        "worker.replied",
        "lease.renewed",
        "message.delivered",
        "message.held",
        "message.done",
    }
)
"""Points that a worker passes; the server passes the others."""


@frozen
class Load:
    """How much is under way.

    Attributes:
        workers: worker processes.
        in_flight: cases played at the same time; a worker alone could take all of them.
        grace_s: how long the server waits for a worker that is gone.

    """

    workers: int = 2
    in_flight: int = 6
    grace_s: float = USUAL_GRACE_S

    @property
    def runs_max(self) -> int:
        """How many runs a worker executes at the same time."""
        return max(8, self.in_flight)


def rounds(
    seconds: float, load: Load, *, postgres: bool, redis: bool, kill_workers: bool = False
) -> Named:
    """Make a scenario of this length."""
    if kill_workers:
        load = evolve(load, grace_s=SHORT_GRACE_S)
    name = "cluster" + " with PostgreSQL" * postgres + " with Redis" * redis
    disturb = partial(_kill_workers if kill_workers else _disturb, seconds=seconds)
    play = partial(_play, disturb=disturb, postgres=postgres, redis=redis, load=load)
    return Named(name + " whose workers are killed" * kill_workers, play)


def scripted(load: Load) -> Iterator[Named]:
    """Make the scenarios that kill at fault points: those that only a cluster has, and all others.

    Redis carries the runs in the first.
    """
    for name, embedded in (("its own", False), ("other", True)):
        struck = [
            ("worker-1" if point.name in ON_WORKER else "server", point.name)
            for point in FAULT_POINTS
            if point.embedded is embedded and point.name not in ELSEWHERE
        ]
        disturb = partial(_strike_points, struck=struck)
        play = partial(_play, disturb=disturb, postgres=False, redis=not embedded, load=load)
        yield Named(f"cluster at {name} points", play)


def _strike_points(stage: Stage, cluster: LocalCluster, struck: list[tuple[str, str]]) -> None:
    """Let a process kill itself at each point, and start it again."""
    for side, point in struck:
        part = cluster.part(side)
        usual = part.environment
        part.kill()
        part.environment = {**usual, VARIABLE: f"{point}:{PASSING}"}
        part.start()
        try:
            code = part.wait(STRUCK_S)
        except subprocess.TimeoutExpired:
            stage.expect(False, f"{side} did not come to {point} within {STRUCK_S:g} s")
            part.kill()
        else:
            stage.expect(code == -signal.SIGKILL, f"{side} ended at {point} with code {code}")
        part.environment = usual
        part.start()
        part.wait_ready()
    stage.notes.append("killed at " + ", ".join(point for _, point in struck))


def _play(
    stage: Stage,
    *,
    disturb: Callable[[Stage, LocalCluster], None],
    postgres: bool,
    redis: bool,
    load: Load,
) -> Report:
    data = stage.folder.path / "data"
    data.mkdir()
    with stage.folder.log.open("a") as log:
        cluster = LocalCluster(
            CODE,
            count=load.workers,
            postgres=postgres,
            redis=redis,
            folder=data,
            environment={EFFECTS: str(stage.folder.effects), **_python()},
            worker_flags=("--shutdown-grace-s", "2", "--runs-max", str(load.runs_max)),
            server_flags=("--session-grace-s", str(load.grace_s)),
            tell=lambda name, line: print(f"{name}: {line}", file=log, flush=True),
        )
        with cluster:
            with _around(stage, "load", url=cluster.url, in_flight=load.in_flight) as client:
                disturb(stage, cluster)
                code = client.poll()
                stage.expect(code is None, f"the load ended by itself, with code {code}")
                client.signal(signal.SIGTERM)
                client.wait(20.0)
            for part in cluster.parts:
                if not part.running:
                    part.start()
            with _around(stage, "settle", url=cluster.url, quiet_s=QUIET_S) as settling:
                stage.expect(settling.wait(QUIET_S + 30.0) == 0, "waiting for quiet broke down")
            for part in (*cluster.workers, cluster.server):
                stage.expect(part.stop() == 0, f"{part.name} stopped with code {part.exit_code}")
            return _checked(stage, cluster.addresses["database"])


def _checked(stage: Stage, database: str) -> Report:
    settled = stage.folder.path / "settled.json"
    told = json.loads(settled.read_text()) if settled.exists() else {}
    with _around(stage, "check", url=database, **told) as checking:
        stage.expect(checking.wait(60.0) == 0, "checking broke down: see log.txt")
    if not stage.folder.report.exists():
        return Report(["there is no report"], {}, 0.0)
    return Report(**json.loads(stage.folder.report.read_text()))


def _around(stage: Stage, role: str, **told: object) -> Child:
    command = [sys.executable, "-m", "tests.chaos.remote", role, str(stage.folder.path)]
    env = {**os.environ, **_python()}
    return spawn([*command, json.dumps(told)], role, env=env, output=stage.folder.log)


def _python() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def _disturb(stage: Stage, cluster: LocalCluster, seconds: float) -> None:
    """Do something to a process at intervals."""
    chance = stage.chance
    deadline = time.monotonic() + seconds
    done: dict[str, int] = {}
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(0.2, 3.0))
        part = chance.choice([*cluster.workers, *cluster.workers, *cluster.parts])
        what = f"{_strike(stage, part)} {part.name.partition('-')[0]}"
        done[what] = done.get(what, 0) + 1
    stage.notes.append(", ".join(f"{times} times {what}" for what, times in sorted(done.items())))


def _kill_workers(stage: Stage, cluster: LocalCluster, seconds: float) -> None:
    """Kill a worker at intervals, and note how much was under way then."""
    chance = stage.chance
    deadline = time.monotonic() + seconds
    under_way: list[int] = []
    with SyncClient(cluster.url) as client:
        while time.monotonic() < deadline:
            time.sleep(chance.uniform(0.2, 3.0))
            under_way.append(client.count(status=list(LIVE)))
            worker = chance.choice(cluster.workers)
            worker.kill()
            time.sleep(chance.uniform(0.0, 0.5))
            worker.start()
    stage.notes.append(f"{len(under_way)} times killed worker; runs alive then: {under_way}")


def _strike(stage: Stage, part: Managed) -> str:
    """Do something bad to a process, and start it again if it is gone; say what."""
    chance = stage.chance
    draw = chance.random()
    if part.name == "redis" and draw < 0.4:
        return _make_forget(stage, part)
    if draw < 0.3:
        part.send(signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, FROZEN_MAX_S))
        part.send(signal.SIGCONT)
        return "froze"
    if draw < 0.5:
        was_ready = part.ready is None or part.match is not None
        code = part.stop(20.0)
        # Told so while it starts, it may die of the signal.
        fine = code == 0 or (code == -signal.SIGTERM and not was_ready)
        stage.expect(fine, f"{part.name} was told to end and ended with code {code}")
        what = "ended"
    else:
        part.kill()
        what = "killed"
    time.sleep(chance.uniform(0.0, 0.5))
    part.start()
    return what


def _make_forget(stage: Stage, redis: Managed) -> str:
    """Let Redis lose all that it has: at once, or because it is killed and kept nothing."""
    if stage.chance.random() < 0.5 and redis.running:
        port = int(redis.command[redis.command.index("--port") + 1])
        try:
            with socket.create_connection((LOOPBACK, port), timeout=5.0) as link:
                link.sendall(b"FLUSHALL\r\n")
                stage.expect(link.recv(100) == b"+OK\r\n", "Redis did not do as it was told")
        except OSError as error:
            return f"could not flush ({type(error).__name__})"
        return "flushed"
    redis.kill()
    kept = stage.folder.path / "data" / "redis" / "appendonlydir"
    shutil.rmtree(kept, ignore_errors=True)
    redis.start()
    return "killed and emptied"
