"""Storage URLs: which database a runtime uses."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiki_actors.storage import MemoryStorage, SqliteSettings, Storage, open_sqlite
from aiki_sdk import InvalidRequest

SQLITE: Final = "sqlite://"
MEMORY: Final = "memory://"


@asynccontextmanager
async def open_storage(url: str, sqlite: SqliteSettings) -> AsyncGenerator[Storage]:
    """Open the database that `url` names and close it again.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, `sqlite://` (in memory), or
            `memory://` (plain Python objects, for tests).
        sqlite: how a SQLite database is opened.

    Raises:
        InvalidRequest: no such kind of storage; the message lists those there are.
        StorageError: the database cannot be used.

    """
    if url == MEMORY:
        yield MemoryStorage()
        return
    if not url.startswith(SQLITE):
        message = (
            f"storage URL {url!r} is not valid: use sqlite:///file.db, sqlite:// (in memory) or "
            "memory://; PostgreSQL is not available in this version"
        )
        raise InvalidRequest(message)
    rest = url.removeprefix(SQLITE)
    if rest and not rest.startswith("/"):
        message = f"storage URL {url!r} names a host; write sqlite:///{rest} for a file"
        raise InvalidRequest(message)
    path = Path(rest[1:]) if rest[1:] else None
    async with open_sqlite(path, sqlite) as storage:
        yield storage
