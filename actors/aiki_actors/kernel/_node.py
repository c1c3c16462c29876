"""What actors and supervisors have in common: one task, a place in the tree, an orderly end.

A node is *launched* into its supervisor's nursery, lives until it stops, fails, is killed or is
cancelled, cleans up, and then reports to its supervisor synchronously, so that the common end of a
temporary actor wakes nobody.

Invariants:
    `running` is true from the launch until the report; at most one task per node at a time.
    A node whose `closed` is true is never launched again by a restart.
    `finalise` happens once; afterwards `phase` is `STOPPED` for ever.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Never

import trio
from attrs import define, field

from aiki_actors.kernel._actor import StopReason
from aiki_actors.kernel._failures import split_cancelled
from aiki_actors.kernel._restarts import Restart

if TYPE_CHECKING:
    from aiki_actors.kernel._refs import ActorRef
    from aiki_actors.kernel._supervisor import Supervisor
    from aiki_actors.kernel._supervisor_node import SupervisorNode
    from aiki_actors.kernel._system import ActorSystem
    from aiki_actors.kernel._tree import TreeNode


class Phase(Enum):
    """Where a node is in its life."""

    WAITING = "waiting"
    """Not launched yet."""
    STARTING = "starting"
    """`started` has not returned yet."""
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    """It was asked to stop, or is cleaning up."""
    RESTARTING = "restarting"
    """Down, to be launched again."""
    STOPPED = "stopped"
    """Ended for good."""


@define(eq=False)
class Node(ABC):
    """One place in the supervision tree."""

    id: str
    path: str
    restart: Restart
    shutdown_s: float
    parent: SupervisorNode | None
    system: ActorSystem
    order: int = field(default=0, init=False)
    static: bool = field(default=False, init=False)
    phase: Phase = field(default=Phase.WAITING, init=False)
    running: bool = field(default=False, init=False)
    closed: bool = field(default=False, init=False)
    killed: bool = field(default=False, init=False)
    stop_reason: StopReason | None = field(default=None, init=False)
    stop_at_s: float = field(default=math.inf, init=False)
    scope: trio.CancelScope | None = field(default=None, init=False)
    injected: BaseException | None = field(default=None, init=False)
    task: trio.lowlevel.Task | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)
    restart_times: tuple[float, ...] = field(default=(), init=False)
    successor: Node | None = field(default=None, init=False)
    end: tuple[StopReason, BaseException | None] | None = field(default=None, init=False)
    _stopped: trio.Event | None = field(default=None, init=False)

    @abstractmethod
    async def live(self) -> None:
        """Start, serve, and return when asked to stop."""

    @abstractmethod
    async def clean_up(self, reason: StopReason, error: BaseException | None) -> None:
        """Do what is left to do after `live`, whatever its end; raises no `Exception`."""

    @abstractmethod
    def wake(self) -> None:
        """Make the task look at its system messages."""

    @abstractmethod
    def close(self) -> None:
        """Take nothing more in; idempotent."""

    @abstractmethod
    def release(self, reason: StopReason, error: BaseException | None) -> None:
        """Let go of everything, since the node has ended for good."""

    @abstractmethod
    def snapshot(self) -> TreeNode:
        """Return this node and what is under it, for inspection."""

    @abstractmethod
    def face(self) -> ActorRef[Never] | Supervisor:
        """Return the public handle."""

    @property
    def state(self) -> str:
        """The phase in one word, for inspection."""
        if self.running and self.stop_reason is not None:
            return Phase.STOPPING.value
        return self.phase.value

    def launch(self, nursery: trio.Nursery) -> None:
        """Start the task soon."""
        assert not self.running, f"{self.path} is running already"
        assert self.phase is not Phase.STOPPED, f"{self.path} has ended for good"
        self.running = True
        self.phase = Phase.STARTING
        self.stop_reason = None
        self.stop_at_s = math.inf
        self.injected = None
        nursery.start_soon(self.run, name=self.path)

    async def run(self) -> None:
        """Live, clean up, report; what is not an `Exception` goes on upward."""
        error: BaseException | None = None
        escape: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        scope = self.scope = trio.CancelScope(deadline=self.stop_at_s)
        try:
            with scope:
                if self.stop_reason is None and not self.killed:
                    await self.live()
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - what must go on is raised below
            error, escape = split_cancelled(exc)
        self.scope = None
        self.phase = Phase.STOPPING
        if self.injected is not None:
            if error is not None:
                self.system.report(self.path, error)
            error = self.injected
        reason = self._judge(scope, error, escape)
        try:
            await self.clean_up(reason, error)
        finally:
            self.task = None
            self.running = False
            self._report_end(reason, error)
        if escape is None and self.parent is None:
            # Nobody is above the root: its failure leaves through `open_system`.
            escape = error
        if escape is not None:
            raise escape

    def _judge(
        self, scope: trio.CancelScope, error: BaseException | None, escape: BaseException | None
    ) -> StopReason:
        """Name the reason of the end that just happened."""
        if self.killed:
            return StopReason.KILL
        if error is not None:
            return StopReason.FAILURE
        if escape is not None:
            return StopReason.CANCELLED
        if scope.cancelled_caught:
            self.system.warn_late(self.path, self.shutdown_s)
            return StopReason.RESTART if self.stop_reason is StopReason.RESTART else StopReason.KILL
        assert self.stop_reason is not None, f"{self.path} ended without a reason"
        return self.stop_reason

    def _report_end(self, reason: StopReason, error: BaseException | None) -> None:
        if error is not None:
            self.system.report(self.path, error)
        self.end = (reason, error)
        if self.parent is None:
            self.finalise(reason, error)
        else:
            self.parent.child_ended(self, reason, error)

    def request_stop(self, reason: StopReason) -> None:
        """Ask for an orderly end within `shutdown_s`; every reason but `RESTART` is for good."""
        if self.phase is Phase.STOPPED:
            return
        final = reason is not StopReason.RESTART
        if not self.running:
            if final:
                self.finalise(reason, None)
            return
        if self.stop_reason is None or final:
            self.stop_reason = reason
        if final:
            self.close()
        if self.shutdown_s == 0:
            self.cut()
        elif self.shutdown_s < math.inf:
            self.stop_at_s = min(self.stop_at_s, trio.current_time() + self.shutdown_s)
            if self.scope is not None:
                self.scope.deadline = min(self.scope.deadline, self.stop_at_s)
        self.wake()

    def cut(self) -> None:
        """Cancel what runs, now."""
        self.stop_at_s = -math.inf
        if self.scope is not None:
            self.scope.cancel()

    def stop(self) -> None:
        """End for good, in order."""
        self.request_stop(StopReason.STOP)

    def kill(self) -> None:
        """End for good at the next await."""
        if self.phase is Phase.STOPPED:
            return
        if not self.running:
            self.finalise(StopReason.KILL, None)
            return
        self.killed = True
        self.close()
        self.cut()

    def inject_failure(self, error: BaseException) -> None:
        """Fail with `error` as if a hook had raised it; if it is too late for that, report it."""
        if self.scope is None or self.injected is not None or self.phase is Phase.STOPPING:
            self.system.report(self.path, error)
            return
        self.injected = error
        self.scope.cancel()

    def finalise(self, reason: StopReason, error: BaseException | None) -> None:
        """End for good: nothing under this name runs or will run again. Idempotent."""
        if self.phase is Phase.STOPPED:
            return
        assert not self.running, f"{self.path} is still running"
        self.phase = Phase.STOPPED
        self.end = (reason, error)
        self.close()
        self.release(reason, error)
        if self._stopped is not None:
            self._stopped.set()
        if self.parent is not None:
            self.parent.forget(self)

    async def wait_stopped(self) -> None:
        """Wait for the end for good."""
        if self.phase is Phase.STOPPED:
            await trio.lowlevel.checkpoint()
            return
        if self._stopped is None:
            self._stopped = trio.Event()
        await self._stopped.wait()
