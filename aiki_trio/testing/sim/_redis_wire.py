"""The way to the simulated Redis: a `Connection` of the product's, without a thread or a socket.

What is sent can be cut off before it arrives, amid its commands, or after them; an answer can be
late, or never come. What a worker's thread does in one go happens in one step of the simulation
here, after a delay and before another one; a read that blocks is made again when there may be
something to read.

Invariant: nothing of a process that is dead gets through: `check` is asked before and after.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import trio
from attrs import define, field

from aiki_actors.queue.redis import (
    Command,
    Connection,
    RedisFailed,
    RedisSettings,
    Reply,
    Trouble,
    Wire,
)

from ._chance import latency
from ._redis import SimRedis

T = TypeVar("T")

URL: Final = "redis://simulated"


def _anyway() -> None:
    """Let everything through."""


@define(eq=False)
class RedisWeather:
    """What the way to Redis is like now.

    Attributes:
        away: nothing is answered, until it is over.
        cut: the chance of what is sent to be cut off, somewhere.

    """

    away: bool = False
    cut: float = 0.0


@define(eq=False)
class SimWire(Wire):
    """The thread's side."""

    redis: SimRedis = field(kw_only=True)
    weather: RedisWeather = field(kw_only=True)
    rng: random.Random = field(kw_only=True)
    _blocked_s: float | None = field(default=None, init=False)
    _life: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Connect nothing yet."""

    def exchange(self, commands: Sequence[Command]) -> list[Reply | RedisFailed]:
        """Send commands and return what each got; see `Wire.exchange`."""
        if self.weather.away:
            self.close()
            raise RedisFailed(Trouble.TIMEOUT, "the simulated Redis does not answer")
        self._connect()
        passing = len(commands)
        if self.rng.random() < self.weather.cut:
            # All of it may have passed, and only the replies be lost.
            passing = self.rng.randint(0, len(commands))
            self._carry_out(commands[:passing])
            self.close()
            raise RedisFailed(Trouble.DOWN, "the simulated connection was cut")
        return self._carry_out(commands)

    def _connect(self) -> None:
        if self._life and self._life != self.redis.life:
            self.close()
            raise RedisFailed(Trouble.DOWN, "the simulated connection is closed")
        if not self._life:
            self._life = self.redis.life
            self.connected += 1

    def _carry_out(self, commands: Sequence[Command]) -> list[Reply | RedisFailed]:
        replies: list[Reply | RedisFailed] = []
        queued: list[Command] | None = None
        for command in commands:
            match command[0]:
                case "MULTI":
                    queued = []
                    replies.append(b"OK")
                case "EXEC":
                    replies.append(self._together(queued or []))
                    queued = None
                case _ if queued is not None:
                    queued.append(command)
                    replies.append(b"QUEUED")
                case _:
                    replies.append(self.redis.execute(command))
                    self._note_blocking(command, replies[-1])
        return replies

    def _together(self, commands: Sequence[Command]) -> Reply | RedisFailed:
        given: list[Reply] = []
        failure: RedisFailed | None = None
        for command in commands:
            reply = self.redis.execute(command)
            if isinstance(reply, RedisFailed):
                failure = failure or reply
            else:
                given.append(reply)
        return failure or given

    def _note_blocking(self, command: Command, reply: Reply | RedisFailed) -> None:
        if reply is None and "BLOCK" in command:
            self._blocked_s = float(command[command.index("BLOCK") + 1]) / 1000

    def blocked(self) -> float | None:
        """Return, once, how long the last job would have waited for something to come."""
        blocked_s, self._blocked_s = self._blocked_s, None
        return blocked_s

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._life = 0

    def abort(self) -> None:
        """Close it: no thread is in it."""
        self.close()


@define(eq=False)
class SimConnection(Connection):
    """Trio's side."""

    connector: SimConnector
    wire: SimWire = field(init=False)
    _turn: trio.Lock = field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the wire; nothing is connected yet."""
        self.wire = self.connector.wire(self.settings)

    @property
    def connected(self) -> int:
        """How often a connection was made so far."""
        return self.wire.connected

    async def work(self, job: Callable[[Wire], T]) -> T:
        """Run a job and return its result; see `Connection.work`."""
        connector = self.connector
        async with self._turn:
            try:
                await connector.pause()
                result = await self._done(job)
                await connector.pause()
                return result
            except RedisFailed as failure:
                if failure.trouble is Trouble.TIMEOUT:
                    await trio.sleep(self.settings.command_timeout_s)
                raise
            except trio.Cancelled:
                self.wire = connector.wire(self.settings)
                raise

    async def _done(self, job: Callable[[Wire], T]) -> T:
        """Run the job; as often as it blocks and something may have come."""
        wire, redis = self.wire, self.connector.redis
        over_s: float | None = None
        while True:
            result = job(wire)
            blocked_s = wire.blocked()
            if blocked_s is None:
                return result
            if over_s is None:
                over_s = trio.current_time() + blocked_s
            changed = redis.changed
            with trio.move_on_at(min(over_s, redis.next_seen_s())):
                await changed.wait()
            self.connector.check()
            if trio.current_time() >= over_s:
                return result

    async def close(self) -> None:
        """Close the connection."""
        self.wire.close()
        await trio.lowlevel.checkpoint()


@define(eq=False)
class SimConnector:
    """Makes the connections of one process; give it as `connect` to a publisher or consumer.

    Attributes:
        redis: where they lead.
        weather: what the way there is like.
        rng: decides what is cut off, and delays.
        latency_s: the longest delay, without a fault.
        check: raises if this process is dead.

    """

    redis: SimRedis
    weather: RedisWeather
    rng: random.Random
    latency_s: float = 0.0
    check: Callable[[], None] = _anyway

    def __call__(self, settings: RedisSettings, name: str) -> SimConnection:
        """Make a connection."""
        return SimConnection(settings, name, self)

    def wire(self, settings: RedisSettings) -> SimWire:
        """Make the thread's side of one."""
        return SimWire(settings, redis=self.redis, weather=self.weather, rng=self.rng)

    async def pause(self) -> None:
        """Spend time under way; whether the process lives is asked before and after."""
        self.check()
        await trio.sleep(latency(self.rng, self.latency_s))
        self.check()
