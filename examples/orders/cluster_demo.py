"""The demo on a cluster: parts are killed in turn while customers order, and started again.

    customers (a process) ── HTTP ──► server ◄── websocket ── worker-1, worker-2, worker-3

Before each kill the journals are read through the server: what they held then must still be there
in the end. Every kill comes when a planned part of the work is done.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from aiki_sdk import Client, SystemClock, Unavailable
from aiki_trio.testing.cluster import LocalCluster, Managed

from .effects import EFFECTS_VARIABLE, read_lines
from .evidence import Evidence, History, Kill, journals_of
from .plan import make_plan

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 240.0
PACE: Final = 5.0
"""Customers take so many times as long as in one process, for there is more to kill."""
LOOK_EVERY_S: Final = 0.02
"""How often the parent looks how far the work is: the log is a file of other processes."""


@frozen
class ClusterDemo:
    """One run of the demo on a cluster.

    Attributes:
        workers: how many worker processes.
        postgres: whether PostgreSQL keeps the runs, and is killed too.
        redis: whether a Redis runs beside, and is killed too; nothing of Aiki uses it yet.
        folder: where data is kept.
        tell: is given what happens, line by line.
        log: is given every line of every process, under the name of its part.

    """

    orders: int
    seed: int
    folder: Path
    workers: int = 3
    postgres: bool = False
    redis: bool = False
    tell: Callable[[str], None] = print
    log: Callable[[str, str], None] = lambda _name, _line: None

    @property
    def victims(self) -> tuple[str, ...]:
        """The parts that are killed, in turn."""
        backing = [name for name in ("redis", "postgres") if getattr(self, name)]
        return ("worker-1", "server", *backing, "worker-2", "server", *backing, "worker-3")

    def run(self) -> Evidence:
        """Run it, through all kills, and collect what is to be known."""
        plan = make_plan(self.orders, self.seed)
        effects = self.folder / "effects.jsonl"
        effects.touch()
        cluster = LocalCluster(
            "examples.orders.workflows",
            count=self.workers,
            postgres=self.postgres,
            redis=self.redis,
            folder=self.folder,
            environment={EFFECTS_VARIABLE: str(effects)},
            tell=self.log,
        )
        total = 2 * sum(planned.executions for planned in plan)
        kills: list[Kill] = []
        with cluster:
            customers = self._customers(cluster.url)
            customers.start()
            try:
                for number, part in enumerate(self.victims, start=1):
                    lines = round(0.85 * total * number / (len(self.victims) + 1))
                    wait_for_lines(effects, lines, customers)
                    kills.append(self._kill(cluster, part))
                code = customers.wait(DEADLINE_S)
            finally:
                customers.kill()
            if code:
                last = "\n".join(customers.lines)
                message = f"the customers ended with exit code {code}; they said:\n{last}"
                raise Unavailable(message)
            self.tell(customers.lines[-1])
            journals = trio.run(read_through, cluster.url)
        codes = {part.name: part.wait() for part in cluster.parts}
        return Evidence(plan, journals, read_lines(effects), codes, tuple(kills))

    def _customers(self, url: str) -> Managed:
        command = [sys.executable, "-m", "examples.orders.customers", "--url", url]
        command += ["--orders", str(self.orders), "--seed", str(self.seed), "--pace", str(PACE)]
        return Managed("customers", command, folder=ROOT)

    def _kill(self, cluster: LocalCluster, part: str) -> Kill:
        """Kill a part and start it again."""
        victim = cluster.part(part)
        clock = SystemClock()
        pid = victim.pid
        works = part.startswith("worker")
        # On a slow machine the work would be done before all journals are read. Workers that stand
        # still and then miss their server as well could lose their claims.
        with standing_still(cluster.workers if works else ()):
            journals = trio.run(read_through, cluster.url)
            victim.kill()
            died_at = clock.now()
        died_by = -victim.wait()
        victim.start()
        restarted_at = clock.now()
        victim.wait_ready()
        name = signal.Signals(died_by).name if died_by > 0 else "no signal"
        self.tell(f"{part}, process {pid}, died by {name} and was started again")
        return Kill(part, works, pid, max(died_by, 0), died_at, restarted_at, journals)


@contextmanager
def standing_still(parts: Sequence[Managed]) -> Generator[None]:
    """Let processes stand still, in the midst of whatever they do."""
    for part in parts:
        part.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for part in parts:
            part.send(signal.SIGCONT)


async def read_through(url: str) -> dict[str, History]:
    """Read all journals through a server."""
    async with Client(url) as client:
        return await journals_of(client)


def wait_for_lines(path: Path, count: int, unless_ended: Managed) -> None:
    """Wait until a log has so many lines, or nobody gives more work."""
    deadline = time.monotonic() + DEADLINE_S
    while path.read_bytes().count(b"\n") < count and unless_ended.running:
        if time.monotonic() > deadline:
            message = f"{path} has not {count} lines after {DEADLINE_S:g} s: the work stands still"
            raise Unavailable(message)
        time.sleep(LOOK_EVERY_S)
