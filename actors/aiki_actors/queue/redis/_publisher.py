"""The server's side: puts ready runs into streams, and looks after them until they are claimed.

`publish` and `gone` are plain calls that never wait; one task carries them out over one connection,
in pipelines. Redis may be away, refuse, or forget everything: what is tracked stays tracked and is
published when it can be, and the health says why it cannot.

A run that is due again is not blindly published twice: while its message still stands in the
stream it is only looked at (every fourth time it is replaced all the same, should it stand there
in nobody's view). A new connection, or the loss of the key that proves that nothing was lost,
makes everything due at once. So a backlog makes no duplicates, and a Redis that lost its data is
filled within one tick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field, frozen

from aiki_actors.faults import fault_point
from aiki_actors.queue._redis_settings import RedisSettings
from aiki_actors.queue._served import key_of
from aiki_actors.storage import ReadyRun
from aiki_sdk import Clock, Rng

from ._connection import Command, Connect, Connection, Reply, Wire
from ._keys import GROUP, alive_key, keep, stream_of
from ._messages import encode
from ._redelivery import Redelivery, Tracked
from ._trouble import Backoff, HealthState, QueueHealth, RedisFailed, Trouble

LOGGER: Final = logging.getLogger("aiki.queue.redis")

REPLACE_EVERY: Final = 4
"""Every fourth look replaces a message that still stands in its stream."""

ALIVE_FOR_S: Final = 3_600
"""How long the proof of a server that is gone stays in Redis."""

_PART: Final = "publish"


@frozen
class _Plan:
    """A run that is due. `look`: its message may still stand there, and that is enough."""

    tracked: Tracked
    stream: str
    look: bool

    @classmethod
    def of(cls, tracked: Tracked) -> _Plan:
        replace = tracked.rounds > 0 and tracked.rounds % REPLACE_EVERY == 0
        stream = stream_of(key_of(tracked.run), tracked.run.priority)
        return cls(tracked, stream, tracked.message is not None and not replace)


@define(eq=False)
class _Sent:
    """What one trip to Redis came to.

    Attributes:
        connected: the how-manieth connection it was.
        alive: the proof that nothing was lost was there; None: it was not looked for.
        outcomes: for each run its new message, None if the old one stands, or why there is none.
        refused: why Redis takes nothing at all.
        right_again: streams that were of a wrong type and are not now.

    """

    connected: int = 0
    alive: bool | None = None
    outcomes: list[tuple[str, str] | RedisFailed | None] = field(
        factory=lambda: list[tuple[str, str] | RedisFailed | None]()
    )
    refused: RedisFailed | None = None
    right_again: list[str] = field(factory=lambda: list[str]())


@frozen
class _Trip:
    """What one trip to Redis is to do: at most two round trips, in the thread."""

    alive: str
    stream_max: int
    keep_s: float
    tick: bool
    plans: list[_Plan]
    withdrawn: list[tuple[str, str]]
    suspects: list[str]

    def make(self, wire: Wire) -> _Sent:
        """Look first, then write."""
        sent = _Sent()
        standing = self._look(wire, sent)
        commands: list[Command] = []
        places: dict[int, _Plan] = {}
        if self.tick:
            commands.append(("SET", self.alive, "1", "EX", ALIVE_FOR_S))
        for index, plan in enumerate(self.plans):
            if index in standing:
                continue
            places[len(commands)] = plan
            trim = ("MAXLEN", "=", self.stream_max)
            commands.append(("XADD", plan.stream, *trim, "*", *encode(plan.tracked.run)))
            if plan.tracked.message is not None:
                commands.extend(_deletion(plan.tracked.message))
        streams = dict.fromkeys(plan.stream for plan in self.plans)
        commands.extend(keep(stream, self.keep_s) for stream in streams)
        for message in self.withdrawn:
            commands.extend(_deletion(message))
        replies = wire.exchange(commands) if commands else []
        added = {
            id(places[at]): _outcome(places[at], reply)
            for at, reply in enumerate(replies)
            if at in places
        }
        sent.outcomes = [added.get(id(plan)) for plan in self.plans]
        sent.refused = next(
            (
                reply
                for at, reply in enumerate(replies)
                if isinstance(reply, RedisFailed)
                and (at in places or (self.tick and at == 0))
                and reply.trouble is not Trouble.WRONG_TYPE
            ),
            None,
        )
        sent.connected = wire.connected
        return sent

    def _look(self, wire: Wire, sent: _Sent) -> set[int]:
        """Find out what still stands in Redis; returns which plans need nothing."""
        looks = [index for index, plan in enumerate(self.plans) if plan.look]
        commands: list[Command] = []
        if self.tick:
            commands.append(("EXISTS", self.alive))
            commands.extend(("TYPE", stream) for stream in self.suspects)
        for index in looks:
            message = self.plans[index].tracked.message
            assert message is not None, "a message is looked for that was never published"
            commands.append(("XRANGE", message[0], message[1], message[1]))
        if not commands:
            return set()
        replies = wire.exchange(commands)
        if self.tick:
            sent.alive = replies[0] == 1
            kinds = replies[1 : 1 + len(self.suspects)]
            sent.right_again = [
                stream
                for stream, kind in zip(self.suspects, kinds, strict=True)
                if kind in (b"stream", b"none")
            ]
            replies = replies[1 + len(self.suspects) :]
        return {
            index
            for index, reply in zip(looks, replies, strict=True)
            if isinstance(reply, list) and reply
        }


def _deletion(message: tuple[str, str]) -> tuple[Command, Command]:
    stream, message_id = message
    return ("XACK", stream, GROUP, message_id), ("XDEL", stream, message_id)


def _outcome(plan: _Plan, reply: Reply | RedisFailed) -> tuple[str, str] | RedisFailed:
    if isinstance(reply, bytes):
        return plan.stream, reply.decode()
    if isinstance(reply, RedisFailed):
        return reply
    return RedisFailed(Trouble.REFUSED, f"XADD was answered with {reply!r}")


@define(eq=False)
class Publisher:
    """Publishes ready runs.

    Attributes:
        server_id: names this server's proof in Redis; must differ between servers.
        clock: what time it is; its monotonic side decides what is due.
        rng: jitter of reconnecting.
        health_changed: called when Redis becomes usable or unusable; must not raise or block.
        connect: makes the connection; a simulation has one of its own.
        counts: what happened so far, by name, for the tree and the metrics.

    """

    settings: RedisSettings
    server_id: str
    clock: Clock
    rng: Rng
    health_changed: Callable[[QueueHealth], None] = field(default=lambda _health: None)
    connect: Connect = field(default=Connection)
    counts: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    _health: HealthState = field(init=False)
    _runs: Redelivery = field(init=False)
    _withdrawn: dict[tuple[str, str], None] = field(
        factory=lambda: dict[tuple[str, str], None](), init=False
    )
    _bad_streams: dict[str, RedisFailed] = field(
        factory=lambda: dict[str, RedisFailed](), init=False
    )
    _connected: int = field(default=0, init=False)
    _tick_s: float = field(default=0.0, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the parts; nothing is connected before `run`."""
        settings = self.settings
        self._health = HealthState(self.clock, self._announce, (_PART,))
        self._runs = Redelivery(
            settings.redelivery_s, settings.redelivery_max_s, settings.tracked_max
        )

    @property
    def health(self) -> QueueHealth:
        """Whether ready runs can be published now."""
        return self._health.now

    @property
    def tracked(self) -> int:
        """How many ready runs are published, or wait to be, and are not claimed yet."""
        return len(self._runs)

    def publish(self, run: ReadyRun) -> bool:
        """Publish a ready run, soon; never waits.

        False if it is being published already, or if there is no room: then the database, which
        knows it, is where it is read again.
        """
        added = self._runs.add(run, self.clock.monotonic())
        if added:
            self._wake.set()
        return added

    def gone(self, run_id: str, *, keep: bool) -> None:
        """Publish a run no longer, for it was claimed or is not ready any more; never waits.

        Args:
            run_id: the run; one that is not known is passed over.
            keep: its message stays for the worker that holds it; else it is withdrawn.

        """
        tracked = self._runs.remove(run_id)
        if tracked is None or keep:
            return
        tracked.withdrawn = True
        if tracked.message is not None:
            self._withdraw(tracked.message)

    def _withdraw(self, message: tuple[str, str]) -> None:
        if len(self._withdrawn) < self.settings.tracked_max:
            # One that is not withdrawn costs a worker a claim that is refused.
            self._withdrawn[message] = None
            self._wake.set()

    def recheck(self) -> None:
        """Make sure of every run now, because messages may be lost; never waits."""
        self._runs.recheck(self.clock.monotonic())
        self._wake.set()

    def describe(self) -> str:
        """Say in one line how it goes."""
        health = self.health
        state = "ok" if health.ok else f"degraded ({health.trouble})"
        return f"{state}, {self.tracked} tracked, {self.counts.get('published', 0)} published"

    async def run(self) -> None:
        """Publish until cancelled; ends at once, whatever the connection is doing."""
        connection = self.connect(self.settings, "publisher")
        backoff = Backoff(self.settings.backoff_s, self.settings.backoff_max_s, self.rng)
        self._tick_s = self.clock.monotonic()
        while True:
            await self._until_due()
            try:
                await self._trip(connection)
            except RedisFailed as failure:
                if not backoff.forgives(failure):
                    self._fail(failure)
                    await trio.sleep(backoff.next_s())
            else:
                backoff.reset()

    async def _until_due(self) -> None:
        due_s = self._runs.next_due_s()
        until_s = self._tick_s if due_s is None else min(due_s, self._tick_s)
        if not self._withdrawn:
            with trio.move_on_after(max(0.0, until_s - self.clock.monotonic())):
                await self._wake.wait()
        self._wake = trio.Event()

    async def _trip(self, connection: Connection) -> None:
        """Carry out what is due, in one hop to the thread."""
        now_s = self.clock.monotonic()
        tick = now_s >= self._tick_s
        trip = _Trip(
            alive_key(self.server_id),
            self.settings.stream_max,
            self.settings.stream_keep_s,
            tick,
            [_Plan.of(tracked) for tracked in self._runs.due(now_s, self.settings.batch)],
            list(self._withdrawn)[: self.settings.batch],
            list(self._bad_streams),
        )
        if trip.plans:
            fault_point("message.due")
        sent = await connection.work(trip.make)
        if trip.plans:
            fault_point("message.published")
        if tick:
            self._tick_s = now_s + self.settings.tick_s
        for message in trip.withdrawn:
            self._withdrawn.pop(message, None)
        self._note(trip, sent)
        if sent.refused is not None:
            raise sent.refused
        if sent.connected != self._connected or sent.alive is False:
            first = not self._connected
            self._connected = sent.connected
            if not first:
                self._count("rechecked")
                self.recheck()
        if not self._bad_streams:
            self._health.works(_PART)

    def _note(self, trip: _Trip, sent: _Sent) -> None:
        """Note for each run what became of its message."""
        now_s = self.clock.monotonic()
        for stream in sent.right_again:
            self._bad_streams.pop(stream, None)
        for plan, outcome in zip(trip.plans, sent.outcomes, strict=True):
            tracked = plan.tracked
            if isinstance(outcome, tuple):
                self._count("published")
                self._runs.published(tracked, outcome, now_s)
                if tracked.withdrawn:
                    # It was claimed while its message was on its way.
                    self._withdraw(outcome)
            elif outcome is None:
                self._runs.published(tracked, None, now_s)
            elif outcome.trouble is Trouble.WRONG_TYPE:
                self._bad_streams[plan.stream] = outcome
                self._runs.postponed(tracked, now_s)
                self._fail(RedisFailed(outcome.trouble, f"{outcome.message}: key {plan.stream}"))

    def _fail(self, failure: RedisFailed) -> None:
        self._count("failures")
        self._health.fails(_PART, failure)

    def _announce(self, health: QueueHealth) -> None:
        if health.ok:
            LOGGER.info("ready runs are published through Redis")
        else:
            LOGGER.warning("ready runs cannot be published through Redis: %s", health.message)
        self.health_changed(health)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
