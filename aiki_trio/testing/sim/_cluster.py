"""The cluster of a simulation: a server, several workers, the links between them, and a disk.

    cluster (one Trio task tree)
    ├─ server     one life after another
    ├─ worker n   one life after another
    └─ channels   the links' two directions

Invariant: whatever a node does to anything outside it passes a handle that asks whether it lives.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from aiki_actors.worker import Invoke, Proceed, WorkerHooks
from aiki_sdk import AnyTask, AnyWorkflow, SeededIds, SeededRng, WorkflowRegistry

from ._chance import Chance
from ._disk import Disk
from ._effects import Effects
from ._link import SimLink
from ._node import Node
from ._options import Fault, SimOptions
from ._server import ServerLife, SimClock, WorkerlessRuntime, runtime_settings, worker_settings
from ._storage import SimStorage, Weather
from ._trace import Trace
from ._worker import WorkerLife

if TYPE_CHECKING:
    from ._queue import SimQueue

NOTICE_MAX_S = 3.0
"""How long a process may take to notice that a connection is gone."""


@define(eq=False)
class Cluster:
    """Everything that runs.

    Attributes:
        workers: the present life of each worker, None while it has none.
        server: the present life of the server, None while it has none.
        lives: every life of a worker of which something still runs.
        calm: no faults happen any more.
        queue: the Redis between server and workers; None: there is none.

    """

    options: SimOptions
    chance: Chance
    trace: Trace
    disk: Disk
    effects: Effects
    registry: WorkflowRegistry
    nursery: trio.Nursery
    weather: Weather = field(factory=Weather)
    server: ServerLife | None = field(default=None, init=False)
    workers: list[WorkerLife | None] = field(init=False)
    lives: dict[WorkerLife, None] = field(factory=lambda: dict[WorkerLife, None](), init=False)
    clock: SimClock = field(factory=SimClock, init=False)
    calm: bool = field(default=False, init=False)
    downtime_s: float = field(default=0.5, init=False)
    lose_commits: int = field(default=0, init=False)
    queue: SimQueue | None = field(default=None, init=False)
    _ids: SeededIds = field(init=False)
    _rng: SeededRng = field(init=False)
    _up: trio.Event = field(factory=trio.Event, init=False)
    _nodes: list[Node] = field(factory=lambda: list[Node](), init=False)

    def __attrs_post_init__(self) -> None:
        """Begin chance."""
        self._ids, self._rng = SeededIds(self.chance.seed), SeededRng(self.chance.seed)
        self.workers = [None] * self.options.workers
        if self.options.queue:
            from ._queue import SimQueue  # needs redis-py, an extra

            self.queue = SimQueue(self.chance, self.disk, self.trace, self.options.latency_s)

    def _node(self, name: str) -> Node:
        self._nodes = [node for node in self._nodes if node.alive]
        node = Node(name, self.trace)
        self._nodes.append(node)
        return node

    def close(self) -> None:
        """Kill everything: nothing that is cancelled from here on counts."""
        for node in self._nodes:
            node.kill("at the end")

    # -- the server ------------------------------------------------------------------------------

    async def present(self) -> ServerLife:
        """Return the life of the server that takes requests; waits while there is none."""
        while True:
            life = self.server
            if life is not None and life.node.alive and life.up.is_set():
                return life
            await self._up.wait()

    async def keep_server(self) -> None:
        """Run one life of the server after another, for ever."""
        number = 0
        while True:
            number += 1
            life = self._make_server(f"server{number}")
            self.server = life
            self.trace.note(life.node.name, f"starts, clock {self.clock.offset_s:+.3f} s")
            self.nursery.start_soon(life.run)
            await life.up.wait()
            if life.node.alive:
                self._up.set()
            await life.ended.wait()
            self._up = trio.Event()
            self.server = None
            await trio.sleep(self.downtime_s)
            if self.lose_commits:
                self.disk.lose(self.lose_commits)
                self.lose_commits = 0

    def _make_server(self, name: str) -> ServerLife:
        node = self._node(name)
        rng = self.chance.of("storage")
        skew = self.options.skew_s
        offset_s = 0.0 if self.calm else self.chance.of("clock").uniform(-skew, skew)
        self.clock = SimClock(offset_s)
        storage = SimStorage(node, self.disk, self.weather, rng, self.options.latency_s)
        horizon_s = self.chance.of("settings").choice([1.0, 5.0, 60.0])
        runtime = WorkerlessRuntime(
            settings=runtime_settings(self.options, horizon_s),
            registry=self.registry,
            storage=storage,
            clock=self.clock,
            ids=self._ids,
            rng=self._rng,
            namespace="default",
        )
        if self.queue is not None:
            runtime.publisher = self.queue.publisher(runtime, node, self._ids, self._rng)
        return ServerLife(runtime, node, self.disk.report)

    # -- workers ---------------------------------------------------------------------------------

    async def keep_worker(self, index: int) -> None:
        """Run one life of a worker after another, for ever."""
        number = 0
        rng = self.chance.of(f"worker{index}")
        while True:
            server = await self.present()
            number += 1
            life = self._make_worker(f"worker{index}.{number}", server, rng)
            self.workers[index] = life
            self.trace.note(life.node.name, f"starts as {life.link.worker_id}")
            self.nursery.start_soon(self._run_worker, life, server)
            await life.over.wait()
            self.workers[index] = None
            if life.node.alive and life.link.open_here:
                await life.stopped.wait()
            await trio.sleep(rng.random() * (0.1 if self.calm else 3.0))

    def _make_worker(self, name: str, server: ServerLife, rng: random.Random) -> WorkerLife:
        node, worker_id = self._node(name), self._ids.worker_id()
        life = WorkerLife(
            node,
            self.registry,
            worker_settings(self.options),
            SimClock(self.chance.of("clock").uniform(-1, 1) * self.options.skew_s),
            self._ids,
            self._rng,
            WorkerHooks(self._invoke_of(node, worker_id), self.learn),
            random.Random(rng.random()),  # noqa: S311  (delays of restarts)
        )
        life.link = SimLink(
            worker_id,
            node,
            server,
            self,
            self.disk,
            self.nursery,
            self.registry,
            worker_settings(self.options),
            self.chance.of(f"{name}/link"),
            self.options.latency_s,
            Fault.LATE_DELIVERY in self.options.faults,
            life.lose_session,
        )
        if self.queue is not None:
            life.puller = self.queue.puller(life.link, life.clock, self._rng).consumer
        return life

    def _invoke_of(self, node: Node, worker_id: str) -> Invoke:
        async def invoke(
            task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any], proceed: Proceed
        ) -> Any:
            node.check()
            return await self.effects.invoke(node, worker_id, task, args, kwargs, proceed)

        return invoke

    def learn(self, workflow: AnyWorkflow) -> None:
        """Make a workflow known to everybody."""
        if workflow not in self.registry:
            self.registry.add(workflow)

    async def _run_worker(self, life: WorkerLife, server: ServerLife) -> None:
        link = life.link
        self.lives[life] = None
        async with trio.open_nursery() as watch:
            watch.start_soon(self._see_worker_end, life)
            watch.start_soon(self._see_server_end, life, server)
            await life.run()
            if life.node.alive and link.open_here:
                link.goodbye()
            if server.node.alive:
                # Whoever was killed sends no goodbye: the server waits for the grace.
                with trio.move_on_after(self.options.grace_s + NOTICE_MAX_S):
                    await link.ended_there.wait()
            link.close()
            watch.cancel_scope.cancel()
        del self.lives[life]

    def heal(self) -> None:
        """Let nothing fail from here on; who lost a session hears of it."""
        self.calm = True
        self.weather.errors = self.weather.unknown = self.weather.slow_s = 0.0
        self.effects.poison.clear()
        if self.queue is not None:
            self.queue.heal()
        for life in self.lives:
            life.link.up.block(blocked=False)
            life.link.down.block(blocked=False)
            if not life.link.open_there:
                life.link.end_at_worker()

    async def _see_worker_end(self, life: WorkerLife) -> None:
        """End the session of a worker that was killed when the grace is over."""
        await life.over.wait()
        if not life.node.alive:
            await trio.sleep(self.options.grace_s)
            life.link.end_at_server()

    async def _see_server_end(self, life: WorkerLife, server: ServerLife) -> None:
        """Let a worker notice, after a while, that its server is gone."""
        await server.ended.wait()
        life.link.end_at_server()
        await trio.sleep(NOTICE_MAX_S * self.chance.of("notice").random())
        life.link.end_at_worker()

    async def partition(self, life: WorkerLife, seconds: float, *, up: bool, down: bool) -> None:
        """Cut a link for a while; past the grace its session ends, at each side in its own time."""
        link, grace_s = life.link, self.options.grace_s
        which = "both ways" if up and down else "up" if up else "down"
        self.trace.note(life.node.name, f"cut off {which} for {seconds:.3f} s")
        if up:
            link.up.block(blocked=True)
        if down:
            link.down.block(blocked=True)
        with trio.move_on_after(min(seconds, grace_s)):
            await trio.sleep_forever()
        if seconds > grace_s:
            link.end_at_server()
            await trio.sleep(seconds - grace_s)
        link.up.block(blocked=False)
        link.down.block(blocked=False)
        if seconds > grace_s:
            # It hears that its session is gone as soon as it can speak with the server again.
            await trio.sleep(NOTICE_MAX_S * self.chance.of("notice").random())
            link.end_at_worker()
