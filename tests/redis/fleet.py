"""What stands in for server and worker in the tests of the queue: who is ready, and who claimed it.

`Ledger` is the database: it alone decides a claim, and it notes every answer that it gave. `Bench`
is one worker's side of it. Times are short, so that what takes half a minute takes a moment here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, evolve, field

from aiki_actors.engine import Micros
from aiki_actors.queue import Served
from aiki_actors.queue.redis import (
    ClaimAnswer,
    Consumer,
    Message,
    Publisher,
    QueueHealth,
    RedisSettings,
)
from aiki_actors.storage import ReadyRun
from aiki_sdk import SeededRng, SystemClock
from aiki_sdk.protocol import Priority

CLOCK = SystemClock()

FAST = {
    "redelivery_s": 0.1,
    "redelivery_max_s": 0.4,
    "tick_s": 0.1,
    "block_s": 0.2,
    "takeover_idle_s": 0.3,
    "takeover_every_s": 0.05,
    "refresh_s": 0.1,
    "retry_claim_s": 0.05,
    "tidy_every_s": 0.1,
    "dead_after_s": 0.3,
    "connect_timeout_s": 0.5,
    "command_timeout_s": 0.5,
    "backoff_s": 0.01,
    "backoff_max_s": 0.05,
}


def fast(url: str, **changes: Any) -> RedisSettings:
    """Return settings under which everything happens soon."""
    return evolve(RedisSettings(url, **FAST), **changes)  # type: ignore[arg-type]


def a_run(
    number: int | str,
    workflow: str = "orders",
    priority: Priority = Priority.NORMAL,
    version: str = "1",
    pool: str = "default",
) -> ReadyRun:
    """Make a ready run."""
    name = f"run_{number}"
    return ReadyRun(name, "default", workflow, version, pool, priority, Micros(0))


async def until(condition: Callable[[], bool], what: str = "", within_s: float = 5.0) -> None:
    """Wait for something that only a real server, or a thread, brings about."""
    with trio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110  # nobody there could set an event
            await trio.sleep(0.003)
        return
    raise AssertionError(f"not within {within_s} s: {what or condition}")


@define(eq=False)
class Ledger:
    """Which runs are ready, and who holds which."""

    ready: dict[str, ReadyRun] = field(factory=dict[str, ReadyRun])
    holders: dict[str, str] = field(factory=dict[str, str])
    offers: Counter[str] = field(factory=Counter[str])
    claims: Counter[str] = field(factory=Counter[str])
    order: list[str] = field(factory=list[str])
    publisher: Publisher | None = None

    def add(self, run: ReadyRun) -> None:
        """Make a run ready, and publish it."""
        self.ready[run.run_id] = run
        if self.publisher is not None:
            self.publisher.publish(run)

    def claim(self, run_id: str, worker_id: str) -> ClaimAnswer:
        """Decide."""
        self.offers[run_id] += 1
        if self.ready.pop(run_id, None) is None:
            return ClaimAnswer.REFUSED
        self.holders[run_id] = worker_id
        self.claims[run_id] += 1
        self.order.append(run_id)
        if self.publisher is not None:
            self.publisher.gone(run_id, keep=True)
        return ClaimAnswer.HELD


@define(eq=False)
class Bench:
    """One worker; `ends` says whether a claimed run ends at once."""

    ledger: Ledger
    worker_id: str
    slots: int = 10
    ends: bool = True
    answer: Callable[[Message], ClaimAnswer] | None = None
    running: dict[str, None] = field(factory=dict[str, None])
    messages: list[Message] = field(factory=list[Message])
    poison: list[Message] = field(factory=list[Message])
    healths: list[QueueHealth] = field(factory=list[QueueHealth])
    losses: list[int] = field(factory=list[int])
    consumer: Consumer = field(init=False)

    def free(self) -> int:
        return self.slots - len(self.running)

    async def claim(self, message: Message) -> ClaimAnswer:
        await trio.lowlevel.checkpoint()
        self.messages.append(message)
        if self.answer is not None:
            return self.answer(message)
        answer = self.ledger.claim(message.run_id, self.worker_id)
        if answer is ClaimAnswer.HELD:
            if self.ends:
                self.consumer.ended(message.run_id)
            else:
                self.running[message.run_id] = None
        return answer

    async def poisoned(self, message: Message) -> bool:
        await trio.lowlevel.checkpoint()
        self.poison.append(message)
        return True

    def health_changed(self, health: QueueHealth) -> None:
        self.healths.append(health)

    def lost(self, number: int) -> None:
        self.losses.append(number)
        if self.ledger.publisher is not None:
            self.ledger.publisher.recheck()

    def end(self, run_id: str) -> None:
        """Let a run end here."""
        del self.running[run_id]
        self.ledger.holders.pop(run_id, None)
        self.consumer.ended(run_id)


def a_worker(
    settings: RedisSettings,
    ledger: Ledger,
    worker_id: str = "wrk_1",
    workflows: tuple[str, ...] = ("orders",),
    **options: Any,
) -> Bench:
    """Make a worker; its consumer is not running yet."""
    bench = Bench(ledger, worker_id, **options)
    served = Served.of([(name, "1") for name in workflows])
    bench.consumer = Consumer(settings, worker_id, served, bench, CLOCK, SeededRng(worker_id))
    return bench


@asynccontextmanager
async def publishing(settings: RedisSettings, ledger: Ledger) -> AsyncGenerator[Publisher]:
    """Run a publisher for the ledger."""
    publisher = Publisher(settings, "server-1", CLOCK, SeededRng("publisher"))
    ledger.publisher = publisher
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        yield publisher
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def consuming(*benches: Bench) -> AsyncGenerator[None]:
    """Run consumers."""
    async with trio.open_nursery() as nursery:
        for bench in benches:
            nursery.start_soon(bench.consumer.run)
        yield
        nursery.cancel_scope.cancel()
