"""Runs in a PostgreSQL database, for more than one machine.

Needs the extra `postgres` (asyncpg, trio-asyncio); without it the import says so.
"""

import warnings as _warnings

try:
    import asyncpg as _asyncpg  # noqa: F401  # pyright: ignore[reportUnusedImport]

    with _warnings.catch_warnings():
        # It derives from what Python 3.12 deprecated.
        _warnings.simplefilter("ignore", DeprecationWarning)
        import trio_asyncio as _trio_asyncio  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as error:
    message = (
        "PostgreSQL needs the extra `postgres`, which is not installed: "
        "pip install 'aiki-trio[postgres]'"
    )
    raise ImportError(message) from error

from aiki_actors.storage._postgres_settings import PostgresSettings as PostgresSettings

from ._reader import (
    PostgresReader as PostgresReader,
    open_postgres_reader as open_postgres_reader,
)
from ._schema import (
    migrate_postgres as migrate_postgres,
    postgres_schema_version as postgres_schema_version,
)
from ._storage import PostgresStorage as PostgresStorage, open_postgres as open_postgres

__all__ = [
    "PostgresReader",
    "PostgresSettings",
    "PostgresStorage",
    "migrate_postgres",
    "open_postgres",
    "open_postgres_reader",
    "postgres_schema_version",
]
