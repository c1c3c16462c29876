"""`SqliteReader`: looking into a database file while a runtime owns it, or while none does.

The file is opened read-only, so nothing here can change a run, and no lock is taken: SQLite's
write-ahead log lets readers see the last committed state beside the one writer.

Invariant: nothing is created and nothing is migrated. A file that is missing, empty, or of another
schema version is refused with what to do about it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import trio
from attrs import define

from aiki_actors.engine import Entry, Projection
from aiki_actors.storage._listing import check_limit
from aiki_actors.storage._port import KnownWorkflow, ReadyRun, RunFilter, RunPage
from aiki_sdk import NotFound, StorageError

from . import _queries as queries
from ._errors import translate
from ._migrations import migrations, schema_version
from ._settings import DEFAULT_SETTINGS, SqliteSettings

T = TypeVar("T")


@define(eq=False)
class SqliteReader:
    """The reading part of a `Storage`, on a file that may belong to another process."""

    path: Path
    _connection: sqlite3.Connection
    _limiter: trio.CapacityLimiter

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        # One connection, one thread at a time; a program that only looks needs no more.
        return await trio.to_thread.run_sync(self._query, query, limiter=self._limiter)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._connection)
        except sqlite3.Error as error:
            raise translate(error, str(self.path)) from error

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

    async def ready(self, *, limit: int) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        check_limit(limit)
        return await self._read(partial(queries.ready, limit=limit, exclude=()))

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that workers have announced."""
        return await self._read(queries.workflows)

    async def size_bytes(self) -> int:
        """Return the size of the database without its write-ahead log, free pages included."""
        return await self._read(queries.size_bytes)

    async def change_count(self) -> int:
        """Return a number that is another one after each commit of another connection."""
        return await self._read(_change_count)

    async def faults(self, limit: int = 10) -> list[str]:
        """Return what SQLite's quick check of the whole file objects to; empty: nothing.

        Reads every page: a second or so per gigabyte.
        """
        return await self._read(partial(_faults, limit=limit))


def _change_count(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)


def _faults(connection: sqlite3.Connection, limit: int) -> list[str]:
    rows = connection.execute(f"PRAGMA quick_check({limit:d})").fetchall()
    return [text for (text,) in rows if text != "ok"]


def _open(path: Path, settings: SqliteSettings) -> sqlite3.Connection:
    if not path.exists():
        raise NotFound(
            f"database {path} does not exist; check the path, or start a runtime, which creates it",
            details={"database": str(path)},
        )
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro",
            uri=True,
            timeout=settings.busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise translate(error, str(path)) from error
    try:
        _check_version(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise translate(error, str(path)) from error
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version, newest = schema_version(connection, str(path)), migrations()[-1].version
    if version != newest:
        raise StorageError(
            f"database {path} has schema version {version} and this release reads {newest}; "
            "open it once with a runtime, which brings it up to date",
            details={"database": str(path), "version": version, "version_max": newest},
        )


@asynccontextmanager
async def open_sqlite_reader(
    path: Path | str, settings: SqliteSettings = DEFAULT_SETTINGS
) -> AsyncGenerator[SqliteReader, None]:
    """Open a database file for reading alone, whether or not a runtime owns it.

    Raises:
        NotFound: there is no such file.
        StorageTooNew: a newer release has written to it.
        StorageCorrupt: it is damaged, or no database.
        StorageError: its schema is older, it belongs to another program, or cannot be read.
    """
    file = Path(path)
    limiter = trio.CapacityLimiter(1)
    connection = await trio.to_thread.run_sync(_open, file, settings, limiter=limiter)
    with closing(connection):
        yield SqliteReader(file, connection, limiter)


def is_owned(path: Path | str) -> bool:
    """Tell whether a runtime, in this or another process, owns a database file now."""
    try:
        handle = os.open(f"{os.path.realpath(path)}-owner", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
