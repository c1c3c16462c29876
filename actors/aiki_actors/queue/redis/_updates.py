"""The server's side of pub/sub: publishes updates on the channel of their namespace.

Pub/sub keeps nothing, and neither do we: while Redis is away, or slower than the updates come, they
are dropped and counted. A subscriber sees the gap by the seq and reads the journal.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import trio
from attrs import define, field

from aiki_actors.queue._redis_settings import RedisSettings
from aiki_sdk import Clock, Rng
from aiki_sdk.protocol import Update
from aiki_sdk.pubsub import update_message, updates_channel

from ._connection import Connection, Wire
from ._trouble import Backoff, HealthState, QueueHealth, RedisFailed

LOGGER: Final = logging.getLogger("aiki.queue.redis")

BUFFER: Final = 10_000
"""Updates that may wait to be published; some megabytes."""

BATCH: Final = 500
"""Updates that are published in one trip."""

_PART: Final = "updates"


@define(eq=False)
class UpdatePublisher:
    """Publishes updates.

    Attributes:
        buffer: how many updates may wait.
        published: how many were handed to Redis so far.
        dropped: how many were not, so far.

    """

    settings: RedisSettings
    clock: Clock
    rng: Rng
    health_changed: Callable[[QueueHealth], None] = field(default=lambda _health: None)
    buffer: int = BUFFER
    published: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    _health: HealthState = field(init=False)
    _updates: deque[tuple[str, Update]] = field(
        factory=lambda: deque[tuple[str, Update]](), init=False
    )
    _wake: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the parts; nothing is connected before `run`."""
        self._health = HealthState(self.clock, self._announce, (_PART,))

    @property
    def health(self) -> QueueHealth:
        """Whether updates reach Redis now."""
        return self._health.now

    def publish(self, namespace: str, updates: Sequence[Update]) -> None:
        """Publish updates of one run, soon; never waits. What finds no room is dropped."""
        room = self.buffer - len(self._updates)
        self._updates.extend((namespace, update) for update in updates[:room])
        self.dropped += max(0, len(updates) - room)
        self._wake.set()

    def describe(self) -> str:
        """Say in one line how it goes."""
        health = self.health
        state = "ok" if health.ok else f"degraded ({health.trouble})"
        return f"{state}, {self.published} published, {self.dropped} dropped"

    async def run(self) -> None:
        """Publish until cancelled; ends at once, whatever the connection is doing."""
        connection = Connection(self.settings, "updates")
        backoff = Backoff(self.settings.backoff_s, self.settings.backoff_max_s, self.rng)
        while True:
            self._wake = trio.Event()
            if not self._updates:
                # A word now and then keeps the health true.
                with trio.move_on_after(self.settings.tick_s if self.health.ok else 0.0):
                    await self._wake.wait()
            batch = [self._updates.popleft() for _ in range(min(BATCH, len(self._updates)))]
            try:
                await connection.work(partial(_send, batch=batch))
            except RedisFailed as failure:
                if backoff.forgives(failure):
                    self._updates.extendleft(reversed(batch))
                    continue
                self.dropped += len(batch) + len(self._updates)
                self._updates.clear()
                self._health.fails(_PART, failure)
                await trio.sleep(backoff.next_s())
            else:
                self.published += len(batch)
                backoff.reset()
                self._health.works(_PART)
                if len(batch) < BATCH:
                    # A trip to the thread costs more than an update: let some more come together.
                    await trio.sleep(self.settings.gather_s)

    def _announce(self, health: QueueHealth) -> None:
        if not health.ok:
            LOGGER.warning("updates are not published through Redis: %s", health.message)
        self.health_changed(health)


def _send(wire: Wire, batch: Sequence[tuple[str, Update]]) -> None:
    """Write the messages, in the thread, and send them in one go; an empty batch is a PING."""
    if not batch:
        wire.call("PING")
        return
    replies = wire.exchange(
        [("PUBLISH", updates_channel(space), update_message(update)) for space, update in batch]
    )
    for reply in replies:
        if isinstance(reply, RedisFailed):
            raise reply
