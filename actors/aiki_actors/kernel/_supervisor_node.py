"""Supervisors: start children in order, restart them by strategy, stop them in order, or give up.

A supervisor's task owns the nursery of its children's tasks. Children report their end to
`child_ended`, synchronously and from their own task; only an end that needs a decision wakes the
supervisor's task. Decisions are taken one at a time.

Invariants:
    Static children start left to right, each after the one before has started (or failed to).
    They stop right to left, dynamic children before them and side by side.
    At most one node per id runs; a successor is launched when its predecessor has ended.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar, cast

import trio
from attrs import define, field
from typing_extensions import override

from aiki_actors.kernel._actor import StopReason
from aiki_actors.kernel._cell import Cell
from aiki_actors.kernel._errors import ActorStopped, NameTaken, SupervisorFailed
from aiki_actors.kernel._node import Node, Phase
from aiki_actors.kernel._restarts import Restart, Strategy, add_restart
from aiki_actors.kernel._specs import ChildSpec, SupervisorSpec
from aiki_actors.kernel._supervisor import Supervisor
from aiki_actors.kernel._tree import TreeNode

if TYPE_CHECKING:
    from typing import Never

M_contra = TypeVar("M_contra", contravariant=True)


@define(eq=False)
class SupervisorNode(Node):
    """The kernel's side of one supervisor, across its restarts."""

    spec: SupervisorSpec
    handle: Supervisor = field(init=False)
    children: dict[str, Node] = field(factory=lambda: dict[str, Node](), init=False)
    leaving: dict[str, Node] = field(factory=lambda: dict[str, Node](), init=False)
    events: deque[tuple[Node, BaseException | None]] = field(
        factory=lambda: deque[tuple[Node, BaseException | None]](), init=False
    )
    causes: deque[BaseException] = field(init=False)
    window: tuple[float, ...] = field(default=(), init=False)
    nursery: trio.Nursery | None = field(default=None, init=False)
    waiter: trio.lowlevel.Task | None = field(default=None, init=False)
    attentive: bool = field(default=False, init=False)
    stopping: bool = field(default=False, init=False)
    next_order: int = field(default=0, init=False)
    lived: bool = field(default=False, init=False)
    ready: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the handle and the static children, so that their refs exist at once."""
        self.handle = Supervisor(self)
        self.causes = deque(maxlen=self.spec.intensity + 1)
        self.next_order = len(self.spec.children)
        self._make_static_children()

    def _make_static_children(self) -> None:
        """Make the nodes of static children that are missing, and keep `children` in order."""
        for order, spec in enumerate(self.spec.children):
            if spec.id not in self.children:
                node = self._make(spec)
                node.order = order
                node.static = True
                self.children[spec.id] = node
        in_order = sorted(self.children.values(), key=lambda node: node.order)
        self.children = {node.id: node for node in in_order}

    def _make(self, spec: ChildSpec[Never] | SupervisorSpec) -> Node:
        if isinstance(spec, SupervisorSpec):
            return self._make_supervisor(spec)
        return self._make_cell(spec)

    def _make_cell(self, spec: ChildSpec[M_contra]) -> Cell[M_contra]:
        path = f"{self.path}/{spec.id}"
        return Cell(spec.id, path, spec.restart, spec.shutdown_s, self, self.system, spec, self)

    def _make_supervisor(self, spec: SupervisorSpec) -> SupervisorNode:
        path = f"{self.path}/{spec.id}"
        return SupervisorNode(spec.id, path, spec.restart, spec.shutdown_s, self, self.system, spec)

    # --- called by users, through the handle ---

    def start_cell(self, spec: ChildSpec[M_contra]) -> Cell[M_contra]:
        """Add an actor as a dynamic child, and launch it as soon as it can be."""
        self._check_room_for(spec.id)
        cell = self._make_cell(spec)
        self._adopt(cell)
        return cell

    def start_supervisor(self, spec: SupervisorSpec) -> SupervisorNode:
        """Add a supervisor as a dynamic child, and launch it as soon as it can be."""
        self._check_room_for(spec.id)
        node = self._make_supervisor(spec)
        self._adopt(node)
        return node

    def _check_room_for(self, child_id: str) -> None:
        if self.stopping or self.closed:
            raise ActorStopped(self.path)
        old = self.children.get(child_id)
        if old is not None and not old.closed:
            raise NameTaken(f"{self.path} has a child {child_id!r} already; choose another id")

    def _adopt(self, node: Node) -> None:
        old = self.children.get(node.id)
        if old is not None:
            assert node.id not in self.leaving, "two nodes of one id were running"
            self.leaving[node.id] = old
        node.order = self.next_order
        self.next_order += 1
        self.children[node.id] = node
        predecessor = self.leaving.get(node.id)
        if predecessor is not None:
            predecessor.successor = node
        elif self.nursery is not None:
            node.launch(self.nursery)

    def cell_of(self, spec: ChildSpec[M_contra]) -> Cell[M_contra] | None:
        """Return the child that was made from this very `spec`."""
        node = self.children.get(spec.id)
        if isinstance(node, Cell):
            cell = cast("Cell[M_contra]", node)
            return cell if cell.spec is spec else None
        return None

    def open_nursery(self) -> trio.Nursery:
        """Return the nursery for the background tasks of a running child."""
        assert self.nursery is not None, "a running child has a running supervisor"
        return self.nursery

    # --- called by children ---

    def child_settled(self) -> None:
        """Hear that a child has started."""
        if self.attentive:
            self.wake()

    def child_ended(self, node: Node, reason: StopReason, error: BaseException | None) -> None:
        """Hear that a child's task is over, and decide at once what needs no waiting."""
        if not self._comes_back(node, reason):
            node.finalise(reason, error)
        else:
            node.phase = Phase.RESTARTING
            if reason is not StopReason.RESTART and not self.stopping:
                self.events.append((node, error))
                self.wake()
        if self.attentive:
            self.wake()

    def _comes_back(self, node: Node, reason: StopReason) -> bool:
        """Say whether a child whose task is over will be launched again."""
        if node.closed or reason is StopReason.KILL:
            return False
        if reason is StopReason.CANCELLED:
            return self.stop_reason is StopReason.RESTART and node.static
        if node.stop_reason is StopReason.RESTART:
            return node.static or node.restart is not Restart.TEMPORARY
        if node.restart is Restart.TRANSIENT:
            return reason is StopReason.FAILURE
        return node.restart is Restart.PERMANENT

    def forget(self, node: Node) -> None:
        """Drop a child that ended for good, and launch its successor if it has one."""
        if self.children.get(node.id) is node:
            del self.children[node.id]
        elif self.leaving.get(node.id) is node:
            del self.leaving[node.id]
        successor = node.successor
        # A supervisor that stops has ended all successors before it waits for their predecessors.
        if successor is not None and successor.phase is Phase.WAITING and self.nursery is not None:
            successor.launch(self.nursery)

    # --- the supervisor's own task ---

    @override
    async def live(self) -> None:
        failure: SupervisorFailed | None = None
        self.window = ()
        self.events.clear()
        self.stopping = False
        if self.lived:
            # A fresh incarnation begins with all its static children, those that ended included.
            self._make_static_children()
        self.lived = True
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            try:
                await self._start_in_order(list(self.children.values()))
                if self.phase is Phase.STARTING:
                    self.phase = Phase.RUNNING
                self.ready.set()
                if self.parent is not None:
                    self.parent.child_settled()
                while self.stop_reason is None:
                    if self.events:
                        await self._recover(*self.events.popleft())
                    else:
                        await self._park()
            except SupervisorFailed as exc:
                failure = exc
            await self._stop_children(keep_static=self._may_come_back(failure))
            nursery.cancel_scope.cancel()
        self.nursery = None
        if failure is not None:
            raise failure

    def _may_come_back(self, failure: SupervisorFailed | None) -> bool:
        if self.parent is None or self.closed:
            return False
        if failure is not None:
            return self.restart is not Restart.TEMPORARY
        return self.stop_reason is StopReason.RESTART

    async def _start_in_order(self, nodes: list[Node]) -> None:
        """Launch `nodes` left to right; a static one has started before the next is launched."""
        self.attentive = True
        for node in nodes:
            if node.phase is Phase.STOPPED or node.running or node.id in self.leaving:
                continue
            if self.stop_reason is not None:
                break
            node.launch(self.open_nursery())
            while node.static and node.phase is Phase.STARTING and self.stop_reason is None:
                await self._park()
        self.attentive = False

    async def _recover(self, node: Node, error: BaseException | None) -> None:
        """Restart what the strategy says because of one child's end, or give up."""
        if node.phase is not Phase.RESTARTING or node.running:
            return
        now_s = trio.current_time()
        if error is not None:
            self.causes.append(error)
        period_s = self.spec.period_s
        self.window = add_restart(self.window, now_s, period_s)
        if len(self.window) > self.spec.intensity:
            raise SupervisorFailed(self.path, self.spec.intensity, period_s, tuple(self.causes))
        node.restart_times = add_restart(node.restart_times, now_s, period_s)
        delay_s = self.spec.backoff.delay_s(len(node.restart_times), self.system.rng)
        node.restarts += 1
        if self.spec.strategy is not Strategy.ONE_FOR_ONE:
            await self._restart_group(node, delay_s)
        elif delay_s > 0:
            self.open_nursery().start_soon(self._launch_later, node, delay_s)
        else:
            node.launch(self.open_nursery())

    async def _launch_later(self, node: Node, delay_s: float) -> None:
        await trio.sleep(delay_s)
        if node.phase is Phase.RESTARTING and not node.running and not self.stopping:
            node.launch(self.open_nursery())

    async def _restart_group(self, failed: Node, delay_s: float) -> None:
        """Stop the affected children right to left, wait, start them left to right."""
        everyone = self.spec.strategy is Strategy.ONE_FOR_ALL
        group = [n for n in self.children.values() if everyone or n.order >= failed.order]
        self.attentive = True
        for node in reversed(group):
            if node.running:
                node.request_stop(
                    StopReason.STOP if node.restart is Restart.TEMPORARY else StopReason.RESTART
                )
                while node.running:
                    await self._park()
        with trio.move_on_after(delay_s):
            while delay_s > 0 and self.stop_reason is None:
                await self._park()
        self.attentive = False
        for node in group:
            if node is not failed and node.phase is Phase.RESTARTING:
                node.restarts += 1
        # Ends noted meanwhile are answered by this restart: `_recover` skips whoever runs.
        await self._start_in_order([n for n in group if n.phase is Phase.RESTARTING])

    async def _stop_children(self, *, keep_static: bool) -> None:
        """Stop everything: dynamic children side by side, then static ones right to left."""
        self.stopping = True
        self.attentive = True
        nodes = sorted(
            [*self.children.values(), *self.leaving.values()], key=lambda node: -node.order
        )
        dynamic = [node for node in nodes if not node.static]
        for node in dynamic:
            node.request_stop(StopReason.STOP)
        for node in dynamic:
            while node.running:
                await self._park()
        for node in nodes:
            if node.static:
                node.request_stop(StopReason.RESTART if keep_static else StopReason.STOP)
                while node.running:
                    await self._park()
        self.attentive = False

    async def _park(self) -> None:
        self.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_park)

    def _abort_park(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    @override
    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            trio.lowlevel.reschedule(waiter)

    @override
    def close(self) -> None:
        self.closed = True

    @override
    async def clean_up(self, reason: StopReason, error: BaseException | None) -> None:
        self.nursery = None
        self.attentive = False
        # Between two incarnations children are admitted; they are launched by the next one.
        self.stopping = False

    @override
    def face(self) -> Supervisor:
        return self.handle

    @override
    def release(self, reason: StopReason, error: BaseException | None) -> None:
        for node in [*self.children.values(), *self.leaving.values()]:
            node.finalise(reason, error)

    @override
    def snapshot(self) -> TreeNode:
        return TreeNode(
            name=self.id,
            kind="supervisor",
            path=self.path,
            state=self.state,
            mailbox_depth=0,
            restarts=self.restarts,
            describe=self.spec.strategy.value,
            children=tuple(node.snapshot() for node in self.children.values()),
        )
