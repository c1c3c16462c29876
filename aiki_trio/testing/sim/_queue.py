"""The simulated Redis of a cluster: its server publishes there, its workers pull from there.

Import this module only where it is used: it needs redis-py, as the product does for Redis.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import trio
from attrs import define, field

from aiki_actors.queue.redis import Publisher, QueueHealth, RedisSettings, Trouble
from aiki_sdk import Clock, Ids, Rng
from aiki_trio._runtime import Runtime

from ._chance import Chance
from ._disk import Disk
from ._link import SimLink
from ._node import Node
from ._puller import Puller, puller_of
from ._redis import Manners, SimRedis
from ._redis_wire import URL, RedisWeather, SimConnector
from ._trace import Trace

CUT: tuple[float, ...] = (0.1, 0.5)
REFUSALS = (Trouble.OUT_OF_MEMORY, Trouble.READ_ONLY, Trouble.NO_REPLICAS)


SETTINGS: Final = RedisSettings(URL, block_s=4.0, stream_keep_s=120.0)
"""A stream is gone after two minutes without a worker and without a run."""


@define(eq=False)
class SimQueue:
    """Redis, and the ways to it."""

    chance: Chance
    disk: Disk
    trace: Trace
    latency_s: float
    settings: RedisSettings = field(factory=lambda: SETTINGS, init=False)
    weather: RedisWeather = field(factory=RedisWeather, init=False)
    redis: SimRedis = field(init=False)
    _publisher: Publisher | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin empty."""
        self.redis = SimRedis(self.chance.of("redis"), on_added=self._check_ready)

    def _check_ready(self, run_id: str) -> None:
        """P10: a run that is published is durable."""
        if run_id not in self.disk.journals and run_id not in self.disk.rewound:
            self.disk.report("P10", f"run {run_id} was published, and is not durable")

    def _connector(self, node: Node) -> SimConnector:
        rng = self.chance.of(f"{node.name}/redis")
        return SimConnector(self.redis, self.weather, rng, self.latency_s, node.check)

    def publisher(self, runtime: Runtime, node: Node, ids: Ids, rng: Rng) -> Publisher:
        """Make what publishes the ready runs of a server, and let its dispatcher know of it."""

        def told(health: QueueHealth) -> None:
            runtime.dispatcher.publishes(health.ok)

        made = Publisher(
            self.settings, ids.claim_id(), runtime.clock, rng, told, self._connector(node)
        )
        runtime.dispatcher.publisher = self._publisher = made
        return made

    @property
    def published(self) -> int:
        """How many runs the present server has published that are not claimed yet."""
        return 0 if self._publisher is None else self._publisher.tracked

    def puller(self, link: SimLink, clock: Clock, rng: Rng) -> Puller:
        """Make what takes runs for the worker of a link."""
        return puller_of(link, self.settings, clock, rng, self._connector(link.node))

    # -- what goes wrong ---------------------------------------------------------------------------

    async def lose(self, rng: random.Random) -> None:
        """Lose everything, what a replica had not heard of, or now and then a message."""
        match rng.randrange(3):
            case 0:
                self._note("forgets everything")
                self.redis.forget()
            case 1:
                self._note("fails over")
                self.redis.fail_over()
            case _:
                self._note("loses messages")
                self.redis.manners.dropped = rng.random()
                await _while(rng)
                self.redis.manners.dropped = 0.0

    async def disorder(self, rng: random.Random) -> None:
        """Give messages twice, late, and in any order."""
        manners = self.redis.manners
        self._note("doubles, delays and shuffles messages")
        manners.doubled, manners.delayed_s = rng.random(), rng.choice([0.0, 2.0, 600.0])
        manners.shuffled = rng.random() < 0.5
        await _while(rng)
        manners.doubled, manners.delayed_s, manners.shuffled = 0.0, 0.0, False

    async def fail(self, rng: random.Random) -> None:
        """Be silent, cut connections, or refuse writes."""
        undo: Callable[[], None]
        match rng.randrange(3):
            case 0:
                self._note("is silent")
                self.weather.away, undo = True, self._answer
            case 1:
                self._note("cuts connections")
                self.redis.cut()
                self.weather.cut, undo = rng.choice(CUT), self._answer
            case _:
                self._note("refuses writes")
                self.redis.refuses, undo = rng.choice(REFUSALS), self._accept
        await _while(rng)
        undo()

    def _answer(self) -> None:
        self.weather.away, self.weather.cut = False, 0.0

    def _accept(self) -> None:
        self.redis.refuses = None

    def heal(self) -> None:
        """Let nothing go wrong from here on."""
        self._answer()
        self._accept()
        self.redis.manners = Manners()

    def _note(self, what: str) -> None:
        self.trace.note("redis", what)


async def _while(rng: random.Random) -> None:
    await trio.sleep(rng.choice([0.5, 3.0, 15.0]))
