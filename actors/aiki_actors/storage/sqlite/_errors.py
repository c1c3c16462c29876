"""The one place where sqlite3's errors become ours: what happened, to which file, what to do."""

from __future__ import annotations

import sqlite3
from typing import Final

from aiki_sdk import StorageCorrupt, StorageError, StorageFull, StorageLocked, StorageReadOnly

_PRIMARY: Final = 0xFF  # the low byte of an extended result code is its primary code

_KNOWN: Final[dict[int, tuple[type[StorageError], str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        StorageLocked,
        "is locked by another process",
        "end the process that writes to it, or raise busy_timeout_s",
    ),
    sqlite3.SQLITE_LOCKED: (
        StorageLocked,
        "is locked by another connection",
        "end what writes to it, or raise busy_timeout_s",
    ),
    sqlite3.SQLITE_FULL: (
        StorageFull,
        "cannot grow, nothing was written",
        "free space on its disk and try again",
    ),
    sqlite3.SQLITE_READONLY: (
        StorageReadOnly,
        "cannot be written to",
        "let this user write to the file and its folder",
    ),
    sqlite3.SQLITE_PERM: (
        StorageReadOnly,
        "may not be written to",
        "let this user write to the file and its folder",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StorageCorrupt,
        "is damaged",
        "stop, keep a copy of the file with its -wal, and restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (
        StorageCorrupt,
        "is not a SQLite database, or its header is damaged",
        "correct the path, or restore a backup",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StorageError,
        "cannot be opened",
        "check that its folder exists and that this user may read and write there",
    ),
    sqlite3.SQLITE_IOERR: (
        StorageError,
        "cannot be read or written",
        "check the disk and the system's log",
    ),
}


def translate(error: sqlite3.Error, name: str) -> StorageError:
    """Return our error for one of the driver; raise it `from` the original.

    Args:
        error: what sqlite3 raised.
        name: the file, as people know it.
    """
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & _PRIMARY if isinstance(code, int) else None
    known = None if primary is None else _KNOWN.get(primary)
    details = {"database": name, "sqlite_errorcode": code}
    if known is None:
        return StorageError(f"database {name} failed: {error}", details=details)
    cls, what, remedy = known
    return cls(f"database {name} {what} ({error}); {remedy}", details=details)
