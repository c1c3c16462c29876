"""Chaos in a cluster: a server, workers and what they stand on, killed and frozen under load.

`python -m tests.chaos --only cluster [--postgres] [--redis]`. Every 0.2 to 3 s a process is chosen
and killed, frozen for a while, or told to end, and started again; then all is left alone, must come
to rest, and is checked from the database.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from aiki_trio.testing.cluster import LocalCluster, Managed

from .processes import Child, spawn
from .program import Report
from .scenario import Named, Stage
from .worker_code import EFFECTS

CODE: Final = "tests.chaos.worker_code"
QUIET_S: Final = 60.0
FROZEN_MAX_S: Final = 4.0


def rounds(seconds: float, *, postgres: bool, redis: bool, workers: int) -> Named:
    """Make a scenario of this length."""
    name = "cluster" + " with PostgreSQL" * postgres + " with Redis" * redis
    play = partial(_play, seconds=seconds, postgres=postgres, redis=redis, workers=workers)
    return Named(name, play)


def _play(stage: Stage, *, seconds: float, postgres: bool, redis: bool, workers: int) -> Report:
    data = stage.folder.path / "data"
    data.mkdir()
    with stage.folder.log.open("a") as log:
        cluster = LocalCluster(
            CODE,
            count=workers,
            postgres=postgres,
            redis=redis,
            folder=data,
            environment={EFFECTS: str(stage.folder.effects), **_python()},
            worker_flags=("--shutdown-grace-s", "2", "--runs-max", "8"),
            tell=lambda name, line: print(f"{name}: {line}", file=log, flush=True),
        )
        with cluster:
            with _around(stage, "load", url=cluster.url) as client:
                _disturb(stage, cluster, seconds)
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


def _strike(stage: Stage, part: Managed) -> str:
    """Do something bad to a process, and start it again if it is gone; say what."""
    chance = stage.chance
    draw = chance.random()
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
