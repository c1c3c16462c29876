"""Where runs are kept: the storage port and its adapters (memory, SQLite, PostgreSQL).

The PostgreSQL adapter is a package of its own, `aiki_actors.storage.postgres`, for it needs an
extra; its settings are here.
"""

from ._codec import (
    body_from_document as body_from_document,
    compile_fields as compile_fields,
    encode_entry as encode_entry,
    entry_to_json as entry_to_json,
)
from ._listing import write_cursor as write_cursor
from ._memory import MemoryStorage as MemoryStorage
from ._port import (
    Appended as Appended,
    AppendResult as AppendResult,
    Change as Change,
    ClaimedRun as ClaimedRun,
    DueRun as DueRun,
    KnownWorkflow as KnownWorkflow,
    ReadyRun as ReadyRun,
    ReferenceTaken as ReferenceTaken,
    RunFilter as RunFilter,
    RunPage as RunPage,
    SeqConflict as SeqConflict,
    Storage as Storage,
)
from ._postgres_settings import PostgresSettings as PostgresSettings
from ._times import (
    micros_from_iso as micros_from_iso,
    micros_of as micros_of,
    micros_to_iso as micros_to_iso,
)
from .sqlite import (
    SqliteReader as SqliteReader,
    SqliteSettings as SqliteSettings,
    SqliteStorage as SqliteStorage,
    is_owned as is_owned,
    migrate_sqlite as migrate_sqlite,
    open_sqlite as open_sqlite,
    open_sqlite_reader as open_sqlite_reader,
    sqlite_schema_version as sqlite_schema_version,
)
