"""Redis beside a runtime: what it publishes there, and how its own worker pulls.

Import this module only where Redis is used; it needs redis-py (extra `redis`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Never

from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.kernel import ChildSpec
from aiki_actors.queue import LoopActor, RedisSettings, Served
from aiki_actors.queue.redis import (
    ClaimAnswer,
    Consumer,
    Message,
    Publisher,
    QueueHealth,
    UpdatePublisher,
)
from aiki_actors.worker import RemoteServer
from aiki_actors.worker._pulling import SessionClaims
from aiki_sdk import AikiError, Clock, Rng

from ._local_session import LocalSession

if TYPE_CHECKING:
    from ._runtime import Runtime

PUBLISHER: Final = "publisher"
UPDATES: Final = "updates"
PULLER: Final = "puller"
"""Names in the actor tree."""


@define(eq=False)
class RedisQueue:
    """The server's side of Redis: ready runs and updates are published there."""

    runtime: Runtime
    settings: RedisSettings
    publisher: Publisher = field(init=False)
    updates: UpdatePublisher | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Make both ends, and let dispatcher and hub know of them; nothing is connected yet."""
        runtime = self.runtime
        # A claim id is random: no other server, nor another process of this one, has the same.
        self.publisher = Publisher(
            self.settings,
            runtime.ids.claim_id(),
            runtime.clock,
            runtime.rng,
            self._health_changed,
        )
        runtime.dispatcher.publisher = self.publisher
        runtime.dispatcher.late = round(self.settings.late_s * e.SECOND)
        if self.settings.publish_updates:
            self.updates = UpdatePublisher(self.settings, runtime.clock, runtime.rng)
            runtime.hub.tap = self.updates.publish

    def _health_changed(self, health: QueueHealth) -> None:
        self.runtime.dispatcher.publishes(health.ok)

    def problems(self) -> dict[str, str]:
        """Say in words what of Redis does not work, by component."""
        found: dict[str, str] = {}
        if not self.publisher.health.ok:
            found["redis"] = (
                f"{self.publisher.health.message}; runs are handed out over workers' sessions"
            )
        if self.updates is not None and not self.updates.health.ok:
            found["updates"] = f"{self.updates.health.message}; updates are not published"
        return found

    def specs(self) -> tuple[ChildSpec[Never], ...]:
        """Describe the actors that publish."""
        publisher = ChildSpec[Never](PUBLISHER, lambda: LoopActor(self.publisher))
        updates = self.updates
        if updates is None:
            return (publisher,)
        return (publisher, ChildSpec[Never](UPDATES, lambda: LoopActor(updates)))


@define(eq=False)
class LocalClaims:
    """What the consumer of a runtime's own worker asks for; see `queue.redis.ClaimPort`."""

    runtime: Runtime
    session: LocalSession

    def free(self) -> int:
        """Return how many more runs can be taken now."""
        slots = self.runtime.dispatcher.matcher.slots
        return slots.free(self.session.worker_id) if self.session.joined else 0

    async def claim(self, message: Message) -> ClaimAnswer:
        """Claim a message's run for the worker."""
        worker_id = self.session.worker_id
        claim_id = self.runtime.dispatcher.take_slot(worker_id)
        if claim_id is None:
            return ClaimAnswer.UNKNOWN
        command = e.ClaimRun(worker_id, claim_id)
        return await self._asked(message.run_id, command, pulled=True)

    async def poisoned(self, message: Message) -> bool:
        """Have a run stalled; a run that is not queued any more needs no such thing."""
        reason = f"its message was delivered {message.deliveries} times and never settled"
        answer = await self._asked(message.run_id, e.StallRun(reason), pulled=False)
        return answer is not ClaimAnswer.UNKNOWN

    async def _asked(self, run_id: str, command: e.Command, *, pulled: bool) -> ClaimAnswer:
        namespace = self.session.namespace
        try:
            await self.runtime.runs.do(run_id, command, namespace=namespace, pulled=pulled)
        except AikiError as error:
            return ClaimAnswer.UNKNOWN if error.retryable else ClaimAnswer.REFUSED
        return ClaimAnswer.HELD

    def health_changed(self, health: QueueHealth) -> None:
        """Pull from Redis, or be handed runs."""
        self.runtime.dispatcher.pulls(self.session.worker_id, health.ok)

    def lost(self, number: int) -> None:
        """Make sure of all that was published."""
        del number  # one is enough to look after them all
        self.runtime.dispatcher.messages_lost()


def local_puller(
    runtime: Runtime, settings: RedisSettings, session: LocalSession
) -> tuple[Callable[[], None], ChildSpec[Never]]:
    """Describe what pulls for a runtime's own worker; the function has it look what it serves."""
    consumer = Consumer(
        settings,
        session.worker_id,
        served_by(session),
        LocalClaims(runtime, session),
        runtime.clock,
        runtime.rng,
    )
    session.ended = consumer.ended

    def serve() -> None:
        consumer.serve(served_by(session))

    return serve, ChildSpec(PULLER, lambda: LoopActor(consumer))


def served_by(session: LocalSession) -> Served:
    """Return what a runtime's own worker serves now."""
    return Served.of(
        ((workflow.name, workflow.version) for workflow in session.registry),
        pools=session.settings.pools,
        namespace=session.namespace,
    )


def remote_puller(
    settings: RedisSettings, remote: RemoteServer, clock: Clock, rng: Rng
) -> ChildSpec[Never]:
    """Describe what pulls for a worker of a server in another process."""
    served = Served.of(
        ((workflow.name, workflow.version) for workflow in remote.registry),
        pools=remote.pools,
        namespace=remote.identity.namespace,
    )
    consumer = Consumer(settings, remote.worker_id, served, SessionClaims(remote), clock, rng)

    def let_go(run_id: str, lost: bool) -> None:
        if lost:
            consumer.abandoned(run_id)
        else:
            consumer.ended(run_id)

    remote.let_go = let_go
    remote.pulls(True)  # until it is known that Redis fails
    return ChildSpec(PULLER, lambda: LoopActor(consumer))
