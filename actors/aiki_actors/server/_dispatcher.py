"""The dispatcher: who executes what is ready. The queue actor's state, changed by plain calls.

A run that becomes ready is first *offered*: if a worker has a free slot, the slot is taken and
the run is claimed for that worker in the very entry that makes it ready, which saves a commit and
a hop. Otherwise it stands in the queue until a slot is freed, and is claimed by a command then.

With a message queue in use, what stands in the queue is published there too, and workers that
*pull* ask for the claims themselves: they are handed only what they keep warm. A message is no
more than a hint, and the queue here goes on: where Redis fails, workers are handed runs again.

Invariant: every slot taken is given back exactly once: when the claim it was taken for ends, or
when no claim came of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio
from attrs import Factory, define, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.queue import Assignment as Match, Matcher, QueueKey
from aiki_actors.storage import ReadyRun
from aiki_sdk import Ids

LOGGER: Final = logging.getLogger("aiki.server")


class Inbox(Protocol):
    """The worker's side of a session; see `aiki_actors.worker.WorkerInbox`."""

    def assign(self, run_id: str, claim: e.ClaimRef, entries: tuple[e.Entry, ...]) -> None:
        """Execute a run, or go on with a warm one."""
        ...

    def push(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        """Something happened to a run that the worker executes."""
        ...

    def cool(self, run_id: str) -> None:
        """A parked run goes on elsewhere, or has ended: it is not to be kept warm any more."""
        ...


class ReadyPublisher(Protocol):
    """What publishes ready runs; see `aiki_actors.queue.redis.Publisher`. Nothing here waits."""

    def publish(self, run: ReadyRun) -> bool:
        """Publish a ready run, soon; False if it is published already, or there is no room."""
        ...

    def gone(self, run_id: str, *, keep: bool) -> None:
        """Publish a run no longer; `keep`: the worker that has its message acknowledges it."""
        ...

    def recheck(self) -> None:
        """Make sure of every run, because messages may be lost."""
        ...


@frozen
class Offer:
    """A slot taken for a run that may become ready; `warm`: that worker has it in memory."""

    claim: e.ClaimOffer
    warm: bool


@frozen
class Session:
    """A connected worker.

    Attributes:
        ended: told of each run whose claim by this worker has ended; None: it finds out by itself.

    """

    worker_id: str
    inbox: Inbox
    ended: Callable[[str], None] | None = None


@define(eq=False)
class Dispatcher:
    """Matches ready runs and free slots.

    Attributes:
        claim: carries a match out: (run id, worker id, claim id, warm).
        now: the runtime's clock.
        drained: set when half of the queue was handed out and the database has more.
        publisher: where ready runs are published for workers that pull; None: nowhere.
        late: after how long, in microseconds, a run that is published is handed to a worker that
            pulls; None: never.
        published: whether the publisher works; while it does not, no worker is left to pull.
        broken: claims (run id, epoch) of workers that are here, which are lost and could not be
            taken back yet, with the reason; the keeper comes back to them.

    """

    ids: Ids
    now: Callable[[], e.Micros]
    claim: Callable[[str, str, str, bool], None]
    matcher: Matcher = Factory(Matcher)
    drained: trio.Event = Factory(trio.Event)
    sessions: dict[str, Session] = Factory(lambda: dict[str, Session]())
    broken: dict[tuple[str, int], str] = Factory(lambda: dict[tuple[str, int], str]())
    publisher: ReadyPublisher | None = None
    late: int | None = None
    published: bool = False
    _pulling: dict[str, bool] = Factory(lambda: dict[str, bool]())

    def join(
        self,
        session: Session,
        serves: frozenset[tuple[str, str]],
        pools: frozenset[str],
        slots: int,
        namespace: str,
        held: int | None = None,
    ) -> None:
        """Let a worker take part; `held`: the runs that it has already, None: as before."""
        self.sessions[session.worker_id] = session
        self._carry_out(
            self.matcher.worker_joined(
                session.worker_id,
                serves,
                pools,
                slots,
                self.now(),
                namespace=namespace,
                held=held,
                pulls=self._left_to_pull(session.worker_id),
            )
        )

    def attach(self, session: Session) -> None:
        """Let a worker hear of runs that it holds, without giving it others yet."""
        self.sessions[session.worker_id] = session

    def leave(self, worker_id: str) -> None:
        """Forget a worker; its claims are the keeper's to take back."""
        self.sessions.pop(worker_id, None)
        self._pulling.pop(worker_id, None)
        self.matcher.worker_left(worker_id)

    # -- workers that pull from a message queue -------------------------------------------------

    def pulls(self, worker_id: str, pulls: bool) -> None:
        """Note whether a worker pulls; one that stops is handed runs again at once."""
        self._pulling[worker_id] = pulls
        self._leave_to_pull(worker_id)

    def publishes(self, works: bool) -> None:
        """Note whether ready runs can be published; if not, every worker is handed runs."""
        self.published = works
        for worker_id in list(self._pulling):
            self._leave_to_pull(worker_id)

    def hand_out_late(self) -> None:
        """Hand to workers that pull, over their sessions, what they should have found long ago."""
        if self.late is not None and self.published:
            found = self.matcher.late(e.Micros(self.now() - self.late))
            if found:
                # Between two runs of a long queue a worker has room for a moment: no alarm.
                LOGGER.info(
                    "%d ready runs waited long although workers that pull had room, and are handed "
                    "to them; if that goes on, see whether they use the same Redis",
                    len(found),
                )
            self._carry_out(found)

    def messages_lost(self) -> None:
        """Publish again what nobody finds any more."""
        if self.publisher is not None:
            self.publisher.recheck()

    def take_slot(self, worker_id: str) -> str | None:
        """Take a slot of a worker that asks for a run; returns a claim id, None: it has no slot.

        It is given back as that of any other claim.
        """
        return self.ids.claim_id() if self.matcher.slots.reserve_on(worker_id) else None

    def serves(self, worker_id: str, spec: e.RunCreated) -> bool:
        """Tell whether a worker may execute such a run."""
        served = self.matcher.slots.served_by(worker_id)
        return served is not None and served.serves(_key_of(spec))

    def _leave_to_pull(self, worker_id: str) -> None:
        pulls = self._left_to_pull(worker_id)
        self._carry_out(self.matcher.worker_pulls(worker_id, self.now(), pulls=pulls))

    def _left_to_pull(self, worker_id: str) -> bool:
        """Tell whether a worker finds what is published: both sides have to reach the queue."""
        return self.published and self._pulling.get(worker_id, False)

    # -- ready runs ----------------------------------------------------------------------------

    def offer(self, run_id: str, spec: e.RunCreated) -> Offer | None:
        """Take a slot for a run that may become ready now; give it back with `withdraw`."""
        slots = self.matcher.slots
        holder = slots.warm_holder(run_id)
        worker_id = slots.reserve(_key_of(spec), warm=holder)
        if worker_id is None:
            return None
        fault_point("queue.offered")
        return Offer(e.ClaimOffer(worker_id, self.ids.claim_id()), worker_id == holder)

    def withdraw(self, worker_id: str) -> None:
        """Give a slot back that no claim came of, or whose claim has ended."""
        self._carry_out(self.matcher.slot_freed(worker_id, self.now()))

    def freed(self, run_id: str, worker_id: str) -> None:
        """Give the slot back of a claim that has ended."""
        session = self.sessions.get(worker_id)
        if session is not None and session.ended is not None:
            session.ended(run_id)
        self.withdraw(worker_id)

    def ready(self, runs: Iterable[ReadyRun]) -> None:
        """Let runs stand in the queue, or hand them out at once."""
        runs = list(runs)
        self._carry_out(self.matcher.runs_ready(runs, self.now()))
        if self.publisher is not None:
            for run in runs:
                if run.run_id in self.matcher.queue:
                    self.publisher.publish(run)

    def gone(self, run_id: str, *, pulled: bool = False) -> None:
        """Take a run out of the queue; `pulled`: its worker came by its message."""
        self.matcher.run_gone(run_id)
        if self.publisher is not None:
            self.publisher.gone(run_id, keep=pulled)

    def parked(self, run_id: str, worker_id: str) -> None:
        """Note that a worker keeps a parked run in memory."""
        if worker_id in self.sessions:
            self.matcher.slots.keep_warm(run_id, worker_id)

    def forget_warm(self, run_id: str, worker_id: str | None = None) -> None:
        """Note that nobody keeps the run in memory; given a worker, that this one does not."""
        if worker_id is None or self.matcher.slots.warm_holder(run_id) == worker_id:
            self.matcher.slots.forget_warm(run_id)

    def cool(self, run_id: str, executor: str | None) -> None:
        """Have nobody keep a run in memory but who executes it now, if anybody does."""
        holder = self.matcher.slots.warm_holder(run_id)
        if holder is not None:
            self.matcher.slots.forget_warm(run_id)
            if holder != executor:
                self._tell_cold(run_id, holder)

    def _tell_cold(self, run_id: str, worker_id: str) -> None:
        session = self.sessions.get(worker_id)
        if session is not None:
            session.inbox.cool(run_id)

    def _carry_out(self, matches: list[Match]) -> None:
        queue = self.matcher.queue
        if queue.overflowed and len(queue) <= queue.capacity // 2:
            self.drained.set()
        for match in matches:
            fault_point("queue.popped")
            if match.cooled is not None:
                self._tell_cold(match.run.run_id, match.cooled)
            self.claim(match.run.run_id, match.worker_id, self.ids.claim_id(), match.warm)


def _key_of(spec: e.RunCreated) -> QueueKey:
    return QueueKey(spec.namespace, spec.workflow, spec.version, spec.pool)
