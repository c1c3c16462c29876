"""A server in another process, as its worker sees it: a `ServerPort` over a session.

    executors ──submit──► RemoteServer ──link──► (websocket) ──► server
    subscriber ◄─assign, push── RemoteServer ◄──link──┘

It outlives connections: while there is none, submissions wait. When the server has forgotten the
session (it was restarted), another one begins: the worker names each claim that it holds, hears
whether it counts and what it has missed, and submits again what is still open; whatever had taken
effect already finds its effect and changes nothing.

Invariants: `_claims` has exactly the claims that count as far as this worker can know; a submission
under any other is `StaleClaim` at once. If no heartbeat was answered for two thirds of the lease,
there are none any more, whatever the server thinks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio
from attrs import Factory, define, field, frozen

from aiki_actors import engine as e
from aiki_actors.kernel import Reply
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

LOGGER: Final = logging.getLogger("aiki.worker")

ANNOUNCED_AT_ONCE: Final = 20
CLAIMS_PER_BEAT: Final = 500
BEATS_MAX: Final = 64
"""Heartbeats without an answer of which the time is remembered."""

Entries = tuple[e.Entry, ...]

CLAIM_ENDS: Final = frozenset(
    row.entry
    for row in e.ROWS
    if e.Phase.RUNNING in row.sources and row.target not in {None, e.Phase.RUNNING}
)
"""Entries after which nobody holds the run's claim."""

_OWN_ENDS: Final[Mapping[type[e.WorkerCommand], tuple[type[e.Body], ...]]] = {
    e.ParkRun: (e.RunParked,),
    e.ReleaseClaim: (e.ClaimReleased,),
    e.CompleteRun: (e.RunCompleted,),
    e.FailRun: (e.RunFailed, e.RunAttemptFailed, e.RunCancelled),
    e.ContinueRun: (e.RunContinued, e.RunCancelled),
    e.Diverge: (e.RunFailed, e.RunStalled),
    e.FinishCancel: (e.RunCancelled,),
}
"""The entries by which a worker's own command ends its claim."""


@define(eq=False)
class _Claimed:
    """A claim, and the seqs of the entry that made it and of the last one heard without a gap."""

    ref: e.ClaimRef
    claimed_seq: int
    seq: int
    confirmed: bool = True
    early: set[int] = Factory(lambda: set[int]())

    def heard(self, entries: Sequence[e.Entry]) -> None:
        """Note entries; they may come a little out of order."""
        for entry in entries:
            if entry.seq == self.seq + 1:
                self.seq += 1
            elif entry.seq > self.seq:
                self.early.add(entry.seq)
        while self.early and self.seq + 1 in self.early:
            self.seq += 1
            self.early.discard(self.seq)


@define(eq=False)
class _Pending:
    """A submission without an answer yet (no claim: the wish to have one back)."""

    number: int
    run_id: str
    claim: e.ClaimRef | None
    commands: tuple[e.WorkerCommand, ...]
    reply: Reply[Entries] = Factory(lambda: Reply[Entries]())
    missed: Entries = ()


@frozen
class WorkerIdentity:
    """Who a worker is, for as long as its process lives; the token is its secret."""

    worker_id: str
    token: str
    namespace: str
    release: str = ""


def host_name(name: str) -> str:
    """Return a host's name as it may stand in a worker's id."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:100] or "host"


@define(eq=False)
class RemoteServer:
    """A server behind a session. `inbox` is set before the first connection."""

    identity: WorkerIdentity
    registry: WorkflowRegistry
    pools: tuple[str, ...]
    runs_max: int
    monotonic: Callable[[], float]
    limits: SessionLimits = field(factory=SessionLimits)
    inbox: WorkerInbox = field(init=False)
    connection: Connection | None = field(default=None, init=False)
    heard: trio.Event = field(factory=trio.Event, init=False)
    link: Link = field(init=False)
    _session: str | None = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)
    _settled: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _claims: dict[str, _Claimed] = field(factory=lambda: dict[str, _Claimed](), init=False)
    _parked: dict[str, None] = field(factory=lambda: dict[str, None](), init=False)
    _parts: dict[str, list[e.Entry]] = field(factory=lambda: dict[str, list[e.Entry]](), init=False)
    _pending: dict[int, _Pending] = field(factory=lambda: dict[int, _Pending](), init=False)
    _number: int = field(default=0, init=False)
    _beat: int = field(default=0, init=False)
    _beats: dict[int, float] = field(factory=lambda: dict[int, float](), init=False)
    _answered_at: float = field(default=0.0, init=False)
    _room: trio.Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin without a session."""
        self.link = Link(self.limits)

    @property
    def worker_id(self) -> str:
        """The worker."""
        return self.identity.worker_id

    def describe(self) -> str:
        """Return how the session is."""
        state = "connected" if self.connection is not None else "not connected"
        return f"{state}, {len(self._claims)} runs, {len(self._pending)} submissions open"

    # -- what the worker says (ServerPort) ----------------------------------------------------

    async def submit(self, run_id: str, commands: tuple[e.WorkerCommand, ...]) -> Entries:
        """Carry out commands as one change; see `ServerPort.submit`."""
        claim = commands[0].claim
        held = await self._held(run_id, claim)
        while self.link.full:
            await self._wait_for_room()
            held = await self._held(run_id, claim)
        pending = self._open(run_id, claim, commands)
        if held.confirmed:
            self._say(pending)
        return await pending.reply.wait_shielded()

    async def _held(self, run_id: str, claim: e.ClaimRef) -> _Claimed:
        held = self._claims.get(run_id)
        if held is None or held.ref != claim:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise StaleClaim(f"the claim on run {run_id} is not held any more; drop the run")
        return held

    async def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()

    def _open(
        self, run_id: str, claim: e.ClaimRef | None, commands: tuple[e.WorkerCommand, ...]
    ) -> _Pending:
        self._number += 1
        pending = self._pending[self._number] = _Pending(self._number, run_id, claim, commands)
        return pending

    def _say(self, pending: _Pending) -> None:
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
            self._pending.pop(pending.number, None)
            raise

    async def reclaim(self, run_id: str) -> None:
        """Ask for the claim of a parked run whose code goes on by itself.

        Raises:
            Unavailable: the server cannot now.

        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise Unavailable("the worker is stopping")
        pending = self._open(run_id, None, ())
        self._send(m.Reclaim(pending.number, run_id))
        await pending.reply.wait_shielded()

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Say that the execution under this claim broke down."""
        held = self._claims.get(run_id)
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
        if run_id in self._parked:
            del self._parked[run_id]
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
        self._answer_came(said_at)
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
        self._parked.clear()
        self._parts.clear()
        self.inbox.forget_warm()
        for pending in [one for one in self._pending.values() if one.claim is None]:
            self._settle(pending, ())  # its run was warm, and has been evicted
        definitions = [to_wire(definition_of(workflow)) for workflow in self.registry]
        for first in range(0, len(definitions), ANNOUNCED_AT_ONCE):
            self._send(m.Announce(tuple(definitions[first : first + ANNOUNCED_AT_ONCE])))
        for run_id, held in self._claims.items():
            held.confirmed = False
            self._send(m.Holds(run_id, held.ref, held.claimed_seq, held.seq))
        self._settle_session()

    def _settle_session(self) -> None:
        """Take runs once every claim was answered for."""
        if not self._settled and all(held.confirmed for held in self._claims.values()):
            self._settled = True
            if self._serving:
                self._serve()

    # -- heartbeats ---------------------------------------------------------------------------

    def beat(self) -> None:
        """Ask for a sign of life, and whether the claims still count."""
        claims = [(run_id, held.ref.epoch) for run_id, held in self._claims.items()]
        for first in range(0, len(claims), CLAIMS_PER_BEAT):
            self._send(m.Beating(tuple(claims[first : first + CLAIMS_PER_BEAT])))
        self._beat += 1
        self._beats[self._beat] = self.monotonic()
        while len(self._beats) > BEATS_MAX:
            del self._beats[next(iter(self._beats))]
        self.link.beat(self._beat)

    def lease_left_s(self) -> float:
        """Return the seconds for which the claims count without another answer; may be < 0."""
        return self._answered_at + self.limits.worker_lease_s - self.monotonic()

    def _answer_came(self, asked_at: float) -> None:
        """Note an answer; the lease runs from when it was asked for, not from when it came."""
        self._answered_at = max(self._answered_at, asked_at)
        self.heard.set()

    def lapse(self) -> None:
        """Hold nothing any more: no answer came for so long that the claims may be others'."""
        seconds = self.limits.worker_lease_s
        for run_id in list(self._claims):
            self._drop(run_id, f"no answer from the server for {seconds:g} s")
        self._session = None
        if self.connection is not None:
            reason = f"no heartbeat was answered for {seconds:g} s"
            self.connection.close(SessionClosed(CloseCode.TIMEOUT, reason))

    @property
    def holds_claims(self) -> bool:
        """Whether any claim counts."""
        return bool(self._claims)

    def close(self) -> None:
        """End for good: nothing that is said from now on is heard."""
        self._closed = True
        for run_id in list(self._claims):
            self._drop(run_id, "the worker has ended")
        for pending in list(self._pending.values()):
            self._settle(pending, StaleClaim("the worker has ended"))
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
            asked_at = self._beats.pop(taken.echo, None)
            if asked_at is not None:
                self._answer_came(asked_at)
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
                pending = self._pending.get(number)
                if pending is not None:
                    self._note(pending.run_id, entries)
                    self._settle(pending, pending.missed + entries)
            case m.Refused(number, code, text, details):
                pending = self._pending.get(number)
                if pending is not None:
                    self._refused(pending, error_from_wire(code, text, details))
            case m.Assigned():
                self._assigned(message)
            case m.Pushed(run_id, entries):
                self._note(run_id, entries)
                self.inbox.push(run_id, entries)
            case m.Answered():
                self._claim_answered(message)
                self._settle_session()
            case m.Gone(claims):
                for run_id, epoch in claims:
                    held = self._claims.get(run_id)
                    if held is not None and held.ref.epoch == epoch:
                        self._drop(run_id, "the server says that its claim is lost")

    def _refused(self, pending: _Pending, error: AikiError) -> None:
        held = self._claims.get(pending.run_id)
        if isinstance(error, StaleClaim) and held is not None and held.ref == pending.claim:
            del self._claims[pending.run_id]
        self._settle(pending, error)

    def _assigned(self, message: m.Assigned) -> None:
        """Take an assignment in; it may come in several parts."""
        run_id, entries = message.run_id, message.entries
        earlier = self._parts.pop(run_id, None)
        if earlier is not None:
            entries = (*earlier, *entries)
        if not message.last:
            self._parts[run_id] = list(entries)
            return
        self._parked.pop(run_id, None)
        claimed = [one.seq for one in entries if isinstance(one.body, e.RunClaimed)]
        if not claimed:
            raise ProtocolError(CloseCode.MALFORMED, "an assignment has no claim in its entries")
        self._claims[run_id] = _Claimed(message.claim, claimed[-1], entries[-1].seq)
        self.heard.set()  # the lease is to be watched from now on
        try:
            self.inbox.assign(Assignment(run_id, message.claim, entries))
        except AikiError as error:
            LOGGER.error("run %s cannot be executed here: %s", run_id, error)  # noqa: TRY400
            self.lost(run_id, message.claim.epoch, str(error))

    def _note(self, run_id: str, entries: Sequence[e.Entry]) -> None:
        """Note how far the worker has heard, and whether its claim has ended by that."""
        held = self._claims.get(run_id)
        if held is None:
            return
        held.heard(entries)
        for entry in entries:
            if type(entry.body) in CLAIM_ENDS:
                if isinstance(entry.body, e.RunParked):
                    self._parked[run_id] = None
                del self._claims[run_id]
                return

    def _claim_answered(self, answer: m.Answered) -> None:
        """Go on with a claim that counts, or give it up."""
        run_id, entries = answer.run_id, answer.entries
        held = self._claims.get(run_id)
        if held is None or held.ref.epoch != answer.epoch or held.confirmed:
            return
        if answer.held is m.Held.LOST:
            self._drop(run_id, "its claim was lost while the worker was not connected")
            return
        open_ones = self._pending_of(run_id, held.ref)
        if answer.held is m.Held.OVER:
            del self._claims[run_id]
            self._claim_over(open_ones, entries)
        else:
            held.confirmed = True
            held.heard(entries)
            for pending in open_ones:
                pending.missed = entries
                self._say(pending)
        if entries:
            self.inbox.push(run_id, entries)

    def _claim_over(self, open_ones: list[_Pending], entries: Entries) -> None:
        """Answer what was submitted under a claim that has ended while nobody was connected.

        What came before the command that ended it took effect, and is among the entries.
        """
        end = type(entries[-1].body)
        by = [
            at
            for at, pending in enumerate(open_ones)
            if any(end in _OWN_ENDS.get(type(command), ()) for command in pending.commands)
        ]
        through = by[-1] if by else -1
        for at, pending in enumerate(open_ones):
            if at <= through:
                self._settle(pending, entries)
            else:
                self._settle(pending, StaleClaim(f"the claim on run {pending.run_id} has ended"))

    def _pending_of(self, run_id: str, claim: e.ClaimRef) -> list[_Pending]:
        return [
            one for one in self._pending.values() if one.run_id == run_id and one.claim == claim
        ]

    def _drop(self, run_id: str, reason: str) -> None:
        """Give a run up whose claim does not count any more."""
        held = self._claims.pop(run_id)
        for pending in self._pending_of(run_id, held.ref):
            self._settle(pending, StaleClaim(f"run {run_id}: {reason}"))
        self.inbox.drop(run_id, reason)

    def _give_up_unreadable(self, document: list[JsonValue], error: JournalVersionError) -> None:
        """Give back a run whose entries this release cannot read."""
        match document[:3]:
            case ["assign" | "push", str(run_id), *_]:
                pass
            case ["done", int(number), *_] if number in self._pending:
                run_id = self._pending[number].run_id
            case _:
                raise ProtocolError(CloseCode.MALFORMED, error.message) from error
        match document[:3]:
            case ["assign", _, int(epoch)]:
                self._send(m.Broken(run_id, epoch, error.message))
            case _:
                held = self._claims.get(run_id)
                if held is not None:
                    self._send(m.Broken(run_id, held.ref.epoch, error.message))
                    self._drop(run_id, error.message)

    def _settle(self, pending: _Pending, outcome: Entries | AikiError) -> None:
        self._pending.pop(pending.number, None)
        if isinstance(outcome, AikiError):
            pending.reply.fail(outcome)
        else:
            pending.reply.send(outcome)

    def _wake_waiting(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def _nothing() -> None:
    """Stand in for the wake of a link that has no connection."""
