"""`PostgresReader`: looking into a database, whoever owns it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage._codec import decode_entry, decode_notice
from aiki_actors.storage._listing import check_limit, read_cursor, write_cursor
from aiki_actors.storage._port import (
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    RunFilter,
    RunPage,
)
from aiki_actors.storage._postgres_settings import DEFAULT_SETTINGS, PostgresSettings
from aiki_actors.storage._run_row import PRIORITIES
from aiki_sdk import Rng, StorageError, SystemRng, loads

from . import _queries as queries
from ._asyncio import open_asyncio
from ._connection import Target
from ._migrations import newest_version
from ._pool import Pool
from ._schema import version_of


@define(eq=False)
class PostgresReader:
    """The reading part of a `Storage`, on a database that may belong to another process."""

    _target: Target
    _pool: Pool

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`.

        Raises:
            JournalVersionError: a newer release wrote one of them.
            StorageError: the database failed.
        """
        rows = await self._pool.rows(queries.JOURNAL, run_id, after, limit)
        return [decode_entry(run_id, *row) for row in rows]

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        row = await self._pool.row(queries.ONE_RUN, run_id)
        return None if row is None else queries.run_of(row)

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        row = await self._pool.row(queries.FIND, namespace, workflow, reference_id)
        return None if row is None else queries.run_of(row)

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        check_limit(limit)
        end = None if cursor is None else read_cursor(cursor)
        query = queries.listing(where, limit + 1, end)
        if query is None:
            await trio.lowlevel.checkpoint()
            return RunPage((), None)
        rows = await self._pool.rows(query.text, *query.values)
        found = queries.runs_of(rows[:limit])
        return RunPage(found, write_cursor(found[-1]) if len(rows) > limit else None)

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        query = queries.counting(where)
        if query is None:
            await trio.lowlevel.checkpoint()
            return 0
        return int(await self._pool.value(query.text, *query.values))

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        check_limit(limit)
        if exclude:
            rows = await self._pool.rows(queries.READY, limit, list(exclude))
        else:
            rows = await self._pool.rows(queries.READY_ALL, limit)
        return [
            ReadyRun(run_id, namespace, workflow, version, pool, PRIORITIES[rank], Micros(ready_at))
            for run_id, namespace, workflow, version, pool, rank, ready_at in rows
        ]

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        check_limit(limit)
        if after is None:
            rows = await self._pool.rows(queries.DUE, before, limit)
        else:
            rows = await self._pool.rows(
                queries.DUE_AFTER, before, limit, after.due_at, after.run_id
            )
        return [DueRun(run_id, Micros(due_at)) for run_id, due_at in rows]

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        check_limit(limit)
        rows = await self._pool.rows(queries.CLAIMED, after or "", limit)
        return [ClaimedRun(run_id, worker_id, epoch) for run_id, worker_id, epoch in rows]

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        check_limit(limit)
        rows = await self._pool.rows(queries.NOTICES, after or "", limit)
        return [decode_notice(*row) for row in rows]

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        rows = await self._pool.rows(queries.WORKFLOWS)
        return [
            KnownWorkflow(namespace, name, version, loads(definition))
            for namespace, name, version, definition in rows
        ]

    async def size_bytes(self) -> int:
        """Return the size of the tables and their indexes, free space in them included."""
        return int(await self._pool.value(queries.SIZE))


@asynccontextmanager
async def open_postgres_reader(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS, *, rng: Rng | None = None
) -> AsyncGenerator[PostgresReader, None]:
    """Open a database for reading alone, whether or not a server owns it.

    Raises:
        InvalidRequest: the URL is not PostgreSQL's.
        StorageTooNew: a newer release has written to it.
        StorageUnavailable: it cannot be reached.
        StorageError: its schema is older, it belongs to another program, or cannot be read.
    """
    target = Target(url, settings)
    chance = rng or SystemRng()
    async with open_asyncio() as host:
        version = await version_of(host, target, chance)
        if version != newest_version():
            raise StorageError(
                f"database {target.name} has schema version {version} and this release reads "
                f"{newest_version()}; run `aiki migrate`",
                details={"database": target.name, "version": version},
            )
        pool = Pool(host, target, chance)
        try:
            yield PostgresReader(target, pool)
        finally:
            with trio.move_on_after(target.settings.connect_timeout_s, shield=True):
                await pool.close()
