"""Short ways to do things to a PostgreSQL database and to its storage."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import trio
from attrs import frozen

from aiki_actors.storage import Appended, PostgresSettings, Storage
from aiki_actors.storage.postgres._asyncio import AsyncioHost, open_asyncio
from tests.contract.storage_cases import add, create
from tests.servers.postgres import PostgresServer

OK: Final = Appended()
PATIENT: Final = PostgresSettings(writers=1, own_wait_s=5, retry_s=20, outcome_wait_s=20)
IMPATIENT: Final = PostgresSettings(
    writers=1, own_wait_s=0.2, retry_s=0.3, outcome_wait_s=0.5, statement_timeout_s=0.5,
    reply_margin_s=0.3, connect_timeout_s=0.5,
)  # fmt: skip


def database_of(url: str) -> str:
    """Return the name of the database in a URL."""
    return url.rpartition("/")[2]


async def ask(server: PostgresServer, url: str, statement: str, *values: object) -> Any:
    """Run a statement beside the storage; return its first value."""
    return await trio.to_thread.run_sync(
        lambda: server.execute(statement, *values, database=database_of(url))
    )


async def entries_of(storage: Storage, run_id: str) -> int:
    """Return how many entries a run has; they are gapless."""
    entries = await storage.journal(run_id)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    return len(entries)


async def warm_up(storage: Storage) -> None:
    """Write once in each way, so that every statement is prepared and no reply but one is due."""
    assert await storage.append([create("run_warm")]) == [OK]
    assert await storage.append([add("run_warm", 2)]) == [OK]
    assert await storage.append([add("run_warm", 2)]) != [OK]
    assert await storage.append([add("run_warm", 3)]) == [OK]


async def write_until(
    storage: Storage,
    run_id: str,
    done: trio.Event,
    acknowledged: dict[str, int],
    failed: Callable[[Exception], Awaitable[None]],
) -> None:
    """Add entries to a run one by one, and keep count of those that were acknowledged."""
    seq = acknowledged[run_id] = 1
    assert await storage.append([create(run_id)]) == [OK]
    while not done.is_set():
        try:
            results = await storage.append([add(run_id, seq + 1)])
        except Exception as error:  # noqa: BLE001  # the test says which are fine
            await failed(error)
            continue
        assert results == [OK], results
        seq += 1
        acknowledged[run_id] = seq


@frozen
class Held:
    """A transaction of somebody else's."""

    connection: asyncpg.Connection[asyncpg.Record]
    asyncio: AsyncioHost

    async def execute(self, statement: str) -> None:
        await self.asyncio.run(self.connection.execute(statement))


@asynccontextmanager
async def holding(url: str, *statements: str) -> AsyncGenerator[Held, None]:
    """Run statements in a transaction of its own, which is rolled back after the block."""
    async with open_asyncio() as asyncio:
        connection = await asyncio.run(asyncpg.connect(url))
        held = Held(connection, asyncio)
        await held.execute("BEGIN")
        for statement in statements:
            await held.execute(statement)
        try:
            yield held
        finally:
            with trio.CancelScope(shield=True):
                await asyncio.run(connection.close())
