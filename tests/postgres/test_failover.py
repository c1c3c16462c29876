"""A failover to a standby that has not heard of the last commits: what is lost is a tail, no more.

Nothing can bring back what the new primary never had. What remains must be whole, and the server
must go on with it by itself, for the database is still its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from attrs import frozen

from aiki_actors.storage import SeqConflict
from aiki_actors.storage.postgres import PostgresStorage, migrate_postgres, open_postgres
from aiki_sdk import StorageLocked
from tests.contract.storage_cases import add, create
from tests.postgres.cases import OK, PATIENT, entries_of
from tests.servers.postgres import PostgresServer, standby_of

KILL_WRITERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'aiki-trio writer'"
)
CAUGHT_UP = "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication"


@frozen
class Pair:
    """A primary and a standby that it does not wait for, and a storage that knows both."""

    primary: PostgresServer
    standby: PostgresServer
    storage: PostgresStorage

    async def execute(self, server: PostgresServer, statement: str) -> object:
        return await trio.to_thread.run_sync(server.execute, statement)

    async def freeze(self) -> None:
        """Let the standby hear of everything, then of nothing more."""
        with trio.fail_after(30):
            while not await self.execute(self.primary, CAUGHT_UP):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
        await trio.to_thread.run_sync(self.standby.stop)

    async def fail_over(self) -> None:
        """Kill the primary, and let the standby take its place."""
        await trio.to_thread.run_sync(self.primary.kill)
        self.standby.start()
        await self.execute(self.standby, "SELECT pg_promote()")


@pytest.fixture
async def pair(own_server: PostgresServer) -> AsyncGenerator[Pair, None]:
    async with open_pair(own_server) as opened:
        yield opened


@asynccontextmanager
async def open_pair(primary: PostgresServer) -> AsyncGenerator[Pair, None]:
    with standby_of(primary, synchronous=False) as standby:
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = primary.url().replace(f"127.0.0.1:{primary.port}", hosts)
        await migrate_postgres(url)
        async with open_postgres(url, attrs.evolve(PATIENT, own_wait_s=0.2)) as storage:
            yield Pair(primary, standby, storage)


async def test_what_an_asynchronous_failover_loses_is_a_tail_and_what_remains_is_continued(
    pair: Pair,
) -> None:
    storage = pair.storage
    assert await storage.append([create("run_1"), add("run_1", 2)]) == [OK, OK]
    await pair.freeze()
    assert await storage.append([add("run_1", 3), create("run_lost")]) == [OK, OK]
    await pair.fail_over()
    # Who remembers the tail is told that it is gone, and writes nothing over the gap.
    assert await storage.append([add("run_1", 4)]) == [SeqConflict("run_1", 4)]
    assert await entries_of(storage, "run_1") == 2
    assert await storage.run("run_lost") is None
    assert await storage.append([add("run_1", 3), create("run_lost")]) == [OK, OK]
    assert await entries_of(storage, "run_1") == 3


async def test_a_writer_whose_new_token_is_lost_with_the_tail_goes_on(pair: Pair) -> None:
    """Its connection broke after the standby's last word: the row holds a token of before."""
    storage = pair.storage
    assert await storage.append([create("run_1")]) == [OK]
    await pair.freeze()
    for seq in (2, 3, 4):
        await pair.execute(pair.primary, KILL_WRITERS)
        assert await storage.append([add("run_1", seq)]) == [OK]
    await pair.fail_over()
    assert await storage.append([add("run_1", 5)]) == [SeqConflict("run_1", 5)]
    assert await storage.append([add("run_1", 2)]) == [OK]


async def test_who_takes_the_new_primary_first_shuts_the_old_owner_out(pair: Pair) -> None:
    """Although the old owner's tokens of before the failover are known to it."""
    storage = pair.storage
    assert await storage.append([create("run_1")]) == [OK]
    await pair.freeze()
    await pair.execute(pair.primary, KILL_WRITERS)
    assert await storage.append([add("run_1", 2)]) == [OK]
    await pair.fail_over()
    taken = "UPDATE aiki.writers SET token = 'another server' RETURNING 1"
    await pair.execute(pair.standby, taken)
    with pytest.raises(StorageLocked, match="taken over"):
        await storage.append([add("run_1", 2)])
    assert await entries_of(storage, "run_1") == 1
