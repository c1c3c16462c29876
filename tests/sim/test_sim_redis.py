"""The simulated Redis misbehaves as it is told to, and nobody's run is lost by it."""

from __future__ import annotations

from math import inf
from typing import Final

import pytest
import trio

from aiki_actors.queue.redis import (
    ClaimAnswer,
    Message,
    Redelivery,
    Trouble,
)
from aiki_actors.queue.redis._redelivery import Tracked
from aiki_trio.testing.sim._node import Node, NodeDead
from aiki_trio.testing.sim._redis import Manners
from tests.redis.fleet import a_run
from tests.sim.redis_world import CALM_S, RUNS, SETTINGS, STREAM, World, chaos, running, simulated


async def ten_runs(world: World) -> None:
    """Ten runs come while somebody reads; everybody has as much time as they need."""
    bench = world.worker("w")
    async with running(world.publisher, bench.consumer):
        for number in range(10):
            world.ledger.add(a_run(number))
            await trio.sleep(0.05)
        await trio.sleep(CALM_S)


MISBEHAVIOURS: Final = {
    "none": Manners(),
    "dropped": Manners(dropped=0.5),
    "doubled": Manners(doubled=1.0),
    "delayed": Manners(delayed_s=100.0),
    "shuffled": Manners(shuffled=True, delayed_s=1.0),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_every_run_is_claimed_once_and_the_stream_ends_empty(name: str) -> None:
    world = World(1, MISBEHAVIOURS[name])
    simulated(world, ten_runs)
    assert world.ledger.claims == {f"run_{number}": 1 for number in range(10)}
    assert world.redis.length(STREAM) == 0
    assert world.redis.pending(STREAM) == 0


def test_each_misbehaviour_is_seen() -> None:
    """Or the test above proves nothing."""
    worlds = {name: World(1, manners) for name, manners in MISBEHAVIOURS.items()}
    for world in worlds.values():
        simulated(world, ten_runs)
    in_order = [f"run_{number}" for number in range(10)]
    assert worlds["none"].ledger.order == in_order
    assert sum(worlds["none"].ledger.offers.values()) == 10
    assert sum(worlds["doubled"].ledger.offers.values()) > 10
    assert worlds["shuffled"].ledger.order != in_order
    published = {name: world.publisher.counts["published"] for name, world in worlds.items()}
    assert published["none"] == 10
    assert published["dropped"] > 10


def test_a_failover_takes_back_what_the_replica_had_not_heard_of() -> None:
    async def fail_over(world: World) -> None:
        async with running(world.publisher):
            world.ledger.add(a_run("early"))
            await trio.sleep(0.5)
            world.manners.replicated = 0.0
            world.ledger.add(a_run("late"))
            await trio.sleep(0.5)
            assert world.redis.length(STREAM) == 2
            world.redis.fail_over()
            assert world.redis.length(STREAM) == 1
            # The server notices by the next look at its proof, and publishes what is missing.
            await trio.sleep(2 * SETTINGS.tick_s + SETTINGS.backoff_max_s)
            assert world.redis.length(STREAM) == 2

    simulated(World(2, Manners(replicated=1.0)), fail_over)


def test_a_redis_that_forgets_everything_is_filled_again() -> None:
    async def forget(world: World) -> None:
        bench = world.worker("w", slots=0)
        async with running(world.publisher, bench.consumer):
            world.ledger.add(a_run(1))
            await trio.sleep(1)
            world.redis.forget()
            await trio.sleep(2 * SETTINGS.tick_s + SETTINGS.backoff_max_s)
            assert world.redis.length(STREAM) == 1
            bench.slots = 1
            bench.consumer.changed()
            await trio.sleep(5)
            assert world.claimed() == ["run_1"]

    simulated(World(3), forget)


def test_writes_that_are_refused_are_told_and_made_later() -> None:
    async def refuse(world: World) -> None:
        world.redis.refuses = Trouble.OUT_OF_MEMORY
        async with running(world.publisher):
            world.ledger.add(a_run(1))
            await trio.sleep(3)
            assert world.publisher.health.trouble is Trouble.OUT_OF_MEMORY
            world.redis.refuses = None
            await trio.sleep(2 * SETTINGS.backoff_max_s)
            assert world.publisher.health.ok
            assert world.redis.length(STREAM) == 1

    simulated(World(4), refuse)


def test_a_redis_that_does_not_answer_costs_its_timeout_and_no_run() -> None:
    async def silence(world: World) -> None:
        world.weather.away = True
        async with running(world.publisher):
            world.ledger.add(a_run(1))
            await trio.sleep(SETTINGS.command_timeout_s - 1)
            assert "failures" not in world.publisher.counts
            await trio.sleep(10)
            assert world.publisher.health.trouble is Trouble.TIMEOUT
            world.weather.away = False
            await trio.sleep(SETTINGS.command_timeout_s + 2 * SETTINGS.backoff_max_s)
            assert world.redis.length(STREAM) == 1

    simulated(World(5), silence)


def test_a_blocked_read_ends_when_something_comes() -> None:
    arrived = trio.Event()

    def came(_message: Message) -> ClaimAnswer:
        arrived.set()
        return ClaimAnswer.REFUSED

    async def wait(world: World) -> None:
        bench = world.worker("w", answer=came)
        async with running(world.publisher, bench.consumer):
            await trio.sleep(SETTINGS.block_s * 1.5)
            begun = trio.current_time()
            world.ledger.add(a_run(1))
            await arrived.wait()
            assert trio.current_time() - begun < SETTINGS.block_s / 4

    simulated(World(6), wait)


def test_a_dead_process_neither_writes_nor_reads() -> None:
    async def die(world: World) -> None:
        node = Node("w", world.trace)
        connection = world.connector("w", node.check)(SETTINGS, "w")
        node.kill("here")
        with pytest.raises(NodeDead):
            await connection.work(lambda wire: wire.call("SET", "key", "1", "EX", 60))
        assert world.redis.execute(("EXISTS", "key")) == 0

    simulated(World(7), die)


def test_a_message_that_is_taken_over_says_how_often_it_was_delivered() -> None:
    """The check for poison rests on it."""

    async def die_and_take_over(world: World) -> None:
        node = Node("first", world.trace)
        first = world.worker("first", node, ends=False)
        async with running(world.publisher):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first.consumer.run)
                    world.ledger.add(a_run(1))
                    await trio.sleep(1)
                    node.kill("by the test")
                    nursery.cancel_scope.cancel()
            except* NodeDead:
                world.trace.note("first", "is gone")
            second = world.worker("second")
            async with running(second.consumer):
                await trio.sleep(2 * SETTINGS.takeover_idle_s)
            seen: list[Message] = second.messages
            assert [message.deliveries for message in seen] == [2]

    simulated(World(8), die_and_take_over)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_that_is_ready_is_lost_whatever_redis_and_workers_do(seed: int) -> None:
    world = World(seed)
    simulated(world, chaos)
    assert world.claimed() == sorted(f"run_{number}" for number in range(RUNS))
    assert not world.ledger.ready
    assert world.publisher.tracked == 0
    # Messages of the past, doubled or risen again, have been looked at and taken out.
    assert world.redis.pending(STREAM) == 0


def test_a_server_that_publishes_once_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above proves nothing: without looking again, some run is lost."""

    def never_again(_runs: Redelivery, tracked: Tracked, *_rest: object) -> None:
        tracked.due_s = inf

    monkeypatch.setattr(Redelivery, "published", never_again)
    monkeypatch.setattr(Redelivery, "recheck", lambda *_: None)
    world = World(0)
    simulated(world, chaos)
    assert len(world.claimed()) < RUNS


def test_a_seed_repeats_itself() -> None:
    worlds = [World("again"), World("again")]
    for world in worlds:
        simulated(world, chaos)
    first, second = worlds
    assert first.ledger.order == second.ledger.order
    assert first.publisher.counts == second.publisher.counts
    assert first.trace.digest == second.trace.digest
