"""The demo on a cluster: parts are killed in turn while customers order, and started again.

    customers (a process) ── HTTP ──► server ◄── websocket ── worker-1, worker-2, worker-3

Customers pay in groups. Each kill comes when work of another group has begun, and only afterwards
the next group may pay: so it strikes in the middle, however slow the machine is. Before each kill
the journals are read from the database: what they held then must still be there in the end.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from aiki_sdk import Client, SystemClock, Unavailable
from aiki_trio.testing.cluster import LocalCluster, Managed

from .effects import EFFECTS_VARIABLE, read_lines
from .evidence import Evidence, History, Kill, journals_beside, journals_of
from .plan import make_plan

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 240.0
BEGUN: Final = 30
"""Lines of the effect log by which the work of a group has begun."""
BEGUN_S: Final = 15.0
"""Seconds after which a group that has so little to do is not waited for."""
LOOK_EVERY_S: Final = 0.02
"""How often the parent looks how far the work is: the log is a file of other processes."""


@frozen
class ClusterDemo:
    """One run of the demo on a cluster.

    Attributes:
        workers: how many worker processes.
        postgres: whether PostgreSQL keeps the runs, and is killed too.
        redis: whether workers pull from a Redis, which is killed too.
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
        till = self.folder / "till"
        till.touch()
        kills: list[Kill] = []
        with cluster:
            customers = self._customers(cluster.url, till)
            customers.start()
            try:
                for part in self.victims:
                    let_one_more_pay(till)
                    wait_for_more_lines(effects, customers)
                    kills.append(self._kill(cluster, part))
                let_one_more_pay(till)
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

    def _customers(self, url: str, till: Path) -> Managed:
        command = [sys.executable, "-m", "examples.orders.customers", "--url", url]
        command += ["--orders", str(self.orders), "--seed", str(self.seed)]
        command += ["--till", str(till), "--groups", str(len(self.victims) + 1)]
        return Managed("customers", command, folder=ROOT)

    def _kill(self, cluster: LocalCluster, part: str) -> Kill:
        """Kill a part and start it again."""
        victim = cluster.part(part)
        clock = SystemClock()
        journals = trio.run(journals_beside, cluster.addresses["database"])
        pid = victim.pid
        victim.kill()
        died_at = clock.now()
        died_by = -victim.wait()
        victim.start()
        restarted_at = clock.now()
        victim.wait_ready()
        name = signal.Signals(died_by).name if died_by > 0 else "no signal"
        self.tell(f"{part}, process {pid}, died by {name} and was started again")
        works = part.startswith("worker")
        return Kill(part, works, pid, max(died_by, 0), died_at, restarted_at, journals)


async def read_through(url: str) -> dict[str, History]:
    """Read all journals through a server."""
    async with Client(url) as client:
        return await journals_of(client)


def let_one_more_pay(till: Path) -> None:
    """Let the next group of customers pay."""
    with till.open("ab") as file:
        file.write(b".")


def wait_for_more_lines(path: Path, unless_ended: Managed) -> None:
    """Wait until a log has some more lines than now, or nobody gives more work."""
    deadline = time.monotonic() + BEGUN_S
    goal = path.read_bytes().count(b"\n") + BEGUN
    while path.read_bytes().count(b"\n") < goal and unless_ended.running:
        if time.monotonic() > deadline:
            return
        time.sleep(LOOK_EVERY_S)
