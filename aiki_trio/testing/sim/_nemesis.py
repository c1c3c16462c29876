"""The nemesis: makes faults happen, by seed, for as long as the safety phase lasts.

Then it makes good what it broke: links are whole, the storage works, and killed processes come
back. From there on every run has to end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal

import trio
from attrs import define

from ._cluster import Cluster
from ._disk import short
from ._options import Fault, SimOptions
from ._worker import WorkerLife

CALLS_MAX: Final = 40
"""How many calls of a node's handles may pass before it dies at one of them."""


@define(eq=False)
class Nemesis:
    """Chooses a fault now and then."""

    cluster: Cluster
    options: SimOptions
    rng: random.Random

    async def rage(self) -> None:
        """Make faults happen until the safety phase is over, then make good."""
        cluster, options = self.cluster, self.options
        acts = [(fault, act) for fault, act in self._acts().items() if fault in options.faults]
        with trio.move_on_after(options.safety_s):
            if not acts:
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:
                while True:
                    await trio.sleep(self.rng.expovariate(1 / options.fault_gap_s))
                    _fault, act = self.rng.choice(acts)
                    act(nursery)
        cluster.heal()
        cluster.trace.note("nemesis", "no more faults")

    def _acts(self) -> dict[Fault, Callable[[trio.Nursery], None]]:
        return {
            Fault.WORKER_CRASH: self._kill_worker,
            Fault.WORKER_STOP: self._stop_worker,
            Fault.SERVER_CRASH: self._kill_server,
            Fault.CRASH_AT_CALL: self._trip,
            Fault.LOST_COMMITS: self._fail_over,
            Fault.PARTITION: lambda nursery: self._partition(nursery, one_way=False),
            Fault.ONE_WAY: lambda nursery: self._partition(nursery, one_way=True),
            Fault.STORAGE_ERRORS: lambda nursery: nursery.start_soon(self._errors),
            Fault.UNKNOWN_OUTCOME: lambda nursery: nursery.start_soon(self._unknown),
            Fault.SLOW_STORAGE: lambda nursery: nursery.start_soon(self._slow),
            Fault.CLOCK_JUMP: self._jump,
            Fault.SERVER_STOP: self._stop_server,
            Fault.POISON: self._poison,
            Fault.QUEUE_LOSS: lambda nursery: self._trouble_queue(nursery, "lose"),
            Fault.QUEUE_DISORDER: lambda nursery: self._trouble_queue(nursery, "disorder"),
            Fault.QUEUE_DOWN: lambda nursery: self._trouble_queue(nursery, "fail"),
        }

    def _trouble_queue(
        self, nursery: trio.Nursery, how: Literal["lose", "disorder", "fail"]
    ) -> None:
        queue = self.cluster.queue
        if queue is not None:
            acts = {"lose": queue.lose, "disorder": queue.disorder, "fail": queue.fail}
            nursery.start_soon(acts[how], self.rng)

    def _workers(self) -> list[WorkerLife]:
        return [life for life in self.cluster.workers if life is not None]

    def _worker(self) -> WorkerLife | None:
        lives = self._workers()
        return self.rng.choice(lives) if lives else None

    def _kill_worker(self, nursery: trio.Nursery) -> None:
        worker = self._worker()
        if worker is not None:
            nursery.start_soon(self._kill_soon, worker.node.kill)

    async def _kill_soon(self, kill: Callable[[str], None]) -> None:
        """Let a few steps of the scheduler pass first, so that a kill comes amid some work."""
        for _ in range(self.rng.randrange(30)):
            await trio.lowlevel.checkpoint()
        kill("by the nemesis")

    def _stop_worker(self, _nursery: trio.Nursery) -> None:
        worker = self._worker()
        if worker is not None:
            self.cluster.trace.note(worker.node.name, "is asked to stop")
            worker.stop()

    def _kill_server(self, nursery: trio.Nursery) -> None:
        server = self.cluster.server
        if server is not None:
            self._plan_restart()
            nursery.start_soon(self._kill_soon, server.node.kill)

    def _stop_server(self, _nursery: trio.Nursery) -> None:
        server = self.cluster.server
        if server is not None and server.up.is_set():
            self._plan_restart()
            self.cluster.trace.note(server.node.name, "is asked to stop")
            server.stop()

    def _poison(self, _nursery: trio.Nursery) -> None:
        """Let each task of one run kill its worker, for as long as faults happen."""
        going = list(self.cluster.disk.going)
        if going:
            run_id = self.rng.choice(going)
            self.cluster.effects.poison.add(run_id)
            self.cluster.trace.note("nemesis", f"{short(run_id)} is poison")

    def _plan_restart(self) -> None:
        self.cluster.downtime_s = self.rng.choice([0.0, 0.1, 1.0, 5.0]) * self.rng.random()

    def _trip(self, _nursery: trio.Nursery) -> None:
        """Let a node die at one of its next calls."""
        server = self.cluster.server
        nodes = [life.node for life in self._workers()]
        if server is not None:
            nodes += [server.node, server.node]
        if nodes:
            self._plan_restart()
            self.rng.choice(nodes).trip(1 + self.rng.randrange(CALLS_MAX))

    def _fail_over(self, nursery: trio.Nursery) -> None:
        self.cluster.lose_commits = self.rng.randint(1, self.options.rollback_max)
        self._kill_server(nursery)

    def _partition(self, nursery: trio.Nursery, *, one_way: bool) -> None:
        worker = self._worker()
        if worker is None:
            return
        seconds = self.options.grace_s * self.rng.choice([0.1, 0.5, 1.0, 2.0, 6.0])
        up = not one_way or self.rng.random() < 0.5
        nursery.start_soon(self._cut, worker, seconds, up, not one_way or not up)

    async def _cut(self, worker: WorkerLife, seconds: float, up: bool, down: bool) -> None:
        await self.cluster.partition(worker, seconds, up=up, down=down)

    async def _for_a_while(self) -> None:
        await trio.sleep(self.rng.choice([0.2, 1.0, 5.0]))

    async def _errors(self) -> None:
        weather = self.cluster.weather
        weather.errors = self.rng.choice([0.1, 0.5, 1.0])
        self.cluster.trace.note("nemesis", f"storage fails {weather.errors:.0%}")
        await self._for_a_while()
        weather.errors = 0.0

    async def _unknown(self) -> None:
        weather = self.cluster.weather
        weather.unknown = self.rng.choice([0.1, 0.5])
        self.cluster.trace.note("nemesis", f"storage loses replies {weather.unknown:.0%}")
        await self._for_a_while()
        weather.unknown = 0.0

    async def _slow(self) -> None:
        self.cluster.weather.slow_s = self.rng.choice([0.1, 1.0, 3.0])
        self.cluster.trace.note("nemesis", "storage is slow")
        await self._for_a_while()
        self.cluster.weather.slow_s = 0.0

    def _jump(self, _nursery: trio.Nursery) -> None:
        skew = self.options.skew_s
        self.cluster.clock.offset_s = self.rng.uniform(-skew, skew)
        self.cluster.trace.note("nemesis", f"clock off by {self.cluster.clock.offset_s:+.3f} s")
