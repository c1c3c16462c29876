"""The link between one worker and one server: both sides' port, with a network in between.

It stands for a worker session: in either direction messages arrive in order and once, however long
they were held up, until the session ends. It ends at each side by itself: when the other process
is gone, or the connection was away for longer than the grace. A worker whose session has ended at
the server, and that does not know it yet, is a zombie: it goes on executing, and what it says
arrives late, or twice, or never. A claim is all that the server has against that.

Invariants: nothing of a dead process passes; whatever the server says is durable when it says it;
what a worker was allowed to write stands in the journal under its own claim.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.server import Do, Session
from aiki_actors.worker import Assignment, WorkerInbox, WorkerSettings
from aiki_sdk import AikiError, JsonValue, StaleClaim, Unavailable, WorkflowRegistry

from ._channel import Answer, Channel
from ._disk import Disk, short
from ._node import Node, NodeDead

if TYPE_CHECKING:
    from ._puller import Puller
    from ._server import ServerLife

LATE_MAX_S: Final = 30.0
REMEMBERED: Final = 3
"""Words of a worker that may arrive once more after its session has ended."""


class Servers(Protocol):
    """Where late words go: to whichever server is there by then."""

    @property
    def server(self) -> ServerLife | None:
        """The server's present life."""
        ...


@define(eq=False)
class SimLink:
    """One session: `ServerPort` for the worker, inbox for the server.

    Attributes:
        late: whether words of a zombie may arrive late and twice.
        on_end: hears that the session has ended at the worker's side.
        puller: what takes runs from the queue for the worker; None: it is handed all of them.

    """

    worker_id: str
    node: Node
    life: ServerLife
    servers: Servers
    disk: Disk
    nursery: trio.Nursery
    registry: WorkflowRegistry
    settings: WorkerSettings
    rng: random.Random
    latency_s: float
    late: bool
    on_end: Callable[[], None]
    inbox: WorkerInbox = field(init=False)
    puller: Puller | None = field(default=None, init=False)
    up: Channel = field(init=False)
    down: Channel = field(init=False)
    open_here: bool = field(default=True, init=False)
    open_there: bool = field(default=True, init=False)
    ended_there: trio.Event = field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _waiting: dict[Answer, None] = field(factory=lambda: dict[Answer, None](), init=False)
    _said: deque[Callable[[], None]] = field(
        factory=lambda: deque[Callable[[], None]](maxlen=REMEMBERED), init=False
    )

    def __attrs_post_init__(self) -> None:
        """Begin to carry."""
        self.up = Channel(self.rng, self.latency_s)
        self.down = Channel(self.rng, self.latency_s)
        self.nursery.start_soon(self._pump)

    async def _pump(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.up.pump)
                nursery.start_soon(self.down.pump)

    def close(self) -> None:
        """Carry nothing any more."""
        self.end_at_server()
        self._scope.cancel()

    # -- how it ends -----------------------------------------------------------------------------

    def end_at_server(self) -> None:
        """Forget the session at the server; what the worker says from here on comes too late."""
        if not self.open_there:
            return
        self.open_there = False
        self.ended_there.set()
        self.disk.trace.note(self.node.name, "its session ended at the server")
        if self.life.node.alive:
            self.life.runtime.dispatcher.leave(self.worker_id)
        said = (*self._said, *self.up.take_all())
        if self.late:
            for act in said:
                if self.rng.random() < 0.5:
                    self._say_late(act)

    def _say_late(self, act: Callable[[], None]) -> None:
        async def late() -> None:
            await trio.sleep(LATE_MAX_S * self.rng.random() ** 2)
            act()

        self.nursery.start_soon(late)

    def end_at_worker(self) -> None:
        """Let the worker know that its session has ended."""
        if not self.open_here:
            return
        self.open_here = False
        self._answer_all(StaleClaim(f"the session of worker {self.worker_id} has ended"))
        self.on_end()

    def worker_died(self) -> None:
        """Hear that the worker was killed."""
        self.open_here = False
        self._answer_all(NodeDead(self.node.name))

    def _answer_all(self, error: BaseException) -> None:
        for answer in list(self._waiting):
            answer.give(error=error)

    # -- what the worker says (aiki_actors.worker.ServerPort) -------------------------------------

    async def submit(
        self, run_id: str, commands: tuple[e.WorkerCommand, ...]
    ) -> tuple[e.Entry, ...]:
        """Carry commands to the server, and what became of them back."""
        self.node.check()
        if not self.open_here:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise StaleClaim(f"the session of worker {self.worker_id} has ended")
        try:
            entries = await self._call(lambda answer: self._submit(run_id, commands, answer))
        except StaleClaim:
            if self.puller is not None:
                self.puller.refused(run_id, commands)
            raise
        if self.puller is not None:
            self.puller.heard(run_id, entries)
        return entries

    async def reclaim(self, run_id: str) -> None:
        """Ask for the claim of a parked run."""
        self.node.check()
        if self.open_here:
            await self._call(lambda answer: self._reclaim(run_id, answer))

    async def ask(self, act: Callable[[ServerLife, Answer], None]) -> None:
        """Have the session's own server do something that has an answer.

        Raises:
            AikiError: what the server says, or `Unavailable`, because the session has ended.

        """
        self.node.check()

        def arrive(answer: Answer) -> None:
            if self.open_there and self.life.node.alive:
                act(self.life, answer)

        try:
            if self.open_here:
                await self._call(arrive)
                return
        except StaleClaim:
            self.node.check()
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise Unavailable(f"the session of worker {self.worker_id} has ended")

    async def _call(self, act: Callable[[Answer], None]) -> tuple[e.Entry, ...]:
        answer = Answer()
        self._waiting[answer] = None

        def arrive() -> None:
            act(answer)

        self._say(arrive, again=True)
        try:
            entries = await answer.wait()
        finally:
            del self._waiting[answer]
        self.node.check()
        return entries

    def _say(self, act: Callable[[], None], *, again: bool = False) -> None:
        if again and self.late:
            self._said.append(act)
        if self.open_there:
            self.up.put(act)
        elif self.late and again:
            self._say_late(act)

    def tell(self, act: Callable[[ServerLife], None]) -> None:
        """Send what has no answer, and means nothing after the session's end."""
        if not (self.node.alive and self.open_here):
            return

        def arrive() -> None:
            if self.open_there and self.life.node.alive:
                act(self.life)

        self.up.put(arrive)

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Say that an execution broke down."""
        self.tell(lambda life: _tell_lost(life, run_id, epoch, reason))

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show something."""
        self.tell(lambda life: life.runtime.runs.show(run_id, kind, body))

    def dropped(self, run_id: str) -> None:
        """Say that a run is not kept warm any more."""
        self.tell(lambda life: life.runtime.dispatcher.forget_warm(run_id))

    def join(self) -> None:
        """Take runs from now on."""
        if self.puller is not None:
            self.puller.join()
        self.tell(lambda life: self._join(life, self.settings.runs_max))

    def leave(self) -> None:
        """Take no more runs; those that are here go on under their claims."""
        if self.puller is not None:
            self.puller.leave()
        self.tell(lambda life: self._join(life, 0))

    def _join(self, life: ServerLife, slots: int) -> None:
        life.runtime.dispatcher.join(
            Session(self.worker_id, self),
            frozenset((workflow.name, workflow.version) for workflow in self.registry),
            frozenset(self.settings.pools),
            slots,
            life.runtime.namespace,
        )

    def goodbye(self) -> None:
        """End the session in order, after all that was said."""
        self.up.put(self.end_at_server)

    # -- at the server ----------------------------------------------------------------------------

    def _server(self) -> ServerLife | None:
        """Return the server that hears a word now: the session's own, or whichever is there."""
        life = self.life if self.open_there else self.servers.server
        return life if life is not None and life.node.alive else None

    def _submit(self, run_id: str, commands: tuple[e.WorkerCommand, ...], answer: Answer) -> None:
        life = self._server()
        if life is None:
            return

        async def carry_out() -> None:
            try:
                entries = await life.runtime.runs.submit(run_id, commands)
            except AikiError as error:
                self.reply(life, answer, error=error)
                return
            if life.node.alive:
                self._check_written(run_id, commands, entries)
                self.reply(life, answer, entries)

        life.serve(carry_out)

    def _reclaim(self, run_id: str, answer: Answer) -> None:
        life = self._server()
        if life is None or not self.open_there:
            return

        async def carry_out() -> None:
            try:
                await life.runtime.runs.do(run_id, e.UnparkRun())
            except AikiError as error:
                self.reply(life, answer, error=error)
                return
            self.reply(life, answer)

        life.serve(carry_out)

    def reply(
        self,
        life: ServerLife,
        answer: Answer,
        entries: tuple[e.Entry, ...] = (),
        error: AikiError | None = None,
    ) -> None:
        """Answer, if the session is still there."""
        if life.node.alive and self.open_there:
            self.down.put(lambda: answer.give(entries, error))

    def _check_written(
        self, run_id: str, commands: tuple[e.WorkerCommand, ...], entries: tuple[e.Entry, ...]
    ) -> None:
        self._check_durable("acknowledged", run_id, entries)
        oracle = self.disk.oracles.get(run_id)
        if not entries or oracle is None or entries[0].seq > len(oracle.claims):
            return
        held = oracle.claims[entries[0].seq - 1]
        for command in commands:
            if command.claim != held:
                self.disk.report(
                    "P3",
                    f"run {run_id}: worker {self.node.name} wrote entry {entries[0].seq} under "
                    f"{command.claim}, and {held} was in force",
                )

    def _check_durable(self, what: str, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        if not self.disk.durable(run_id, entries):
            seqs = [entry.seq for entry in entries]
            self.disk.report("P10", f"run {run_id}: entries {seqs} were {what}, and not durable")

    # -- what the server says (aiki_actors.server.Inbox) ------------------------------------------

    def assign(self, run_id: str, claim: e.ClaimRef, entries: tuple[e.Entry, ...]) -> None:
        """Have a run executed."""
        if self.life.node.alive and self.open_there:
            self._check_durable("dispatched", run_id, entries)
            assignment = Assignment(run_id, claim, entries)
            self._hand(f"{short(run_id)} assigned", lambda: self._take(assignment))

    def push(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        """Tell the worker what happened to a run."""
        if self.life.node.alive and self.open_there:
            self._check_durable("pushed", run_id, entries)
            self._hand(f"{short(run_id)} pushed", lambda: self._hear(run_id, entries))

    def cool(self, run_id: str) -> None:
        """Tell the worker not to keep a parked run warm any more."""
        if self.life.node.alive and self.open_there:
            self._hand(f"{short(run_id)} is cold", lambda: self.inbox.cool(run_id))

    def _take(self, assignment: Assignment) -> None:
        if self.puller is not None:
            self.puller.assigned(assignment)
        self.inbox.assign(assignment)

    def _hear(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        if self.puller is not None:
            self.puller.heard(run_id, entries)
        self.inbox.push(run_id, entries)

    def _hand(self, what: str, act: Callable[[], None]) -> None:
        def arrive() -> None:
            if self.node.alive and self.open_here:
                self.disk.trace.note(self.node.name, what)
                act()

        self.down.put(arrive)


def _tell_lost(life: ServerLife, run_id: str, epoch: int, reason: str) -> None:
    life.runtime.runs.tell(run_id, Do(e.LoseClaim(epoch, reason)))
