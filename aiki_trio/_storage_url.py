"""Storage URLs: which database a runtime uses, and bringing its schema up to date."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from attrs import evolve, frozen

from aiki_actors.storage import (
    MemoryStorage,
    PostgresSettings,
    SqliteSettings,
    Storage,
    migrate_sqlite,
    open_sqlite,
    sqlite_schema_version,
)
from aiki_sdk import InvalidRequest, Rng

SQLITE: Final = "sqlite://"
MEMORY: Final = "memory://"
POSTGRES: Final = ("postgresql://", "postgres://")


@frozen
class SchemaVersion:
    """The version of a database's schema.

    Attributes:
        before: what was found; 0: no schema, or no database.
        now: what it is now.
        newest: what this release works with.
    """

    before: int
    now: int
    newest: int


@asynccontextmanager
async def open_storage(
    url: str,
    sqlite: SqliteSettings | None = None,
    *,
    postgres: PostgresSettings | None = None,
    migrate: bool | None = None,
    rng: Rng | None = None,
) -> AsyncGenerator[Storage]:
    """Open the database that `url` names and close it again.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, `sqlite://` (in memory),
            `postgresql://user:password@host/database`, or `memory://` (plain Python objects, for
            tests).
        sqlite: how a SQLite database is opened.
        postgres: how a PostgreSQL database is used; needs the extra `postgres`.
        migrate: whether a PostgreSQL database's schema is brought up to date; None: as `postgres`
            says. A SQLite file always is.
        rng: where the chance in pauses comes from. Default: the machine's.

    Raises:
        InvalidRequest: no such kind of storage, or its extra is not installed; the message says.
        StorageError: the database cannot be used.

    """
    if url == MEMORY:
        yield MemoryStorage()
        return
    if url.startswith(POSTGRES):
        driver = _postgres()
        settings = postgres or PostgresSettings()
        if migrate is not None:
            settings = evolve(settings, migrate=migrate)
        async with driver.open_postgres(url, settings, rng=rng) as storage:
            yield storage
        return
    async with open_sqlite(_sqlite_path(url), sqlite or SqliteSettings()) as storage:
        yield storage


def _postgres() -> ModuleType:
    """Import the adapter, which needs an extra."""
    try:
        from aiki_actors.storage import postgres
    except ImportError as error:
        raise InvalidRequest(str(error)) from error
    return postgres


def _sqlite_path(url: str) -> Path | None:
    if not url.startswith(SQLITE):
        # What follows the scheme may hold a password.
        scheme = f"{url.partition('://')[0]}://…" if "://" in url else repr(url)
        message = (
            f"storage URL {scheme} is not valid: use sqlite:///file.db, sqlite:// (in memory), "
            "postgresql://user:password@host/database or memory://"
        )
        raise InvalidRequest(message)
    rest = url.removeprefix(SQLITE)
    if rest and not rest.startswith("/"):
        message = f"storage URL {url!r} names a host; write sqlite:///{rest} for a file"
        raise InvalidRequest(message)
    return Path(rest[1:]) if rest[1:] else None


async def migrate(
    url: str, *, postgres: PostgresSettings | None = None, check: bool = False
) -> SchemaVersion:
    """Bring a database's schema up to date, or only look how far it is.

    Safe beside others that do the same; killed in the middle, it leaves the schema as it was.

    Args:
        url: as for `open_storage`, of a database that outlives this process.
        postgres: how a PostgreSQL database is used.
        check: change nothing.

    Raises:
        InvalidRequest: the URL names no database that outlives this process.
        StorageTooNew: a newer release has written to it.
        StorageError: the database cannot be used.

    """
    if url.startswith(POSTGRES):
        driver = _postgres()
        settings = postgres or PostgresSettings()
        if check:
            version, newest = await driver.postgres_schema_version(url, settings)
            return SchemaVersion(version, version, newest)
        before, now = await driver.migrate_postgres(url, settings)
        return SchemaVersion(before, now, now)
    path = None if url == MEMORY else _sqlite_path(url)
    if path is None:
        raise InvalidRequest(f"storage URL {url!r} has no schema to bring up to date; name a file")
    if check:
        version, newest = await sqlite_schema_version(path)
        return SchemaVersion(version, version, newest)
    before, now = await migrate_sqlite(path)
    return SchemaVersion(before, now, now)
