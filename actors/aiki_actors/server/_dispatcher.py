"""The dispatcher: who executes what is ready. The queue actor's state, changed by plain calls.

A run that becomes ready is first *offered*: if a worker has a free slot, the slot is taken and
the run is claimed for that worker in the very entry that makes it ready, which saves a commit and
a hop. Otherwise it stands in the queue until a slot is freed, and is claimed by a command then.

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


@frozen
class Offer:
    """A slot taken for a run that may become ready; `warm`: that worker has it in memory."""

    claim: e.ClaimOffer
    warm: bool


@frozen
class Session:
    """A connected worker."""

    worker_id: str
    inbox: Inbox


@define(eq=False)
class Dispatcher:
    """Matches ready runs and free slots.

    Attributes:
        claim: carries a match out: (run id, worker id, claim id, warm).
        now: the runtime's clock.
        drained: set when half of the queue was handed out and the database has more.
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
                session.worker_id, serves, pools, slots, self.now(), namespace=namespace, held=held
            )
        )

    def attach(self, session: Session) -> None:
        """Let a worker hear of runs that it holds, without giving it others yet."""
        self.sessions[session.worker_id] = session

    def leave(self, worker_id: str) -> None:
        """Forget a worker; its claims are the keeper's to take back."""
        self.sessions.pop(worker_id, None)
        self.matcher.worker_left(worker_id)

    def offer(self, run_id: str, spec: e.RunCreated) -> Offer | None:
        """Take a slot for a run that may become ready now; give it back with `withdraw`."""
        slots = self.matcher.slots
        holder = slots.warm_holder(run_id)
        key = QueueKey(spec.namespace, spec.workflow, spec.version, spec.pool)
        worker_id = slots.reserve(key, warm=holder)
        if worker_id is None:
            return None
        fault_point("queue.offered")
        return Offer(e.ClaimOffer(worker_id, self.ids.claim_id()), worker_id == holder)

    def withdraw(self, worker_id: str) -> None:
        """Give a slot back that no claim came of, or whose claim has ended."""
        self._carry_out(self.matcher.slot_freed(worker_id, self.now()))

    def ready(self, runs: Iterable[ReadyRun]) -> None:
        """Let runs stand in the queue, or hand them out at once."""
        self._carry_out(self.matcher.runs_ready(runs, self.now()))

    def gone(self, run_id: str) -> None:
        """Take a run out of the queue."""
        self.matcher.run_gone(run_id)

    def parked(self, run_id: str, worker_id: str) -> None:
        """Note that a worker keeps a parked run in memory."""
        if worker_id in self.sessions:
            self.matcher.slots.keep_warm(run_id, worker_id)

    def forget_warm(self, run_id: str, worker_id: str | None = None) -> None:
        """Note that nobody keeps the run in memory; given a worker, that this one does not."""
        if worker_id is None or self.matcher.slots.warm_holder(run_id) == worker_id:
            self.matcher.slots.forget_warm(run_id)

    def _carry_out(self, matches: list[Match]) -> None:
        queue = self.matcher.queue
        if queue.overflowed and len(queue) <= queue.capacity // 2:
            self.drained.set()
        for match in matches:
            fault_point("queue.popped")
            self.claim(match.run.run_id, match.worker_id, self.ids.claim_id(), match.warm)
