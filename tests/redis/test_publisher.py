"""The publisher against a real server: what it writes and keeps, and what it says of trouble."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from aiki_actors.queue.redis import Publisher, RedisFailed, Trouble
from aiki_actors.queue.redis._connection import Connection
from aiki_sdk import SeededRng
from tests.redis.fleet import (
    CLOCK,
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


async def test_a_ready_run_becomes_a_message_with_the_documented_fields(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        async with publishing(fast(server.url), Ledger()) as publisher:
            publisher.publish(a_run(1))
            await until(lambda: length(server) == 1)
        said = server.command("XRANGE", STREAM, "-", "+")
        words = [line for line in said.split(b"\r\n") if line[:1] not in b"*$"]
        assert words[1:] == [b"v", b"1", b"run", b"run_1", b"at", b"0"]


async def test_publishing_never_waits_and_what_finds_no_room_is_said(server: RedisServer) -> None:
    """Nobody is there to send anything, so the third run finds no room."""
    publisher = Publisher(fast(server.url, tracked_max=2), "s", CLOCK, SeededRng(1))
    assert [publisher.publish(a_run(number)) for number in range(3)] == [True, True, False]


async def test_streams_are_trimmed_exactly(server: RedisServer) -> None:
    async with publishing(fast(server.url, stream_max=7, redelivery_s=60.0), Ledger()) as publisher:
        for number in range(200):
            publisher.publish(a_run(number))
        await until(lambda: publisher.counts.get("published", 0) == 200)
        assert length(server) == 7


async def test_a_stream_that_nobody_puts_into_or_serves_goes_by_itself(
    server: RedisServer,
) -> None:
    async with publishing(fast(server.url, stream_keep_s=0.5), Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(lambda: length(server) == 1)
        publisher.gone("run_1", keep=False)
        await until(lambda: server.command("EXISTS", STREAM).startswith(b":0"))
        publisher.publish(a_run(2))
        await until(lambda: length(server) == 1)


async def test_a_stream_is_kept_while_a_run_waits_in_it_or_a_worker_serves_it(
    server: RedisServer,
) -> None:
    def kept() -> bool:
        return int(server.command("PTTL", STREAM).removeprefix(b":")) > 0

    async with publishing(fast(server.url), Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(kept)
        server.command("PERSIST", STREAM)
        await until(kept)
    server.command("DEL", STREAM)
    async with consuming(a_worker(fast(server.url), Ledger())):
        await until(kept)
        server.command("PERSIST", STREAM)
        await until(kept)


async def test_a_message_that_still_stands_is_not_published_again(server: RedisServer) -> None:
    """Three looks, each of which finds it; the fourth replaces it, which leaves one message."""
    settings = fast(server.url, redelivery_s=0.02, redelivery_max_s=0.02)
    async with publishing(settings, Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(lambda: publisher.counts.get("published", 0) >= 3)
        assert length(server) == 1


async def test_a_message_that_was_deleted_is_published_again(server: RedisServer) -> None:
    async with publishing(fast(server.url), Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(lambda: length(server) == 1)
        server.command("XTRIM", STREAM, "MAXLEN", "=", "0")
        await until(lambda: length(server) == 1)


@pytest.mark.parametrize("keep", [False, True])
async def test_the_message_of_a_claimed_run_stays_only_for_who_pulled_it(
    server: RedisServer, keep: bool
) -> None:
    async with publishing(fast(server.url), Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(lambda: length(server) == 1)
        publisher.gone("run_1", keep=keep)
        publisher.publish(a_run(2))
        await until(lambda: length(server) == (2 if keep else 1))
        assert publisher.tracked == 1


async def test_everything_is_there_again_after_a_flush(server: RedisServer) -> None:
    """The proof that nothing was lost is lost too, so nothing waits for its redelivery."""
    settings = fast(server.url, redelivery_s=60.0, redelivery_max_s=60.0)
    async with publishing(settings, Ledger()) as publisher:
        for number in range(100):
            publisher.publish(a_run(number))
        await until(lambda: length(server) == 100)
        server.command("FLUSHALL")
        await until(lambda: length(server) == 100)


async def test_everything_is_there_again_after_a_restart_without_persistence(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        settings = fast(server.url, redelivery_s=60.0, redelivery_max_s=60.0)
        async with publishing(settings, Ledger()) as publisher:
            for number in range(100):
                publisher.publish(a_run(number))
            await until(lambda: length(server) == 100)
            server.kill()
            await until(lambda: publisher.health.trouble is Trouble.DOWN)
            publisher.publish(a_run(100))
            server.start()
            await until(lambda: length(server) == 101)
            await until(lambda: publisher.health.ok)


async def test_everything_is_there_once_after_a_restart_with_persistence(
    start_server: Callable[..., RedisServer],
) -> None:
    server = start_server(appendonly="yes", appendfsync="always")
    async with publishing(fast(server.url, redelivery_s=60.0), Ledger()) as publisher:
        for number in range(100):
            publisher.publish(a_run(number))
        # Known here too: what is not confirmed yet would be published again, and not rechecked.
        await until(lambda: publisher.counts.get("published", 0) == 100)
        assert length(server) == 100
        server.restart()
        await until(lambda: publisher.counts.get("rechecked", 0) >= 1)
        publisher.publish(a_run("last"))
        await until(lambda: length(server) == 101)


async def test_out_of_memory_is_said_and_passes(start_server: Callable[..., RedisServer]) -> None:
    server = start_server(maxmemory="1mb", maxmemory_policy="noeviction")
    async with publishing(fast(server.url), Ledger()) as publisher:
        for number in range(20_000):
            publisher.publish(a_run(number))
        await until(lambda: publisher.health.trouble is Trouble.OUT_OF_MEMORY)
        server.command("CONFIG", "SET", "maxmemory", "100mb")
        await until(lambda: publisher.health.ok)
        await until(lambda: length(server) >= 20_000)


async def test_a_server_that_became_a_replica_is_said_to_be_read_only(
    start_server: Callable[..., RedisServer],
) -> None:
    """A failover to an old replica: what it does not have is published again."""
    old, server = start_server(), start_server()
    settings = fast(server.url, redelivery_s=60.0)
    async with publishing(settings, Ledger()) as publisher:
        await until(lambda: publisher.health.ok)
        publisher.publish(a_run(1))
        await until(lambda: length(server) == 1)
        server.command("REPLICAOF", "127.0.0.1", str(old.port))
        await until(lambda: publisher.health.trouble is Trouble.READ_ONLY)
        server.command("REPLICAOF", "NO", "ONE")
        await until(lambda: publisher.health.ok)
        await until(lambda: length(server) == 1)


async def test_a_key_that_is_no_stream_is_named_and_others_go_on(server: RedisServer) -> None:
    server.command("SET", STREAM, "mine")
    async with publishing(fast(server.url), Ledger()) as publisher:
        publisher.publish(a_run(1))
        publisher.publish(a_run(2, "refunds"))
        await until(lambda: publisher.health.trouble is Trouble.WRONG_TYPE)
        assert STREAM in publisher.health.message
        await until(lambda: length(server, "aiki:default:refunds:1") == 1)
        assert not publisher.health.ok
        server.command("DEL", STREAM)
        await until(lambda: publisher.health.ok)
        await until(lambda: length(server) == 1)


@pytest.mark.parametrize(
    ("option", "value", "trouble"),
    [
        ("min-replicas-to-write", "1", Trouble.NO_REPLICAS),
        ("requirepass", "changed", Trouble.AUTH),
    ],
)
async def test_each_trouble_has_its_name(
    server: RedisServer, option: str, value: str, trouble: Trouble
) -> None:
    async with publishing(fast(server.url), Ledger()) as publisher:
        await until(lambda: publisher.health.ok)
        server.command("CONFIG", "SET", option, value)
        if trouble is Trouble.AUTH:
            # Connections that are in stay in.
            server.command("AUTH", "changed")
            with trio.fail_after(1):
                connection = Connection(fast(server.url), "test")
                with pytest.raises(RedisFailed) as caught:
                    await connection.work(lambda wire: wire.call("PING"))
            assert caught.value.trouble is trouble
            return
        publisher.publish(a_run(1))
        await until(lambda: publisher.health.trouble is trouble)


async def test_a_failing_disk_is_said(server: RedisServer) -> None:
    """`MISCONF`: snapshots are asked for and cannot be written, for a folder is in their place."""
    async with publishing(fast(server.url), Ledger()) as publisher:
        await until(lambda: publisher.health.ok)
        (server.folder / "dump.rdb").mkdir()
        server.command("CONFIG", "SET", "save", "3600 1")
        server.command("BGSAVE")
        await until(lambda: publisher.health.trouble is Trouble.MISCONFIGURED)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="needs Redis itself; its wheel is for 3.11")
async def test_a_server_that_loads_its_data_is_waited_for(
    start_server: Callable[..., RedisServer],
) -> None:
    server = start_server(rdbcompression="no")
    server.command("DEBUG", "POPULATE", "40000", "x", "500")
    server.command("SAVE")
    server.kill()
    server.start(key_load_delay="50")
    async with publishing(fast(server.url, command_timeout_s=3.0), Ledger()) as publisher:
        publisher.publish(a_run(1))
        await until(lambda: publisher.health.trouble is Trouble.LOADING)
        server.restart()
        await until(lambda: publisher.health.ok)
        await until(lambda: length(server) == 1)


@pytest.mark.parametrize("url", ["redis://:wrong@", "redis://"])
async def test_a_wrong_password_is_said_and_not_shown(
    start_server: Callable[..., RedisServer], url: str
) -> None:
    server = start_server(requirepass="right")
    settings = fast(f"{url}127.0.0.1:{server.port}")
    async with publishing(settings, Ledger()) as publisher:
        await until(lambda: publisher.health.trouble is Trouble.AUTH)
        assert "wrong" not in publisher.health.message
        assert "right" not in publisher.health.message


async def test_a_server_that_hangs_is_said_and_publishing_goes_on(server: RedisServer) -> None:
    async with publishing(fast(server.url), Ledger()) as publisher:
        await until(lambda: publisher.health.ok)
        server.pause()
        publisher.publish(a_run(1))
        await until(lambda: publisher.health.trouble is Trouble.TIMEOUT)
        server.resume()
        await until(lambda: publisher.health.ok)
        # Once more than was seen: what became of the one that had no answer was not known.
        assert length(server) >= 1


async def test_a_publisher_stops_at_once_while_its_server_hangs(server: RedisServer) -> None:
    settings = fast(server.url, command_timeout_s=30.0)
    async with publishing(settings, Ledger()) as publisher:
        await until(lambda: publisher.health.ok)
        server.pause()
        publisher.publish(a_run(1))
        await trio.sleep(0.05)
        before = trio.current_time()
    assert trio.current_time() - before < 1.0
    server.resume()
