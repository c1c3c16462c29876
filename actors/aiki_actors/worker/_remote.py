"""A server in another process, as its worker sees it: a `ServerPort` over a session.

    executors ──submit──► RemoteServer ──link──► (websocket) ──► server
    subscriber ◄─assign, push── RemoteServer ◄──link──┘

It outlives connections: while there is none, submissions wait. When the server has forgotten the
session (it was restarted), another one begins: the worker names each claim that it holds, hears
whether it counts and what it has missed, and submits again what is still open; whatever had taken
effect already finds its effect and changes nothing.

Invariants: the ledger has exactly the claims that count as far as this worker can know; a word
under any other is `StaleClaim` at once. If no heartbeat was answered for two thirds of the lease,
there are none any more, whatever the server thinks.

Length: both directions of a session share its state; what stands alone is in `_remote_*.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.session import (
    CloseCode,
    Connection,
    Hello,
    KeptTooMuch,
    Link,
    ProtocolError,
    SessionClosed,
    SessionLimits,
    Welcome,
    codec,
    messages as m,
)
from aiki_sdk import (
    AikiError,
    JournalVersionError,
    JsonValue,
    StaleClaim,
    Unavailable,
    WorkflowRegistry,
    error_from_wire,
)
from aiki_sdk.protocol import definition_of, to_wire

from ._port import Assignment, WorkerInbox
from ._remote_identity import WorkerIdentity
from ._remote_lease import Lease
from ._remote_ledger import Claimed, Entries, Ledger, Pending

LOGGER: Final = logging.getLogger("aiki.worker")

ANNOUNCED_AT_ONCE: Final = 20
CLAIMS_PER_BEAT: Final = 500


@define(eq=False)
class RemoteServer:
    """A server behind a session. `inbox` is set before the first connection."""

    identity: WorkerIdentity
    registry: WorkflowRegistry
    pools: tuple[str, ...]
    runs_max: int
    monotonic: Callable[[], float]
    sealed: bool = False
    """Whether payloads are sealed: then defaults of parameters are not told either."""
    limits: SessionLimits = field(factory=SessionLimits)
    inbox: WorkerInbox = field(init=False)
    let_go: Callable[[str, bool], None] = field(default=lambda _run_id, _lost: None, init=False)
    """Told of each claim that counts no more, and whether it was lost."""
    connection: Connection | None = field(default=None, init=False)
    lease: Lease = field(init=False)
    link: Link = field(init=False)
    _session: str | None = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)
    _settled: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _pulls: bool = field(default=False, init=False)
    _ledger: Ledger = field(factory=Ledger, init=False)
    _parts: dict[str, list[e.Entry]] = field(factory=lambda: dict[str, list[e.Entry]](), init=False)
    _room: trio.Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin without a session."""
        self.lease = Lease(self.monotonic)
        self.link = Link(self.limits)
        self._ledger.let_go = lambda run_id, lost: self.let_go(run_id, lost)

    @property
    def worker_id(self) -> str:
        """The worker."""
        return self.identity.worker_id

    def describe(self) -> str:
        """Return how the session is."""
        state = "connected" if self.connection is not None else "not connected"
        ledger = self._ledger
        return f"{state}, {len(ledger.claims)} runs, {len(ledger.pending)} submissions open"

    # -- what the worker says (ServerPort) ----------------------------------------------------

    async def submit(self, run_id: str, commands: tuple[e.WorkerCommand, ...]) -> Entries:
        """Carry out commands as one change; see `ServerPort.submit`."""
        claim = commands[0].claim
        held = await self._held(run_id, claim)
        while self.link.full:
            await self._wait_for_room()
            held = await self._held(run_id, claim)
        pending = self._ledger.open(run_id, claim, commands)
        if held.confirmed:
            self._say(pending)
        return await pending.reply.wait_shielded()

    async def _held(self, run_id: str, claim: e.ClaimRef) -> Claimed:
        held = self._ledger.claims.get(run_id)
        if held is None or held.ref != claim:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise StaleClaim(f"the claim on run {run_id} is not held any more; drop the run")
        return held

    async def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()

    def _say(self, pending: Pending) -> None:
        """Put a submission into the link.

        Raises:
            PayloadError: a value in it cannot be JSON.
            LimitExceeded: it is larger than a message may be.

        """
        assert pending.claim is not None, "only submissions have commands"
        try:
            self.link.send(
                codec.submitted(pending.number, pending.run_id, pending.claim, pending.commands)
            )
        except AikiError:
            self._ledger.pending.pop(pending.number, None)
            raise

    async def reclaim(self, run_id: str) -> None:
        """Ask for the claim of a parked run whose code goes on by itself.

        Raises:
            Unavailable: the server cannot now.

        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise Unavailable("the worker is stopping")
        pending = self._ledger.open(run_id, None, ())
        self._send(m.Reclaim(pending.number, run_id))
        await pending.reply.wait_shielded()

    # -- runs that a message queue leads to ---------------------------------------------------

    @property
    def room(self) -> int:
        """How many more runs could be claimed; 0 while the session is away or takes none."""
        if not (self._serving and self._settled) or self.connection is None:
            return 0
        return max(0, self.runs_max - len(self._ledger.claims))

    async def claim(self, run_id: str) -> None:
        """Ask for the claim of a ready run; it is, or will at once be, assigned.

        Raises:
            AikiError: it is not to be had; `retryable` says whether to ask again.

        """
        await self._wish(run_id, lambda number: m.Claim(number, run_id))

    async def poisoned(self, run_id: str, deliveries: int) -> None:
        """Have a run taken out of delivery whose message was delivered too often.

        Raises:
            AikiError: that is not known to be done.

        """
        await self._wish(run_id, lambda number: m.Poisoned(number, run_id, deliveries))

    async def _wish(self, run_id: str, message: Callable[[int], m.WorkerMessage]) -> None:
        if self._closed or not self._settled:
            await trio.lowlevel.checkpoint()
            raise Unavailable("there is no session with the server now")
        pending = self._ledger.open(run_id, None, (), fresh=True)
        try:
            self._send(message(pending.number))
            await pending.reply.wait()
        finally:
            self._ledger.pending.pop(pending.number, None)

    def pulls(self, pulls: bool) -> None:
        """Say whether this worker takes runs from a message queue by itself."""
        self._pulls = pulls
        if self._serving and self._settled:
            self._send(m.Pulls(pulls))

    def messages_lost(self) -> None:
        """Say that messages of the queue are lost."""
        if self._settled:
            self._send(m.MessagesLost())

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Say that the execution under this claim broke down."""
        held = self._ledger.claims.get(run_id)
        if held is not None and held.ref.epoch == epoch:
            self._send(m.Broken(run_id, epoch, reason))

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show something to whoever watches the run; left out while there is much to say."""
        if self.connection is not None and self.link.kept < self.limits.kept_max // 2:
            self._send(m.Progress(run_id, kind, body))

    def join(self) -> None:
        """Take runs from now on."""
        self._serving = True
        if self._settled:
            self._serve()

    def leave(self) -> None:
        """Take no more runs."""
        self._serving = False
        self._send(m.Slots(0))

    def dropped(self, run_id: str) -> None:
        """Say that a parked run is not kept warm any more."""
        if run_id in self._ledger.parked:
            del self._ledger.parked[run_id]
            self._send(m.Dropped(run_id))

    def goodbye(self) -> None:
        """Say that the worker has ended; the server closes the connection then."""
        self._send(m.Goodbye())

    def _send(self, message: m.WorkerMessage) -> None:
        try:
            self.link.send(codec.written(message))
        except KeptTooMuch as error:
            # The next connection begins another session, in which the claims are named again.
            LOGGER.warning("worker %s begins anew: %s", self.worker_id, error)
            self._session, self.link = None, Link(self.limits)
            if self.connection is not None:
                self.connection.close(SessionClosed(CloseCode.TOO_MUCH, "too much to say"))

    def _serve(self) -> None:
        if self._pulls:
            self._send(m.Pulls(True))
        served = tuple((workflow.name, workflow.version) for workflow in self.registry)
        self._send(m.Serve(served, self.pools, self.runs_max))

    # -- connections --------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Return the first word for a new connection."""
        return Hello(
            worker_id=self.identity.worker_id,
            token=self.identity.token,
            namespace=self.identity.namespace,
            session=self._session,
            received=self.link.received if self._session is not None else 0,
            release=self.identity.release,
        )

    def welcomed(self, welcome: Welcome, said_at: float) -> Connection:
        """Go on over a new connection, whose first word was sent at `said_at`.

        Raises:
            ProtocolError: what the server has received is not of this session.

        """
        if welcome.resumed and welcome.session == self._session:
            try:
                self.link.connected(welcome.received)
            except ProtocolError:
                self._session = None
                raise
        else:
            self.limits = welcome.limits
            self._begin_anew(welcome.session)
        self.lease.known_at(said_at)
        connection = Connection(self.link, self.take, lambda _error: self._detach(connection))
        self.connection = connection
        self.link.wake = connection.wake
        return connection

    def _detach(self, connection: Connection) -> None:
        if self.connection is connection:
            self.connection = None
            self.link.wake = _nothing

    def _begin_anew(self, session: str) -> None:
        """Begin another session: the server knows nothing of what was said in the last one."""
        self._session, self._settled = session, False
        self.link = Link(self.limits)
        self._wake_waiting()
        self._ledger.parked.clear()
        self._parts.clear()
        self.inbox.forget_warm()
        for pending in self._ledger.wishes():
            if pending.fresh:
                self._ledger.settle(pending, Unavailable("the session began anew; ask again"))
            else:
                self._ledger.settle(pending, ())  # its run was warm, and has been evicted
        defaults = not self.sealed
        definitions = [to_wire(definition_of(one, defaults=defaults)) for one in self.registry]
        for first in range(0, len(definitions), ANNOUNCED_AT_ONCE):
            self._send(m.Announce(tuple(definitions[first : first + ANNOUNCED_AT_ONCE])))
        for run_id, held in self._ledger.claims.items():
            held.confirmed = False
            self._send(m.Holds(run_id, held.ref, held.claimed_seq, held.seq))
        self._settle_session()

    def _settle_session(self) -> None:
        """Take runs once every claim was answered for."""
        if not self._settled and all(held.confirmed for held in self._ledger.claims.values()):
            self._settled = True
            if self._serving:
                self._serve()

    # -- heartbeats ---------------------------------------------------------------------------

    def beat(self) -> None:
        """Ask for a sign of life, and whether the claims still count."""
        claims = [(run_id, held.ref.epoch) for run_id, held in self._ledger.claims.items()]
        for first in range(0, len(claims), CLAIMS_PER_BEAT):
            self._send(m.Beating(tuple(claims[first : first + CLAIMS_PER_BEAT])))
        self.link.beat(self.lease.next_beat())

    def lease_left_s(self) -> float:
        """Return the seconds for which the claims count without another answer; may be < 0."""
        return self.lease.left_s(self.limits.worker_lease_s)

    def lapse(self) -> None:
        """Hold nothing any more: no answer came for so long that the claims may be others'."""
        seconds = self.limits.worker_lease_s
        for run_id in list(self._ledger.claims):
            self._drop(run_id, f"no answer from the server for {seconds:g} s")
        self._session = None
        self._wake_waiting()
        if self.connection is not None:
            reason = f"no heartbeat was answered for {seconds:g} s"
            self.connection.close(SessionClosed(CloseCode.TIMEOUT, reason))

    @property
    def holds_claims(self) -> bool:
        """Whether any claim counts."""
        return bool(self._ledger.claims)

    def close(self) -> None:
        """End for good: nothing that is said from now on is heard."""
        self._closed = True
        for run_id in list(self._ledger.claims):
            self._drop(run_id, "the worker has ended")
        for pending in list(self._ledger.pending.values()):
            self._ledger.settle(pending, StaleClaim("the worker has ended"))
        if self.connection is not None:
            self.connection.close(SessionClosed(CloseCode.NORMAL, "the worker has ended"))
        self._wake_waiting()

    # -- what the server says -----------------------------------------------------------------

    def take(self, frame: bytes) -> None:
        """Take a frame in.

        Raises:
            ProtocolError: it is not what the protocol says.

        """
        taken = self.link.take(frame)
        if self._room is not None and not self.link.full:
            self._wake_waiting()
        if taken.echo is not None:
            self.lease.answered(taken.echo)
            fault_point("lease.renewed")
        for document in taken.messages:
            try:
                message = codec.read_server_message(document)
            except JournalVersionError as error:
                self._give_up_unreadable(document, error)
            else:
                self.handle(message)

    def handle(self, message: m.ServerMessage) -> None:
        """Do what a server's message says."""
        match message:
            case m.Done(number, entries):
                pending = self._ledger.pending.get(number)
                if pending is not None:
                    self._ledger.heard(pending.run_id, entries)
                    self._ledger.settle(pending, pending.missed + entries)
            case m.Refused(number, code, text, details):
                pending = self._ledger.pending.get(number)
                if pending is not None:
                    self._ledger.refused(pending, error_from_wire(code, text, details))
            case m.Assigned():
                self._assigned(message)
            case m.Pushed(run_id, entries):
                self._ledger.heard(run_id, entries)
                self.inbox.push(run_id, entries)
            case m.Answered():
                self._claim_answered(message)
                self._settle_session()
            case m.Gone(claims):
                for run_id, epoch in claims:
                    held = self._ledger.claims.get(run_id)
                    if held is not None and held.ref.epoch == epoch:
                        self._drop(run_id, "the server says that its claim is lost")
            case m.Cold(run_id):
                self._ledger.parked.pop(run_id, None)
                self.inbox.cool(run_id)

    def _assigned(self, message: m.Assigned) -> None:
        """Take an assignment in; it may come in several parts."""
        run_id, entries = message.run_id, message.entries
        earlier = self._parts.pop(run_id, None)
        if earlier is not None:
            entries = (*earlier, *entries)
        if not message.last:
            self._parts[run_id] = list(entries)
            return
        if not self._ledger.assigned(run_id, message.claim, entries):
            raise ProtocolError(CloseCode.MALFORMED, "an assignment has no claim in its entries")
        self.lease.changed.set()  # the lease is to be watched from now on
        try:
            self.inbox.assign(Assignment(run_id, message.claim, entries))
        except AikiError as error:
            LOGGER.error("run %s cannot be executed here: %s", run_id, error)  # noqa: TRY400
            self.lost(run_id, message.claim.epoch, str(error))

    def _claim_answered(self, answer: m.Answered) -> None:
        """Go on with a claim that counts, or give it up."""
        run_id, entries = answer.run_id, answer.entries
        held = self._ledger.claims.get(run_id)
        if held is None or held.ref.epoch != answer.epoch or held.confirmed:
            return
        if answer.held is m.Held.LOST:
            self._drop(run_id, "its claim was lost while the worker was not connected")
            return
        if answer.held is m.Held.OVER:
            self._ledger.over(run_id, entries)
        else:
            held.confirmed = True
            held.heard(entries)
            for pending in self._ledger.under(run_id, held.ref):
                pending.missed = entries
                try:
                    self._say(pending)
                except AikiError as error:
                    self._ledger.settle(pending, error)
        if entries:
            self.inbox.push(run_id, entries)

    def _drop(self, run_id: str, reason: str) -> None:
        """Give a run up whose claim does not count any more."""
        self._ledger.drop(run_id, reason)
        self.inbox.drop(run_id, reason)

    def _give_up_unreadable(self, document: list[JsonValue], error: JournalVersionError) -> None:
        """Give back a run whose entries this release cannot read."""
        about = self._ledger.named_by(document)
        if about is None:
            raise ProtocolError(CloseCode.MALFORMED, error.message) from error
        run_id, epoch = about
        self._send(m.Broken(run_id, epoch, error.message))
        if run_id in self._ledger.claims:
            self._drop(run_id, error.message)

    def _wake_waiting(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def _nothing() -> None:
    """Stand in for the wake of a link that has no connection."""
