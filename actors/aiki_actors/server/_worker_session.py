"""One connected worker in another process: what it says, and what it is told.

    session (an actor, for its deadlines)  ── holds the link, the claims, the connection of now

Messages are handled by plain calls as they come: a submission goes straight into its run's mailbox,
and its answer goes back into the link when the run's actor gives it, so that a worker hears of
answers, pushes and assignments in the order in which they were decided.

Invariants: `claims` has what this worker was assigned and has not given back; a word under any
other claim is refused here already. When the session ends, each of them is lost at once.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Never

import trio
from attrs import define, evolve, field

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import ActorRef
from aiki_actors.session import (
    CLAIM_ENDS,
    CloseCode,
    Connection,
    Hello,
    KeptTooMuch,
    Link,
    ProtocolError,
    SessionClosed,
    close_reason,
    codec,
    messages as m,
)
from aiki_sdk import AikiError, JsonValue, Unavailable
from aiki_sdk.protocol import WorkflowDefinition, from_wire

from ._dispatcher import Session
from ._returning_claims import join_after_settling, settle, verify
from ._services import Do, Entries, Submit
from ._session_reply import ClaimReply, SessionReply

if TYPE_CHECKING:
    from ._sessions import Sessions

LOGGER: Final = logging.getLogger("aiki.server")

SLOTS_MAX: Final = 100_000
SERVED_MAX: Final = 10_000
JOBS_MAX: Final = 2 * SLOTS_MAX
"""Jobs of one worker that are not done: one for each claim that it names, and some to spare."""
REASON_MAX: Final = 1_000
Job = Callable[[], Awaitable[None]]
"""Something that takes time, done by the session's actor."""

_RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


@define(eq=False)
class WorkerSession:
    """The server's end of one worker session; the dispatcher's inbox for that worker."""

    id: str
    hello: Hello
    sessions: Sessions
    link: Link
    ended: bool = field(default=False, init=False)
    joined: bool = field(default=False, init=False)
    """Whether the worker has its place in the dispatcher."""
    connection: Connection | None = field(default=None, init=False)
    claims: dict[str, e.ClaimRef] = field(factory=lambda: dict[str, e.ClaimRef](), init=False)
    serve: m.Serve | None = field(default=None, init=False)
    changed: trio.Event = field(factory=trio.Event, init=False)
    jobs: deque[Job] = field(factory=lambda: deque[Job](), init=False)
    jobs_open: int = field(default=0, init=False)
    """Jobs that wait or are being done."""
    ref: ActorRef[Never] | None = field(default=None, init=False)
    doom: tuple[CloseCode, str] | None = field(default=None, init=False)
    _heard_at: float = field(default=0.0, init=False)
    _lost_at: float | None = field(default=None, init=False)
    _pending: int = field(default=0, init=False)
    verifying: dict[str, bool] = field(factory=lambda: dict[str, bool](), init=False)

    @property
    def worker_id(self) -> str:
        """The worker."""
        return self.hello.worker_id

    @property
    def slots(self) -> int:
        """How many runs the worker takes now; 0 while its socket is lost."""
        return 0 if self.serve is None or self.connection is None else self.serve.slots

    def knows(self, token: str) -> bool:
        """Whether this is the worker's secret."""
        return hmac.compare_digest(self.hello.token, token)

    # -- connections ------------------------------------------------------------------------

    def attach(self, hello: Hello, first: Callable[[], bytes]) -> Connection:
        """Go on over a new connection.

        Raises:
            ProtocolError: what the worker has received is not of this session.

        """
        self.link.connected(hello.received)
        old = self.connection
        if old is not None:
            self.connection = None
            old.close(SessionClosed(CloseCode.REPLACED, "the worker has another connection"))
        self._heard_at, self._lost_at = self.sessions.monotonic(), None
        connection = Connection(self.link, self.take, lambda error: self._detach(connection, error))
        connection.first = first()
        self.connection = connection
        self.link.wake = connection.wake
        self.join(None)
        self.changed.set()
        return connection

    def _detach(self, connection: Connection, error: SessionClosed) -> None:
        """Go on without a connection, until the grace is over."""
        if self.connection is not connection:
            return
        self.connection = None
        self.link.wake = _nothing
        self._lost_at = self.sessions.monotonic()
        if isinstance(error, ProtocolError):
            self.doom = (CloseCode(error.close_code), error.reason)
        elif not self.ended:
            self.join(None)  # no slots while nobody is there
        self.changed.set()

    def due_in(self) -> float:
        """Return the seconds until the session is over unless something is heard; may be < 0."""
        limits = self.sessions.limits
        deadline = self._heard_at + limits.lease_s
        if self._lost_at is not None:
            deadline = min(deadline, self._lost_at + limits.grace_s)
        return deadline - self.sessions.monotonic()

    def end(self, code: CloseCode, reason: str, *, lose: bool = True) -> None:
        """End the session; what the worker holds is lost at once, if it is to be."""
        if self.ended:
            return
        self.ended = True
        self.sessions.remove(self)
        if self.connection is not None:
            self.connection.close(SessionClosed(code, close_reason(reason)))
        for run_id, claim in self.claims.items():
            if lose:
                self.sessions.runs.tell(run_id, Do(e.LoseClaim(claim.epoch, reason)))
        self.claims.clear()
        if self.ref is not None:
            self.ref.stop()

    # -- what the worker says ---------------------------------------------------------------

    def take(self, frame: bytes) -> None:
        """Take a frame in.

        Raises:
            ProtocolError: it is not what the protocol says; the session is over.

        """
        self._heard_at = self.sessions.monotonic()
        fault_point("session.heard")
        for document in self.link.take(frame).messages:
            self.handle(codec.read_worker_message(document))

    def handle(self, message: m.WorkerMessage) -> None:
        """Do what a worker's message says."""
        match message:
            case m.Submitted():
                self._submit(message)
            case m.Reclaim(number, run_id):
                self._checked(run_id)
                reply = SessionReply(session=self, number=number, run_id=run_id)
                self._ask(run_id, reply, e.UnparkRun())
            case m.Claim(number, run_id):
                self._checked(run_id)
                self._claim(run_id, ClaimReply(session=self, number=number, run_id=run_id))
            case m.Poisoned(number, run_id, deliveries):
                self._checked(run_id)
                reason = f"its message was delivered {deliveries} times and never settled"
                self._ask(
                    run_id,
                    ClaimReply(session=self, number=number, run_id=run_id),
                    e.StallRun(reason),
                )
            case m.Broken(run_id, epoch, reason):
                self._lose(run_id, epoch, reason[:REASON_MAX])
            case m.Dropped(run_id):
                self.sessions.dispatcher.forget_warm(run_id, self.worker_id)
            case m.Progress(run_id, kind, body):
                if run_id in self.claims:
                    self.sessions.runs.show(run_id, kind, body)
            case m.Holds():
                self._checked(message.run_id)
                self.verifying[message.run_id] = False
                self._do(lambda: verify(self, message))
            case m.Beating(claims):
                self._answer_beat(claims)
            case _:
                self._place(message)

    def _place(self, message: m.WorkerMessage) -> None:
        """Note what the worker can do, and how much of it now."""
        match message:
            case m.Announce(definitions):
                self._announce(definitions)
            case m.Serve(workflows, pools, slots):
                if len(workflows) > SERVED_MAX or len(pools) > SERVED_MAX or slots > SLOTS_MAX:
                    raise ProtocolError(CloseCode.TOO_MUCH, "the worker serves too much")
                if self.serve is None:
                    self._do(lambda: join_after_settling(self))
                self.serve = message
                self.join(None)
            case m.Slots(slots):
                if self.serve is not None:
                    self.serve = evolve(self.serve, slots=min(slots, SLOTS_MAX))
                self.join(None)
            case m.Goodbye():
                self.doom = (CloseCode.NORMAL, f"worker {self.worker_id} has left")
                self.changed.set()
            case m.Pulls(pulls):
                self.sessions.dispatcher.pulls(self.worker_id, pulls)
            case m.MessagesLost():
                self.sessions.dispatcher.messages_lost()
            case _:
                raise AssertionError(f"{type(message).__name__} is handled elsewhere")

    def _checked(self, run_id: str) -> None:
        if not _RUN_ID.fullmatch(run_id):
            raise ProtocolError(CloseCode.MALFORMED, "a run's id is not of the form of one")

    def _submit(self, message: m.Submitted) -> None:
        number, run_id, claim = message.number, message.run_id, message.claim
        if self.claims.get(run_id) != claim:
            text = f"the claim (epoch {claim.epoch}) on run {run_id} is not held any more; drop it"
            self.send(m.Refused(number, "stale-claim", text, {}))
            return
        reply = SessionReply(session=self, number=number, run_id=run_id, claim=claim)
        self._count()
        if not self.sessions.runs.tell(run_id, Submit(message.commands, reply)):
            reply.fail(Unavailable(f"run {run_id} has too much to do; try again"))

    def _ask(self, run_id: str, reply: SessionReply, command: e.Command) -> None:
        self._count()
        ask = Do(command, reply, namespace=self.hello.namespace)
        if not self.sessions.runs.tell(run_id, ask):
            reply.fail(Unavailable(f"run {run_id} has too much to do; try again"))

    def _claim(self, run_id: str, reply: ClaimReply) -> None:
        """Claim a run for this worker, which came by its message."""
        self._count()
        dispatcher = self.sessions.dispatcher
        claim_id = dispatcher.take_slot(self.worker_id) if self.joined else None
        if claim_id is None:
            reply.fail(Unavailable(f"worker {self.worker_id} has no free slot; ask again"))
            return
        claim = e.ClaimRun(self.worker_id, claim_id)
        ask = Do(claim, reply, namespace=self.hello.namespace, pulled=True)
        if not self.sessions.runs.tell(run_id, ask):
            dispatcher.withdraw(self.worker_id)
            reply.fail(Unavailable(f"run {run_id} has too much to do; try again"))

    def _count(self) -> None:
        self._pending += 1
        if self._pending > self.sessions.limits.pending_max:
            raise ProtocolError(CloseCode.TOO_MUCH, "too many submissions wait for their outcome")

    def _lose(self, run_id: str, epoch: int, reason: str) -> None:
        held = self.claims.get(run_id)
        if held is not None and held.epoch == epoch:
            self.sessions.runs.tell(run_id, Do(e.LoseClaim(epoch, reason)))

    def join(self, held: int | None) -> None:
        """Tell the dispatcher what the worker takes now; nothing before it has its place there."""
        if self.serve is None or not self.joined:
            return
        self.sessions.dispatcher.join(
            Session(self.worker_id, self),
            frozenset(self.serve.workflows),
            frozenset(self.serve.pools),
            self.slots,
            self.hello.namespace,
            held,
        )

    def _announce(self, documents: tuple[JsonValue, ...]) -> None:
        try:
            definitions = [
                from_wire(document, WorkflowDefinition, "definition") for document in documents
            ]
        except AikiError as error:
            raise ProtocolError(CloseCode.MALFORMED, error.message) from error
        namespace = self.hello.namespace

        async def keep() -> None:
            await self.sessions.catalogue.announce(namespace, definitions)

        self._do(keep)

    def _answer_beat(self, claims: tuple[tuple[str, int], ...]) -> None:
        """Tell which of the claims that the worker says it holds do not count."""
        gone: list[tuple[str, int]] = []
        for run_id, epoch in claims:
            held = self.claims.get(run_id)
            if (held is None or held.epoch != epoch) and run_id not in self.verifying:
                self._checked(run_id)
                gone.append((run_id, epoch))
        if gone:
            self.send(m.Gone(tuple(gone)))
            self._do(lambda: settle(self, gone))

    def _do(self, job: Job) -> None:
        if self.jobs_open >= JOBS_MAX:
            raise ProtocolError(CloseCode.TOO_MUCH, "the worker asks for too much at once")
        self.jobs_open += 1
        self.jobs.append(job)
        self.changed.set()

    # -- what the worker is told ----------------------------------------------------------------

    def answer(self, reply: SessionReply, entries: Entries) -> None:
        """Tell the outcome of a submission."""
        fault_point("session.answering")
        self._pending -= 1
        if reply.claim is not None:
            self._note_ends(reply.run_id, reply.claim, entries)
        self._put(lambda: [codec.done(reply.number, entries)])

    def refuse(self, reply: SessionReply, error: BaseException) -> None:
        """Tell that a submission was refused, and why."""
        self._pending -= 1
        if not isinstance(error, AikiError):
            error = Unavailable(f"run {reply.run_id} could not answer: {error}; try again")
        if error.code == "stale-claim" and self.claims.get(reply.run_id) == reply.claim:
            self.claims.pop(reply.run_id, None)
        self.send(m.Refused(reply.number, error.code, error.message, error.details))

    def assign(self, run_id: str, claim: e.ClaimRef, entries: Entries) -> None:
        """Have a run executed."""
        self.claims[run_id] = claim
        self._put(lambda: codec.assigned(run_id, claim, entries))

    def push(self, run_id: str, entries: Entries) -> None:
        """Tell what happened to a run."""
        claim = self.claims.get(run_id)
        if claim is not None:
            self._note_ends(run_id, claim, entries)
        elif run_id in self.verifying and any(type(one.body) in CLAIM_ENDS for one in entries):
            self.verifying[run_id] = True
        self._put(lambda: codec.pushed(run_id, entries))

    def cool(self, run_id: str) -> None:
        """Tell that a parked run is not to be kept warm any more."""
        self.send(m.Cold(run_id))

    def _note_ends(self, run_id: str, claim: e.ClaimRef, entries: Entries) -> None:
        for entry in entries:
            if type(entry.body) in CLAIM_ENDS:
                if self.claims.get(run_id) == claim:
                    del self.claims[run_id]
                return

    def send(self, message: m.ServerMessage) -> None:
        self._put(lambda: [codec.written(message)])

    def _put(self, make: Callable[[], list[bytes]]) -> None:
        """Put messages into the link; a worker that takes none is given up, not waited for."""
        if self.ended or self.doom is not None:
            return
        try:
            for document in make():
                self.link.send(document)
        except KeptTooMuch as error:
            LOGGER.warning("worker %s is given up: %s", self.worker_id, error)
            self.doom = (CloseCode.TOO_MUCH, f"worker {self.worker_id} is too slow")
            self.changed.set()


def _nothing() -> None:
    """Stand in for the wake of a link that has no connection."""
