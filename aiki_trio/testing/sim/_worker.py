"""A worker of a simulation: one life after another, each with an id and a session of its own.

A life is the product's own tree (subscriber and executors) on a link. It ends when it is killed,
when it is stopped in order, or when it hears that its session has ended; the next one begins after
a while, when a server is there.
"""

from __future__ import annotations

import random
from typing import Final, Never

import trio
from attrs import define, field

from aiki_actors.kernel import ActorSystem, ChildSpec, Strategy, SupervisorSpec, open_system
from aiki_actors.queue import Loop, LoopActor
from aiki_actors.worker import Subscriber, WorkerHooks, WorkerSettings, executors_spec
from aiki_sdk import Clock, Ids, Rng, WorkflowRegistry

from ._link import SimLink
from ._node import Node, NodeDead

DRAIN_S: Final = 5.0
LATE_S: Final = 1.0


@define(eq=False)
class WorkerLife:
    """A worker that runs, or has ended.

    Attributes:
        puller: takes runs from a queue; None: there is none.
        over: set when it is to end.
        stopped: set when nothing of it runs any more.

    """

    node: Node
    registry: WorkflowRegistry
    settings: WorkerSettings
    clock: Clock
    ids: Ids
    rng: Rng
    hooks: WorkerHooks
    restarts: random.Random
    link: SimLink = field(init=False)
    puller: Loop | None = field(default=None, init=False)
    over: trio.Event = field(factory=trio.Event, init=False)
    stopped: trio.Event = field(factory=trio.Event, init=False)
    _system: ActorSystem | None = field(default=None, init=False)
    _orderly: bool = field(default=False, init=False)
    _asked_at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        """Be there to be killed."""
        self.node.on_kill.append(self._die)

    async def run(self) -> None:
        """Run until it is over."""
        try:
            async with open_system(self.node.name, self._spec(), rng=self.restarts) as system:
                self._system = system
                await self.over.wait()
                if not self._orderly:
                    system.root.kill()
            self._check_stop()
        except* (Exception, NodeDead):
            if self.node.alive and self.link.open_here:
                raise
        finally:
            self.over.set()
            self.stopped.set()

    def _spec(self) -> SupervisorSpec:
        def subscriber() -> Subscriber:
            made = Subscriber(
                self.link.worker_id,
                self.registry,
                self.settings,
                self.link,
                self.clock,
                self.ids,
                self.rng,
                "executors" if self.puller is None else "worker/executors",
                self.hooks,
            )
            self.link.inbox = made
            return made

        puller = self.puller
        worker = SupervisorSpec(
            id=self.node.name if puller is None else "worker",
            strategy=Strategy.ONE_FOR_ALL,
            children=(
                executors_spec(self.settings),
                ChildSpec("subscriber", subscriber, shutdown_s=self.grace_s),
            ),
        )
        if puller is None:
            return worker
        pulls: ChildSpec[Never] = ChildSpec("puller", lambda: LoopActor(puller))
        return SupervisorSpec(id=self.node.name, children=(worker, pulls))

    def _check_stop(self) -> None:
        """P12: a stop that nothing came in between of has ended in time."""
        took_s = trio.current_time() - self._asked_at
        if self._orderly and self.node.alive and took_s > self.grace_s + LATE_S:
            self.link.disk.report("P12", f"{self.node.name} took {took_s:.1f} s to stop in order")

    @property
    def grace_s(self) -> float:
        """How long it may take to stop."""
        return self.settings.shutdown_grace_s + DRAIN_S

    def _die(self) -> None:
        self.link.worker_died()
        self._cut()

    def lose_session(self) -> None:
        """Drop every run: the server does not know this worker any more."""
        self._cut()

    def _cut(self) -> None:
        self._orderly = False
        self.over.set()
        if self._system is not None:
            self._system.root.kill()

    def stop(self) -> None:
        """End in order: running tasks end within the grace, runs are given back."""
        if not self.over.is_set():
            self._orderly, self._asked_at = True, trio.current_time()
            self.over.set()
