"""A small world around the simulated Redis: the real publisher, real consumers, virtual time.

`Ledger` stands for the database: it alone decides a claim.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from aiki_actors.queue import Served
from aiki_actors.queue.redis import (
    Consumer,
    Publisher,
    RedisSettings,
    Trouble,
)
from aiki_sdk import SeededRng
from aiki_trio.testing._run import run
from aiki_trio.testing.sim._node import Node, NodeDead
from aiki_trio.testing.sim._redis import Manners, SimRedis
from aiki_trio.testing.sim._redis_wire import URL, RedisWeather, SimConnector
from aiki_trio.testing.sim._scheduler import deterministic
from aiki_trio.testing.sim._server import SimClock
from aiki_trio.testing.sim._trace import Trace
from tests.redis.fleet import Bench, Ledger, a_run

STREAM: Final = "aiki:default:orders:1"
SETTINGS: Final = RedisSettings(URL, stream_keep_s=120.0)
RUNS: Final = 60
WORKERS: Final = 3
FAULTS_S: Final = 60.0
CALM_S: Final = 400.0
"""Redelivery doubles up to 300 s, and a run may have been looked at just before the calm."""


@define(eq=False)
class World:
    """A server, workers that come and go, and a Redis between them."""

    seed: int | str
    manners: Manners = field(factory=Manners)
    weather: RedisWeather = field(factory=RedisWeather)
    trace: Trace = field(factory=Trace)
    ledger: Ledger = field(factory=Ledger)
    benches: list[Bench] = field(factory=list[Bench])
    redis: SimRedis = field(init=False)
    publisher: Publisher = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.redis = SimRedis(self.rng("redis"), self.manners)

    def open(self) -> None:
        """Make the server; call it inside Trio, for it asks for the time."""
        self.publisher = Publisher(
            SETTINGS,
            "server-1",
            SimClock(),
            SeededRng(f"{self.seed}/publisher"),
            connect=self.connector("publisher"),
        )
        self.ledger.publisher = self.publisher

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def connector(self, name: str, check: Callable[[], None] = lambda: None) -> SimConnector:
        return SimConnector(self.redis, self.weather, self.rng(name), 0.01, check)

    def worker(self, name: str, node: Node | None = None, **options: Any) -> Bench:
        """Make a worker; its consumer is not running yet."""
        bench = Bench(self.ledger, name, **options)
        check = (lambda: None) if node is None else node.check
        bench.consumer = Consumer(
            SETTINGS,
            name,
            Served.of([("orders", "1")]),
            bench,
            SimClock(),
            SeededRng(f"{self.seed}/{name}"),
            self.connector(name, check),
        )
        self.benches.append(bench)
        return bench

    def claimed(self) -> list[str]:
        return sorted(self.ledger.claims)


@asynccontextmanager
async def running(*parts: Publisher | Consumer) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(part.run)
        yield
        nursery.cancel_scope.cancel()


def simulated(world: World, act: Callable[[World], Any]) -> None:
    """Let something happen in a world, on a clock that skips time, scheduled by its seed."""

    async def main() -> None:
        world.open()
        await act(world)

    with deterministic(str(world.seed), 0.3):
        run(main)


async def lives(world: World, number: int, rng: random.Random, calm: trio.Event) -> None:
    """Be one worker after another; each dies amid its work, and what it held is ready again."""
    life = 0
    while not calm.is_set():
        life += 1
        node = Node(f"w{number}.{life}", world.trace)
        bench = world.worker(node.name, node, slots=4, ends=False)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.consumer.run)
                nursery.start_soon(work, bench, rng)
                with trio.move_on_after(rng.expovariate(1 / 8)):
                    await calm.wait()
                if not calm.is_set():
                    node.kill("by the test")
                nursery.cancel_scope.cancel()
        except* NodeDead:
            world.trace.note(node.name, "is gone")
        held = list(bench.running)
        bench.running.clear()
        for run_id in held:
            world.ledger.holders.pop(run_id, None)
            world.ledger.add(a_run(run_id.removeprefix("run_")))


async def work(bench: Bench, rng: random.Random) -> None:
    """End the runs that are here, each after a while."""
    while True:
        await trio.sleep(rng.random() * 2)
        for run_id in list(bench.running):
            if rng.random() < 0.5:
                bench.end(run_id)


async def rage(world: World, rng: random.Random) -> None:
    """Do to Redis what can be done, for a while."""
    redis, manners, weather = world.redis, world.manners, world.weather
    with trio.move_on_after(FAULTS_S):
        while True:
            await trio.sleep(rng.expovariate(1))
            match rng.randrange(8):
                case 0:
                    redis.forget()
                case 1:
                    redis.fail_over()
                case 2:
                    redis.cut()
                case 3:
                    redis.refuses = rng.choice([None, Trouble.OUT_OF_MEMORY, Trouble.READ_ONLY])
                case 4:
                    weather.away = rng.random() < 0.3
                case 5:
                    weather.cut = rng.choice([0.0, 0.2, 0.6])
                case 6:
                    manners.dropped, manners.doubled = rng.random() / 2, rng.random() / 2
                case _:
                    manners.delayed_s = rng.choice([0.0, 5.0, 3_600.0])
                    manners.shuffled = rng.random() < 0.5
    redis.refuses, weather.away, weather.cut = None, False, 0.0
    world.redis.manners = Manners()


async def chaos(world: World) -> None:
    """Runs come while all goes wrong; then nothing does, and everything has to be done."""
    calm = trio.Event()
    rng = world.rng("chaos")
    async with running(world.publisher):
        async with trio.open_nursery() as nursery:
            for number in range(WORKERS):
                nursery.start_soon(lives, world, number, world.rng(f"life{number}"), calm)
            nursery.start_soon(arrive, world, world.rng("arrivals"))
            await rage(world, rng)
            calm.set()
        last = world.worker("last", slots=10)
        async with running(last.consumer):
            await trio.sleep(CALM_S)


async def arrive(world: World, rng: random.Random) -> None:
    for number in range(RUNS):
        await trio.sleep(rng.random() * 2 * FAULTS_S / RUNS)
        world.ledger.add(a_run(number))
        world.trace.note("server", f"run {number} is ready")
