"""The server of a simulation: one life of it after another, on one disk.

A life is the product's own `Runtime`, without a worker of its own, on a storage and a clock that
belong to the simulation. When it is killed the next one begins after a while, maybe with a clock
that is off, maybe on a disk that has lost its last commits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, cast

import trio
from attrs import define, field

from aiki_actors.engine import EngineLimits
from aiki_actors.kernel import ActorSystem, ChildSpec
from aiki_actors.queue import Loop, LoopActor
from aiki_actors.server import KeeperSettings, ServerClientPort, TimerSettings
from aiki_actors.worker import WorkerSettings
from aiki_trio._runtime import Runtime, running
from aiki_trio._settings import RuntimeSettings
from aiki_trio.testing._life import Caller

from ._node import Node, NodeDead
from ._options import SimOptions

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""What time it is when a simulation begins."""

STOP_MAX_S: Final = 31.0
"""Its parts stop one after another, and each may take five seconds; one second more."""

FOREVER: Final = timedelta(days=365_000)


@define(eq=False)
class SimClock:
    """A node's clock: the simulation's time, and an error of its own.

    Attributes:
        offset_s: how far the wall clock is from the time of the simulation.

    """

    offset_s: float = 0.0

    def now(self) -> datetime:
        """Return the wall time."""
        return EPOCH + timedelta(seconds=trio.current_time() + self.offset_s)

    def monotonic(self) -> float:
        """Return the simulation's time, in seconds."""
        return trio.current_time()


@define(eq=False)
class WorkerlessRuntime(Runtime):
    """A server: its registry says what may be started, and its workers are elsewhere."""

    publisher: Loop | None = field(default=None, init=False)
    """Puts ready runs into a queue; None: there is none."""
    _ports: dict[str, ServerClientPort] = field(
        factory=lambda: dict[str, ServerClientPort](), init=False
    )

    def start_worker(self) -> None:
        """Start none."""

    def start(self, system: ActorSystem) -> None:
        """Start what works on top of storage, hub and runs, and what publishes."""
        Runtime.start(self, system)
        publisher = self.publisher
        if publisher is not None:
            system.root.start_child(ChildSpec("publisher", lambda: LoopActor(publisher)))

    def port_for(self, namespace: str) -> ServerClientPort:
        """Return what a client of a namespace speaks to, the same one every time."""
        port = self._ports.get(namespace)
        if port is None:
            port = self._ports[namespace] = Runtime.port_for(self, namespace)
        return port


@define(eq=False)
class SimCaller(Caller):
    """A block that asks a server; it ends without an error when that server is killed."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Ask no more; that the server is dead is no error of who asked."""
        if error is not None and _only_dead(error):
            Caller.__exit__(self, None, None, None)
            return True
        return Caller.__exit__(self, kind, error, traceback)


def _only_dead(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(NodeDead)[1] is None
    return isinstance(error, NodeDead)


@define(eq=False)
class ServerLife:
    """A server that runs, or was killed.

    Attributes:
        report: hears of broken promises.
        ended: set when it was killed, or has ended.
        stopped: set when nothing of it runs any more.

    """

    runtime: Runtime
    node: Node
    report: Callable[[str, str], None]
    up: trio.Event = field(factory=trio.Event, init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)
    stopped: trio.Event = field(factory=trio.Event, init=False)
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _leave: trio.Event = field(factory=trio.Event, init=False)
    _left_at: float = field(default=0.0, init=False)
    _callers: dict[trio.CancelScope, None] = field(
        factory=lambda: dict[trio.CancelScope, None](), init=False
    )

    def __attrs_post_init__(self) -> None:
        """Be there to be killed."""
        self.node.on_kill.append(self._die)

    async def run(self) -> None:
        """Run until killed, or told to end."""
        try:
            async with running(self.runtime):
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self.up.set()
                    if self.node.alive:
                        await self._leave.wait()
                    nursery.cancel_scope.cancel()
                self._nursery = None
            self._check_stop()
        except* (Exception, NodeDead):
            if self.node.alive:
                raise
        finally:
            self._nursery = None
            self.stopped.set()

    def stop(self) -> None:
        """End in order, as in a deployment."""
        if not self._leave.is_set():
            self._left_at = trio.current_time()
            self._leave.set()

    def _check_stop(self) -> None:
        """P12: it has ended in time. Nothing that it does counts from here on."""
        if not self.node.alive:
            return
        took_s = trio.current_time() - self._left_at
        if took_s > STOP_MAX_S:
            self.report("P12", f"{self.node.name} took {took_s:.1f} s to stop in order")
        self.node.retire()
        self.ended.set()

    def _die(self) -> None:
        self.ended.set()
        for scope in list(self._callers):
            scope.cancel()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        if self.up.is_set():
            self.runtime.system.root.kill()

    def serve(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something in this server's own time; it ends with the server."""
        if self._nursery is not None and self.node.alive:
            self._nursery.start_soon(self._serve, act)

    async def _serve(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except NodeDead:
            return

    def caller(self) -> Caller:
        """Return a block that ends early, without an error, when this life is killed."""
        return SimCaller(self._callers, not self.node.alive)


def worker_settings(options: SimOptions) -> WorkerSettings:
    """Return the settings of every worker."""
    return WorkerSettings(
        runs_max=options.slots,
        warm_max=options.warm,
        heartbeat_record_s=1.0,
        shutdown_grace_s=10.0,
    )


def runtime_settings(options: SimOptions, horizon_s: float) -> RuntimeSettings:
    """Return the settings of every server."""
    clock_check = timedelta(seconds=1) if options.skew_s else None
    return RuntimeSettings(
        limits=EngineLimits(claims_lost_max=options.claims_lost_max),
        worker=worker_settings(options),
        keeper=KeeperSettings(
            sweep_s=options.sweep_s,
            retention=None,
            own_retention=False,
            undelivered_max=FOREVER,
        ),
        timers=TimerSettings(
            horizon=timedelta(seconds=horizon_s),
            clock_check=clock_check,
            coalesce=timedelta(0),
        ),
        blocked_after=None,
        collect_after=None,
    )
