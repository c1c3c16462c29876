"""Nothing that is ready is lost, whatever Redis does: random faults, then calm, then the count.

The ledger is the database of the real thing: it holds what is ready until somebody claims it. Each
ready run must be claimed exactly once, and with Redis calm again soon; the streams end empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.redis.fleet import Bench, Ledger, a_run, a_worker, consuming, fast, publishing, until
from tests.servers.redis import Binary, RedisServer

RUNS = 600
WORKERS = 3


async def _faults(server: RedisServer, chance: random.Random, rounds: int) -> None:
    """Do something bad, a few times; leave a server that runs and takes writes."""
    for _ in range(rounds):
        await trio.sleep(chance.uniform(0.02, 0.15))
        match chance.randrange(6):
            case 0:
                server.command("FLUSHALL")
            case 1:
                server.restart()
            case 2:
                server.pause()
                await trio.sleep(chance.uniform(0.1, 0.7))
                server.resume()
            case 3:
                server.command("CONFIG", "SET", "maxmemory", "1")
                await trio.sleep(0.1)
                server.command("CONFIG", "SET", "maxmemory", "0")
            case 4:
                server.command("CLIENT", "KILL", "TYPE", "normal")
            case _:
                server.kill()
                await trio.sleep(chance.uniform(0.0, 0.2))
                server.start()


async def _workers(benches: list[Bench], chance: random.Random, calm: trio.Event) -> None:
    """Run workers, each of which dies (with what it holds) and comes back under a new name."""

    async def one(number: int) -> None:
        life = 0
        while not calm.is_set():
            life += 1
            bench = benches[number]
            bench.consumer = a_worker(
                bench.consumer.settings, bench.ledger, f"wrk_{number}_{life}"
            ).consumer
            bench.consumer.port = bench
            with trio.move_on_after(chance.uniform(0.2, 0.6)):
                await bench.consumer.run()

    async with trio.open_nursery() as nursery:
        for number in range(len(benches)):
            nursery.start_soon(one, number)


@pytest.mark.parametrize("seed", range(3))
async def test_every_ready_run_is_claimed_once_under_random_faults(
    server: RedisServer, seed: int
) -> None:
    chance = random.Random(seed)
    ledger, calm = Ledger(), trio.Event()
    settings = fast(server.url)
    benches = [a_worker(settings, ledger, f"wrk_{n}", slots=8) for n in range(WORKERS)]
    async with publishing(settings, ledger):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_workers, benches, chance, calm)

            async def arrive() -> None:
                for number in range(RUNS):
                    ledger.add(a_run(number))
                    await trio.sleep(0.002)

            nursery.start_soon(arrive)
            await _faults(server, chance, rounds=8)
            calm.set()
        survivor = a_worker(settings, ledger, "wrk_last", slots=50)
        async with consuming(survivor):
            await until(lambda: len(ledger.order) == RUNS, within_s=10.0)
    assert set(ledger.claims.values()) == {1}
    assert len(ledger.claims) == RUNS
    assert not ledger.ready


async def test_a_failover_to_an_old_replica_loses_nothing(
    start_server: Callable[..., RedisServer], every_binary: Binary, tmp_path: Path
) -> None:
    """The replica stopped hearing of its master early; then it takes the master's place."""
    master = start_server(every_binary, repl_diskless_sync_delay="0")
    replica = start_server(every_binary)
    replica.command("REPLICAOF", "127.0.0.1", str(master.port))
    ledger = Ledger()
    settings = fast(master.url, redelivery_s=60.0, redelivery_max_s=60.0)
    async with publishing(settings, ledger) as publisher:
        for number in range(50):
            ledger.add(a_run(number))
        await until(lambda: publisher.counts.get("published", 0) == 50)
        stream = "aiki:default:orders:1"
        await until(lambda: replica.command("XLEN", stream) == b":50\r\n")
        replica.command("REPLICAOF", "NO", "ONE")
        for number in range(50, 100):
            ledger.add(a_run(number))
        await until(lambda: publisher.counts.get("published", 0) == 100)
        # The address moves to the replica, as a proxy or a name would move it.
        port, master.port = master.port, replica.port
        master.kill()
        replica.command("SAVE")
        replica.kill()
        replica.port = port
        replica.start()
        worker = a_worker(settings, ledger, "wrk_1")
        async with consuming(worker):
            await until(lambda: len(ledger.order) == 100)
    assert set(ledger.claims.values()) == {1}
