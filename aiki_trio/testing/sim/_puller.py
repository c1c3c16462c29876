"""What takes runs from the simulated Redis for a worker: the real consumer, over a link.

It stands where `SessionClaims` stands in a worker of its own process, and keeps the same ledger of
claims, from which it knows how much room there is and which messages have done their work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.queue import Served
from aiki_actors.queue.redis import ClaimAnswer, Consumer, Message, QueueHealth, RedisSettings
from aiki_actors.worker import Assignment
from aiki_actors.worker._remote_ledger import Ledger
from aiki_sdk import AikiError, Clock, Rng, Unavailable

from ._channel import Answer
from ._link import SimLink
from ._redis_wire import SimConnector

if TYPE_CHECKING:
    from ._server import ServerLife


@define(eq=False)
class Puller:
    """The `ClaimPort` of one worker's consumer.

    Attributes:
        ledger: what this worker has been assigned and has not given back.
        consumer: what reads messages.

    """

    link: SimLink
    ledger: Ledger = field(factory=Ledger, init=False)
    consumer: Consumer = field(init=False)
    _taking: bool = field(default=False, init=False)
    _pulls: bool = field(default=True, init=False)

    # -- what the consumer asks (aiki_actors.queue.redis.ClaimPort) --------------------------------

    def free(self) -> int:
        """Return how many more runs can be taken now."""
        if not (self._taking and self.link.open_here):
            return 0
        return max(0, self.link.settings.runs_max - len(self.ledger.claims))

    async def claim(self, message: Message) -> ClaimAnswer:
        """Ask the server for the claim of a message's run."""
        run_id = message.run_id
        try:
            await self.link.ask(lambda life, answer: self._claim(life, run_id, answer))
        except AikiError as error:
            return ClaimAnswer.UNKNOWN if error.retryable else ClaimAnswer.REFUSED
        return ClaimAnswer.HELD

    def _claim(self, life: ServerLife, run_id: str, answer: Answer) -> None:
        worker_id = self.link.worker_id
        claim_id = life.runtime.dispatcher.take_slot(worker_id)
        if claim_id is None:
            full = Unavailable(f"worker {worker_id} has no free slot")
            self.link.reply(life, answer, error=full)
            return
        self._do(life, run_id, e.ClaimRun(worker_id, claim_id), answer, pulled=True)

    async def poisoned(self, message: Message) -> bool:
        """Have a run stalled; a run that is not queued any more needs no such thing."""
        stall = e.StallRun(f"its message was delivered {message.deliveries} times")
        try:
            await self.link.ask(
                lambda life, answer: self._do(life, message.run_id, stall, answer, pulled=False)
            )
        except AikiError as error:
            return not error.retryable
        return True

    def _do(
        self, life: ServerLife, run_id: str, command: e.Command, answer: Answer, *, pulled: bool
    ) -> None:
        runtime = life.runtime

        async def carry_out() -> None:
            try:
                await runtime.runs.do(run_id, command, namespace=runtime.namespace, pulled=pulled)
            except AikiError as error:
                self.link.reply(life, answer, error=error)
                return
            self.link.reply(life, answer)

        life.serve(carry_out)

    def health_changed(self, health: QueueHealth) -> None:
        """Pull, or be handed runs."""
        self._pulls = health.ok
        if self._taking:
            self._tell_pulls()

    def _tell_pulls(self) -> None:
        worker_id, pulls = self.link.worker_id, self._pulls
        self.link.tell(lambda life: life.runtime.dispatcher.pulls(worker_id, pulls))

    def lost(self, number: int) -> None:
        """Have the server make sure of all that it published."""
        self.link.disk.trace.note(self.link.node.name, f"misses {number} messages")
        self.link.tell(lambda life: life.runtime.dispatcher.messages_lost())

    # -- what the link tells -----------------------------------------------------------------------

    def join(self) -> None:
        """Take runs from now on."""
        self._taking = True
        self._tell_pulls()
        self.consumer.changed()

    def leave(self) -> None:
        """Take no more runs."""
        self._taking = False

    def assigned(self, assignment: Assignment) -> None:
        """Note a claim."""
        self.ledger.assigned(assignment.run_id, assignment.claim, assignment.entries)

    def heard(self, run_id: str, entries: Sequence[e.Entry]) -> None:
        """Note what happened to a run, its claim's end above all."""
        self.ledger.heard(run_id, entries)

    def refused(self, run_id: str, commands: Sequence[e.WorkerCommand]) -> None:
        """Note that a claim does not count any more."""
        held = self.ledger.claims.get(run_id)
        if held is not None and any(command.claim == held.ref for command in commands):
            self.ledger.drop(run_id, "its claim does not count")


def puller_of(
    link: SimLink, settings: RedisSettings, clock: Clock, rng: Rng, connect: SimConnector
) -> Puller:
    """Make what takes runs for the worker of a link."""
    puller = link.puller = Puller(link)
    served = Served.of(
        ((workflow.name, workflow.version) for workflow in link.registry),
        pools=link.settings.pools,
        namespace=link.life.runtime.namespace,
    )
    consumer = Consumer(settings, link.worker_id, served, puller, clock, rng, connect)

    def let_go(run_id: str, lost: bool) -> None:
        if lost:
            consumer.abandoned(run_id)
        else:
            consumer.ended(run_id)

    puller.consumer, puller.ledger.let_go = consumer, let_go
    return puller
