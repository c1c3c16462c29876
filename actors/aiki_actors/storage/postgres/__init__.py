"""Runs in a PostgreSQL database, for more than one machine.

Needs the extra `postgres` (asyncpg, trio-asyncio); without it the import says so.
"""

try:
    import asyncpg as _asyncpg  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import trio_asyncio as _trio_asyncio  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as error:
    message = (
        "PostgreSQL needs the extra `postgres`, which is not installed: "
        "pip install 'aiki-trio[postgres]'"
    )
    raise ImportError(message) from error

from aiki_actors.storage._postgres_settings import PostgresSettings as PostgresSettings

from ._storage import (
    PostgresReader as PostgresReader,
    PostgresStorage as PostgresStorage,
    migrate_postgres as migrate_postgres,
    open_postgres as open_postgres,
    open_postgres_reader as open_postgres_reader,
    postgres_schema_version as postgres_schema_version,
)

__all__ = [
    "PostgresReader",
    "PostgresSettings",
    "PostgresStorage",
    "migrate_postgres",
    "open_postgres",
    "open_postgres_reader",
    "postgres_schema_version",
]
