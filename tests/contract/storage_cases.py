"""What the storage contract is checked with: the adapters, and short ways to write changes.

A new adapter joins by one line in `ADAPTERS`; nothing in the tests names one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from aiki_actors.engine import (
    Body,
    CancelRun,
    Entry,
    Micros,
    Notice,
    Projection,
    RunCreated,
    RunQueued,
)
from aiki_actors.storage import (
    Change,
    MemoryStorage,
    SqliteSettings,
    SqliteStorage,
    Storage,
    open_sqlite,
)
from aiki_actors.storage.postgres import PostgresSettings, open_postgres
from aiki_actors.storage.sqlite._writer import CallRequest
from aiki_sdk.protocol import Priority, RunStatus
from tests.servers.postgres import open_database

Opens: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Storage]]

QUICK: Final = SqliteSettings(synchronous="normal")
"""Contract tests do not pull the plug, so they need not wait for the disk."""


# Every append of several changes is spread over three writers: what the contract says of a batch
# must hold there too.
POSTGRES: Final = PostgresSettings(own_wait_s=1, retry_s=5, writers=3, split_min=2)


@asynccontextmanager
async def _postgres(_folder: Path) -> AsyncGenerator[Storage, None]:
    async with open_database(used=True) as url, open_postgres(url, POSTGRES) as storage:
        yield storage


@asynccontextmanager
async def _memory(_folder: Path) -> AsyncGenerator[Storage, None]:
    yield MemoryStorage()


@asynccontextmanager
async def _sqlite_file(folder: Path) -> AsyncGenerator[Storage, None]:
    async with open_sqlite(folder / "runs.db", QUICK) as storage:
        yield storage


@asynccontextmanager
async def _sqlite_memory(_folder: Path) -> AsyncGenerator[Storage, None]:
    async with open_sqlite(None, QUICK) as storage:
        yield storage


ADAPTERS: Final[dict[str, Opens]] = {
    "memory": _memory,
    "postgres": _postgres,
    "sqlite-file": _sqlite_file,
    "sqlite-memory": _sqlite_memory,
}

NOW: Final = Micros(1_790_000_000_000_000)


def at(offset: int) -> Micros:
    """Return a time, in microseconds after `NOW`."""
    return Micros(NOW + offset)


def row(run_id: str, **fields: Any) -> Projection:
    """Make a run's row; `fields` name what matters to the test."""
    plain = Projection(
        run_id=run_id,
        namespace="default",
        workflow="order",
        version="1",
        status=RunStatus.QUEUED,
        pool="default",
        priority=Priority.NORMAL,
        reference_id=None,
        input_hash="00",
        parent_id=None,
        labels={},
        attempt=1,
        created_at=NOW,
        started_at=None,
        ended_at=None,
        ready_at=None,
        due_at=None,
        worker_id=None,
        epoch=0,
    )
    return attrs.evolve(plain, **fields)


def spec_of(run: Projection) -> RunCreated:
    """Make the first entry that fits a row."""
    return RunCreated(
        run.namespace,
        run.workflow,
        run.version,
        {"for": run.run_id},
        run.input_hash,
        reference_id=run.reference_id,
        labels=run.labels,
    )


def create(run_id: str, *more: Body, supersedes: str | None = None, **fields: Any) -> Change:
    """Make the change that creates a run, with more entries after the first."""
    run = row(run_id, **fields)
    bodies = (spec_of(run), *more)
    entries = tuple(Entry(seq, run.created_at, body) for seq, body in enumerate(bodies, 1))
    return Change(run_id, 1, entries, run, create=True, supersedes=supersedes)


def add(run_id: str, seq: int, *, entries: int = 1, **fields: Any) -> Change:
    """Make a change that adds entries from `seq` on, and writes the row if `fields` are given."""
    added = tuple(
        Entry(number, at(number), RunQueued(f"entry {number}"))
        for number in range(seq, seq + entries)
    )
    return Change(run_id, seq, added, row(run_id, **fields) if fields else None)


def notice(source_id: str, seq: int, number: int, target_id: str) -> Notice:
    """Make a notice."""
    return Notice(
        f"{source_id}:{seq}:{number}", source_id, target_id, CancelRun("its parent ended")
    )


def settle(run_id: str, seq: int, *notice_ids: str) -> Change:
    """Make a change without entries that settles notices."""
    return Change(run_id, seq, (), settled=notice_ids)


async def on_writer(storage: SqliteStorage, call: Callable[[sqlite3.Connection], object]) -> None:
    """Run something in the writing thread, in its turn."""
    request = CallRequest(lambda connection: (call(connection), None)[1])
    storage._writer.submit(request)
    await request.done.wait()
    if request.error is not None:
        raise request.error
