"""A worker's housekeeping in Redis: what it holds, and the chores that follow from that.

Acknowledges what is done, shows that it holds what it holds, takes over messages of dead workers,
removes dead consumers. One connection, one task; `acknowledge` is a plain call that never waits.

Invariant: a chore that failed is due again, and an acknowledgement that failed is kept, so that
Redis being away for a while costs nothing but time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
from attrs import define, field

from aiki_actors.faults import fault_point
from aiki_actors.queue._redis_settings import RedisSettings
from aiki_sdk import Rng

from ._connection import Connect, Connection, Wire
from ._messages import Message
from ._pending import Place, acknowledge, leave, refresh, take_over, tidy
from ._reading import Batch
from ._trouble import Backoff, RedisFailed


@define(eq=False)
class House:
    """What one worker holds, and its chores.

    Attributes:
        consumer: the worker's name in the group.
        monotonic: the time in seconds.
        streams: lists the streams that it serves.
        free: how many more messages it can take.
        take: is given what was taken over.
        lost: is told of messages that are lost.
        failed: is told why Redis cannot be used, or None when it can.
        counts: what happened so far, by name.
        connect: makes the connections.

    """

    settings: RedisSettings
    consumer: str
    rng: Rng
    monotonic: Callable[[], float]
    streams: Callable[[], list[str]]
    free: Callable[[], int]
    take: Callable[[Batch], None]
    lost: Callable[[int], None]
    failed: Callable[[RedisFailed | None], None]
    counts: dict[str, int]
    connect: Connect
    held: dict[str, Message] = field(factory=lambda: dict[str, Message](), init=False)
    _acks: dict[Place, None] = field(factory=lambda: dict[Place, None](), init=False)
    _cursors: dict[str, str] = field(factory=lambda: dict[str, str](), init=False)
    _due: dict[str, float] = field(factory=lambda: dict[str, float](), init=False)
    _work: trio.Event = field(factory=trio.Event, init=False)

    def acknowledge(self, place: Place) -> None:
        """Take a message out of Redis, soon."""
        if len(self._acks) < self.settings.acks_max:
            self._acks[place] = None
        else:
            # It will be delivered again, and refused.
            self.count("acks dropped")
        self._work.set()

    def count(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    async def run(self) -> None:
        """Do the chores until cancelled."""
        settings = self.settings
        connection = self.connect(settings, f"keeper {self.consumer}")
        backoff = Backoff(settings.backoff_s, settings.backoff_max_s, self.rng)
        now_s = self.monotonic()
        self._due = dict.fromkeys(("refresh", "take over"), now_s)
        self._due["tidy"] = now_s + settings.tidy_every_s
        while True:
            try:
                await self._once(connection)
            except RedisFailed as failure:
                self._due["refresh"] = self.monotonic()
                if not backoff.forgives(failure):
                    self.failed(failure)
                    await trio.sleep(backoff.next_s())
                continue
            backoff.reset()
            self.failed(None)
            if not self._acks:
                self._work = trio.Event()
                with trio.move_on_after(max(0.0, min(self._due.values()) - self.monotonic())):
                    await self._work.wait()

    async def _once(self, connection: Connection) -> None:
        """Do what is due."""
        settings, now_s = self.settings, self.monotonic()
        if self._acks:
            await self._acknowledge(connection)
        if self._due["refresh"] <= now_s:
            await self._refresh(connection)
            self._due["refresh"] = now_s + settings.refresh_s
        if self._due["take over"] <= now_s:
            await self._take_over(connection)
            self._due["take over"] = now_s + settings.takeover_every_s
        if self._due["tidy"] <= now_s:
            await self._tidy(connection)
            self._due["tidy"] = now_s + settings.tidy_every_s

    async def _acknowledge(self, connection: Connection) -> None:
        done = list(self._acks)[: self.settings.batch]
        fault_point("message.done")
        await connection.work(lambda wire: acknowledge(wire, done))
        for place in done:
            self._acks.pop(place, None)
        self.count("acknowledged", len(done))

    async def _refresh(self, connection: Connection) -> None:
        """Refresh what is held; with nothing held, make sure that Redis answers."""
        held = {(message.stream, message.id): run_id for run_id, message in self.held.items()}

        def job(wire: Wire) -> list[Place]:
            if not held:
                wire.call("PING")
                return []
            return refresh(wire, self.consumer, list(held))

        for place in await connection.work(job):
            run_id = held[place]
            message = self.held.get(run_id)
            if message is not None and (message.stream, message.id) == place:
                # Taken over, or lost. Whether the run goes on here is the server's to say.
                del self.held[run_id]
                self.count("taken away")

    async def _take_over(self, connection: Connection) -> None:
        free, streams = self.free(), self.streams()
        if free <= 0 or not streams:
            return
        taken = await connection.work(
            partial(
                take_over,
                consumer=self.consumer,
                streams=streams,
                cursors=self._cursors,
                idle_s=self.settings.takeover_idle_s,
                limit=free,
            )
        )
        self._cursors = taken.cursors
        self.count("taken over", len(taken.batch.messages))
        self._report(sum(taken.lost.values()))
        self.take(taken.batch)

    async def _tidy(self, connection: Connection) -> None:
        removed, lost = await connection.work(
            partial(
                tidy,
                streams=self.streams(),
                dead_after_s=self.settings.dead_after_s,
                keep_s=self.settings.stream_keep_s,
            )
        )
        self.count("consumers removed", removed)
        self._report(lost)

    def _report(self, lost: int) -> None:
        if lost:
            self.count("lost", lost)
            self.lost(lost)

    async def say_goodbye(self) -> None:
        """Acknowledge what is done, and leave each stream where nothing is pending for it.

        Raises:
            RedisFailed: that was not to be had; nothing is lost by it.

        """
        done, streams = list(self._acks), self.streams()

        def job(wire: Wire) -> int:
            if done:
                acknowledge(wire, done)
            deleted = leave(wire, self.consumer, streams)
            wire.close()
            return deleted

        self._report(await self.connect(self.settings, f"goodbye {self.consumer}").work(job))
