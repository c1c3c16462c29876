"""Bringing a database file's schema up to date apart from a runtime: for `aiki migrate`.

A runtime does it by itself when it opens the file; this is for doing it before, or for looking.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import trio

from aiki_sdk import NotFound

from ._connections import Database
from ._errors import translate
from ._migrations import migrate, migrations, schema_version
from ._settings import DEFAULT_SETTINGS, SqliteSettings

T = TypeVar("T")


async def sqlite_schema_version(path: Path | str) -> tuple[int, int]:
    """Return the version of a file's schema and the one that this release needs.

    Raises:
        NotFound: there is no such file.
        StorageTooNew: a newer release has written to it.
        StorageError: it belongs to another program, or cannot be read.
    """
    file = Path(path)
    return await _in_thread(file, lambda: _version(file)), migrations()[-1].version


async def migrate_sqlite(
    path: Path | str, settings: SqliteSettings = DEFAULT_SETTINGS
) -> tuple[int, int]:
    """Bring a file's schema up to date, making the file if there is none; return the versions.

    Raises:
        StorageLocked: the schema is old, and a runtime owns the file.
        StorageTooNew: a newer release has written to it.
        StorageError: it belongs to another program, or cannot be written.
    """
    file = Path(path)
    return await _in_thread(file, lambda: _migrate(file, settings)), migrations()[-1].version


async def _in_thread(file: Path, work: Callable[[], T]) -> T:
    try:
        return await trio.to_thread.run_sync(work)
    except sqlite3.Error as error:
        raise translate(error, str(file)) from error


def _version(file: Path) -> int:
    if not file.exists():
        message = f"database {file} does not exist; check the path, or let it be made"
        raise NotFound(message, details={"database": str(file)})
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
        return schema_version(connection, str(file))


def _migrate(file: Path, settings: SqliteSettings) -> int:
    before = _version(file) if file.exists() else 0
    if before == migrations()[-1].version:
        return before
    database = Database(file)
    with ExitStack() as stack:
        database.own(stack)
        connection = stack.enter_context(closing(database.connect(settings)))
        migrate(connection, database.name)
    return before
