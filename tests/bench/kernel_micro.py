"""Measure what the actor kernel's operations cost; prints, asserts nothing.

Run it with `python -m tests.bench.kernel_micro`. The costs are per operation, in microseconds, the
best of three rounds; they include the receiving side.
"""

from collections.abc import Awaitable, Callable
from random import Random
from time import perf_counter
from typing import Final

import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorRef,
    ActorSystem,
    BatchActor,
    ChildSpec,
    MailboxPolicy,
    Overflow,
    Reply,
    Restart,
    SupervisorSpec,
    open_system,
)

COUNT: Final = 50_000
ACTORS: Final = 10_000
ROUNDS: Final = 3
WIDE = MailboxPolicy(capacity=COUNT + 1)
NARROW = MailboxPolicy(capacity=64, overflow=Overflow.BLOCK)


@frozen(eq=False)
class Ping:
    """Ask for an answer."""

    reply: Reply[int]


class Sink(Actor[object]):
    """Count messages, answer pings."""

    def __init__(self) -> None:
        self.seen = 0

    @override
    async def handle(self, message: object) -> None:
        self.seen += 1
        if isinstance(message, Ping):
            message.reply.send(self.seen)


class BatchSink(BatchActor[object]):
    """Answer pings, many in a call."""

    @override
    async def handle_batch(self, messages: list[object]) -> None:
        for message in messages:
            if isinstance(message, Ping):
                message.reply.send(1)


class OneShot(Actor[Ping]):
    """Answer once, and end."""

    @override
    async def started(self, context: ActorContext[Ping]) -> None:
        self.context = context

    @override
    async def handle(self, message: Ping) -> None:
        message.reply.send(1)
        self.context.stop_self()


async def bench_tell(system: ActorSystem) -> int:
    """Tell a busy actor: only the append and the handling."""
    ref = system.root.start_child(ChildSpec("tell", Sink, mailbox=WIDE))
    for _ in range(COUNT):
        ref.tell(1)
    await ref.ask(Ping, deadline_s=None)
    await system.root.stop_child("tell")
    return COUNT


async def bench_send(system: ActorSystem) -> int:
    """Send to a mailbox that blocks when it is full."""
    ref = system.root.start_child(ChildSpec("send", Sink, mailbox=NARROW))
    for _ in range(COUNT):
        await ref.send(1)
    await system.root.stop_child("send")
    return COUNT


async def bench_tell_idle(system: ActorSystem) -> int:
    """Tell 10,000 idle actors one message each: one task switch per message."""
    refs = [
        system.root.start_child(ChildSpec(f"idle-{n}", Sink, Restart.TEMPORARY))
        for n in range(ACTORS)
    ]
    await wait_all_tasks_blocked()
    began = perf_counter()
    for ref in refs:
        ref.tell(1)
    await refs[-1].ask(Ping, deadline_s=None)
    await wait_all_tasks_blocked()
    idle_times_s.append(perf_counter() - began)
    for ref in refs:
        ref.stop()
    for ref in refs:
        await ref.wait_stopped()
    return ACTORS


idle_times_s: list[float] = []


async def _ask_many(ref: ActorRef[object], deadline_s: float | None) -> int:
    count = COUNT // 5
    for _ in range(count):
        await ref.ask(Ping, deadline_s=deadline_s)
    return count


async def bench_ask(system: ActorSystem) -> int:
    """Ask one after the other, with a deadline."""
    ref = system.root.start_child(ChildSpec("ask", Sink))
    count = await _ask_many(ref, 10)
    await system.root.stop_child("ask")
    return count


async def bench_ask_no_deadline(system: ActorSystem) -> int:
    """Ask one after the other, without a deadline."""
    ref = system.root.start_child(ChildSpec("ask", Sink))
    count = await _ask_many(ref, None)
    await system.root.stop_child("ask")
    return count


async def bench_ask_batched(system: ActorSystem) -> int:
    """Ask from 100 tasks at once: a batch actor answers them together."""
    ref = system.root.start_child(ChildSpec("batch", BatchSink))
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(_ask_times, ref, COUNT // 500)
    await system.root.stop_child("batch")
    return COUNT // 5


async def _ask_times(ref: ActorRef[object], count: int) -> None:
    for _ in range(count):
        await ref.ask(Ping, deadline_s=10)


async def bench_spawn(system: ActorSystem) -> int:
    """Start a temporary actor, ask it once, and see it end by itself."""
    root = system.root
    count = COUNT // 10
    for n in range(count):
        ref = root.start_child(ChildSpec(f"one-{n}", OneShot, Restart.TEMPORARY))
        await ref.ask(Ping, deadline_s=None)
    return count


async def bench_spawn_stop(system: ActorSystem) -> int:
    """Start 1,000 temporary actors at a time and stop them, without a message."""
    root = system.root
    count = COUNT // 10
    for first in range(0, count, 1000):
        refs = [
            root.start_child(ChildSpec(f"s-{first + n}", Sink, Restart.TEMPORARY))
            for n in range(1000)
        ]
        await wait_all_tasks_blocked()
        for ref in refs:
            ref.stop()
        for ref in refs:
            await ref.wait_stopped()
    return count


async def bench_task_switch(system: ActorSystem) -> int:
    """For comparison: Trio's own checkpoint."""
    for _ in range(COUNT):
        await trio.lowlevel.checkpoint()
    return COUNT


async def _nothing() -> None:
    pass


async def bench_task(system: ActorSystem) -> int:
    """For comparison: a bare Trio task, started and ended."""
    async with trio.open_nursery() as nursery:
        for _ in range(COUNT // 10):
            nursery.start_soon(_nothing)
    return COUNT // 10


async def main() -> None:
    """Run all benchmarks."""
    benches: tuple[Callable[[ActorSystem], Awaitable[int]], ...] = (
        bench_task_switch,
        bench_task,
        bench_tell,
        bench_tell_idle,
        bench_send,
        bench_ask,
        bench_ask_no_deadline,
        bench_ask_batched,
        bench_spawn,
        bench_spawn_stop,
    )
    async with open_system("bench", SupervisorSpec(), rng=Random(0)) as system:
        for bench in benches:
            best_s = float("inf")
            for _ in range(ROUNDS):
                began = perf_counter()
                count = await bench(system)
                spent_s = perf_counter() - began
                if bench is bench_tell_idle:
                    spent_s = idle_times_s[-1]
                best_s = min(best_s, spent_s / count)
            print(f"{bench.__name__:24}{best_s * 1e6:9.2f} us   {(bench.__doc__ or '')}")


if __name__ == "__main__":
    trio.run(main)
