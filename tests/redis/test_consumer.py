"""The consumer against a real server: what it takes, holds, gives up, takes over and mends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from aiki_actors.queue.redis import ClaimAnswer, Message, Trouble
from aiki_sdk.protocol import Priority
from tests.redis.fleet import (
    Bench,
    Ledger,
    a_run,
    a_worker,
    consuming,
    fast,
    publishing,
    until,
)
from tests.servers.redis import Binary, RedisServer

STREAM = "aiki:default:orders:1"


def length(server: RedisServer, stream: str = STREAM) -> int:
    """Return how many messages a stream has."""
    return int(server.command("XLEN", stream).removeprefix(b":"))


def pending(server: RedisServer, consumer: str = "wrk_1", stream: str = STREAM) -> int:
    """Return how many messages of a stream are pending for a consumer."""
    said = server.command("XPENDING", stream, "aiki-workers", "-", "+", "1000", consumer)
    return int(said.partition(b"\r\n")[0].removeprefix(b"*")) if said[:1] == b"*" else 0


def deliveries(server: RedisServer, stream: str = STREAM) -> int:
    """Return how often the only pending message was delivered."""
    said = server.command("XPENDING", stream, "aiki-workers", "-", "+", "1")
    return int(said.rstrip().rpartition(b":")[2])


async def test_a_message_goes_from_ready_to_held_to_gone(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        worker = a_worker(fast(server.url), ledger, ends=False)
        async with publishing(fast(server.url), ledger), consuming(worker):
            ledger.add(a_run(1))
            await until(lambda: worker.consumer.holding == 1)
            assert (length(server), pending(server)) == (1, 1)
            worker.end("run_1")
            await until(lambda: length(server) == 0)
            assert pending(server) == 0
            await until(lambda: worker.consumer.health.ok)
        assert [health.ok for health in worker.healths] == [True]


async def test_a_refused_message_is_deleted(server: RedisServer) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger, answer=lambda _: ClaimAnswer.REFUSED)
    async with publishing(fast(server.url), ledger) as publisher, consuming(worker):
        publisher.publish(a_run(1))
        await until(lambda: worker.consumer.counts.get("acknowledged", 0) > 0)
        publisher.gone("run_1", keep=True)
        await until(lambda: length(server) == 0)


async def test_an_unanswered_claim_leaves_the_message_pending_and_is_asked_again(
    server: RedisServer,
) -> None:
    ledger = Ledger()
    answers = [ClaimAnswer.UNKNOWN, ClaimAnswer.UNKNOWN]

    def answer(message: Message) -> ClaimAnswer:
        return answers.pop() if answers else ledger.claim(message.run_id, "wrk_1")

    worker = a_worker(fast(server.url, takeover_idle_s=5.0), ledger, answer=answer, ends=False)
    async with publishing(fast(server.url), ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: len(worker.messages) == 1)
        assert pending(server) == 1
        await until(lambda: ledger.holders == {"run_1": "wrk_1"})
        assert [message.id for message in worker.messages] == [worker.messages[0].id] * 3


async def test_no_more_is_taken_than_there_is_room_for(server: RedisServer) -> None:
    ledger = Ledger()
    settings = fast(server.url)
    worker = a_worker(settings, ledger, slots=3, ends=False)
    async with publishing(settings, ledger) as publisher:
        for number in range(20):
            ledger.add(a_run(number))
        await until(lambda: publisher.counts.get("published", 0) == 20)
        async with consuming(worker):
            await until(lambda: worker.consumer.holding == 3)
            assert pending(server) == 3
            worker.end(next(iter(worker.running)))
            await until(lambda: len(ledger.claims) == 4)
            await until(lambda: pending(server) == 3)


async def test_without_room_nothing_is_read(server: RedisServer) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger, slots=0)
    async with publishing(fast(server.url), ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: length(server) == 1)
        await trio.sleep(0.1)
        assert not worker.messages
        worker.slots = 1
        worker.consumer.changed()
        await until(lambda: len(worker.messages) == 1)


async def test_high_runs_go_first(server: RedisServer) -> None:
    ledger = Ledger()
    async with publishing(fast(server.url), ledger) as publisher:
        for number in range(5):
            ledger.add(a_run(f"low{number}", priority=Priority.LOW))
            ledger.add(a_run(f"normal{number}"))
            ledger.add(a_run(f"high{number}", priority=Priority.HIGH))
        await until(lambda: publisher.counts.get("published", 0) == 15)
        worker = a_worker(fast(server.url), ledger, slots=1)
        async with consuming(worker):
            await until(lambda: len(ledger.order) == 15)
    kinds = [run_id[4:-1] for run_id in ledger.order]
    assert kinds == ["high"] * 5 + ["normal"] * 5 + ["low"] * 5


async def test_fifty_workflows_share_a_worker_fairly(server: RedisServer) -> None:
    """One of them has a hundred times the work; it is served once for each time the others are."""
    ledger = Ledger()
    names = tuple(f"flow-{number}" for number in range(50))
    async with publishing(fast(server.url), ledger) as publisher:
        for number in range(300):
            ledger.add(a_run(f"big-{number}", names[0]))
        for name in names[1:]:
            for number in range(3):
                ledger.add(a_run(f"{name}-{number}", name))
        await until(lambda: publisher.counts.get("published", 0) == 300 + 147)
        worker = a_worker(fast(server.url), ledger, workflows=names, slots=5)
        async with consuming(worker):
            await until(lambda: len(ledger.order) == 447, within_s=10.0)
    first = [run_id.removeprefix("run_").rpartition("-")[0] for run_id in ledger.order[:150]]
    assert max(Counter(first).values()) <= 5


async def test_two_workers_never_both_hold_a_run(every_binary: Binary, tmp_path: Path) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        workers = [a_worker(fast(server.url), ledger, f"wrk_{n}", slots=5) for n in range(3)]
        async with publishing(fast(server.url), ledger), consuming(*workers):
            for number in range(500):
                ledger.add(a_run(number))
            await until(lambda: len(ledger.order) == 500)
        assert set(ledger.claims.values()) == {1}


async def test_a_held_message_is_kept_alive_and_its_deliveries_are_not_counted_up(
    server: RedisServer,
) -> None:
    ledger = Ledger()
    settings = fast(server.url)
    first = a_worker(settings, ledger, "wrk_1", ends=False)
    second = a_worker(settings, ledger, "wrk_2")
    async with publishing(settings, ledger), consuming(first):
        ledger.add(a_run(1))
        await until(lambda: first.consumer.holding == 1)
        async with consuming(second):
            await trio.sleep(3 * settings.takeover_idle_s)
        assert (second.messages, first.consumer.holding) == ([], 1)
        assert deliveries(server) == 1


async def test_messages_of_a_dead_worker_are_taken_over(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        settings = fast(server.url, redelivery_s=60.0)
        dead = a_worker(settings, ledger, "wrk_dead", answer=lambda _: ClaimAnswer.HELD)
        async with publishing(settings, ledger):
            async with consuming(dead):
                for number in range(20):
                    ledger.add(a_run(number))
                await until(lambda: dead.consumer.holding == 20)
            heir = a_worker(settings, ledger, "wrk_heir")
            async with consuming(heir):
                await until(lambda: len(ledger.order) == 20)
                assert {message.deliveries for message in heir.messages} == {2}
                await until(lambda: length(server) == 0)


async def test_a_message_delivered_too_often_stalls_its_run(server: RedisServer) -> None:
    ledger = Ledger()
    settings = fast(
        server.url, deliveries_max=3, takeover_idle_s=0.05, refresh_s=0.02, redelivery_s=60.0
    )
    worker = a_worker(settings, ledger, answer=lambda _: ClaimAnswer.UNKNOWN)
    async with publishing(settings, ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: len(worker.poison) == 1)
        assert worker.poison[0].deliveries == 4
        await until(lambda: length(server) == 0)


async def test_entries_lost_while_pending_are_counted_and_published_again(
    every_binary: Binary, tmp_path: Path
) -> None:
    """The stream is trimmed under a dead worker's pending messages."""
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        settings = fast(server.url, redelivery_s=60.0, redelivery_max_s=60.0)
        dead = a_worker(settings, ledger, "wrk_dead", answer=lambda _: ClaimAnswer.UNKNOWN)
        async with publishing(settings, ledger):
            async with consuming(dead):
                for number in range(6):
                    ledger.add(a_run(number))
                await until(lambda: pending(server, "wrk_dead") == 6)
            server.command("XTRIM", STREAM, "MAXLEN", "=", "2")
            heir = a_worker(settings, ledger, "wrk_heir")
            async with consuming(heir):
                await until(lambda: len(ledger.order) == 6)
                assert heir.consumer.counts["lost"] == 4
                assert sum(heir.losses) == 4


async def test_a_lost_group_is_created_anew_from_the_beginning(server: RedisServer) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger)
    async with publishing(fast(server.url, redelivery_s=60.0), ledger), consuming(worker):
        await until(lambda: worker.consumer.health.ok)
        server.command("FLUSHALL")
        ledger.add(a_run(1))
        await until(lambda: len(ledger.order) == 1)
        await until(lambda: worker.losses == [0])


async def test_a_key_that_is_no_stream_is_named_and_other_streams_are_read(
    server: RedisServer,
) -> None:
    ledger = Ledger()
    settings = fast(server.url)
    server.command("SET", STREAM, "mine")
    worker = a_worker(settings, ledger, workflows=("orders", "refunds"))
    async with publishing(settings, ledger), consuming(worker):
        await until(lambda: worker.consumer.health.trouble is Trouble.WRONG_TYPE)
        await until(lambda: STREAM in worker.consumer.health.message)
        ledger.add(a_run(1))
        ledger.add(a_run(2, "refunds"))
        await until(lambda: ledger.order == ["run_2"])
        server.command("DEL", STREAM)
        await until(lambda: ledger.order == ["run_2", "run_1"])
        await until(lambda: worker.consumer.health.ok)


async def test_a_message_that_is_not_ours_is_deleted_and_counted(server: RedisServer) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger)
    async with consuming(worker):
        server.command("XADD", STREAM, "*", "hello", "world")
        await until(lambda: worker.consumer.counts.get("strange") == 1)
        await until(lambda: length(server) == 0)
    assert worker.messages == []


async def test_the_same_hint_twice_is_asked_for_once(server: RedisServer) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger, ends=False)
    async with publishing(fast(server.url), ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: worker.consumer.holding == 1)
        server.command("XADD", STREAM, "*", "v", "1", "run", "run_1", "at", "0")
        await until(lambda: worker.consumer.counts.get("doubled") == 1)
        await until(lambda: length(server) == 1)
        assert len(worker.messages) == 1


async def test_a_restart_with_loss_of_data_is_survived(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        worker = a_worker(fast(server.url), ledger)
        settings = fast(server.url, redelivery_s=60.0)
        async with publishing(settings, ledger), consuming(worker):
            await until(lambda: worker.consumer.health.ok)
            server.kill()
            await until(lambda: worker.consumer.health.trouble is Trouble.DOWN)
            ledger.add(a_run(1))
            server.start()
            await until(lambda: len(ledger.order) == 1)
            await until(lambda: worker.consumer.health.ok)
        assert [health.ok for health in worker.healths] == [True, False, True]


async def test_a_read_only_server_is_said(start_server: Callable[..., RedisServer]) -> None:
    master, server = start_server(), start_server()
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger)
    async with consuming(worker):
        await until(lambda: worker.consumer.health.ok)
        server.command("REPLICAOF", "127.0.0.1", str(master.port))
        await until(lambda: worker.consumer.health.trouble is Trouble.READ_ONLY)
        server.command("REPLICAOF", "NO", "ONE")
        await until(lambda: worker.consumer.health.ok)


async def test_a_wrong_password_is_said_and_not_shown(
    start_server: Callable[..., RedisServer],
) -> None:
    server = start_server(requirepass="right")
    worker = a_worker(fast(f"redis://:hunter2@127.0.0.1:{server.port}"), Ledger())
    async with consuming(worker):
        await until(lambda: worker.consumer.health.trouble is Trouble.AUTH)
        assert "hunter2" not in worker.consumer.health.message


async def test_a_server_that_hangs_is_said_and_acknowledgements_are_kept(
    server: RedisServer,
) -> None:
    ledger = Ledger()
    worker = a_worker(fast(server.url), ledger, ends=False)
    async with publishing(fast(server.url), ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: worker.consumer.holding == 1)
        server.pause()
        worker.end("run_1")
        await until(lambda: worker.consumer.health.trouble is Trouble.TIMEOUT)
        server.resume()
        await until(lambda: worker.consumer.health.ok)
        await until(lambda: length(server) == 0)


@pytest.mark.parametrize("hang", [False, True])
async def test_a_stop_ends_a_blocking_read_at_once(server: RedisServer, hang: bool) -> None:
    settings = fast(server.url, block_s=20.0, command_timeout_s=30.0)
    worker = a_worker(settings, Ledger())
    async with consuming(worker):
        await until(lambda: b"blocked_clients:1" in server.command("INFO", "clients"))
        if hang:
            server.pause()
        before = trio.current_time()
    assert trio.current_time() - before < 1.0
    if hang:
        server.resume()


async def test_a_stopped_worker_leaves_no_consumer_behind_but_where_it_holds_something(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        ledger = Ledger()
        group = ("XINFO", "CONSUMERS", STREAM, "aiki-workers")
        tidy = a_worker(fast(server.url), ledger, "wrk_tidy")
        holds = a_worker(fast(server.url), ledger, "wrk_holds", ends=False)
        async with publishing(fast(server.url), ledger):
            for worker in (tidy, holds):
                async with consuming(worker):
                    name = worker.worker_id
                    ledger.add(a_run(name))
                    await until(partial(_holds, ledger, name))
                    await until(partial(_is_well, worker))
        assert b"wrk_tidy" not in server.command(*group)
        assert b"wrk_holds" in server.command(*group)


async def test_a_dead_consumer_is_removed_only_when_nothing_is_pending_for_it(
    server: RedisServer,
) -> None:
    ledger = Ledger()
    living = a_worker(fast(server.url), ledger, "wrk_living", slots=1, ends=False)
    group = ("XINFO", "CONSUMERS", STREAM, "aiki-workers")
    async with consuming(living):
        await until(lambda: living.consumer.health.ok)
        # A full worker takes nothing over, so what is pending elsewhere stays there.
        ledger.ready["run_0"] = a_run(0)
        for number in range(2):
            server.command("XADD", STREAM, "*", "v", "1", "run", f"run_{number}", "at", "0")
            if number == 0:
                await until(lambda: living.consumer.holding == 1)
        read = ("XREADGROUP", "GROUP", "aiki-workers")
        server.command(*read, "wrk_busy", "STREAMS", STREAM, ">")
        server.command("XGROUP", "CREATECONSUMER", STREAM, "aiki-workers", "wrk_idle")
        await until(lambda: b"wrk_idle" in server.command(*group))
        await until(lambda: b"wrk_idle" not in server.command(*group))
        assert b"wrk_busy" in server.command(*group)


async def test_a_run_that_ends_before_its_claim_is_answered_is_acknowledged(
    server: RedisServer,
) -> None:
    """`ends`: the bench says that the run ended while its claim is still being answered."""
    ledger = Ledger()
    worker: Bench = a_worker(fast(server.url), ledger, ends=True)
    async with publishing(fast(server.url), ledger), consuming(worker):
        ledger.add(a_run(1))
        await until(lambda: len(ledger.order) == 1)
        await until(lambda: length(server) == 0)
        assert worker.consumer.holding == 0


def _holds(ledger: Ledger, worker_id: str) -> bool:
    return worker_id in ledger.holders.values()


def _is_well(worker: Bench) -> bool:
    return worker.consumer.health.ok
