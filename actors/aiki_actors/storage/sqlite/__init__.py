"""Runs in one SQLite file: the embedded default."""

from ._reader import (
    SqliteReader as SqliteReader,
    is_owned as is_owned,
    open_sqlite_reader as open_sqlite_reader,
)
from ._schema import (
    migrate_sqlite as migrate_sqlite,
    sqlite_schema_version as sqlite_schema_version,
)
from ._settings import SqliteSettings as SqliteSettings
from ._storage import SqliteStorage as SqliteStorage, open_sqlite as open_sqlite
