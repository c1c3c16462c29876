"""The run actor: owns one active run's state, and is the only one who writes its journal.

It takes everything that waits in its mailbox at once: decides the commands one after another on
its state, writes the entries as one change, and only when they are durable answers, publishes,
pushes and dispatches. If the write fails, nothing of it happened: every asker is told, and the
state is folded afresh from the journal before the next message.

A run that executes nothing is passivated: the actor stops, and the next message starts another.
Those that stand in the queue stay, up to a bound, for their next message comes soon.

Length: one turn of the mailbox, from taking to telling; its steps share the state and the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

import trio
from attrs import define, evolve, field

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import ActorContext, ActorRef, BatchActor, Reply
from aiki_actors.storage import Appended, AppendResult, Change, ReadyRun, ReferenceTaken
from aiki_sdk import (
    AikiError,
    InvalidRequest,
    NotFound,
    ReferenceConflict,
    Unavailable,
    UnknownOutcome,
    error_from_wire,
)
from aiki_sdk.protocol import Update

from ._between_runs import answer_to_conflict, passed_on, superseded
from ._dispatcher import Offer
from ._run_batch import Batch
from ._services import (
    Do,
    Ending,
    Entries,
    RunMessage,
    Services,
    Show,
    Submit,
    View,
    ViewEnd,
)
from ._storage_actor import Write
from ._views import live_update, outcome_of, run_info, update_of

LOGGER: Final = logging.getLogger("aiki.server")

READ_BACK_FIRST_S: Final = 0.05
READ_BACK_MAX_S: Final = 5.0
"""Pauses between two looks for what became of a write."""

_UNPROJECTED: Final = frozenset(
    {
        e.TaskSucceeded,
        e.TaskStarted,
        e.HeartbeatRecorded,
        e.EventAccepted,
        e.EventReturned,
        e.ValueRecorded,
        e.ChildStarted,
    }
)
"""Entries after which a run's row is the same as before; a batch of only these writes none."""

IDLE_MAX: Final = 1_000
"""Actors that stay while their runs stand in the queue; one more sends the oldest away."""

IDLE_SEQ_MAX: Final = 200
"""Entries of a run whose actor may stay: what is kept for those that wait is bounded."""

_MAY_BECOME_READY: Final = frozenset(
    {e.Phase.NEW, e.Phase.SCHEDULED, e.Phase.WAITING, e.Phase.QUEUED}
)


class ReferenceHeld(ReferenceConflict):
    """Another run holds the reference id; the start decides what that means."""

    def __init__(self, taken: ReferenceTaken) -> None:
        super().__init__(f"run {taken.run_id} holds this reference id")
        self.taken = taken


Idle = dict[str, Callable[[], bool]]


@define(eq=False)
class RunActor(BatchActor[RunMessage]):
    """Owns one run.

    Attributes:
        fresh: the run is about to be created: there is nothing to load.
        idle: the runs whose actors stay although they are not claimed, the oldest first, each with
            what sends it away; shared by all actors.

    """

    kind: ClassVar[str] = "run"
    run_id: str
    services: Services
    forget: Callable[[ActorRef[RunMessage]], None]
    fresh: bool = False
    idle: Idle = field(factory=lambda: dict[str, Callable[[], bool]]())
    state: e.RunState = field(init=False)
    _row: e.Projection | None = field(default=None, init=False)
    _recent: list[e.Entry] = field(factory=lambda: list[e.Entry](), init=False)
    _recent_from: int = field(default=1, init=False)
    _parked_seq: int = field(default=0, init=False)
    _stale: bool = field(default=False, init=False)
    _context: ActorContext[RunMessage] = field(init=False)

    async def started(self, context: ActorContext[RunMessage]) -> None:
        """Fold the state from the journal; a run about to be created has none."""
        self._context = context
        self.state = e.RunState(self.run_id)
        self._stale = not self.fresh

    def ending(self) -> None:
        """Leave the directory; what is claimed stays claimed, the next message activates again."""
        self.idle.pop(self.run_id, None)
        self.forget(self._context.ref)

    def describe(self) -> str:
        """Return status and seq."""
        return f"{e.status_of(self.state)} at seq {self.state.seq}" if self.state.seq else "new"

    async def handle_batch(self, messages: list[RunMessage]) -> None:
        """Decide everything that waits, make it durable, then tell the world."""
        self.idle.pop(self.run_id, None)
        try:
            if self._stale:
                await self._load()
            if not self.state.seq:
                messages = [await self._prepared(message) for message in messages]
        except AikiError as error:
            self._refuse_all(messages, error)
            return
        claim = self.state.claim
        was_ready = self.state.ready
        batch = Batch()
        for message in messages:
            self._take(message, batch)
        if (batch.entries or batch.asked) and not await self._write(batch):
            self._keep_losses(messages)
            return
        self._tell(batch, None if claim is None else claim.worker_id, was_ready)
        for message in batch.shown:
            self._show(message)
        if batch.claims and self.state.claim is not None:
            fault_point("claim.committed")
            await self._assign(self.state.claim, warm=batch.warm)
        self._rest()

    def _refuse_all(self, messages: list[RunMessage], error: AikiError) -> None:
        """Carry nothing out, for the run cannot be loaded; slots taken for it are given back."""
        for message in messages:
            if message.reply is not None:
                message.reply.fail(error)
            if isinstance(message, Do) and isinstance(message.command, e.ClaimRun):
                self.services.dispatcher.withdraw(message.command.worker_id)
        self._keep_losses(messages)
        self._context.passivate()

    def _keep_losses(self, messages: list[RunMessage]) -> None:
        """Keep in mind which claim was to be lost and was not: its worker says so only once."""
        for message in messages:
            if isinstance(message, Do) and isinstance(message.command, e.LoseClaim):
                lost = message.command
                self.services.dispatcher.broken[self.run_id, lost.epoch] = lost.reason

    def _rest(self) -> None:
        """Go on waiting for messages, or passivate; who is executed forgets what the worker has."""
        if self.state.claim is not None:
            if self._recent:
                self._recent = []
            self._recent_from = self.state.seq + 1
        elif not self._stays():
            self._context.passivate()

    def _stays(self) -> bool:
        """Say whether to wait for the claim that comes soon, instead of being loaded for it."""
        state, idle = self.state, self.idle
        queued = state.ready and self.run_id in self.services.dispatcher.matcher.queue
        if not queued or state.seq > IDLE_SEQ_MAX:
            return False
        if len(idle) >= IDLE_MAX:
            idle.pop(next(iter(idle)))()
        idle[self.run_id] = self._context.passivate
        return True

    async def _load(self) -> None:
        entries = await self.services.storage.journal(self.run_id)
        self.state = e.fold(self.run_id, entries)
        self._recent, self._recent_from = entries, 1
        parked = [entry.seq for entry in entries if isinstance(entry.body, e.RunParked)]
        self._parked_seq = parked[-1] if parked else 0
        self._row = e.project(self.state) if entries else None
        self._stale = False

    async def _prepared(self, message: RunMessage) -> RunMessage:
        """Find out whose reference id a run takes over that another run lets be created."""
        if not isinstance(message, Do) or message.notice is None:
            return message
        command = message.command
        if not isinstance(command, e.CreateRun):
            return message
        return evolve(message, supersedes=await superseded(self.services.storage, command))

    # -- deciding ---------------------------------------------------------------------------

    def _take(self, message: RunMessage, batch: Batch) -> None:
        match message:
            case Submit():
                self._take_submission(message.commands, message.reply, batch)
            case View() | ViewEnd():
                batch.views.append(message)
            case Do():
                self._take_command(message, batch)
            case Show() if batch.entries:
                batch.shown.append(message)
            case Show():
                self._show(message)

    def _take_submission(
        self, commands: tuple[e.WorkerCommand, ...], reply: Reply[Entries], batch: Batch
    ) -> None:
        if len(commands) == 1:  # as most submissions are
            decided = self._decide(commands[0], batch, None)
            if isinstance(decided, AikiError):
                reply.fail(decided)
            else:
                batch.answers.append((reply, decided))
            return
        made: list[e.Entry] = []
        error: AikiError | None = None
        for command in commands:
            decided = self._decide(command, batch, None)
            if isinstance(decided, AikiError):
                error = decided
                break
            made.extend(decided)
        if error is None:
            batch.answers.append((reply, tuple(made)))
            return
        # What stands before the refused command took effect; its entries are pushed.
        batch.foreign.extend(made)
        reply.fail(error)

    def _take_command(self, message: Do, batch: Batch) -> None:
        if message.supersedes is not None:
            batch.supersedes = message.supersedes
        command = message.command
        if message.notice is not None:
            batch.asked.append(message.notice)
            further = passed_on(self.state, message.notice)
            if further is not None:
                batch.passed_on.append(further)
                return
        if isinstance(command, e.Elapse):
            batch.elapsed = True
        refused = self._refused(message)
        offer = None if refused else self._offer(command)
        claims = len(batch.claims)
        decided = refused or self._decide(command, batch, offer)
        claimed = len(batch.claims) > claims
        if claimed:
            batch.warm = message.warm if offer is None else offer.warm
            batch.pulled = message.pulled
        elif offer is not None:
            self.services.dispatcher.withdraw(offer.claim.worker_id)
        elif isinstance(command, e.ClaimRun):
            self.services.dispatcher.withdraw(command.worker_id)
        if isinstance(decided, AikiError):
            if message.reply is not None:
                message.reply.fail(decided)
            elif message.notice is not None and isinstance(command, e.AcceptEvent):
                source = message.notice.source_id
                LOGGER.warning("an event that run %s sent was not delivered: %s", source, decided)
            return
        batch.foreign.extend(decided)
        if message.reply is not None:
            batch.answers.append((message.reply, decided))

    def _refused(self, message: Do) -> AikiError | None:
        """Refuse a client's command on a run of another namespace, or with data of a wrong type."""
        spec = self.state.created
        if spec is None:
            return None
        if message.namespace is not None and message.namespace != spec.namespace:
            return NotFound(f"run {self.run_id} does not exist")
        command = message.command
        if isinstance(command, e.AcceptEvent):
            return self.services.check_event(spec, command)
        if message.pulled and isinstance(command, e.ClaimRun):
            return self._not_for(command.worker_id, spec)
        return None

    def _not_for(self, worker_id: str, spec: e.RunCreated) -> AikiError | None:
        """Refuse a claim by a worker that came by a wrong message."""
        if self.services.dispatcher.serves(worker_id, spec):
            return None
        return InvalidRequest(
            f"worker {worker_id} does not serve workflow {spec.workflow!r} version "
            f"{spec.version!r} in pool {spec.pool!r}, and cannot claim run {self.run_id}"
        )

    def _offer(self, command: e.Command) -> Offer | None:
        """Take a slot for the run if this command may make it ready."""
        state = self.state
        if isinstance(command, e.ClaimRun) or state.phase not in _MAY_BECOME_READY:
            return None
        if isinstance(command, e.CreateRun):
            start_at = command.spec.start_at
            if start_at is not None and start_at > self.services.now():
                return None
            return self.services.dispatcher.offer(self.run_id, command.spec)
        if state.phase is e.Phase.NEW or (state.phase is e.Phase.QUEUED and not state.paused):
            return None
        return self.services.dispatcher.offer(self.run_id, state.spec)

    def _decide(
        self, command: e.Command | e.WorkerCommand, batch: Batch, offer: Offer | None
    ) -> Entries | AikiError:
        """Decide one command and evolve by it; the entries are not durable yet."""
        services = self.services
        now = services.now()
        claim = None if offer is None else offer.claim
        decision = e.decide(self.state, command, now, offer=claim, limits=services.limits)
        if isinstance(decision, e.Rejected):
            return error_from_wire(decision.code, decision.message, decision.details)
        made: list[e.Entry] = []
        for body in decision:
            held = self.state.claim
            entry = e.Entry(self.state.seq + 1, now, body)
            self.state = e.evolve(self.state, entry)
            made.append(entry)
            batch.statuses.append(e.status_of(self.state))
            if type(body) in _UNPROJECTED:
                continue  # nothing of these is about claims
            if isinstance(command, e.ForkRun):
                continue  # the claim in a copied history is nobody's
            if isinstance(body, e.RunClaimed):
                batch.claims.append(body)
            elif held is not None and self.state.claim is None:
                batch.held_to = batch.held_to or entry.seq
                batch.freed.append((held.worker_id, isinstance(body, e.RunParked)))
        batch.entries.extend(made)
        return tuple(made)

    # -- writing ----------------------------------------------------------------------------

    async def _write(self, batch: Batch) -> bool:
        """Make the batch durable; False if that failed and everybody was told."""
        change = self._change(batch)
        result: AppendResult
        try:
            result = await self._append(change)
        except UnknownOutcome as unknown:
            try:
                known = await self._read_back(change, unknown)
            except AikiError as error:
                LOGGER.warning("run %s: %s, and for good: %s", self.run_id, unknown, error)
                await self._undo(batch, unknown)
                return False
            if known is None:
                message = f"the write to run {self.run_id} was not made: {unknown}; try again"
                await self._undo(batch, Unavailable(message))
                return False
            result = known
        except AikiError as error:
            await self._undo(batch, error)
            return False
        if isinstance(result, Appended):
            fault_point("run.committed")
            if change.projection is not None:
                self._row = change.projection
            return True
        await self._undo(batch, self._conflict(result))
        return False

    async def _read_back(self, change: Change, unknown: UnknownOutcome) -> AppendResult | None:
        """Find out whether a write happened, however long the database cannot say; None: no.

        Were it given up, nobody would be told of entries that are durable: a worker would wait for
        what it was never pushed, or hold a claim that it was never given.
        """
        if not change.entries:
            return None
        delay_s = READ_BACK_FIRST_S
        while True:
            try:
                wrote = await self.services.storage.journal(
                    self.run_id, after=change.first_seq - 1, limit=len(change.entries)
                )
            except AikiError as error:
                if not error.retryable:
                    raise
                LOGGER.warning("run %s: %s; reading back failed: %s", self.run_id, unknown, error)
                await trio.sleep(delay_s)
                delay_s = min(delay_s * 2, READ_BACK_MAX_S)
            else:
                return Appended() if tuple(wrote) == change.entries else None

    def _append(self, change: Change) -> Awaitable[AppendResult]:
        return self.services.writer.ask(lambda reply: Write(change, reply), deadline_s=None)

    def _change(self, batch: Batch) -> Change:
        state = self.state
        entries = tuple(batch.entries)
        batch.plain = _UNPROJECTED.issuperset([type(entry.body) for entry in entries])
        batch.owed = e.notices(state, entries)
        if batch.passed_on:
            batch.owed += tuple(batch.passed_on)
        row = None if batch.plain else e.project(state)
        return Change(
            run_id=self.run_id,
            first_seq=state.seq - len(entries) + 1,
            entries=entries,
            projection=None if row == self._row else row,
            create=bool(entries) and entries[0].seq == 1,
            supersedes=batch.supersedes,
            notices=batch.owed,
            settled=tuple([notice.id for notice in batch.asked]) if batch.asked else (),
        )

    def _conflict(self, result: AppendResult) -> AikiError:
        if isinstance(result, ReferenceTaken):
            return ReferenceHeld(result)
        message = f"run {self.run_id} was changed by another server at the same time; try again"
        return Unavailable(message)

    async def _undo(self, batch: Batch, error: AikiError) -> None:
        """Forget what was decided: nothing of it is durable."""
        self._stale = True
        for claim in batch.claims:
            self.services.dispatcher.withdraw(claim.worker_id)
        for reply, _entries in batch.answers:
            reply.fail(error)
        if batch.views:
            await self._show_durable(batch.views)
        if isinstance(error, ReferenceHeld):
            await self._settle_children(batch, error)
        self._context.passivate()

    async def _show_durable(self, views: list[View | ViewEnd]) -> None:
        """Answer who only asked what the run is; that another's write failed is not their error."""
        try:
            await self._load()
        except AikiError as error:
            for view in views:
                view.reply.fail(error)
            return
        for view in views:
            self._describe(view)

    def _describe(self, view: View | ViewEnd) -> None:
        """Answer who asked what the run is, or how it ended."""
        state = self.state
        if not state.seq:
            view.reply.send(None)
        elif isinstance(view, View):
            view.reply.send(run_info(state))
        else:
            view.reply.send(Ending(state.spec.namespace, outcome_of(state)))

    async def _settle_children(self, batch: Batch, error: ReferenceHeld) -> None:
        """Say what follows for a parent whose child's reference id names another run."""
        for notice in batch.asked:
            if not isinstance(notice.command, e.CreateRun):
                continue
            try:
                answer = await answer_to_conflict(
                    self.services.storage, notice, notice.command, error.taken
                )
                await self._append(
                    Change(self.run_id, 1, (), notices=(answer,), settled=(notice.id,))
                )
            except AikiError:
                LOGGER.warning(
                    "notice %s could not be answered now; it is delivered again", notice.id
                )
            else:
                self.services.deliver(answer)

    # -- telling ----------------------------------------------------------------------------

    def _tell(self, batch: Batch, holder: str | None, was_ready: bool) -> None:
        """Answer, push, publish and dispatch what is durable now."""
        services = self.services
        for reply, entries in batch.answers:
            reply.send(entries)
        for view in batch.views:
            self._describe(view)
        if batch.elapsed and self.state.seq:
            self._set_timer()  # it may have fired too early, by a clock that was set back since
        if not batch.entries:
            for notice in batch.owed:
                services.deliver(notice)
            return
        if batch.claims or self.state.claim is None:
            self._remember(batch.entries)
        if holder is not None and batch.foreign:
            session = services.dispatcher.sessions.get(holder)
            # Told what came after the end of its claim, it would go on without one.
            last = batch.held_to or self.state.seq
            heard = tuple(entry for entry in batch.foreign if entry.seq <= last)
            if session is not None and heard:
                session.inbox.push(self.run_id, heard)
        if not batch.plain or services.hub.streamed(self.run_id):
            self._publish(batch)
        if not batch.plain:
            self._dispatch(batch, was_ready)
            self._set_timer()
        for notice in batch.owed:
            services.deliver(notice)

    def _set_timer(self) -> None:
        due = e.next_due(self.state)
        if due is None:
            self.services.timers.clear(self.run_id)
        else:
            self.services.timers.set(self.run_id, due)

    def _remember(self, entries: list[e.Entry]) -> None:
        """Keep what the worker that takes the run, now or next, has not seen."""
        self._recent.extend(entries)
        for entry in entries:
            if isinstance(entry.body, e.RunParked):
                self._parked_seq = entry.seq

    def _publish(self, batch: Batch) -> None:
        hub = self.services.hub
        if not hub.interested(self.run_id):
            return
        updates: list[Update] = []
        if hub.streamed(self.run_id):
            pairs = zip(batch.entries, batch.statuses, strict=True)
            updates = [update_of(self.state, entry, status) for entry, status in pairs]
        namespace = self.state.spec.namespace
        hub.publish(self.run_id, namespace, updates, outcome_of(self.state))

    def _show(self, message: Show) -> None:
        """Publish something that is not journaled, after the last entry that is durable."""
        if self.state.created is not None:
            update = live_update(self.state, message.kind, message.body)
            self.services.hub.publish(self.run_id, self.state.spec.namespace, [update])

    def _dispatch(self, batch: Batch, was_ready: bool) -> None:
        """Give slots back, and let the queue know whether the run stands in it."""
        state, dispatcher = self.state, self.services.dispatcher
        for worker_id, warm in batch.freed:
            if warm:
                dispatcher.parked(self.run_id, worker_id)
            dispatcher.freed(self.run_id, worker_id)
        if state.claim is not None or e.status_of(state).terminal:
            # Who executes it now has the only good memory of it.
            dispatcher.cool(self.run_id, None if state.claim is None else state.claim.worker_id)
        if state.ready and not was_ready:
            fault_point("run.freed")
            spec = state.spec
            at = state.ready_at or state.updated_at
            key = (spec.namespace, spec.workflow, spec.version, spec.pool)
            dispatcher.ready([ReadyRun(self.run_id, *key, spec.priority, at)])
        elif was_ready and not state.ready:
            dispatcher.gone(self.run_id, pulled=batch.pulled)

    async def _assign(self, claim: e.Claim, *, warm: bool) -> None:
        """Hand the run to the worker that has the claim now, with what it has not seen yet."""
        first = self._parked_seq + 1 if warm else 1
        entries = [entry for entry in self._recent if entry.seq >= first]
        if self._recent_from > first:
            try:
                entries = await self.services.storage.journal(self.run_id, after=first - 1)
            except AikiError as error:
                self._lose(claim, f"its journal could not be read: {error}")
                return
        session = self.services.dispatcher.sessions.get(claim.worker_id)
        if session is None:
            self._lose(claim, "the worker left before it was told")
        else:
            session.inbox.assign(self.run_id, claim.ref, tuple(entries))

    def _lose(self, claim: e.Claim, reason: str) -> None:
        self._context.ref.tell(Do(e.LoseClaim(claim.ref.epoch, reason)))
