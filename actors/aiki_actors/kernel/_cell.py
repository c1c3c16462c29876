"""The kernel's side of one actor: its mailbox, its task, its system messages.

The hot path is `_serve`: take a message from the deque, await the handler, and park when the deque
is empty. Everything rare (stop, death watch, suspension) raises the `attention` flag, which the
loop tests between two messages: this is how system messages overtake user messages.

Invariants:
    One handler at a time: only the cell's own task calls hooks.
    `current` is the message (or batch) being handled, or `_NOTHING` between two.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Never, TypeVar, TypeVarTuple, cast

import trio
from attrs import define, field
from typing_extensions import override

from aiki_actors.kernel._actor import Actor, BatchActor, StopReason, Terminated
from aiki_actors.kernel._context import ActorContext
from aiki_actors.kernel._dead_letters import DeadLetterReason
from aiki_actors.kernel._errors import ActorFailed, ActorStopped, KernelError, SpecError
from aiki_actors.kernel._failures import split_cancelled
from aiki_actors.kernel._mailbox import Mailbox
from aiki_actors.kernel._node import Node, Phase
from aiki_actors.kernel._refs import ActorRef
from aiki_actors.kernel._restarts import Restart
from aiki_actors.kernel._tree import TreeNode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiki_actors.kernel._specs import ChildSpec
    from aiki_actors.kernel._supervisor_node import SupervisorNode

M_contra = TypeVar("M_contra", contravariant=True)
Args = TypeVarTuple("Args")

_NOTHING: Final = object()
_NO_STOPPING: Final[object] = getattr(Actor, "stopping")  # noqa: B009 - of no certain message type
"""What an actor has that does not clean up: it needs no scope for that."""

TURN_MESSAGES_MAX = 64
"""Messages handled before the task lets others run, if its handlers never do so themselves."""


@define(eq=False)
class Cell(Node, Generic[M_contra]):
    """One actor, across its restarts."""

    spec: ChildSpec[M_contra]
    supervisor: SupervisorNode
    mailbox: Mailbox[M_contra] = field(init=False)
    _ref: ActorRef[M_contra] | None = field(default=None, init=False)
    _old_ref: weakref.ref[ActorRef[M_contra]] | None = field(default=None, init=False)
    actor: Actor[M_contra] | None = field(default=None, init=False)
    current: object = field(default=_NOTHING, init=False)
    attention: bool = field(default=False, init=False)
    suspended: bool = field(default=False, init=False)
    notices: deque[Terminated] | None = field(default=None, init=False)
    watching: dict[Cell[Never], None] | None = field(default=None, init=False)
    watchers: dict[Cell[Never], None] | None = field(default=None, init=False)
    backgrounds: dict[trio.CancelScope, None] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the parts that point back at the cell."""
        policy = self.spec.mailbox
        self.mailbox = Mailbox(self.path, policy, self.system.dead_letters, policy.capacity)
        self._ref = ActorRef(self.mailbox, self)

    @property
    def ref(self) -> ActorRef[M_contra]:
        """The actor's reference; of an ended actor only as long as somebody holds it.

        A cell that held the reference, which holds the cell, would be garbage only the collector
        finds; at thousands of actors a second that is most of what the collector has to do.
        """
        ref = self._ref
        if ref is None and self._old_ref is not None:
            ref = self._old_ref()
        if ref is None:
            ref = ActorRef(self.mailbox, self)
            self._old_ref = weakref.ref(ref)
        return ref

    # --- one incarnation ---

    @override
    async def live(self) -> None:
        actor = self.actor = self.spec.start()
        await actor.started(ActorContext(self))
        if self.phase is Phase.STARTING:
            self.phase = Phase.SUSPENDED if self.suspended else Phase.RUNNING
        self.supervisor.child_settled()
        if isinstance(actor, BatchActor):
            await self._serve_batches(actor)
        else:
            await self._serve(actor)

    async def _serve(self, actor: Actor[M_contra]) -> None:
        mailbox = self.mailbox
        items = mailbox.items
        handle = actor.handle
        task = trio.lowlevel.current_task()
        wait = trio.lowlevel.wait_task_rescheduled
        abort = mailbox.abort_wait
        turn = TURN_MESSAGES_MAX
        while True:
            if self.attention and await self._attend(actor):
                return
            if not items:
                turn = TURN_MESSAGES_MAX
                mailbox.waiter = task
                await wait(abort)
                continue
            if not turn:
                turn = TURN_MESSAGES_MAX
                await trio.lowlevel.checkpoint()
                continue
            turn -= 1
            message = self.current = items.popleft()
            if mailbox.senders:
                mailbox.admit_sender()
            await handle(message)
            self.current = _NOTHING

    async def _serve_batches(self, actor: BatchActor[M_contra]) -> None:
        mailbox = self.mailbox
        items = mailbox.items
        batch_max = actor.batch_max
        turn = TURN_MESSAGES_MAX
        while True:
            if self.attention and await self._attend(actor):
                return
            if not items:
                turn = TURN_MESSAGES_MAX
                await mailbox.park()
                continue
            if turn <= 0:
                turn = TURN_MESSAGES_MAX
                await trio.lowlevel.checkpoint()
                continue
            if len(items) == 1:
                batch = self.current = [items.popleft()]
            else:
                batch = self.current = [items.popleft() for _ in range(min(len(items), batch_max))]
            turn -= len(batch)
            if mailbox.senders:
                for _ in batch:
                    mailbox.admit_sender()
            await actor.handle_batch(batch)
            self.current = _NOTHING

    async def _attend(self, actor: Actor[M_contra]) -> bool:
        """Do the system's work before any message; say whether to stop serving."""
        while True:
            if self.stop_reason is not None:
                return True
            if self.notices:
                await actor.watched(self.notices.popleft())
            elif self.suspended:
                await self.mailbox.park()
            else:
                self.attention = False
                return False

    @override
    async def clean_up(self, reason: StopReason, error: BaseException | None) -> None:
        self._lose_current(reason, error)
        actor = self.actor
        if actor is not None:
            try:
                actor.ending()
            except Exception as exc:  # noqa: BLE001 - reported; the end goes on
                self.system.report(self.path, exc)
        if self.backgrounds:
            await self._end_backgrounds()
        self.actor = None
        late = self.stop_at_s <= trio.current_time() if self.stop_reason is not None else False
        if (
            actor is not None
            and not self.killed
            and reason is not StopReason.KILL
            and not late
            and type(actor).stopping is not _NO_STOPPING
        ):
            deadline = min(self.stop_at_s, trio.current_time() + self.spec.shutdown_s)
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                self.scope = scope
                try:
                    await actor.stopping(reason)
                except Exception as exc:  # noqa: BLE001 - reported; the end goes on
                    self.system.report(self.path, exc)
            self.scope = None
            if scope.cancelled_caught and not self.killed:
                self.system.warn_late(self.path, self.spec.shutdown_s)
        self._end_watches()

    def _lose_current(self, reason: StopReason, error: BaseException | None) -> None:
        current, self.current = self.current, _NOTHING
        if current is _NOTHING:
            return
        batched = isinstance(self.actor, BatchActor)
        messages = cast("list[object]", current) if batched else [current]
        for message in messages:
            lost: KernelError = (
                ActorFailed(self.path, error)
                if reason is StopReason.FAILURE and error is not None
                else ActorStopped(self.path)
            )
            self.mailbox.lose(message, DeadLetterReason.HANDLER_FAILED, lost)

    # --- system messages ---

    @override
    def wake(self) -> None:
        self.attention = True
        self.mailbox.wake()

    @override
    def close(self) -> None:
        self.closed = True
        self.mailbox.close()

    def suspend(self) -> None:
        """Handle no user message until `resume`."""
        self.suspended = True
        if self.phase is Phase.RUNNING:
            self.phase = Phase.SUSPENDED
        self.wake()

    def resume(self) -> None:
        """Handle user messages again."""
        self.suspended = False
        if self.phase is Phase.SUSPENDED:
            self.phase = Phase.RUNNING
        self.wake()

    def finish(self) -> None:
        """End by itself after the current hook."""
        if self.restart is not Restart.PERMANENT:
            self.close()
        if self.stop_reason is None:
            self.stop_reason = StopReason.FINISHED
        self.wake()

    def passivate(self) -> bool:
        """End by itself if nothing waits."""
        if self.restart is Restart.PERMANENT:
            raise SpecError(
                f"{self.path} cannot passivate: its restart is PERMANENT, so it would be started "
                "again at once; make it TRANSIENT or TEMPORARY"
            )
        if self.mailbox.items:
            return False
        self.finish()
        return True

    def watch(self, target: Cell[Never]) -> None:
        """Be told of the end of `target`."""
        if target.phase is Phase.STOPPED:
            reason, error = target.end or (StopReason.STOP, None)
            self.notify(Terminated(target.ref, reason, error))
            return
        if target.watchers is None:
            target.watchers = {}
        target.watchers[self] = None
        if self.watching is None:
            self.watching = {}
        self.watching[target] = None

    def unwatch(self, target: Cell[Never]) -> None:
        """Take `watch` back."""
        if target.watchers is not None:
            target.watchers.pop(self, None)
        if self.watching is not None:
            self.watching.pop(target, None)
        if self.notices:
            self.notices = deque(n for n in self.notices if n.ref is not target.ref)

    def notify(self, notice: Terminated) -> None:
        """Queue a notice for the actor's `watched` hook."""
        if self.notices is None:
            self.notices = deque()
        self.notices.append(notice)
        self.wake()

    def _end_watches(self) -> None:
        for target in self.watching or ():
            if target.watchers is not None:
                target.watchers.pop(self, None)
        self.watching = self.notices = None

    # --- background tasks ---

    def start_soon(self, async_fn: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        """Run `async_fn` beside the handler."""
        if self.scope is None or self.phase is Phase.STOPPING:
            raise ActorStopped(self.path)
        scope = trio.CancelScope()
        if self.backgrounds is None:
            self.backgrounds = {}
        self.backgrounds[scope] = None
        self.supervisor.open_nursery().start_soon(self._background, scope, async_fn, *args)

    async def _background(
        self,
        scope: trio.CancelScope,
        async_fn: Callable[[*Args], Awaitable[object]],
        *args: *Args,
    ) -> None:
        escape: BaseException | None = None
        try:
            with scope:
                await async_fn(*args)
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - what must go on is raised below
            error, escape = split_cancelled(exc)
            if error is not None:
                self.inject_failure(error)
        finally:
            assert self.backgrounds is not None
            del self.backgrounds[scope]
            if not self.backgrounds:
                self.mailbox.wake()
        if escape is not None:
            raise escape

    async def _end_backgrounds(self) -> None:
        """Cancel the background tasks and wait for them, even when cancelled."""
        if not self.backgrounds:
            return
        for scope in list(self.backgrounds):
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self.backgrounds:
                await self.mailbox.park()

    # --- the end ---

    @override
    def release(self, reason: StopReason, error: BaseException | None) -> None:
        self.system.registry.forget(self.ref)
        self._old_ref = weakref.ref(self.ref)
        if self.watchers:
            watchers, self.watchers = self.watchers, None
            notice = Terminated(self.ref, reason, error)
            for watcher in watchers:
                if watcher.watching is not None:
                    watcher.watching.pop(self, None)
                watcher.notify(notice)
        self._ref = None

    @override
    def face(self) -> ActorRef[M_contra]:
        return self.ref

    @override
    def snapshot(self) -> TreeNode:
        actor = self.actor
        kind = ""
        describe = ""
        if actor is not None:
            kind = actor.kind or type(actor).__name__
            try:
                describe = actor.describe()
            except Exception as exc:  # noqa: BLE001 - inspection must not fail
                describe = f"describe() failed: {exc!r}"
        return TreeNode(
            name=self.id,
            kind=kind,
            path=self.path,
            state=self.state,
            mailbox_depth=len(self.mailbox.items),
            restarts=self.restarts,
            describe=describe,
        )
