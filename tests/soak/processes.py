"""A soak's server and workers as processes of their own, reached over HTTP.

The server lives through all of it, for it is the one whose memory must stay flat; so do all workers
but the last, which is killed, frozen and replaced in turn.

Run as a module this file is the server: `python -m tests.soak.processes DATABASE PORT`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from aiki_actors.engine import EngineLimits
from aiki_actors.server import KeeperSettings
from aiki_actors.session import SessionLimits
from aiki_actors.storage import SqliteSettings
from aiki_sdk import Client
from aiki_sdk.http import HttpPort
from aiki_sdk.protocol import RunStatus
from aiki_trio import RuntimeSettings, open_server
from aiki_trio.testing.cluster import Managed
from aiki_trio.testing.cluster._backing import free_port
from tests.chaos import worker_code
from tests.chaos.workload import KINDS, WORKFLOWS

from .samples import APART, Series, database_bytes, memory_figures, tree_figures
from .subject import Fault, lock_database

ROOT: Final = Path(__file__).resolve().parents[2]
SERVING: Final = re.compile(r"serving (?P<url>\S+)")
CONNECTED: Final = re.compile(r"worker \S+ is connected")
BUSY: Final = (RunStatus.SCHEDULED, RunStatus.QUEUED, RunStatus.RUNNING)
FROZEN_S: Final = 8.0
"""Longer than the session's grace, so that its runs are given to others meanwhile."""

SETTINGS: Final = RuntimeSettings(
    limits=EngineLimits(claims_lost_max=10_000),
    keeper=KeeperSettings(sweep_s=0.5, retention=timedelta(seconds=8)),
    sqlite=SqliteSettings(synchronous="normal", busy_timeout_s=0.2, wal_pages_max=1_000),
    sessions=SessionLimits(grace_s=3.0),
)


@frozen(eq=False)
class Apart:
    """A server and workers in processes of their own.

    Attributes:
        client: what the load uses.
        port: the same, for what no client has.
        database: the server's.
        server: its process.
        workers: theirs; the last one is what faults strike.

    """

    client: Client
    port: HttpPort
    database: Path
    server: Managed
    workers: tuple[Managed, ...]

    @property
    def left_out(self) -> Collection[str]:
        """What the workers' module leaves out."""
        return KINDS.keys() - vars(worker_code).keys()

    @property
    def series(self) -> Sequence[Series]:
        """Those of a server and its workers."""
        return APART

    @property
    def faults(self) -> Sequence[Fault]:
        """A worker that is killed, frozen or replaced; a locked database."""
        return (self.kill_worker, self.freeze_worker, self.replace_worker, self.lock_database)

    async def figures(self) -> dict[str, float]:
        """Measure the server, the worker that is never killed, the actors and the database."""
        server = memory_figures(self.server.pid)
        worker = memory_figures(self.workers[0].pid)
        return {
            **server,
            **{f"worker_{name}": value for name, value in worker.items()},
            **tree_figures(await self.port.tree()),
            "database": database_bytes(self.database),
        }

    async def idle(self) -> bool:
        """Tell whether no run has anything to do now."""
        return not await self.client.count(status=BUSY)

    async def kill_worker(self) -> None:
        """Kill a worker and start another in its place."""
        worker = self.workers[-1]
        worker.kill()
        worker.start()

    async def freeze_worker(self) -> None:
        """Let a worker stand still for a while."""
        worker = self.workers[-1]
        worker.send(signal.SIGSTOP)
        await trio.sleep(FROZEN_S)
        worker.send(signal.SIGCONT)

    async def replace_worker(self) -> None:
        """Tell a worker to leave, and start another when it has."""
        worker = self.workers[-1]
        worker.ask_to_stop()
        await trio.to_thread.run_sync(worker.stop)
        worker.start()

    async def lock_database(self) -> None:
        """Lock the database."""
        await lock_database(self.database)


@asynccontextmanager
async def open_apart(database: Path, workers: int) -> AsyncGenerator[Apart]:
    """Start a server and workers; stop them in order at the end."""
    port = free_port()
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    python = sys.executable
    program = (python, "-m", "tests.soak.processes", str(database), str(port))
    server = Managed("server", program, SERVING, environment, ROOT)
    url = f"http://127.0.0.1:{port}"
    flags = ("--url", url, "--runs-max", "50", "--shutdown-grace-s", "5")
    command = (python, "-m", "aiki_trio.cli", "worker", worker_code.__name__, *flags)
    team = tuple(
        Managed(f"worker-{number + 1}", command, CONNECTED, environment, ROOT)
        for number in range(workers)
    )
    try:
        for part in (server, *team):
            part.start()
            await trio.to_thread.run_sync(part.wait_ready)
        http = HttpPort.to(url)
        async with Client(http, workflows=WORKFLOWS) as client:
            yield Apart(client, http, database, server, team)
    finally:
        with trio.CancelScope(shield=True):
            for part in (*team, server):
                part.ask_to_stop()
                await trio.to_thread.run_sync(part.stop)


async def serve(database: str, port: int) -> None:
    """Be the server, until told to end."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_server(f"sqlite:///{database}", settings=SETTINGS) as runtime:
            bound = await runtime.serve(port=port)
            sys.stdout.write(f"serving {bound.url}\n")
            sys.stdout.flush()
            await anext(aiter(signals))


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], int(sys.argv[2]))
