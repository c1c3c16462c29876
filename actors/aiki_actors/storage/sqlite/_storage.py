"""`SqliteStorage`: the embedded default, one file, written by one thread.

Writes go through the `Writer`; reads use connections of their own in worker threads, a bounded
number at a time, and see everything that was acknowledged before they began. A database in memory
is one connection, so there the writing thread reads too, in its turn.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from attrs import define, field

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage._changes import encode_change
from aiki_actors.storage._listing import check_limit
from aiki_actors.storage._port import (
    AppendResult,
    Change,
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    RunFilter,
    RunPage,
)
from aiki_sdk import UnknownOutcome, dumps

from . import _queries as queries
from ._connections import Database
from ._courtesy import Courtesy
from ._errors import translate
from ._settings import DEFAULT_SETTINGS, SqliteSettings
from ._writer import AppendRequest, CallRequest, Writer

T = TypeVar("T")


@define(eq=False)
class SqliteStorage:
    """A `Storage` on SQLite; opened by `open_sqlite`."""

    _database: Database
    _settings: SqliteSettings
    _writer: Writer
    _limiter: trio.CapacityLimiter
    _courtesy: Courtesy
    _idle: deque[sqlite3.Connection] = field(
        factory=lambda: deque[sqlite3.Connection](), init=False
    )

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Make the changes durable; see `Storage.append`.

        Calls that wait while a transaction is on its way to the disk share the next one; that
        changes nothing for any of them. A call that is cancelled before it handed its changes
        over writes nothing. One that is cancelled later still returns what became of them, as
        if it had been shielded; only if the disk gives no answer within `outcome_wait_s` it
        raises `UnknownOutcome`.

        Raises:
            PayloadError: a value in a change cannot be JSON; nothing was written.
            StorageError: the database failed, or is closed; nothing was written.
            UnknownOutcome: the changes may or may not have been written.
        """
        encoded = [encode_change(change) for change in changes]
        await trio.lowlevel.checkpoint_if_cancelled()
        if not encoded:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return []
        request = AppendRequest(encoded)
        self._writer.submit(request)
        await self._answer_to(request)
        return request.results

    async def _answer_to(self, request: AppendRequest | CallRequest) -> None:
        """Wait until a write has ended, cancelled or not, and raise its error."""
        try:
            await request.done.wait()
        except trio.Cancelled:
            # The write goes on whatever happens here. Its answer, which is near, is worth more
            # than a quick unwinding; the cancellation comes again at the next checkpoint.
            with trio.move_on_after(self._settings.outcome_wait_s) as scope:
                scope.shield = True
                await request.done.wait()
        if not request.done.is_set():
            raise UnknownOutcome(
                f"database {self._database.name} did not answer within "
                f"{self._settings.outcome_wait_s} s (outcome_wait_s) after the write was "
                "cancelled; check the disk, then read back what was written"
            )
        if request.error is not None:
            raise request.error

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._database.path is None:
            answer: list[T] = []
            request = CallRequest(lambda connection: answer.append(query(connection)))
            self._writer.submit(request)
            await request.done.wait()
            if request.error is not None:
                raise request.error
            return answer[0]
        with self._courtesy.towards_threads():
            return await trio.to_thread.run_sync(self._query, query, limiter=self._limiter)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on an idle connection, or a new one; in a worker thread."""
        connection: sqlite3.Connection | None = None
        try:
            try:
                # The limiter bounds how many are taken, and so how many there are.
                connection = self._idle.pop()
            except IndexError:
                connection = self._database.connect_reader(self._settings)
            answer = query(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self._database.name) from error
            raise
        self._idle.append(connection)
        return answer

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`.

        Raises:
            JournalVersionError: a newer release wrote one of them.
            StorageError: the database failed.
        """
        return await self._read(partial(queries.journal, run_id=run_id, after=after, limit=limit))

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        return await self._read(partial(queries.one_run, run_id=run_id))

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        query = partial(
            queries.find, namespace=namespace, workflow=workflow, reference_id=reference_id
        )
        return await self._read(query)

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        check_limit(limit)
        return await self._read(partial(queries.runs, where=where, limit=limit, cursor=cursor))

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        return await self._read(partial(queries.count, where=where))

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        check_limit(limit)
        return await self._read(partial(queries.ready, limit=limit, exclude=exclude))

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        check_limit(limit)
        return await self._read(partial(queries.due, before=before, limit=limit, after=after))

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        check_limit(limit)
        return await self._read(partial(queries.claimed, limit=limit, after=after))

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        check_limit(limit)
        return await self._read(partial(queries.notices, limit=limit, after=after))

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete ended runs, in one transaction; see `Storage.delete_ended`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint_if_cancelled()
        which = queries.Deletion(before, limit, namespace, workflow, tuple(excluding))
        deleted: list[int] = []
        request = CallRequest(
            lambda connection: deleted.append(queries.delete_ended(connection, which))
        )
        self._writer.submit(request)
        await self._answer_to(request)
        return deleted[0]

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows, in one transaction; see `Storage.put_workflows`."""
        rows = [(one.namespace, one.name, one.version, dumps(one.definition)) for one in workflows]
        await trio.lowlevel.checkpoint_if_cancelled()
        request = CallRequest(lambda connection: queries.put_workflows(connection, rows))
        self._writer.submit(request)
        await self._answer_to(request)

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        return await self._read(queries.workflows)

    async def size_bytes(self) -> int:
        """Return the size of the database without its write-ahead log, free pages included."""
        return await self._read(queries.size_bytes)

    def close_readers(self) -> None:
        """Close the idle reading connections."""
        while self._idle:
            self._idle.pop().close()


@asynccontextmanager
async def open_sqlite(
    path: Path | str | None, settings: SqliteSettings = DEFAULT_SETTINGS
) -> AsyncGenerator[SqliteStorage, None]:
    """Open a database, bring its schema up to date, and close it at the end of the block.

    Args:
        path: the file, created if there is none; None: in memory, gone at the end.
        settings: durability and bounds.

    Raises:
        StorageLocked: another runtime, or another program that writes, holds the file.
        StorageTooNew: a newer release has written to it.
        StorageCorrupt: it is damaged, or no database.
        StorageReadOnly: it, or its folder, cannot be written to.
        StorageError: it belongs to another program, or cannot be opened.
    """
    database = Database(None if path is None else Path(path))
    courtesy = Courtesy()
    writer = Writer(database, settings, trio.lowlevel.current_trio_token(), courtesy)
    limiter = trio.CapacityLimiter(settings.readers_max)
    storage = SqliteStorage(database, settings, writer, limiter, courtesy)
    writer.start()
    try:
        await writer.opened.done.wait()
        if writer.opened.error is not None:
            raise writer.opened.error
        yield storage
    finally:
        writer.stop()
        storage.close_readers()
        with trio.CancelScope(shield=True), courtesy.towards_threads():
            await writer.wait_ended()
        courtesy.close()
